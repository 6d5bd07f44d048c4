"""Selection and soft labels: which traces a training set takes, and what it says of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from traces import (
    Abstention,
    AbstentionReason,
    InputError,
    StepLabel,
    TraceLabel,
    first_error,
)


@dataclass(frozen=True, slots=True)
class Filtered:
    """Why a trace is not kept."""

    name: str
    """The filter, one of `FILTERS`."""
    detail: str
    """One sentence without its full stop."""

    def abstention(self, trace_id: str) -> TraceLabel:
        """The label that is stored instead: an abstention that names the filter in its meta."""
        reason = Abstention(AbstentionReason.FILTERED, self.detail)
        return TraceLabel(trace_id, abstention=reason, meta={"filter": self.name})


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is kept of a trace that passed the filters on single traces, until all were seen."""

    id: str
    problem: str
    subset: str
    order: bytes
    """Where it comes in a sample; independent of the order of the traces."""
    has_error: bool | None
    """None if its label leaves that open."""
    right: bool
    signature: bytes | None
    """The MinHash values, for near-duplicates."""
    rank: float | None
    """For a selection: the higher, the sooner it is kept. None if it cannot be ranked."""


Removal = tuple[Candidate, Filtered]
"""A trace that is not kept, and why."""
Ranking = Literal["bis", "uncertain", "random"]
_BIS_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the traces that pass the filters are chosen, and how many."""

    ranking: Ranking
    """bis: mixed but reliable Monte Carlo counts first (`balanced_information`). uncertain: the
    least certain labels first (`uncertainty`). random: a sample."""
    share: float | None
    """Share of each subset, in (0, 1]; None for a count."""
    count: int | None
    """Traces in all; None for a share."""

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read `bis:0.1` (a share of every subset), `uncertain:500` or `random:500` (a count).

        Raises:
            InputError: it is none of these.
        """
        name, _, amount = text.partition(":")
        if name in ("bis", "uncertain", "random"):
            if amount.isdecimal() and int(amount) > 0:
                return cls(name, None, int(amount))  # type: ignore[arg-type]
            if re.fullmatch(r"0?\.\d+|1\.0+", amount) and 0 < float(amount) <= 1:
                return cls(name, float(amount), None)  # type: ignore[arg-type]
        raise InputError(
            f"{text!r} is not a selection.",
            where="--select",
            remedy="give a share or a number of traces: bis:0.1, uncertain:500, random:500",
        )

    def rank(self, label: TraceLabel, measured: TraceLabel | None) -> float | None:
        """The higher, the sooner a trace is chosen; None if it cannot be ranked.

        Args:
            label: the label.
            measured: the Monte Carlo label of the trace; None if there is none.
        """
        if self.ranking == "random":
            return 0.0
        if self.ranking == "uncertain":
            return uncertainty(label)
        steps = () if measured is None else measured.step_labels
        scores = [step.score for step in steps if step.score is not None]
        return balanced_information(scores) if scores else None

    def left_out(self, candidates: Sequence[Candidate]) -> Iterator[Removal]:
        """The candidates, in sampling order, that are not chosen.

        Raises:
            InputError: no candidate can be ranked.
        """
        ranked = [one for one in candidates if one.rank is not None]
        if candidates and not ranked:
            raise InputError(
                f"No label can be ranked by '{self.ranking}'.",
                where="--select",
                remedy="bis needs Monte Carlo labels (or a consensus of them), uncertain needs"
                " scores or the rule bayes: choose another --labeler, or --select random:N",
            )
        groups = defaultdict[str, list[Candidate]](list)
        for one in ranked:
            groups["" if self.share is None else one.subset].append(one)
        for group in groups.values():
            # Stable: candidates of equal rank stay in sampling order.
            best = sorted(group, key=lambda one: -(one.rank or 0.0))
            share = self.share
            count = self.count or 0 if share is None else max(1, whole_part(share, len(best)))
            for one in best[count:]:
                detail = f"not among the {count} of {len(best)} traces chosen by {self.ranking}"
                yield one, Filtered("select", detail)
        for one in candidates:
            if one.rank is None:
                detail = f"nothing to rank it by {self.ranking}"
                yield one, Filtered("select", detail)


def whole_part(ratio: float, count: int) -> int:
    """How many a decimal ratio of a count is, rounded down: .29 of 100 is 29, not int(28.99...)."""
    return int(Decimal(str(ratio)) * count)


def balanced_information(scores: Sequence[float]) -> float:
    """The Balanced-Information Score of a trace: mixed labels count, and reliable right ones.

    (p (1 - p) + 0.05) R, with p the share of steps of which any continuation succeeded, and R the
    mean Monte Carlo score of these; R = 1 where there is none. Source: arXiv 2602.04145 and its
    code (JinYuanLi0012/Balanced-Info-MPRM).

    Args:
        scores: successes / continuations of the steps, at least one.
    """
    right = [score for score in scores if score > 0]
    share = len(right) / len(scores)
    reliability = sum(right) / len(right) if right else 1.0
    return (share * (1 - share) + _BIS_ALPHA) * reliability


def uncertainty(label: TraceLabel) -> float | None:
    """How uncertain a label is: 0 is certain.

    1 - the highest posterior of a `bayes` consensus; else, of the steps up to the first error, the
    score closest to 0.5, as min(p, 1 - p); None without either.
    """
    if posterior := label.meta.get("posterior"):
        return 1.0 - float(max(posterior))
    error = first_error(label)
    steps = label.step_labels[: None if error.index is None else error.index + 1]
    scores = [min(step.score, 1 - step.score) for step in steps if step.score is not None]
    return max(scores, default=None)


def beta_label(label: TraceLabel, measured: TraceLabel | None) -> TraceLabel | Filtered:
    """The label with the posterior mean of the Monte Carlo counts in place of its verdicts.

    A step with s successes of n continuations gets (s + 1) / (n + 2), the mean of its Beta
    posterior after a uniform prior: 0 of 4 is less certain than 0 of 16. Steps without a label
    keep none.

    Args:
        label: the label to make soft.
        measured: the Monte Carlo label with the counts; None if there is none.
    """
    if measured is None or len(measured.step_labels) != len(label.step_labels):
        return Filtered("soft", "no Monte Carlo counts")
    pairs = zip(label.step_labels, measured.step_labels, strict=True)
    steps = tuple(_soft(own, counted) for own, counted in pairs)
    if all(step.score is None for step in steps):
        return Filtered("soft", "no Monte Carlo counts on the steps that are labeled")
    return replace(label, step_labels=steps, first_error_given=False, first_error_index=None)


def _soft(own: StepLabel, counted: StepLabel) -> StepLabel:
    if own.abstention is not None:
        return own
    if not counted.continuations or counted.successes is None:
        reason = Abstention(AbstentionReason.NOT_MEASURED, "no Monte Carlo counts")
        return StepLabel(abstention=reason)
    score = (counted.successes + 1) / (counted.continuations + 2)
    return replace(counted, verdict=None, score=score)
