"""The generated pages of the documentation: the CLI and the Python reference.

`mkdocs.yml` names this file as a hook, so that both pages are made from the code at every build
and none is in git.
"""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from traces.config import Config, Option, declared_options, defaults_of, parts_of

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "stepgold" / "api.py"
REPOSITORY = "https://github.com/stepgold/stepgold/blob/main/"

CLI_PAGE = "reference/cli.md"
PYTHON_PAGE = "reference/python.md"
RESULTS_PAGE = "reference/results.md"
CHANGELOG_PAGE = "changelog.md"

CLI_HEAD = """# Command line

Global options come before the command: `stepgold --workspace runs/pb judge ...`.
`--json` comes after it and prints exactly one JSON document on standard output; progress and
notes go to standard error. Every option can also be set in a [file](files.md).
"""

PYTHON_HEAD = """# Python

`stepgold.Workspace` has one method per command, with the same options, defaults and effects:
`--max-tokens` is `max_tokens`, `import` is `import_`, and `best-of-n` is `best_of_n`. A method
returns a result with typed fields, `as_json()`, `frame()` (needs pandas) and an `exit_code`; in a
notebook it shows itself as a table. An argument for several names or paths takes a single one too,
and a positional one takes them one after the other: `ws.compare("judge", "mc", dataset="bio")`.
Options that a call leaves out are taken from the workspace's [`stepgold.toml`](files.md), if any.
Errors are subclasses of [`ToolkitError`](library.md#traces.errors.ToolkitError).

```text
import stepgold

ws = stepgold.Workspace("runs/pb")
```
"""


RESULTS_HEAD = """# Results

What the methods of [`Workspace`](python.md) return. A result has the fields below, `as_json()` (the
document that the command prints under `--json`), `frame()`, and text for a person (`str`, `print`).
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site (mkdocs calls this)."""
    from mkdocs.structure.files import File

    for name, content in generated_pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def generated_pages() -> dict[str, str]:
    """The Markdown of every generated page, by its path in the site."""
    return {
        CLI_PAGE: cli_reference(),
        PYTHON_PAGE: python_reference(),
        RESULTS_PAGE: results_reference(),
        CHANGELOG_PAGE: changelog(),
    }


def changelog() -> str:
    """CHANGELOG.md as a page, with its links into the documentation."""
    return (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](")


def cli_reference() -> str:
    """One section per command: what it does, its usage, and a table of its options."""
    from typer.main import get_command

    import cli

    root = get_command(cli.app)
    parts = [CLI_HEAD, _parameters(root, "stepgold")]
    for words, command in _commands(root, ("stepgold",)):
        name = " ".join(words)
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(context))
        text = inspect.cleandoc(command.help or "")
        parts += [f"## `{name}`", text, f"```text\n{name} {usage}\n```", _parameters(command, name)]
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.list_commands(None):
        command, path = group.get_command(None, name), (*words, name)
        is_group = hasattr(command, "list_commands")
        if not is_group or command.invoke_without_command:
            yield path, command
        if is_group:
            yield from _commands(command, path)


def _parameters(command: Any, name: str) -> str:
    """The arguments and options as a table, `--help` left out."""
    context = command.make_context(name, [], resilient_parsing=True)
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or parameter.name == "help":
            continue
        shown, text = record
        rows.append((_code(shown), _cell(text)))
    return _table(("option", "what it does"), rows)


def python_reference() -> str:
    """One section per method of `Workspace`, with a table of its options, and `stepgold.label`."""
    from stepgold.api import Workspace

    said = attribute_docstrings(API, "Workspace")
    parts = [PYTHON_HEAD]
    for name in said:
        run = _function(getattr(Workspace, name))
        links = (f"[`{each.__name__}`](results.md#{_path(each)})" for each in _results_of(run))
        parts += [
            f"## `Workspace.{name}` {{ #{name} }}",
            said[name],
            f"Returns: {' or '.join(links)}",
            _fields(_config_of(run)),
        ]
    parts += ["## `Workspace.plan` { #plan }", "::: stepgold.api.Workspace.plan"]
    parts += ["Its further options:", _plan_options()]
    parts += ["## `Workspace` and `label` { #workspace }", "::: stepgold.workspace.WorkspaceFolder"]
    parts += ["::: stepgold.page.label"]
    return "\n\n".join(parts) + "\n"


