"""`stepgold plan`: calls, tokens, dollars and hours before anything is spent.

Its options are those of `judge`, `continue` and `score`, so that it plans the very run that will be
done. Where two stages have an option of one name, the policy's is `--policy-...` (`--mc-name`) and
the PRM's `--prm-...`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import typer

from commands.build import (
    field_names,
    field_values,
    is_given,
    outcome_of,
    parameter_of,
    with_signature,
)
from stepgold.continuing import ContinueOptions
from stepgold.judging import JudgeOptions
from stepgold.outcome import Outcome
from stepgold.planning import PlanOptions, Stage
from stepgold.planning import plan as run
from stepgold.scoring_run import ScoreOptions
from stepgold.verbs import run_verb
from traces import InputError

_SHARED = frozenset({"dataset", "limit", "images", "ignore_images", "concurrency"})
"""Options that mean the same for every stage."""
_UNUSED = frozenset({"replace", "budget", "allow_phi", "insecure_http", "allow_mixed"})
"""Options of a run that change nothing in its plan."""
_STAGES: Mapping[str, tuple[type[Stage], str]] = {
    "judge": (JudgeOptions, ""),
    "policy": (ContinueOptions, "policy_"),
    "prm": (ScoreOptions, "prm_"),
}
"""The option that asks for a stage; its config, and the prefix of names that are taken."""


def _parameters() -> tuple[list[inspect.Parameter], dict[str, dict[str, str]]]:
    """The command's parameters, and for each stage its fields by the name of their parameter."""
    made: dict[str, inspect.Parameter] = {}
    fields: dict[str, dict[str, str]] = {}
    for stage, (config, prefix) in _STAGES.items():
        fields[stage] = {}
        for name in field_names(config):
            if name in _UNUSED:
                continue
            taken = name in made and name not in _SHARED
            shown = ("mc_" if (stage, name) == ("policy", "name") else prefix) + name
            shown = shown if taken else name
            fields[stage][shown] = name
            if shown not in made:
                made[shown] = parameter_of(
                    config, name, shown_as=shown if taken else None, required=name not in _STAGES
                )
    return sorted(made.values(), key=lambda each: each.name != "dataset"), fields


_PARAMETERS, _FIELDS = _parameters()


def _plan(ctx: typer.Context, **values: Any) -> Outcome:
    as_json = values.pop("json_output")
    given = {name for name in values if is_given(ctx, name)}
    stages: list[Stage] = []
    for stage, (config, _) in _STAGES.items():
        fields = _FIELDS[stage]
        if values[stage] is None:
            _refuse_idle(stage, given & fields.keys() - _SHARED)
            continue
        chosen = {name: values[shown] for shown, name in fields.items()}
        options = config(**field_values(config, chosen))
        options.refuse_idle({name for shown, name in fields.items() if shown in given})
        stages.append(options)
    return outcome_of(run_verb(ctx.obj, run, PlanOptions(stages=stages)), as_json=as_json)


def _refuse_idle(stage: str, names: set[str]) -> None:
    """Refuse options of a stage that is not planned."""
    if names:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
        raise InputError(f"{flags} has no effect without --{stage}.", remedy=f"add --{stage} MODEL")


plan = with_signature(_plan, _PARAMETERS, help="Estimate calls, cost and time before spending.")
