"""`stepgold plan`: calls, tokens, dollars and hours before anything is spent.

It has the options of `judge`, `continue` and `score`, so that it plans exactly the run that will be
started. If two stages have an option of the same name, the policy's is `--policy-...` (`--mc-name`)
and the PRM's `--prm-...`.
"""

from __future__ import annotations

import inspect
from typing import Any

import typer

from commands.build import field_values, is_given, outcome_of, parameter_of, with_signature
from stepgold.outcome import Outcome
from stepgold.planning import STAGES, PlanOptions, stage_fields, stages_of
from stepgold.planning import plan as run
from stepgold.verbs import run_verb


def _parameters() -> list[inspect.Parameter]:
    """The options of all stages, each once."""
    made: dict[str, inspect.Parameter] = {}
    for stage, fields in stage_fields().items():
        for shown, name in fields.items():
            if shown not in made:
                made[shown] = parameter_of(
                    STAGES[stage][0],
                    name,
                    shown_as=None if shown == name else shown,
                    required=name not in STAGES,
                )
    return sorted(made.values(), key=lambda each: each.name != "dataset")


def _plan(ctx: typer.Context, **values: Any) -> Outcome:
    as_json = values.pop("json_output")
    chosen: dict[str, Any] = {}
    for stage, fields in stage_fields().items():
        given = {name: values[shown] for shown, name in fields.items() if is_given(ctx, shown)}
        typed = field_values(STAGES[stage][0], given)
        chosen |= {shown: typed[name] for shown, name in fields.items() if name in typed}
    options = PlanOptions(stages=stages_of(chosen))
    return outcome_of(run_verb(ctx.obj, run, options), as_json=as_json)


plan = with_signature(_plan, _parameters(), help="Estimate calls, cost and time before spending.")
