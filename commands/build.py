"""Builds a command from a verb: options from its config, one call, and the result in words."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from stepgold.outcome import Outcome
from stepgold.results import Result
from stepgold.verbs import run_verb
from stepgold.workspace import WorkspaceFolder
from traces import Config, InputError, defaults_of
from traces.config import Option, declared_options, flag_of, is_path, parts_of

C = TypeVar("C", bound=Config)

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
"""The option that every command has."""


def command(
    config: type[C], run: Callable[[WorkspaceFolder, C], Result], *, help: str
) -> Callable[..., Outcome]:
    """A typer command that fills in `config`, calls `run`, and returns its result.

    Args:
        config: the verb's options.
        run: the verb.
        help: the text of `--help`; its first sentence is the summary in the list of commands.
    """

    fields = [name for name, _, _ in _by_style(config)]

    def called(ctx: typer.Context, **values: Any) -> Outcome:
        as_json = values.pop("json_output")
        if as_json:
            _refuse_beside_json(ctx, config)
        options = config(**field_values(config, values))
        given = frozenset(name for name in values if is_given(ctx, name))
        return outcome_of(run_verb(ctx.obj, run, options, given), as_json=as_json)

    return with_signature(called, [parameter_of(config, name) for name in fields], help=help)


def _refuse_beside_json(ctx: typer.Context, config: type[Config]) -> None:
    """Refuse an option that prints something else than the one JSON document.

    Raises:
        InputError: there is one.
    """
    given = [name for name in config.not_with_json if is_given(ctx, name)]
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise InputError(
            f"--json and {flag} ask for two different outputs.",
            where=flag,
            remedy=f"leave out --json or {flag}",
        )


def with_signature(
    called: Callable[..., Outcome], parameters: Sequence[inspect.Parameter], *, help: str
) -> Callable[..., Outcome]:
    """The function with the signature that typer reads: context, these parameters, `--json`."""
    # Keyword-only, because an optional argument may precede a required option.
    keyword = inspect.Parameter.KEYWORD_ONLY
    whole = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        *parameters,
        inspect.Parameter("json_output", keyword, default=False, annotation=Json),
    ]
    called.__signature__ = inspect.Signature(whole)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in whole}
    called.__doc__ = help
    return called


def outcome_of(result: Result, *, as_json: bool) -> Outcome:
    """A result as the command line prints it."""
    return Outcome(result.as_json(), result.words(), result.exit_code, as_json)


def field_names(config: type[Config]) -> list[str]:
    """The fields that can be given on the command line."""
    return [name for name, _, _ in _by_style(config)]


def field_values(config: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values from the command line as fields of the config, without those not given."""
    declared = {name: each for name, _, each in declared_options(config)}
    return {
        name: _value(declared[name], value)
        for name, value in values.items()
        if value is not None or defaults_of(config)[name] is None
    }


def _by_style(config: type[Config]) -> list[tuple[str, Any, Option]]:
    """The declared fields: positional arguments first, then what is required, then the others."""
    fields = [each for each in declared_options(config) if each[2].style != "python"]
    required = {name for name, default in defaults_of(config).items() if default is MISSING}
    return sorted(fields, key=lambda each: (each[2].style != "argument", each[0] not in required))


def parameter_of(
    config: type[Config], name: str, *, shown_as: str | None = None, required: bool = True
) -> inspect.Parameter:
    """A field as a parameter of a command.

    Args:
        config: the config.
        name: the field.
        shown_as: another name for the option; None keeps the field's own flags.
        required: whether a field without a default must be given.
    """
    kind, declared = {each[0]: each[1:] for each in declared_options(config)}[name]
    default = defaults_of(config)[name]
    if default is MISSING:
        default = inspect.Parameter.empty if required else None
    elif declared.style == "escaped" and isinstance(default, str):
        default = default.replace("\n", "\\n")
    elif default == ():
        default = None
    low, high = declared.between
    info: dict[str, Any] = {"help": declared.help, "metavar": _metavar(declared)}
    if low is not None or high is not None:
        info |= {"min": low, "max": high}
    if declared.style == "argument":
        made: Any = typer.Argument(**info)
    elif shown_as is None:
        made = typer.Option(*(declared.flags or (flag_of(name, declared),)), **info)
    else:
        made = typer.Option(_renamed(declared, shown_as), **info)
    return inspect.Parameter(
        shown_as or name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_typed(kind, optional=default is None), made],
    )


def _renamed(declared: Option, shown_as: str) -> str:
    flag = shown_as.replace("_", "-")
    two_sided = declared.flags and "/" in declared.flags[0]
    return f"--{flag}/--no-{flag}" if two_sided else f"--{flag}"


def _metavar(declared: Option) -> str | None:
    if declared.choices and declared.metavar is None:
        return "|".join(declared.choices)
    return declared.metavar


def _typed(kind: Any, *, optional: bool) -> Any:
    """The type that typer reads for a field's type."""
    parts = [each for each in parts_of(kind) if each is not type(None)]
    for part in parts:
        if typing.get_origin(part) is Sequence:
            (inner,) = typing.get_args(part)
            many: Any = list[_typed(inner, optional=False)]  # type: ignore[misc]
            return many | None if optional else many
    if is_path(kind):
        one: Any = Path
    elif any(typing.get_origin(part) is Literal for part in parts) or str in parts:
        one = str
    else:
        one = next(each for each in (bool, int, float) if each in parts)
    return one | None if optional else one


def _value(declared: Option, value: Any) -> Any:
    """A value as the config takes it: `\\n` typed in a shell is a line break."""
    if declared.style != "escaped" or value is None:
        return value
    if isinstance(value, str):
        return value.replace("\\n", "\n")
    return tuple(each.replace("\\n", "\n") for each in value)


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether a parameter was given on the command line, not by stepgold.toml."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
