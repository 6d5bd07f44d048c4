"""Diagnostics of a labeler: its scores, where it finds errors, and errors in right answers.

A PRM trained on outcomes tends to put its lowest score on the last step (process-to-outcome shift,
arXiv 2501.07301, section 3.2): it judges the answer, not the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.discrimination import ScoreReport, score_report, scored_steps, step_scores
from evaluation.evaluated import EvaluatedTrace, predicted_error, split_by_gold, step_calls
from evaluation.measures import RESAMPLES, Estimate, generator, share_by_problem
from evaluation.wording import figure, figures_json, with_interval


@dataclass(frozen=True, slots=True)
class FalsePositiveSlice:
    """A labeler on the traces with a right final answer and an error."""

    n: int
    """Traces with the right final answer in which gold finds an error."""
    n_right_answer: int
    """All traces with the right final answer and usable gold."""
    answer_unknown: int
    """Traces left out because it is unknown whether the answer is right."""
    error_accuracy: Estimate
    """Share of the n whose first error was predicted exactly; None if n is 0."""
    detected: Estimate
    """Share of the n in which the labeler predicts an error anywhere; None if n is 0."""
    missing: int
    """Of the n, traces without a prediction."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


def false_positive_slice(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> FalsePositiveSlice:
    """Evaluate a labeler on the traces with a right final answer and an error."""
    usable = [
        trace
        for trace in split_by_gold(traces).usable
        if not predicted_error(trace.gold, threshold).missing
    ]
    right = [trace for trace in usable if trace.final_answer_correct]
    wrong_process = [
        trace for trace in right if predicted_error(trace.gold, threshold).index is not None
    ]
    found = [predicted_error(trace.predicted, threshold) for trace in wrong_process]
    exact = [
        error == predicted_error(trace.gold, threshold)
        for error, trace in zip(found, wrong_process, strict=True)
    ]

    def share(holds: Sequence[bool]) -> Estimate:
        problems = [trace.problem_id for trace in wrong_process]
        return share_by_problem(problems, holds, generator(seed, "false-positives"), resamples)

    return FalsePositiveSlice(
        n=len(wrong_process),
        n_right_answer=len(right),
        answer_unknown=sum(trace.final_answer_correct is None for trace in usable),
        error_accuracy=share(exact),
        detected=share([error.index is not None for error in found]),
        missing=sum(error.missing for error in found),
    )


DEPTHS = 10
"""Bins of the relative position of the lowest score."""
LAST_INDEX = 20
"""Steps from this index on share one row."""


@dataclass(frozen=True, slots=True)
class MinimumPosition:
    """Position of the lowest score of a trace; the first of ties."""

    n: int
    """Traces with a score on every step."""
    incomplete: int
    """Other traces, which are left out."""
    share_at_last: Estimate
    """Share of traces whose lowest score is on the last step; None without traces."""
    mean_depth: float | None
    """Mean of (index + 1) / steps, in (0, 1]; None without traces."""
    depths: tuple[int, ...]
    """Traces by that position, in `DEPTHS` bins of equal width; a bin includes its upper edge."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


@dataclass(frozen=True, slots=True)
class StepIndexRow:
    """Gold and a labeler on the steps at one index."""

    index: int
    """0-based; in the last row the steps from here on."""
    open_ended: bool
    """Whether later steps are counted here too."""
    n: int
    """Steps that gold calls correct or incorrect."""
    gold_incorrect: float
    """Share of them that gold calls incorrect."""
    n_called: int
    """Of them, steps that the labeler labels."""
    called_incorrect: float | None
    """Share of those that the labeler calls incorrect; None without any."""
    mean_score: float | None
    """Mean of the labeler's scores there; None without any."""
    gold_first: int
    """Traces whose first error is here by gold."""
    called_first: int
    """Traces whose first error is here by the labeler."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


def minimum_position(
    traces: Sequence[EvaluatedTrace], seed: int = 0, resamples: int = RESAMPLES
) -> MinimumPosition:
    """Positions of the lowest scores of these traces; needs no gold."""
    found: list[tuple[str, int, int]] = []
    for trace in traces:
        scores = [score for score in step_scores(trace) if score is not None]
        if len(scores) == trace.n_steps:
            found.append((trace.problem_id, scores.index(min(scores)), trace.n_steps))
    depths = [0] * DEPTHS
    for _, index, n_steps in found:
        # The bin of (index + 1) / n_steps in integer arithmetic; it includes its upper edge.
        depths[((index + 1) * DEPTHS - 1) // n_steps] += 1
    at_last = [index == n_steps - 1 for _, index, n_steps in found]
    share = share_by_problem(
        [problem for problem, *_ in found], at_last, generator(seed, "minimum"), resamples
    )
    mean = sum((index + 1) / n for _, index, n in found) / len(found) if found else None
    return MinimumPosition(
        n=len(found),
        incomplete=len(traces) - len(found),
        share_at_last=share,
        mean_depth=mean,
        depths=tuple(depths),
    )


def step_index_rows(
    traces: Iterable[EvaluatedTrace], threshold: float = 0.5
) -> tuple[StepIndexRow, ...]:
    """Gold and labeler by step index; indices without gold are left out."""
    size = LAST_INDEX + 1
    n, bad, called, flagged, scored = ([0] * size for _ in range(5))
    first, called_first, total = [0] * size, [0] * size, [0.0] * size
    for trace in split_by_gold(traces).usable:
        truth = step_calls(trace, trace.gold, threshold)
        calls = step_calls(trace, trace.predicted, threshold)
        for index, (incorrect, call, score) in enumerate(
            zip(truth, calls, step_scores(trace), strict=True)
        ):
            if incorrect is None:
                continue
            at = min(index, LAST_INDEX)
            n[at] += 1
            bad[at] += incorrect
            called[at] += call is not None
            flagged[at] += call is True
            if score is not None:
                scored[at] += 1
                total[at] += score
        for label, firsts in ((trace.gold, first), (trace.predicted, called_first)):
            found = predicted_error(label, threshold)
            if not found.missing and found.index is not None:
                firsts[min(found.index, LAST_INDEX)] += 1
    return tuple(
        StepIndexRow(
            index=at,
            open_ended=at == LAST_INDEX,
            n=n[at],
            gold_incorrect=bad[at] / n[at],
            n_called=called[at],
            called_incorrect=flagged[at] / called[at] if called[at] else None,
            mean_score=total[at] / scored[at] if scored[at] else None,
            gold_first=first[at],
            called_first=called_first[at],
        )
        for at in range(size)
        if n[at]
    )


ANSWERS = {True: "answer_right", False: "answer_wrong", None: "answer_unknown"}
"""Names of the groups by correctness of the final answer."""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Diagnostics of one labeler on one dataset."""

    step_scores: ScoreReport | None
    """None if the labeler gives no scores."""
    minimum: MinimumPosition | None
    """Over all traces; None if the labeler gives no scores."""
    minimum_by_answer: Mapping[str, MinimumPosition]
    """By correctness of the final answer; only groups with traces."""
    step_index: tuple[StepIndexRow, ...]
    false_positives: FalsePositiveSlice
    """Right answer, wrong process, over all subsets pooled."""
    false_positives_by_subset: Mapping[str, FalsePositiveSlice]
    """The same by subset, in alphabetical order."""

    def as_json(self) -> dict[str, Any]:
        """The key `diagnostics` of `stepgold evaluate`."""
        return {
            "step_scores": None if self.step_scores is None else self.step_scores.as_json(),
            "minimum_position": None
            if self.minimum is None
            else self.minimum.as_json()
            | {name: found.as_json() for name, found in self.minimum_by_answer.items()},
            "step_index": [row.as_json() for row in self.step_index],
            "right_answer_wrong_process": self.false_positives.as_json()
            | {
                "subsets": {
                    name: found.as_json() for name, found in self.false_positives_by_subset.items()
                }
            },
        }

    def lines(self) -> list[str]:
        """The diagnostics as text, one line a topic."""
        lines = []
        if self.step_scores is not None:
            scores = self.step_scores
            lines.append(
                f"step scores: AUROC {with_interval(scores.auroc)}, average precision of incorrect "
                f"steps {with_interval(scores.average_precision_incorrect)}, "
                f"Brier {figure(scores.brier.value)}"
            )
        if self.minimum is not None:
            lines.append(
                f"lowest score on the last step: {with_interval(self.minimum.share_at_last)}"
            )
        slice_ = self.false_positives
        if slice_.n:
            lines.append(
                f"right answer, wrong process: {slice_.n} traces, first error found "
                f"{with_interval(slice_.error_accuracy)}, any error found "
                f"{with_interval(slice_.detected)}"
            )
        return lines


def diagnose(
    traces: Sequence[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Diagnostics:
    """All diagnostics of a labeler; arguments as in `evaluate_processbench`."""
    steps = scored_steps(traces)
    gives_scores = any(
        step.score is not None
        for trace in traces
        if trace.predicted is not None
        for step in trace.predicted.step_labels
    )
    by_answer = {
        name: group
        for correct, name in ANSWERS.items()
        if (group := [trace for trace in traces if trace.final_answer_correct is correct])
    }
    subsets = sorted({trace.subset for trace in traces})
    return Diagnostics(
        step_scores=score_report(steps, seed, resamples) if gives_scores else None,
        minimum=minimum_position(traces, seed, resamples) if gives_scores else None,
        minimum_by_answer={
            name: minimum_position(group, seed, resamples) for name, group in by_answer.items()
        }
        if gives_scores
        else {},
        step_index=step_index_rows(traces, threshold),
        false_positives=false_positive_slice(traces, threshold, seed, resamples),
        false_positives_by_subset={
            name: false_positive_slice(
                [trace for trace in traces if trace.subset == name], threshold, seed, resamples
            )
            for name in subsets
        },
    )
