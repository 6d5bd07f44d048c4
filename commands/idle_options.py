"""Options that mean nothing beside the others given: refused, because ignoring them would deceive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from commands.backends import parse_spec
from traces.errors import InputError

if TYPE_CHECKING:
    from inference.specs import ModelSpec


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


def parse_policy(ctx: typer.Context, text: str) -> ModelSpec:
    """Parse the spec of a policy; refuse what is said about a server where it is behind none.

    Only what `openai:` names can be asked through /completions; models of this machine have no address.

    Raises:
        InputError: it is no spec, or `--template`, `--base-url` or `--concurrency` was given in vain.
    """
    policy = parse_spec(text)
    if policy.kind != "openai":
        refuse_idle(ctx, "template", without="--policy openai:MODEL")
    if policy.kind in {"hf", "lab"}:
        refuse_idle(ctx, "base_url", "concurrency", without="--policy openai:MODEL")
    return policy


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
