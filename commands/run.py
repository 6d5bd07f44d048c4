"""`stepgold run`: the whole pipeline on the user's data, from one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from commands.options import Json
from stepgold.console import note
from stepgold.outcome import Outcome
from stepgold.results import INCOMPLETE, INTERRUPTED, OK
from stepgold.workspace import DEFAULTS_NAME, WorkspaceFolder, read_defaults, read_toml
from traces.errors import InputError, ToolkitError

PATH_KEYS = frozenset(
    {"files", "paths", "out", "prompt", "template", "evaluate", "images", "pool", "scores"}
)
"""Keys whose relative paths start from the folder of the TOML file."""

SPEC_KEYS = frozenset(
    {"answer_judge", "checkpoint", "escalate", "judge", "policy", "prm", "reference", "rewriter"}
)
"""Keys that hold a model spec, of which `hf:` may name a relative path."""

HIDDEN_KEYS = frozenset({"json", "help"})
"""Options of the call, not of the pipeline."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file, checked against the command it configures."""

    words: tuple[str, ...]
    """The command, e.g. `("corpus", "add")`."""
    values: Mapping[str, Any]
    """Its keys and values, paths made absolute."""
    parameters: Mapping[str, Any]
    """The command's parameters by key."""

    def argv(self) -> list[str]:
        """The same as a command line."""
        positionals: list[str] = []
        options: list[str] = []
        # Positionals stand in the command's own order, not in the file's.
        for key, parameter in self.parameters.items():
            if key not in self.values:
                continue
            value = self.values[key]
            if parameter.param_type_name == "argument":
                positionals += [
                    str(part) for part in (value if isinstance(value, list) else [value])
                ]
            elif isinstance(value, bool):
                flag = "--" + key.replace("_", "-")
                options += (
                    [flag]
                    if value
                    else [opt for opt in parameter.secondary_opts if opt.startswith("--")]
                )
            else:
                # A list stands for an option that may be repeated.
                values = value if isinstance(value, list) else [value]
                options += [f"--{key.replace('_', '-')}={part}" for part in values]
        return (
            [*self.words, *options, "--", *positionals] if positionals else [*self.words, *options]
        )


def parameters_by_key(command: Any) -> dict[str, Any]:
    """A command's parameters under the keys a TOML table may use."""
    found: dict[str, Any] = {}
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            found[parameter.name] = parameter
            continue
        for option in parameter.opts:
            key = option.removeprefix("--").replace("-", "_")
            if option.startswith("--") and key not in HIDDEN_KEYS:
                found[key] = parameter
    return found


def find_command(root: Any, words: tuple[str, ...]) -> Any:
    """The command behind `words`, looked up in the assembled command line."""
    command = root
    for word in words:
        command = command.commands[word]
    return command


def check_table(root: Any, words: tuple[str, ...], values: Any, file: Path) -> Table:
    """Check one table and make its paths absolute.

    Raises:
        InputError: it is no table, or holds a key the command does not know.
    """
    name = words[0]
    if not isinstance(values, dict):
        raise InputError(f"'{name}' must be a table.", where=str(file), remedy=f"write [{name}]")
    parameters = parameters_by_key(find_command(root, words))
    for key in values:
        if key not in parameters:
            raise InputError(
                f"Unknown key '{key}' in table [{name}].",
                where=str(file),
                remedy=f"keys of [{name}]: {', '.join(sorted(parameters))}",
            )
        _require_shape(name, key, values[key], parameters[key], file)
    absolute = {key: _absolute(key, value, file.parent) for key, value in values.items()}
    return Table(words, absolute, parameters)


def _require_shape(table: str, key: str, value: Any, parameter: Any, file: Path) -> None:
    """Of a list for one value only the last would count, without a word."""
    takes_many = parameter.nargs != 1 or getattr(parameter, "multiple", False)
    parts = value if isinstance(value, list) and takes_many else [value]
    if any(isinstance(part, list | dict) for part in parts):
        takes = "a list of plain values" if takes_many else "one value"
        raise InputError(
            f"Key '{key}' in table [{table}] takes {takes}.",
            where=str(file),
            remedy="correct it, or repeat the table as [[...]] for another run of the command",
        )


def _absolute(key: str, value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(key, part, folder) for part in value]
    if not isinstance(value, str):
        return value
    if key in PATH_KEYS:
        return str(folder / value)
    if key in SPEC_KEYS and value.startswith("hf:") and (folder / value[3:]).exists():
        return f"hf:{folder / value[3:]}"
    if key in {"encoder", "family", "rerank"} and (folder / value).exists():
        return str(folder / value)
    return value


