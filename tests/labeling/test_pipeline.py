"""The page end to end, on traces whose first errors are known by construction.

Judge and policy are simulated with known error rates and independent noise; everything between
them, from the text of a continuation to the consensus, is the real thing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from labeling import (
    ConsensusConfig,
    Judge,
    MonteCarloConfig,
    Policy,
    Retriever,
    StagedLabels,
    agree_on,
    analyze_labelers,
    continue_traces,
    judge_traces,
    label_traces,
    retrieve_evidence,
)
from labeling.pipeline import PROBLEMS_AT_ONCE
from traces.evidence import Evidence, Passage
from traces.labels import (
    AbstentionReason,
    FirstError,
    StepLabel,
    TraceLabel,
    Verdict,
    abstained,
    first_error,
)
from traces.problem import PolicyText, Problem, Trace, TraceContinuations, TraceInContext, Wanted
from traces.records import LabeledTrace

Truth = Mapping[str, int | None]


def planted(count: int, seed: int) -> tuple[list[TraceInContext], Truth]:
    """Traces with a first error at a known step, or none."""
    chance = random.Random(seed)
    contexts, truth = [], {}
    for number in range(count):
        steps = chance.randrange(3, 9)
        error = chance.randrange(steps) if chance.random() < 0.6 else None
        problem = Problem(f"p{number}", "Which dose?", answer=f"{number + 10} mg")
        trace = Trace(f"t{number}", problem.id, tuple(f"Step {n}." for n in range(steps)))
        contexts.append(TraceInContext(problem, trace))
        truth[trace.id] = error
    return contexts, truth


@dataclass
class NoisyJudge:
    """Names the true first error, but at random another one with a known probability."""

    truth: Truth
    error_rate: float
    chance: random.Random

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """A label a trace, in the order given."""
        for context in contexts:
            steps = len(context.trace.steps)
            named = self.truth[context.trace.id]
            if self.chance.random() < self.error_rate:
                named = self.chance.choice([n for n in (None, *range(steps)) if n != named])
            verdicts = (Verdict.INCORRECT if n == named else Verdict.CORRECT for n in range(steps))
            label = TraceLabel(context.trace.id, tuple(StepLabel(v) for v in verdicts))
            yield LabeledTrace(label)


@dataclass
class NoisyPolicy:
    """Reaches the answer from right prefixes often, from wrong ones in some lucky traces."""

    truth: Truth
    chance: random.Random
    from_right: float = 0.6
    lucky_traces: float = 0.25
    from_wrong_if_lucky: float = 0.5
    spec: str = "simulated"
    sent: list[str] = field(default_factory=list)

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        """Texts that end in the gold answer, another one, or none."""
        for context in contexts:
            steps = range(len(context.trace.steps))
            yield from self.continue_wanted(
                [(context, [Wanted(step, 0, k) for step in steps])], seed=seed
            )

    def continue_wanted(
        self, asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]], *, seed: int
    ) -> Iterator[TraceContinuations]:
        """The same, of just these."""
        for context, wanted in asked:
            self.sent.append(context.trace.id)
            error = self.truth[context.trace.id]
            lucky = self.chance.random() < self.lucky_traces
            texts = []
            for one in wanted:
                right_so_far = error is None or one.step_index < error
                rate = self.from_right if right_so_far else self.from_wrong_if_lucky * lucky
                for index in range(one.first, one.first + one.count):
                    text = self._text(context, rate)
                    texts.append(PolicyText(one.step_index, index, text, "stop"))
            yield TraceContinuations(context.trace.id, tuple(texts), "simulated-1")

    def release(self, trace_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def _text(self, context: TraceInContext, rate: float) -> str:
        if self.chance.random() < rate:
            return f"Hence.\nThe answer is {context.problem.answer}."
        return self.chance.choice(["The answer is 5 mg.", "It depends.", "The answer is 9,999 mg."])


@dataclass
class OnePassage:
    """A retriever that finds the same passage for every problem."""

    passage: Passage = field(default_factory=lambda: Passage("g", "d", 0, 0, 4, "Dose"))

    def retrieve(self, problems: Iterable[Problem]) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        """One hit a problem."""
        for problem in problems:
            yield problem.id, (Evidence(self.passage, 0.5, 0),)


def by_id(labeled: Iterable[LabeledTrace]) -> dict[str, TraceLabel]:
    """The labels by trace."""
    return {one.label.trace_id: one.label for one in labeled}


def agree(
    contexts: Sequence[TraceInContext],
    judged: Mapping[str, TraceLabel],
    measured: Mapping[str, TraceLabel],
) -> list[TraceLabel]:
    """The strict consensus."""
    agreed = agree_on(contexts, {"judge": judged, "mc": measured}, config=ConsensusConfig())
    return [one.label for one in agreed]


def precision(labels: Iterable[TraceLabel], truth: Truth) -> tuple[float, int]:
    """Share of exact first errors among the traces with a word, and their number."""
    hits = [
        first_error(label) == FirstError(missing=False, index=truth[label.trace_id])
        for label in labels
        if not first_error(label).missing
    ]
    return sum(hits) / len(hits), len(hits)


@pytest.mark.slow
def test_consensus_is_more_precise_than_either_labeler() -> None:
    contexts, truth = planted(600, seed=1)
    judge: Judge = NoisyJudge(truth, 0.25, random.Random(2))
    policy: Policy = NoisyPolicy(truth, random.Random(3))
    judged = by_id(judge_traces(contexts, judge))
    measured = by_id(continue_traces(contexts, policy, config=MonteCarloConfig(k=6)))
    agreed = agree(contexts, judged, measured)
    kept = [label for label in agreed if label.abstention is None]
    by_judge, n_judge = precision(judged.values(), truth)
    by_mc, n_mc = precision(measured.values(), truth)
    by_both, n_both = precision(agreed, truth)
    assert n_judge == 600
    assert n_mc > 590
    assert n_both == len(kept)
    assert 0.70 < by_judge < 0.80
    assert 0.70 < by_mc < 0.90
    assert by_both > 0.95
    assert by_both > max(by_judge, by_mc) + 0.1
    assert len(kept) / len(contexts) > 0.5
    gold = {t: TraceLabel(t, first_error_given=True, first_error_index=e) for t, e in truth.items()}
    consensus = {label.trace_id: label for label in agreed}
    (row,) = analyze_labelers({"gold": gold}, truth, consensus=consensus).rows
    assert row.with_error.share is not None
    assert row.without_error.share is not None
    assert row.with_error.share < row.without_error.share  # lucky traces hide errors from MC


def test_whole_flow_from_bare_traces() -> None:
    contexts, truth = planted(30, seed=4)
    retriever: Retriever = OnePassage()
    flow = list(flow_of(contexts, truth, retriever=retriever))
    assert [one.context.trace for one in flow] == [context.trace for context in contexts]
    for one in flow:
        assert one.context.evidence[0].passage.text == "Dose"
        assert one.consensus.first_error_given
        assert one.consensus.first_error_index == truth[one.context.trace.id]
        assert one.judged is not None
        assert one.measured is not None
        assert one.measured.resolved_model == "simulated-1"
        assert len(one.measured.continuations) == 8 * len(one.context.trace.steps)
    found = dict(retrieve_evidence([contexts[0].problem], retriever))
    assert list(found) == ["p0"]


def flow_of(
    contexts: Iterable[TraceInContext], truth: Truth, retriever: Retriever | None = None
) -> Iterator[StagedLabels]:
    """The whole flow with labelers that make no errors."""
    return label_traces(
        contexts,
        judge=NoisyJudge(truth, 0.0, random.Random(5)),
        policy=NoisyPolicy(truth, random.Random(6), from_right=1.0, lucky_traces=0.0),
        mc=MonteCarloConfig(k=8),
        consensus=ConsensusConfig(),
        retriever=retriever,
    )


def test_flow_reads_a_chunk_of_problems_at_a_time() -> None:
    contexts, truth = planted(2 * PROBLEMS_AT_ONCE + 1, seed=10)
    twice = [
        replace(one, trace=replace(one.trace, id=one.trace.id + suffix))
        for one in contexts
        for suffix in ("", "b")
    ]
    truth = {one.trace.id: truth[one.trace.id.rstrip("b")] for one in twice}
    read: list[str] = []

    def watched() -> Iterator[TraceInContext]:
        for context in twice:
            read.append(context.trace.id)
            yield context

    flow = flow_of(watched(), truth)
    first = next(flow)
    assert first.context.trace.id == "t0"
    assert len(read) == 2 * PROBLEMS_AT_ONCE + 1, "one chunk, and the trace that ends it"
    assert [one.context.trace.id for one in flow] == [one.trace.id for one in twice[1:]]
    assert len(read) == len(twice)


def test_flow_without_a_retriever_uses_the_evidence_given() -> None:
    (context,), truth = planted(1, seed=11)
    evidence = (Evidence(Passage("g", "d", 0, 0, 4, "Mine"), 0.5, 0),)
    (one,) = flow_of([replace(context, evidence=evidence)], truth)
    assert one.context.evidence == evidence
    (found,) = flow_of([replace(context, evidence=evidence)], truth, retriever=OnePassage())
    assert found.context.evidence[0].passage.text == "Dose"


def test_flow_withholds_marked_problems_from_the_policy() -> None:
    (context,), truth = planted(1, seed=12)
    marked = replace(context, problem=replace(context.problem, meta={"phi_removed": False}))
    policy = NoisyPolicy(truth, random.Random(0))
    (one,) = label_traces(
        [marked],
        judge=NoisyJudge(truth, 0.0, random.Random(5)),
        policy=policy,
        mc=MonteCarloConfig(k=1),
        consensus=ConsensusConfig(),
        withhold_phi=True,
    )
    assert policy.sent == []
    assert one.consensus.abstention is not None
    assert one.consensus.abstention.reason is AbstentionReason.FILTERED


def test_traces_without_a_checkable_answer_are_never_sent() -> None:
    (good, *_), truth = planted(1, seed=7)
    steps = ("Step.",)
    problems = [
        Problem("none", "q"),
        Problem("blank", "q", answer=" "),
        Problem("beyond", "q", ("x", "y"), "C"),
    ]
    others = [TraceInContext(p, Trace(p.id, p.id, steps)) for p in problems]
    policy = NoisyPolicy(truth, random.Random(0))
    words = list(
        continue_traces([others[0], good, *others[1:]], policy, config=MonteCarloConfig(k=1))
    )
    assert policy.sent == ["t0"]
    assert {word.label.trace_id for word in words} == {"none", "blank", "beyond", "t0"}
    for word in words:
        if word.label.trace_id != "t0":
            assert word.label.abstention is not None
            assert word.label.abstention.reason is AbstentionReason.NO_ANSWER
            assert word.continuations == ()
    details = {w.label.trace_id: w.label.abstention.detail for w in words if w.label.abstention}
    assert "not one of the 2 options" in details["beyond"]


def test_marked_problems_are_not_sent_to_a_hosted_policy() -> None:
    problem = Problem("p", "q", answer="1", meta={"phi_removed": False})
    context = TraceInContext(problem, Trace("t", "p", ("Step.",)))
    policy = NoisyPolicy({"t": None}, random.Random(0))
    config = MonteCarloConfig(k=1)
    (word,) = continue_traces([context], policy, config=config, withhold_phi=True)
    assert policy.sent == []
    assert word.label.abstention is not None
    assert word.label.abstention.reason is AbstentionReason.FILTERED
    list(continue_traces([context], policy, config=config))
    assert policy.sent == ["t"]


def test_agreeing_gives_every_trace_a_label_or_a_reason() -> None:
    contexts, _ = planted(3, seed=8)
    clean = {
        c.trace.id: TraceLabel(c.trace.id, tuple(StepLabel(Verdict.CORRECT) for _ in c.trace.steps))
        for c in contexts
    }
    mc = {**clean, "t1": abstained("t1", AbstentionReason.NO_ANSWER)}
    del mc["t2"]
    agreed = agree(contexts, clean, mc)
    assert [label.trace_id for label in agreed] == ["t0", "t1", "t2"]
    assert [label.abstention and label.abstention.reason for label in agreed] == [
        None, AbstentionReason.NO_ANSWER, AbstentionReason.NOT_MEASURED,
    ]  # fmt: skip


def test_stages_are_lazy() -> None:
    contexts, truth = planted(50, seed=9)
    drawn: list[str] = []

    def watched() -> Iterator[TraceInContext]:
        for context in contexts:
            drawn.append(context.trace.id)
            yield context

    policy = NoisyPolicy(truth, random.Random(0))
    stage = continue_traces(watched(), policy, config=MonteCarloConfig(k=1))
    next(stage)
    assert len(drawn) == 1
