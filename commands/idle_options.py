"""Options that mean nothing beside the others given: refused, because ignoring them would deceive."""

from __future__ import annotations

import typer

from traces.errors import InputError


def refuse_idle(ctx: typer.Context, *parameters: str, without: str) -> None:
    """Refuse those of the parameters that stand on the command line.

    Defaults, those of a stepgold.toml included, are no order of the user's and stay unused.

    Args:
        ctx: the command that was called.
        parameters: names of its parameters that mean nothing now.
        without: the option that would give them a meaning, as a user writes it.

    Raises:
        InputError: one of them was given.
    """
    given = [name for name in parameters if _is_given(ctx, name)]
    if given:
        flags = [f"--{name.replace('_', '-')}" for name in given]
        it = "it" if len(flags) == 1 else "them"
        raise InputError(
            f"Without {without} nothing is done with {', '.join(flags)}.",
            where=flags[0],
            remedy=f"add {without}, or leave {it} out",
        )


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
