"""`stepgold.label`: the whole pipeline in memory, for traces that are not in a workspace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from stepgold.console import session
from stepgold.continuing import ContinueOptions
from stepgold.judging import JudgeOptions, open_judge
from stepgold.models import RunTerms, checker_factory, open_policy, withholds_phi
from stepgold.versions import ModelTruth
from traces import Evidence, InputError, Problem, Trace, TraceInContext

if TYPE_CHECKING:
    from labeling import ConsensusConfig, Retriever, StagedLabels

_UNNAMED = "label"
"""Dataset name of labels in memory, which have no dataset."""


def label(
    traces: Iterable[Trace],
    problems: Iterable[Problem],
    *,
    judge: str | JudgeOptions,
    policy: str | ContinueOptions,
    consensus: ConsensusConfig | None = None,
    evidence: Retriever | Mapping[str, Sequence[Evidence]] | None = None,
    budget: float | None = None,
    progress: bool = True,
) -> Iterator[StagedLabels]:
    """Label the steps of traces with a judge, a Monte Carlo labeler, and their consensus.

    Runs `labeling.pipeline.label_traces`, the page to read, without a workspace: nothing is stored,
    so an interrupted call pays again. Use a `Workspace` for anything that costs money or hours.

    Args:
        traces: the traces; keep those of one problem together.
        problems: their problems.
        judge: a model, or the options of `Workspace.judge`.
        policy: a model, or the options of `Workspace.continue_`.
        consensus: how the two are combined; None is `strict` without filters.
        evidence: a retriever, or evidence by problem id; None judges without evidence.
        budget: stop before spending more than this, USD, both models together.
        progress: whether notes are printed on standard error.

    Yields:
        Every trace once, in the order given, with the label of each stage.

    Raises:
        InputError: options that do not fit, a trace without its problem, or an unusable model.
    """
    from inference import Purse
    from labeling import ConsensusConfig, label_traces
    from storage import Store

    if isinstance(judge, str):
        judge = JudgeOptions(dataset=_UNNAMED, judge=judge)
    if isinstance(policy, str):
        policy = ContinueOptions(dataset=_UNNAMED, policy=policy)
    _refuse_whole_datasets(consensus or ConsensusConfig())
    with ExitStack() as closing:
        closing.enter_context(session(shown=progress))
        store = closing.enter_context(Store.open("sqlite://"))
        terms = RunTerms(store, closing, ModelTruth(allow_mixed=True), Purse(budget))
        opened, hosted = open_policy(
            policy, terms, separator=policy.step_separator, stop=policy.stop
        )
        yield from label_traces(
            _in_context(traces, problems, evidence if isinstance(evidence, Mapping) else {}),
            judge=open_judge(judge, terms),
            policy=opened,
            mc=policy,
            consensus=consensus or ConsensusConfig(),
            retriever=None if evidence is None or isinstance(evidence, Mapping) else evidence,
            checkers=checker_factory(
                policy.answer_judge, terms, policy, tolerance=policy.answer_tolerance
            ),
            withhold_phi=withholds_phi(policy, answer_judge=policy.answer_judge, hosted=hosted),
        )


def _refuse_whole_datasets(consensus: ConsensusConfig) -> None:
    from labeling import refuse_comparing

    refuse_comparing(consensus)
    if consensus.rule == "bayes":
        raise InputError(
            "The rule bayes estimates from a whole dataset of labels.",
            remedy="import the traces, and run Workspace.consensus(..., rule='bayes')",
        )


def _in_context(
    traces: Iterable[Trace],
    problems: Iterable[Problem],
    evidence: Mapping[str, Sequence[Evidence]],
) -> Iterator[TraceInContext]:
    by_id = {problem.id: problem for problem in problems}
    for trace in traces:
        problem = by_id.get(trace.problem_id)
        if problem is None:
            raise InputError(
                f"Trace '{trace.id}' belongs to problem '{trace.problem_id}', which is not given.",
                remedy="pass that problem too",
            )
        yield TraceInContext(problem, trace, tuple(evidence.get(problem.id, ())))
