"""`run`: the whole pipeline from one TOML file, a table per verb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.hub import hub_path
from stepgold.results import INCOMPLETE, OK, Result
from stepgold.trust import guarded, sensitive_settings
from stepgold.verbs import Verb, run_verb
from stepgold.workspace import DEFAULTS_NAME, has_defaults, read_bytes, read_toml, toml_of
from traces import InputError, ToolkitError, meant
from traces.config import (
    Config,
    StrPath,
    argument,
    declared_options,
    flag_of,
    is_path,
    is_sequence,
)

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder

_MAY_BE_PATHS = frozenset({"encoder", "family", "rerank"})
"""Options that take a name or a path."""


class RunOptions(Config):
    """The file to run."""

    config: StrPath = argument(
        kw_only=False,
        metavar="CONFIG.toml",
        help="TOML file with one table of options per command.",
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class RunResult(Result):
    """The results of all stages."""

    stages: tuple[tuple[str, Result], ...]
    """Name and result of every stage, in order."""
    error: tuple[str, ToolkitError] | None = None
    """The stage that failed after others were done, and its error; None if none failed."""

    @property
    def exit_code(self) -> int:
        """The largest exit code of the stages; 1 if a later stage failed."""
        codes = [result.exit_code for _, result in self.stages]
        return max([*codes, OK if self.error is None else INCOMPLETE], default=OK)

    def as_json(self) -> dict[str, Any]:
        """The documents of the stages; the last one may be an error."""
        documents = [result.as_json() for _, result in self.stages]
        if self.error is not None:
            name, fault = self.error
            what = {"what": fault.what, "where": fault.where, "remedy": fault.remedy}
            documents.append({"command": name, "error": what})
        return {"command": "run", "stages": documents}

    def words(self) -> str:
        """The text of the stages, one after the other."""
        lines = []
        for name, result in self.stages:
            shown = result.words()
            lines.append(shown if isinstance(shown, str) else f"{name}: done")
        if self.error is not None:
            lines.append(f"{self.error[0]}: {self.error[1]}")
        return "\n".join(lines)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per stage."""
        for name, result in self.stages:
            yield {"stage": name, "exit_code": result.exit_code}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a file, checked against the verb that it configures."""

    words: tuple[str, ...]
    """The command, e.g. `("corpus", "add")`."""
    fields: Mapping[str, Any]
    """Values by field of the verb's config; paths start at the file's folder."""


def keys_of(config: type[Config]) -> dict[str, str]:
    """The keys that a table may have, and their fields: long options with `_`, and arguments."""
    found = {}
    for name, _, declared in declared_options(config):
        if declared.style == "python":
            continue
        if declared.style == "argument":
            found[name] = name
            continue
        flags = [flag for flag in declared.flags if flag.startswith("--")] or [
            flag_of(name, declared)
        ]
        for flag in flags:
            found[flag.split("/")[0].removeprefix("--").replace("-", "_")] = name
    return found


def run(
    workspace: WorkspaceFolder, options: RunOptions, *, verbs: Mapping[tuple[str, ...], Verb]
) -> RunResult:
    """Run every stage that has a table; what is already done is skipped.

    A table may be repeated as `[[import]]`, for several datasets or labelers. Everything is checked
    before anything runs. A stage that fails after others are done ends the run with the error in
    the result.

    Args:
        workspace: where the stages work.
        options: the file.
        verbs: the verbs of the pipeline in order; `("corpus", "add")` has the table `[corpus]`.

    Raises:
        InputError: an unknown table or key, or a value that its verb does not take.
    """
    file = Path(options.config)
    tables = checked_tables(read_toml(file), file, verbs)
    if not tables:
        raise InputError(
            f"'{file}' has no table.", where=str(file), remedy=f"write one of {_names(verbs)}"
        )
    stages = [(table, verbs[table.words], _config(table, verbs, file)) for table in tables]
    for table in tables:
        for setting in sensitive_settings(table.words[0], table.fields, workspace.folder):
            note(f"{file} sets {setting}")
    done: list[tuple[str, Result]] = []
    for table, verb, config in stages:
        name = " ".join(table.words)
        note(f"== {name}")
        try:
            done.append((name, run_verb(workspace, verb.run, config, frozenset(table.fields))))
        except ToolkitError as fault:
            if not done:
                raise
            return RunResult(stages=tuple(done), error=(name, fault))
    return RunResult(stages=tuple(done))


def _config(table: Table, verbs: Mapping[tuple[str, ...], Verb], file: Path) -> Config:
    name, config = table.words[0], verbs[table.words].config
    needed = [
        flag_of(field, declared)
        for field, _, declared in declared_options(config)
        if field not in table.fields and verbs[table.words].is_required(field)
    ]
    if needed:
        raise InputError(
            f"Table [{name}] lacks {', '.join(needed)}.",
            where=str(file),
            remedy=f"stepgold {' '.join(table.words)} --help",
        )
    try:
        return config(**table.fields)
    except InputError as fault:
        raise InputError(
            f"Table [{name}]: {fault.what}", where=str(file), remedy=fault.remedy
        ) from fault


def checked_tables(
    content: Mapping[str, Any], file: Path, verbs: Mapping[tuple[str, ...], Verb]
) -> list[Table]:
    """All tables of a file in the order of the pipeline.

    Raises:
        InputError: an unknown table or key, before anything is run.
    """
    known = {words[0]: words for words in verbs}
    for name in content:
        if name not in known:
            raise InputError(
                f"Unknown table or key '{name}'.",
                where=str(file),
                remedy=meant(name, known, f"tables: {_names(verbs)}"),
            )
    tables = []
    for name, words in known.items():
        entry = content.get(name, [])
        for values in entry if isinstance(entry, list) else [entry]:
            tables.append(_checked(words, values, file, verbs[words].config))
    return tables


def _checked(words: tuple[str, ...], values: Any, file: Path, config: type[Config]) -> Table:
    name, keys = words[0], keys_of(config)
    if not isinstance(values, dict):
        raise InputError(f"'{name}' must be a table.", where=str(file), remedy=f"write [{name}]")
    kinds = {field: kind for field, kind, _ in declared_options(config)}
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key not in keys:
            raise InputError(
                f"Unknown key '{key}' in table [{name}].",
                where=str(file),
                remedy=meant(key, keys, f"keys of [{name}]: {', '.join(sorted(keys))}"),
            )
        kind = kinds[keys[key]]
        parts = value if isinstance(value, list) and is_sequence(kind) else [value]
        if any(isinstance(part, list | dict) for part in parts):
            takes = "a list of plain values" if is_sequence(kind) else "one value"
            raise InputError(
                f"Key '{key}' in table [{name}] takes {takes}.",
                where=str(file),
                remedy="correct it, or repeat the table as [[...]] to run the command again",
            )
        fields[keys[key]] = _placed(keys[key], value, kind, file.parent)
    return Table(words, fields)


def _placed(field: str, value: Any, kind: Any, folder: Path) -> Any:
    """The value with relative paths starting at the file's folder."""
    if isinstance(value, list):
        return [_placed(field, part, kind, folder) for part in value]
    if not isinstance(value, str):
        return value
    if is_path(kind):
        return value if hub_path(value) else str(folder / value)
    if value.startswith("hf:") and (folder / value[3:]).exists():
        return f"hf:{folder / value[3:]}"
    if field in _MAY_BE_PATHS and (folder / value).exists():
        return str(folder / value)
    return value


