"""`stepgold run`: the whole pipeline on the user's data, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from commands.console import note
from commands.options import Json
from commands.outcome import INCOMPLETE, INTERRUPTED, OK, Outcome
from commands.toml_tables import Table, check_table, default_values
from commands.workspace import DEFAULTS_NAME, Workspace, read_defaults, read_toml
from traces.errors import InputError, ToolkitError

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
    workspace: Workspace = ctx.obj
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


def invoke(root: Any, workspace: Workspace, argv: list[str]) -> Outcome:
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