def _plan_options() -> str:
    """The options of `plan`, by the stage that they are of."""
    from stepgold.planning import STAGES, stage_fields

    named = {"judge": "judge", "policy": "continue_", "prm": "score"}
    rows = [
        (_code(shown), f"[`{named[stage]}`](#{named[stage]})", _code(name))
        for stage, fields in stage_fields().items()
        for shown, name in fields.items()
        if shown not in STAGES and shown != "dataset"
    ]
    return _table(("argument", "of", "where it is"), rows)


def results_reference() -> str:
    """The classes that the methods of `Workspace` return, each once, and those of their figures."""
    from stepgold.api import Workspace
    from stepgold.planning import Plan
    from stepgold.results import NamedFigures, Result

    found = dict.fromkeys((_path(Result), _path(Plan)))
    for name in attribute_docstrings(API, "Workspace"):
        for result in _results_of(_function(getattr(Workspace, name))):
            kinds = [kind for kind in reversed(result.__mro__) if issubclass(kind, Result)]
            found |= dict.fromkeys(map(_path, kinds))
    figures: list[type] = [NamedFigures, *NamedFigures.__subclasses__()]
    found |= dict.fromkeys(map(_path, figures))
    return "\n\n".join([RESULTS_HEAD, *(f"::: {path}" for path in found)]) + "\n"


def _function(method: Any) -> Any:
    """The function that a verb calls."""
    run = method.__wrapped__
    return getattr(run, "func", run)  # of a partial


def _results_of(run: Any) -> list[type]:
    """The result classes that a verb's function may return."""
    annotation = run.__annotations__["return"]
    if isinstance(annotation, str):
        annotation = eval(annotation, run.__globals__)
    return list(parts_of(annotation))


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _config_of(run: Any) -> type[Config]:
    """The options class of a verb: what its function takes after the workspace."""
    second = list(inspect.signature(run).parameters)[1]
    annotation = run.__annotations__[second]
    if isinstance(annotation, str):
        annotation = eval(annotation, run.__globals__)
    if not (isinstance(annotation, type) and issubclass(annotation, Config)):
        raise TypeError(f"{run.__name__} takes {annotation!r}, which is not a Config")
    return annotation


def attribute_docstrings(path: Path, class_name: str) -> dict[str, str]:
    """Name and docstring of every documented attribute of a class, in the order of the source."""
    tree = ast.parse(path.read_text("utf-8"))
    (found,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    said: dict[str, str] = {}
    for one, following in zip(found.body, found.body[1:], strict=False):
        match one, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                said[name] = inspect.cleandoc(text)
    return said


def _fields(config: type[Config]) -> str:
    defaults = defaults_of(config)
    rows = []
    for name, kind, declared in declared_options(config):
        default = defaults[name]
        shown = "required" if default is MISSING else _code(repr(default))
        text = _help(declared, named="'" in type_name(kind))
        rows.append((_code(name), _code(type_name(kind)), shown, _cell(text)))
    return _table(("argument", "type", "default", "what it does"), rows)


def _help(declared: Option, *, named: bool) -> str:
    """The help text with the range; with the choices too unless the type has `named` them."""
    text = declared.help
    low, high = declared.between
    if declared.choices and not named:
        text += f" One of {', '.join(declared.choices)}."
    if low is not None and high is not None:
        text += f" From {low:g} to {high:g}."
    elif low is not None:
        text += f" At least {low:g}."
    elif high is not None:
        text += f" At most {high:g}."
    return text


def type_name(kind: Any) -> str:
    """A type as one writes it, with `StrPath` for paths."""
    names = []
    for part in parts_of(kind):
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if part is type(None):
            names.append("None")
        elif origin is typing.Literal:
            names += [repr(each) for each in inner]
        elif origin is not None and inner and origin.__name__ != "PathLike":
            names.append(f"{origin.__name__}[{', '.join(type_name(each) for each in inner)}]")
        else:
            names.append(getattr(origin or part, "__name__", str(part)))
    if "PathLike" in names:
        names = ["StrPath", *(name for name in names if name not in ("str", "PathLike"))]
    return " | ".join(names)


def _code(text: str) -> str:
    """Text as code in a table, where a pipe ends no cell."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("\n", " ")


def _cell(text: str) -> str:
    """Text in a table: no pipe ends the cell, no tag is one of HTML."""
    plain = " ".join(text.split())
    return plain.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
