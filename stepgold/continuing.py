"""The Monte-Carlo labeler as a stage of a labeling run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from stepgold.labeling_run import Labelled

if TYPE_CHECKING:
    from labeling.answers import AnswerChecker
    from labeling.mc_config import MonteCarloConfig
    from labeling.stages import Policy
    from traces.problem import Problem, TraceInContext


def continue_stage(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checkers: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
    hosted: bool,
    allow_phi: bool,
) -> Iterator[Labelled]:
    """The Monte-Carlo labeler as a stage of `label_missing`."""
    from labeling.pipeline import continue_traces

    for measured in continue_traces(
        contexts, policy, checkers, config, hosted=hosted, allow_phi=allow_phi
    ):
        yield Labelled(measured.label, tuple(measured.continuations), measured.resolved_model)
