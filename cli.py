"""The command line: assembles the commands, prints outcomes, turns errors into exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import Abort, Exit, TyperException
from typer.main import get_command

from commands.table import LazyGroup
from stepgold.console import printable
from stepgold.outcome import Outcome
from stepgold.results import BAD_INPUT, DEFECT, INTERRUPTED, OK
from stepgold.workspace import WorkspaceFolder, has_defaults
from traces import (
    ToolkitError,
    closest,
    interrupt,
    interrupt_ignored,
    interrupt_is_due,
    watch_defects,
)

if TYPE_CHECKING:
    import socket

STOPPED = ("Interrupted; everything finished so far is kept.", None, "run the same command again")

LIMITS = {
    errno.EMFILE: ("This process may not open more files.", "allow more: ulimit -n 1024"),
    errno.ENFILE: ("The system has too many open files.", "close other programs and run it again"),
    errno.ENOSPC: ("The disk is full.", "free some space and run the command again"),
}
"""Limits of the system that end a command: what to say, and what helps."""

BEFORE_COMMAND = ("--workspace", "--db", "--debug")
"""Options that every command has and that stand before it."""

STOP_WITHIN_S = 15.0
"""How long a run may take to end after a signal; calls in flight get 10 s of it."""

LOOK_EVERY_S = 0.1
"""How often a stopping run looks whether its interrupt has to be raised again."""

app = typer.Typer(
    name="stepgold",
    cls=LazyGroup,
    help="Label the steps of reasoning traces and evaluate process reward models.",
    context_settings={"help_option_names": ["-h", "--help"]},
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


def take_signals(argv: Sequence[str]) -> set[int]:
    """Let Ctrl-C, SIGTERM and SIGHUP end a run: the first in good order, a second one at once.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Returns the others.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = {getattr(signal, name) for name in names if hasattr(signal, name)}
    numbers = {each for each in numbers if signal.getsignal(each) != signal.SIG_IGN}
    # The thread hears of signals through a socket: the main one may be in a long call of a library.
    import socket

    with suppress(OSError):  # no file may be opened: the command will say so
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        watch = partial(_watch_signals, reading, numbers, as_json="--json" in argv)
        threading.Thread(target=watch, name="stepgold-signals", daemon=True).start()
    sys.unraisablehook = _hear_ignored
    for number in numbers:
        signal.signal(number, lambda *_: interrupt())
    return numbers


def _watch_signals(reading: socket.socket, numbers: Collection[int], *, as_json: bool) -> None:
    """Say what the first signal does; end the process at the second, or when its time is up."""

    def arrived() -> list[int]:
        return [each for each in reading.recv(64) if each in numbers]

    seen: list[int] = []
    while not seen:
        seen += arrived()
    if len(seen) == 1:
        os.write(
            2, b"\nStopping: what is in flight is finished first. Ctrl-C again stops at once.\n"
        )
    until = time.monotonic() + STOP_WITHIN_S
    while len(seen) == 1 and time.monotonic() < until:
        if select.select([reading], [], [], LOOK_EVERY_S)[0]:
            seen += arrived()
        elif interrupt_is_due() and sys.platform != "win32":
            signal.pthread_kill(threading.main_thread().ident or 0, seen[0])
            reading.recv(1)  # which arrives here as well
    late = "Stopped before everything in flight was finished; what is recorded is kept."
    second = "Stopped at once; everything recorded so far is kept."
    _stop_at_once(late if len(seen) == 1 else second, as_json=as_json)