def default_values(tables: Iterator[Table]) -> dict[str, Any]:
    """Tables as a nested map of defaults, under the parameter names of the commands."""
    defaults: dict[str, Any] = {}
    for table in tables:
        level = defaults
        for word in table.words:
            level = level.setdefault(word, {})
        for key, value in table.values.items():
            level[table.parameters[key].name] = value
    return defaults


# --- `stepgold run`: the whole pipeline on the user's data, from one file


STAGES: tuple[tuple[str, ...], ...] = (
    ("import",),
    ("corpus", "add"),
    ("index",),
    ("retrieve",),
    ("judge",),
    ("continue",),
    ("consensus",),
    ("export",),
    ("score",),
    ("evaluate",),
    ("compare",),
    ("best-of-n",),
    ("report",),
)
"""The pipeline in order; a table `[corpus]` means `corpus add`."""


def run(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="One table per command.")],
    json_output: Json = False,
) -> Outcome:
    """Run every stage that has a table; a stage that is done already is left alone.

    A table may be repeated as `[[import]]`, for several datasets or labelers.
    """
    workspace: WorkspaceFolder = ctx.obj
    root = ctx.find_root().command
    tables = checked_tables(root, read_toml(config), config)
    if not tables:
        raise InputError(
            f"'{config}' has no table.", where=str(config), remedy=f"write one of {_names()}"
        )
    for table in tables:
        _check_values(ctx.find_root(), table, config)
    documents: list[dict[str, Any]] = []
    words: list[str] = []
    code = OK
    for table in tables:
        name = " ".join(table.words)
        note(f"== {name}")
        try:
            outcome = invoke(root, workspace, table.argv())
        except ToolkitError as fault:
            if not documents:
                raise
            # Earlier stages are kept, so this is "done, but": 1, with the fault in the document.
            documents.append(
                {
                    "command": name,
                    "error": {"what": fault.what, "where": fault.where, "remedy": fault.remedy},
                }
            )
            words.append(f"{name}: {fault}")
            code = INCOMPLETE
            break
        documents.append(outcome.document)
        words.append(str(outcome.words) if isinstance(outcome.words, str) else f"{name}: done")
        code = max(code, outcome.exit_code)
    return Outcome({"command": "run", "stages": documents}, "\n".join(words), code, json_output)


def invoke(root: Any, workspace: WorkspaceFolder, argv: list[str]) -> Outcome:
    """Run one command of the assembled command line in this process and return its outcome."""
    top = ["--workspace", str(workspace.folder)]
    top += ["--db", workspace.db] if workspace.db else []
    top += ["--debug"] if workspace.debug else []
    outcome = root.main([*top, *argv], prog_name="stepgold", standalone_mode=False)
    if outcome == INTERRUPTED:  # typer turns a KeyboardInterrupt into this number
        raise KeyboardInterrupt
    if not isinstance(outcome, Outcome):
        raise TypeError(f"command {argv[0]!r} returned {type(outcome).__name__}, not an Outcome")
    return outcome


def _check_values(root: Any, table: Table, file: Path) -> None:
    """Parse a table as the command will, so that a wrong value is found before anything runs.

    Raises:
        InputError: a value is wrong, or one that the command needs is missing.
    """
    context, argv = root, table.argv()
    try:
        for word in table.words:
            argv = argv[1:]
            context = context.command.commands[word].make_context(word, [*argv], parent=context)
    except TyperException as fault:
        raise InputError(
            f"Table [{table.words[0]}]: {fault.format_message()}",
            where=str(file),
            remedy=f"stepgold {' '.join(table.words)} --help",
        ) from fault


def checked_tables(root: Any, content: dict[str, Any], file: Path) -> list[Table]:
    """All tables of a configuration in the order of the pipeline.

    Raises:
        InputError: an unknown table or key, before anything is run.
    """
    known = {stage[0]: stage for stage in STAGES}
    for name in content:
        if name not in known:
            raise InputError(
                f"Unknown table or key '{name}'.", where=str(file), remedy=f"tables: {_names()}"
            )
    tables: list[Table] = []
    for name, stage in known.items():
        entry = content.get(name, [])
        for values in entry if isinstance(entry, list) else [entry]:
            tables.append(check_table(root, stage, values, file))
    return tables


def command_defaults(root: Any, folder: Path) -> dict[str, Any]:
    """The defaults of the workspace's stepgold.toml; one table per command, as in `run`."""
    content = read_defaults(folder)
    if not content:
        return {}
    return default_values(iter(checked_tables(root, dict(content), folder / DEFAULTS_NAME)))


def _names() -> str:
    return " ".join(f"[{stage[0]}]" for stage in STAGES)
