"""Diagnostics of a labeler: its scores, where it finds errors, and errors in right answers.

A PRM trained on outcomes tends to put its lowest score on the last step (process-to-outcome shift,
arXiv 2501.07301, section 3.2): it judges the answer, not the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.discrimination import ScoreReport, score_report, scored_steps, summed
from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces, split_by_gold
from evaluation.frames import (
    RIGHT,
    UNKNOWN,
    WRONG,
    FirstErrors,
    Index,
    Mask,
    step_calls,
)
from evaluation.measures import RESAMPLES, Estimate, generator, share_by_problem, subset_places
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
    return _false_positives(split_by_gold(traces).usable, threshold, seed=seed, resamples=resamples)


def _false_positives(
    usable: EvaluatedTraces, threshold: float, *, seed: int, resamples: int
) -> FalsePositiveSlice:
    gold, found = usable.gold_errors(threshold), usable.found_errors(threshold)
    stated, right = ~gold.missing, usable.frame.right
    answered = stated & (right == RIGHT)
    wrong_process = answered & gold.named
    problems = usable.frame.problem[wrong_process]

    def share(holds: Mask) -> Estimate:
        rng = generator(seed, "false-positives")
        return share_by_problem(problems, holds[wrong_process], rng, resamples)

    return FalsePositiveSlice(
        n=len(problems),
        n_right_answer=int(answered.sum()),
        answer_unknown=int((stated & (right == UNKNOWN)).sum()),
        error_accuracy=share(found.equal(gold)),
        detected=share(found.named),
        missing=int(found.missing[wrong_process].sum()),
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
    traces: Iterable[EvaluatedTrace], seed: int = 0, resamples: int = RESAMPLES
) -> MinimumPosition:
    """Positions of the lowest scores of these traces; needs no gold."""
    known = EvaluatedTraces.of(traces)
    everywhere = np.ones(len(known), np.bool_)
    return _minimum(known, _lowest(known), everywhere, seed=seed, resamples=resamples)


def _minimum(
    traces: EvaluatedTraces,
    lowest: tuple[Index, Index],
    among: Mask,
    *,
    seed: int,
    resamples: int,
) -> MinimumPosition:
    """Positions of the lowest scores of the traces for which `among` holds."""
    frame = traces.frame
    here = among[lowest[0]]
    whole, index = lowest[0][here], lowest[1][here]
    lengths = frame.n_steps[whole]
    # The bin of (index + 1) / n_steps in integer arithmetic; it includes its upper edge.
    depths = np.bincount(((index + 1) * DEPTHS - 1) // lengths, minlength=DEPTHS)
    share = share_by_problem(
        frame.problem[whole], index == lengths - 1, generator(seed, "minimum"), resamples
    )
    mean = sum(((index + 1) / lengths).tolist()) / len(whole) if len(whole) else None
    return MinimumPosition(
        n=len(whole),
        incomplete=int(among.sum()) - len(whole),
        share_at_last=share,
        mean_depth=mean,
        depths=tuple(depths.tolist()),
    )


def _lowest(traces: EvaluatedTraces) -> tuple[Index, Index]:
    """The traces with a score on every step, and the index of the lowest; the first of ties."""
    frame, labels = traces.frame, traces.predicted
    at = np.flatnonzero(frame.total(labels.scored) == frame.n_steps)
    if not len(at):
        return at, at
    index = np.empty(len(frame), np.int64)
    for block, steps in frame.blocks():
        score, starts = labels.score[steps], frame.starts[block] - steps.start
        lowest = np.repeat(np.minimum.reduceat(score, starts), frame.n_steps[block])
        places = np.flatnonzero(score == lowest)
        index[block] = places[np.searchsorted(places, starts)] - starts
    return at, index[at]


def step_index_rows(
    traces: Iterable[EvaluatedTrace], threshold: float = 0.5
) -> tuple[StepIndexRow, ...]:
    """Gold and labeler by step index; indices without gold are left out."""
    known, size = split_by_gold(traces).usable, LAST_INDEX + 1
    frame = known.frame
    truth, incorrect = known.gold_calls(threshold)
    calls, wrong = step_calls(frame, known.predicted, threshold)
    scored = truth & known.predicted.scored
    at_step = np.empty(int(frame.starts[-1]), np.int8)
    for traces_, steps in frame.blocks():
        at_step[steps] = np.minimum(frame.position(traces_), LAST_INDEX)

    def count(mask: Mask) -> list[int]:
        found = summed(at_step, lambda part: mask[part].astype(np.float64), size)
        return [int(n) for n in found]

    def firsts(errors: FirstErrors) -> list[int]:
        found = np.minimum(errors.index[errors.named], LAST_INDEX)
        return [int(n) for n in np.bincount(found, minlength=size)]

    n, bad = count(truth), count(truth & incorrect)
    called, flagged = count(truth & calls), count(truth & calls & wrong)
    score = known.predicted.score
    total = summed(at_step, lambda part: np.where(scored[part], score[part], 0.0), size).tolist()
    n_scored = count(scored)
    first, called_first = (
        firsts(known.gold_errors(threshold)),
        firsts(known.found_errors(threshold)),
    )
    return tuple(
        StepIndexRow(
            index=at,
            open_ended=at == LAST_INDEX,
            n=n[at],
            gold_incorrect=bad[at] / n[at],
            n_called=called[at],
            called_incorrect=flagged[at] / called[at] if called[at] else None,
            mean_score=total[at] / n_scored[at] if n_scored[at] else None,
            gold_first=first[at],
            called_first=called_first[at],
        )
        for at in range(size)
        if n[at]
    )


ANSWERS = {RIGHT: "answer_right", WRONG: "answer_wrong", UNKNOWN: "answer_unknown"}
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
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Diagnostics:
    """All diagnostics of a labeler; arguments as in `evaluate_processbench`."""
    known = EvaluatedTraces.of(traces)
    right = known.frame.right
    gives_scores = bool(known.predicted.scored.any())
    usable = split_by_gold(known).usable
    lowest = _lowest(known)
    return Diagnostics(
        step_scores=score_report(scored_steps(usable), seed, resamples) if gives_scores else None,
        minimum=minimum_position(known, seed, resamples) if gives_scores else None,
        minimum_by_answer={
            name: _minimum(known, lowest, among, seed=seed, resamples=resamples)
            for answer, name in ANSWERS.items()
            if gives_scores and (among := right == answer).any()
        },
        step_index=step_index_rows(usable, threshold),
        false_positives=_false_positives(usable, threshold, seed=seed, resamples=resamples),
        false_positives_by_subset=_by_subset(
            known, usable, threshold, seed=seed, resamples=resamples
        ),
    )


def _by_subset(
    traces: EvaluatedTraces,
    usable: EvaluatedTraces,
    threshold: float,
    *,
    seed: int,
    resamples: int,
) -> dict[str, FalsePositiveSlice]:
    """The slice of every subset, also of one without usable gold."""
    places = subset_places(usable)
    return {
        name: _false_positives(
            usable.take(places.get(name, np.zeros(0, dtype=np.int64))),
            threshold,
            seed=seed,
            resamples=resamples,
        )
        for name in subset_places(traces)
    }