def command_defaults(folder: Path, verbs: Mapping[tuple[str, ...], Verb]) -> dict[str, Any]:
    """The defaults of the workspace's stepgold.toml by command and field, as typer takes them.

    Those that decide where keys and texts go are functions, which raise InputError when they are
    needed and the user has not trusted the file.
    """
    file = folder / DEFAULTS_NAME
    if not has_defaults(folder):
        return {}
    content = read_bytes(file)
    digest = sha256(content).hexdigest()
    defaults: dict[str, Any] = {}
    for table in checked_tables(toml_of(content, file), file, verbs):
        level = defaults
        for word in table.words:
            level = level.setdefault(word, {})
        kinds = {name: kind for name, kind, _ in declared_options(verbs[table.words].config)}
        typed = {name: _as_typed(value, kinds[name]) for name, value in table.fields.items()}
        level.update(typed)
        for setting in sensitive_settings(table.words[0], table.fields, folder):
            level[setting.key] = guarded(setting, file, digest, value=typed[setting.key])
    return defaults


def _as_typed(value: Any, kind: Any) -> Any:
    """A value as typer takes the default of a field; one value of several is a list."""
    return [value] if is_sequence(kind) and isinstance(value, str) else value


def _names(verbs: Mapping[tuple[str, ...], Verb]) -> str:
    return " ".join(f"[{words[0]}]" for words in verbs)
