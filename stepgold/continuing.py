"""The Monte-Carlo labeler as a stage of a labeling run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from stepgold.labeling_run import Labelled

if TYPE_CHECKING:
    from labeling import AnswerChecker, MonteCarloConfig, Policy
    from traces import Problem, TraceInContext


def continue_stage(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checkers: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
    hosted: bool,
    allow_phi: bool,
) -> Iterator[Labelled]:
    """The Monte-Carlo labeler as a stage of `label_missing`."""
    from labeling import continue_traces

    yield from continue_traces(
        contexts,
        policy,
        config=config,
        checkers=checkers,
        withhold_phi=hosted and not allow_phi,
    )