def _hear_ignored(ignored: sys.UnraisableHookArgs) -> None:
    """Python ignores an interrupt that meets a destructor: it has to be raised again."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        interrupt_ignored()
    else:
        sys.__unraisablehook__(ignored)


def _stop_at_once(what: str, *, as_json: bool) -> None:
    """End the process with one line; commits are whole, and child processes end by themselves."""
    if as_json:
        error = {"error": {"what": what, "where": None, "remedy": STOPPED[2]}}
        os.write(1, f"{json.dumps(error)}\n".encode())
    else:
        os.write(2, f"error: {what}\n".encode())
    os._exit(INTERRUPTED)


def _put(show: Callable[[], None]) -> bool:
    """Write to standard output; False if it cannot be written, which is reported in one line.

    A closed pipe is no failure: `| head` has read enough, and what was done stays done.
    """
    try:
        show()
        if sys.stdout is not None:  # closed by `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as fault:
        _silence()
        _fail(
            f"The result could not be written to standard output: {fault.strerror}.",
            None,
            "free some space or name another file; what was done is stored",
            as_json=False,
        )
        return False
    return True


def _silence() -> None:
    """At exit Python would flush once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(outcome: Outcome) -> int:
    """Show the result, and return the exit code."""
    if sys.stdout is None:
        return outcome.exit_code

    def show() -> None:
        if outcome.as_json:
            print(_json(outcome.document))
            return
        from rich.console import Console

        class PipeConsole(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError  # by default rich exits with 1

        words = outcome.words
        shown = printable(words) if isinstance(words, str) else words
        PipeConsole().print(shown, markup=False, highlight=False, soft_wrap=True)

    return outcome.exit_code if _put(show) else BAD_INPUT


def _json(document: Mapping[str, Any]) -> str:
    """Strict JSON; all ASCII where standard output takes nothing else."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    return json.dumps(document, ensure_ascii=not utf8, allow_nan=False)


def _fail(what: str, where: str | None, remedy: str | None, *, as_json: bool) -> None:
    if as_json:
        error = {"error": {"what": what, "where": where, "remedy": remedy}}
        _put(lambda: print(_json(error)))
        return
    lines = [f"error: {what}"]
    lines += [f"  {name}: {value}" for name, value in (("at", where), ("do", remedy)) if value]
    if sys.stderr is not None:
        print(printable("\n".join(lines)), file=sys.stderr)


def _without_keys(text: str) -> str:
    """The text without keys: libraries quote replies of servers, and some repeat the key."""
    from inference import without_keys

    return without_keys(text)


def _in_order(argv: Sequence[str]) -> str:
    """The command line with the options of the workspace before the command."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        flag, _, value = word.partition("=")
        if flag not in BEFORE_COMMAND:
            rest.append(word)
        elif flag == "--debug":
            first.append(flag)
        else:
            shown = value or next(words, "")
            # A database URL may hold a password, which no message repeats.
            secret = flag == "--db" and not shown.startswith("sqlite:")
            first += [flag, "URL" if secret else shown]
    return shlex.join(["stepgold", *first, *rest])


def _misused(error: TyperException, argv: Sequence[str], *, as_json: bool) -> int:
    """Report what is wrong with the command line; print the help if no command was given."""
    message = error.format_message()
    called: Any = getattr(error, "ctx", None)
    path = called.command_path if called is not None else "stepgold"
    unknown = getattr(error, "option_name", None)
    if unknown in BEFORE_COMMAND and message.startswith("No such option"):
        what = f"{unknown} belongs before the command, because every command has it."
        _fail(what, None, _in_order(argv), as_json=as_json)
    elif possible := getattr(error, "possibilities", None):
        close = closest(str(unknown), possible) or possible[0]
        what = f"No such option: {unknown}. Did you mean {close}?"
        _fail(what, None, f"{path} --help", as_json=as_json)
    elif message.startswith("Missing option") and (param := getattr(error, "param", None)):
        flag = f"{param.opts[0]} {param.metavar or ''}".rstrip()
        _fail(message, None, f"add {flag} (all options: {path} --help)", as_json=as_json)
    elif not message.startswith("Usage:"):
        _fail(message, None, f"{path} --help", as_json=as_json)
    elif as_json:
        _fail("Missing command.", None, f"{path} --help", as_json=True)
    else:
        print(message, file=sys.stderr)
    return BAD_INPUT


def _limit_of_system(fault: BaseException | None) -> tuple[str, None, str] | None:
    """What to tell of a limit of the system that an error comes from; None if it does not."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in LIMITS:
            what, remedy = LIMITS[fault.errno]
            return what, None, remedy
        fault = fault.__cause__ or fault.__context__
    return None


def execute(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1, 2, 70 or 130 (`stepgold.results`)."""
    as_json, debug = "--json" in argv, "--debug" in argv
    with watch_defects(_show_defect if debug else None) as met:
        try:
            code = _execute(argv, as_json=as_json, debug=debug)
        except KeyboardInterrupt:  # after the work, while its outcome was printed
            _fail(*STOPPED, as_json=as_json)
            code = INTERRUPTED
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
        return _misused(error, argv, as_json=as_json)
    except Exit as wish:
        return wish.exit_code
    except (KeyboardInterrupt, Abort):
        _fail(*STOPPED, as_json=as_json)
        return INTERRUPTED
    except Exception as fault:
        # A bug of StepGold must be reported as one, never as bad input.
        if debug:
            print(_without_keys(traceback.format_exc()), file=sys.stderr, end="")
        if (limit := _limit_of_system(fault)) is not None:
            _fail(*limit, as_json=as_json)
            return BAD_INPUT
        place = traceback.extract_tb(fault.__traceback__)[-1]
        _fail(
            _without_keys(f"{type(fault).__name__}: {fault}"),
            f"{place.filename}:{place.lineno}",
            "this is a bug in StepGold: please report it with the output of --debug",
            as_json=as_json,
        )
        return DEFECT
    if isinstance(outcome, Outcome):
        return _print(outcome)
    if outcome == INTERRUPTED:  # typer turns a KeyboardInterrupt into this number
        _fail(*STOPPED, as_json=as_json)
        return INTERRUPTED
    return OK


def main() -> None:
    """Entry point of the `stepgold` command."""
    heard = take_signals(sys.argv[1:])
    # Libraries show progress bars while they load weights; our own bars say what is being done.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Threads that spin while they wait halve the speed of small models on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # We report a missing model in one line; the hub would print one for each attempt.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # under an ASCII locale most texts cannot be shown
            stream.reconfigure(errors="backslashreplace")
    try:
        code = execute(sys.argv[1:])
    except KeyboardInterrupt:  # while the result was shown
        code = INTERRUPTED
    for number in heard:
        signal.signal(number, lambda *_: None)  # it has ended: an exception would be in the way
    sys.exit(code)


if __name__ == "__main__":
    main()
