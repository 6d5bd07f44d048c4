"""The command line: assembles the commands, prints outcomes, turns errors into exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, Exit, TyperException
from typer.main import get_command

from commands.lazy_group import LazyGroup
from stepgold.outcome import Outcome
from stepgold.results import BAD_INPUT, DEFECT, INTERRUPTED, OK
from stepgold.workspace import WorkspaceFolder, has_defaults
from traces import ToolkitError, watch_defects

STOPPED = ("Interrupted; everything finished so far is kept.", None, "run the same command again")

app = typer.Typer(
    name="stepgold",
    cls=LazyGroup,
    help="Label the steps of reasoning traces and evaluate process reward models.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(*, value: bool) -> None:
    """Print the version and stop, if asked to."""
    if value:
        from stepgold import __version__

        print(f"stepgold {__version__}")
        raise Exit


@app.callback()
def workspace_options(
    ctx: typer.Context,
    workspace: Annotated[
        Path, typer.Option("--workspace", help="Folder with the database and the index.")
    ] = Path(),
    db: Annotated[
        str | None,
        typer.Option("--db", help="Database URL [default: sqlite:///<workspace>/stepgold.db]."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Label the steps of reasoning traces and evaluate process reward models."""
    ctx.obj = WorkspaceFolder(workspace, db=db, debug=debug)
    if has_defaults(workspace):
        from stepgold.api import PIPELINE
        from stepgold.config_run import command_defaults

        ctx.default_map = command_defaults(workspace, PIPELINE)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _to_whoever_reads() -> Iterator[None]:
    """Standard output may be closed: `| head` has read enough, and what was done stays done."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # At exit Python would flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(outcome: Outcome) -> None:
    with _to_whoever_reads():
        if outcome.as_json:
            print(json.dumps(outcome.document, ensure_ascii=False, allow_nan=False))
            return
        from rich.console import Console

        class Told(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError  # rich itself would end the program with 1

        Told().print(outcome.words, markup=False, highlight=False, soft_wrap=True)


def _fail(what: str, where: str | None, remedy: str | None, *, as_json: bool) -> None:
    if as_json:
        error = {"error": {"what": what, "where": where, "remedy": remedy}}
        with _to_whoever_reads():
            print(json.dumps(error, ensure_ascii=False))
        return
    print(f"error: {what}", file=sys.stderr)
    for name, value in (("at", where), ("do", remedy)):
        if value:
            print(f"  {name}: {value}", file=sys.stderr)


def _without_keys(text: str) -> str:
    """The text without keys: libraries quote what a server says, and some servers repeat the key."""
    from inference.destinations import without_keys

    return without_keys(text)


def _misused(error: TyperException, *, as_json: bool) -> int:
    """Tell what was wrong with the command line; one without a command gets the help itself."""
    message = error.format_message()
    called: Any = getattr(error, "ctx", None)
    path = called.command_path if called is not None else "stepgold"
    if not message.startswith("Usage:"):
        _fail(message, None, f"{path} --help", as_json=as_json)
    elif as_json:
        _fail("Missing command.", None, f"{path} --help", as_json=True)
    else:
        print(message, file=sys.stderr)
    return BAD_INPUT


def execute(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code (design.md section 3)."""
    as_json, debug = "--json" in argv, "--debug" in argv
    with watch_defects(_show_defect if debug else None) as met:
        code = _execute(argv, as_json=as_json, debug=debug)
    if met:
        print(
            f"{len(met)} rows or replies met a defect of StepGold, the first at {met[0]}: please"
            " report it, with what --debug shows",
            file=sys.stderr,
        )
    return code


def _show_defect(text: str) -> None:
    print(_without_keys(text), file=sys.stderr)


def _execute(argv: Sequence[str], *, as_json: bool, debug: bool) -> int:
    try:
        outcome: Any = get_command(app).main(
            list(argv), prog_name="stepgold", standalone_mode=False
        )
    except ToolkitError as error:
        if debug:
            print(_without_keys(traceback.format_exc()), file=sys.stderr, end="")
        _fail(error.what, error.where, error.remedy, as_json=as_json)
        return BAD_INPUT
    except TyperException as error:
        return _misused(error, as_json=as_json)
    except Exit as wish:
        return wish.exit_code
    except (KeyboardInterrupt, Abort):
        _fail(*STOPPED, as_json=as_json)
        return INTERRUPTED
    except Exception as fault:
        # The last line of defence: a defect of ours must be told as one, never as bad input.
        if debug:
            print(_without_keys(traceback.format_exc()), file=sys.stderr, end="")
        place = traceback.extract_tb(fault.__traceback__)[-1]
        _fail(
            _without_keys(f"{type(fault).__name__}: {fault}"),
            f"{place.filename}:{place.lineno}",
            "this is a defect of StepGold: please report it, with what --debug shows",
            as_json=as_json,
        )
        return DEFECT
    if isinstance(outcome, Outcome):
        _print(outcome)
        return outcome.exit_code
    if outcome == INTERRUPTED:  # typer turns a KeyboardInterrupt into this number
        _fail(*STOPPED, as_json=as_json)
        return INTERRUPTED
    return OK


def main() -> None:
    """Entry point of the `stepgold` command."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Libraries draw bars of their own while they load weights; ours say what a person waits for.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Threads that spin while they wait cost small models half their speed on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A model that is not there is told by us in one line, not by the hub in one for each try.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    main()
