"""The posterior of a trace's first error from any number of labelers, fitted without gold.

The method of Dawid and Skene (1979, "Maximum likelihood estimation of observer error-rates using
the EM algorithm") with the *first error* as the latent class: a step of the trace, or none. Each
labeler has a confusion of six rates instead of a matrix, so that traces of any length share them:

- where the trace has no error, the share of false alarms (at a step drawn uniformly);
- where step e is the first error, the share that miss it, name an earlier step, or name a later
  step, each conditional on the ones before it and on such a step existing; how often an earlier or
  a later step is the neighbor of e.

A labeler with step scores (a PRM, Monte Carlo counts) gives a second kind of evidence: how its
scores are distributed over steps before the first error, and from it on, in bins learned along with
everything else. The scores of one trace depend on each other (one problem, one policy): as
independent evidence they outvote every labeler. So they weigh `SCORE_WEIGHT` each, and only beside
at least three labelers; of two, the one with scores would decide alone.

Traces on which an anchor (gold or an expert) names the first error are taken as known, and count
`ANCHOR_WEIGHT` times, so that a few dozen of them decide which of two labelers is to be believed.
Without one, two labelers leave that open, which `FirstErrorPosterior.identified` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ANCHOR_WEIGHT = 3.0
"""How often a trace with a known first error counts in the estimates."""
SCORE_WEIGHT = 0.1
"""The weight of the score of one step, as a power of its likelihood."""
SCORED_FROM = 3
"""The number of labelers from which on scores are used."""
BINS = 8
"""The most bins of a labeler's scores; they hold equal shares of all its scores."""
MAX_ROUNDS = 300
TOLERANCE = 1e-6
"""EM ends when no rate changes by more."""
AT_ONCE = 500_000
"""Steps of patterns, filled up to the longest, that are worked on at a time."""

_START = {
    "false_alarm": 0.1,
    "missed": 0.1,
    "early": 0.06,
    "late": 0.06,
    "early_next": 0.5,
    "late_next": 0.5,
}
"""A labeler is right four times in five to begin with; otherwise EM may swap their roles."""
_PSEUDO = 4.0
"""The least number of traces that the start counts for."""
_PRIOR_SHARE = 0.1
"""The start counts for this share of the traces, however many there are: labelers depend on each
other in ways that the rates do not show, and a rate that is estimated as 0 would make a labeler
infallible where it differs from the others."""
_GROUP_PSEUDO = 20.0
"""How many traces the estimate over all groups counts for in the estimate of one group."""


@dataclass(frozen=True, kw_only=True)
class NamedFirstErrors:
    """What one labeler says of each of n traces."""

    name: str
    given: Flags
    """(n,) whether it names a first error, "no error" included."""
    index: Ints
    """(n,) the 0-based step it names, or the number of steps for none; read where `given`."""
    scores: Floats | None = None
    """(n, longest) its step scores in [0, 1], higher is better; read where `scored`."""
    scored: Flags | None = None
    """(n, longest) whether a step has a score; None: every step that exists."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """What a labeler does with each kind of trace, as estimated; rates in [0, 1]."""

    false_alarm: float
    """Names an error where there is none."""
    missed: float
    """Names none where there is one."""
    early: float
    """Names an earlier step, where it names one and there is an earlier one."""
    late: float
    """Names a later step, where it names one that is not earlier and there is a later one."""
    early_next: float
    """Of the earlier steps it names the one right before the error."""
    late_next: float
    """Of the later steps it names the one right after the error."""

    def as_json(self) -> dict[str, Any]:
        """The rates by name."""
        return {each.name: round(getattr(self, each.name), 6) for each in fields(self)}


@dataclass(frozen=True)
class FirstErrorPosterior:
    """The estimate."""

    probabilities: Floats
    """(n, longest + 1): the probability that the first error is step t of trace i; the column of
    a trace's number of steps is "no error"; columns beyond it are 0."""
    confusions: Mapping[str, Mapping[str, Confusion]]
    """Per group of traces and labeler."""
    no_error: Mapping[str, float]
    """Per group, the estimated share of traces without an error."""
    identified: bool
    """False where two labelers or fewer are compared without an anchor: the data cannot show which
    of them is right where they differ."""
    rounds: int
    """Rounds of EM, over all groups."""


def first_error_posterior(
    steps: Ints,
    labelers: Sequence[NamedFirstErrors],
    *,
    groups: Sequence[str] | None = None,
    anchor: NamedFirstErrors | None = None,
) -> FirstErrorPosterior:
    """Fit the confusions of all labelers and the posterior of every trace's first error.

    Traces on which all labelers say the same count as one pattern. Memory grows with the number of
    traces by their posteriors and patterns alone. The order of traces and labelers changes nothing
    but the last digits.

    Args:
        steps: (n,) number of steps of each trace, at least 1.
        labelers: at least one; a trace on which a labeler says nothing carries no information.
        groups: (n,) names, such as subsets; each has its own estimates, with those over all traces
            as the prior. None: all traces are one group.
        anchor: first errors taken as the truth, on any of the traces.

    Raises:
        ValueError: no labeler, or arrays of different lengths.
    """
    if not labelers or any(len(one.given) != len(steps) for one in labelers):
        raise ValueError("at least one labeler, and one entry per trace from each")
    patterns = _Patterns.of(steps, labelers, groups, anchor)
    pooled = _Estimate(labelers, patterns.bins)
    rounds = pooled.fit(patterns)
    posterior, confusions, shares = np.zeros(patterns.latent.shape), {}, {}
    for number, group in enumerate(patterns.groups):
        chosen, own = np.flatnonzero(patterns.group == number), pooled
        part = patterns.at(chosen)
        if len(patterns.groups) > 1:
            own = pooled.for_group()
            rounds += own.fit(part)
        for rows, some in part.chunks():
            found = own.posterior(some)
            posterior[chosen[rows], : found.shape[1]] = found
        rates = (Confusion(**rates) for rates in own.rates)
        confusions[group] = dict(zip((one.name for one in labelers), rates, strict=True))
        shares[group] = own.no_error
    anchored = anchor is not None and bool(anchor.given.any())
    return FirstErrorPosterior(
        probabilities=posterior[patterns.of_trace],
        confusions=confusions,
        no_error=shares,
        identified=anchored or len(labelers) > 2,
        rounds=rounds,
    )


@dataclass(frozen=True, kw_only=True)
class _Patterns:
    """The distinct things that labelers say of a trace."""

    steps: Ints
    """(p,)"""
    named: Ints
    """(labelers, p) the step named; the number of steps for none."""
    given: Flags
    """(labelers, p)"""
    score_bins: Ints
    """(labelers, p, longest) the bin of each score from 1; 0 for no score."""
    bins: tuple[int, ...]
    """Per labeler the number of bins, 0 without scores."""
    known: Ints
    """(p,) the anchored first error; read only where `anchored`."""
    anchored: Flags
    """(p,)"""
    group: Ints
    """(p,)"""
    count: Floats
    """(p,) how many traces have it, an anchored one `ANCHOR_WEIGHT` times."""
    of_trace: Ints
    """(n,) the pattern of each trace."""
    groups: tuple[str, ...]

    @classmethod
    def of(
        cls,
        steps: Ints,
        labelers: Sequence[NamedFirstErrors],
        groups: Sequence[str] | None,
        anchor: NamedFirstErrors | None,
    ) -> _Patterns:
        """The patterns of all traces."""
        of_group = [""] * len(steps) if groups is None else groups
        names, group = np.unique(of_group, return_inverse=True)
        longest, many = int(steps.max(initial=0)), len(labelers)
        bins, binned = zip(*(_binned(one, steps, longest, many) for one in labelers), strict=True)
        columns: list[Ints | Flags] = [steps, group]
        for one in labelers:
            columns += [one.given, np.where(one.given, one.index, 0)]
        if anchor is None:
            columns += [np.zeros(len(steps), bool), np.zeros(len(steps), int)]
        else:
            columns += [anchor.given, np.where(anchor.given, anchor.index, 0)]
        table = np.stack([np.asarray(column, np.int32) for column in columns], axis=1)
        table = np.concatenate([table, *(each for each in binned if each.shape[1])], axis=1)
        rows, of_trace, count = np.unique(table, axis=0, return_inverse=True, return_counts=True)
        votes, rest = rows[:, 2 : 2 + 2 * many].T, rows[:, 4 + 2 * many :]
        anchored = rows[:, 2 + 2 * many].astype(bool)
        score_bins = np.zeros((many, len(rows), longest), np.int8)
        scored = [place for place, number in enumerate(bins) if number]
        for order, place in enumerate(scored):
            score_bins[place] = rest[:, order * longest : (order + 1) * longest]
        return cls(
            steps=rows[:, 0],
            named=votes[1::2],
            given=votes[0::2].astype(bool),
            score_bins=score_bins,
            bins=bins,
            known=rows[:, 3 + 2 * many],
            anchored=anchored,
            group=rows[:, 1],
            count=np.asarray(count, np.float64) * np.where(anchored, ANCHOR_WEIGHT, 1.0),
            of_trace=of_trace.reshape(-1),
            groups=tuple(str(name) for name in names),
        )

    def at(self, rows: Ints | slice) -> _Patterns:
        """Some of the patterns."""
        return _Patterns(
            steps=self.steps[rows],
            named=self.named[:, rows],
            given=self.given[:, rows],
            score_bins=self.score_bins[:, rows],
            bins=self.bins,
            known=self.known[rows],
            anchored=self.anchored[rows],
            group=self.group[rows],
            count=self.count[rows],
            of_trace=self.of_trace,
            groups=self.groups,
        )

    def chunks(self) -> Iterator[tuple[slice, _Patterns]]:
        """The patterns, some at a time, each with its rows; as wide as their longest trace.

        They are in the order of their lengths, so that one long trace widens few others.
        """
        start = 0
        while start < len(self.steps):
            widths = self.steps[start : start + AT_ONCE].astype(np.int64) + 1
            sizes = widths * np.arange(1, len(widths) + 1)
            rows = slice(start, start + max(1, int(np.searchsorted(sizes, AT_ONCE, "right"))))
            some = self.at(rows)
            narrow = some.score_bins[:, :, : some.steps[-1]]
            yield rows, replace(some, score_bins=narrow)
            start = rows.stop

    @property
    def truths(self) -> Ints:
        """(1, longest + 1) the first errors of the longest trace."""
        return np.arange(self.score_bins.shape[2] + 1)[None, :]

    @property
    def latent(self) -> Flags:
        """(p, longest + 1) the first errors that a pattern's traces can have."""
        return np.asarray(self.truths <= self.steps[:, None])


def _binned(
    labeler: NamedFirstErrors, steps: Ints, longest: int, labelers: int
) -> tuple[int, Ints]:
    """The number of bins, and (n, longest) the bin of each score; (n, 0) without scores."""
    if labeler.scores is None or labelers < SCORED_FROM:
        return 0, np.zeros((len(steps), 0), np.int32)
    exists = np.arange(longest) < steps[:, None]
    scored = exists if labeler.scored is None else exists & labeler.scored
    values = labeler.scores[scored]
    cuts = np.unique(np.quantile(values, np.arange(1, BINS) / BINS)) if len(values) else values
    found = np.zeros(exists.shape, np.int32)
    found[scored] = 1 + np.searchsorted(cuts, values, side="left")
    return len(cuts) + 1, found


class _Estimate:
    """The parameters, and EM over them."""

    def __init__(self, labelers: Sequence[NamedFirstErrors], bins: Sequence[int]) -> None:
        self.no_error = 0.5
        self.rates = [dict(_START) for _ in labelers]
        # Before and from the first error on, the share of each bin; higher scores are better.
        self.shares = [_start_shares(number) for number in bins]
        self._strength = _PSEUDO
        self._prior = (self.no_error, self.rates, self.shares)

    def for_group(self) -> _Estimate:
        """An estimate that begins at this one, and is drawn to it."""
        made = _Estimate.__new__(_Estimate)
        made.no_error, made.rates, made.shares = self.no_error, self.rates, self.shares
        made._strength = _GROUP_PSEUDO
        made._prior = (self.no_error, self.rates, self.shares)
        return made

    def fit(self, patterns: _Patterns) -> int:
        """Repeat estimating posteriors and rates until nothing changes; the number of rounds."""
        before = self._flat()
        for done in range(1, MAX_ROUNDS + 1):
            self._round(patterns)
            after = self._flat()
            if np.abs(after - before).max(initial=0.0) < TOLERANCE:
                return done
            before = after
        return MAX_ROUNDS

    def _flat(self) -> Floats:
        rates = [value for rates in self.rates for value in rates.values()]
        shares = [value for shares in self.shares for value in shares.ravel()]
        return np.array([self.no_error, *rates, *shares])

    def _round(self, patterns: _Patterns) -> None:
        """One step of EM: the posteriors by the present rates, then the rates by them."""
        prior_clean, prior_rates, prior_shares = self._prior
        pseudo = max(self._strength, _PRIOR_SHARE * float(patterns.count.sum()))
        clean, total = prior_clean * self._strength / 2, self._strength / 2
        happened = [{name: rate * pseudo for name, rate in one.items()} for one in prior_rates]
        possible = [dict.fromkeys(one, pseudo) for one in prior_rates]
        bins = [shares * pseudo for shares in prior_shares]
        for _, some in patterns.chunks():
            views = self._views(some)
            weights = self._posterior(some, views) * some.count[:, None]
            clean += float(weights[some.truths == some.steps[:, None]].sum())
            total += float(weights.sum())
            for place, view in enumerate(views):
                for name, (yes, all_) in view.counts(weights).items():
                    happened[place][name] += yes
                    possible[place][name] += all_
                bins[place] = bins[place] + _bin_counts(
                    some.score_bins[place], weights, bins[place]
                )
        self.no_error = clean / total
        self.rates = [
            {name: yes / possible[place][name] for name, yes in one.items()}
            for place, one in enumerate(happened)
        ]
        self.shares = [each / each.sum(axis=1, keepdims=True) for each in bins]

    def posterior(self, patterns: _Patterns) -> Floats:
        """(p, longest + 1) the posterior of each pattern's first error."""
        return self._posterior(patterns, self._views(patterns))

    def _views(self, patterns: _Patterns) -> list[_View]:
        return [_View.of(patterns, place) for place in range(len(self.rates))]

    def _posterior(self, patterns: _Patterns, views: Sequence[_View]) -> Floats:
        none = patterns.truths == patterns.steps[:, None]
        prior = np.where(none, self.no_error, (1 - self.no_error) / patterns.steps[:, None])
        logs = np.log(prior)
        for place, view in enumerate(views):
            logs += view.log_likelihood(self.rates[place])
            if patterns.bins[place]:
                logs += SCORE_WEIGHT * _score_evidence(
                    patterns.score_bins[place], self.shares[place]
                )
        latent = patterns.latent
        logs -= np.where(latent, logs, logs.min()).max(axis=1, keepdims=True)
        weights = np.where(latent, np.exp(logs), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        known = patterns.truths == patterns.known[:, None]
        return np.where(patterns.anchored[:, None], known, weights)


def _start_shares(bins: int) -> Floats:
    rising = np.linspace(1, 3, bins)
    shares = np.stack([rising, rising[::-1]])
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _score_evidence(score_bins: Ints, shares: Floats) -> Floats:
    """(p, longest + 1) log P(scores | first error): steps before it and steps from it on."""
    # Bin 0 is "no score": no evidence.
    before, after = (np.append(0.0, np.log(row))[score_bins] for row in shares)
    start = np.zeros((len(score_bins), 1))
    earlier = np.concatenate([start, before.cumsum(axis=1)], axis=1)
    later = np.concatenate([start, after.cumsum(axis=1)], axis=1)
    return np.asarray(earlier + later[:, -1:] - later)


def _bin_counts(score_bins: Ints, weights: Floats, like: Floats) -> Floats:
    """(2, bins) how often each bin comes before the first error, and from it on."""
    if not like.shape[1]:
        return np.zeros_like(like)
    reached = weights.cumsum(axis=1)[:, :-1]
    parts = (weights.sum(axis=1, keepdims=True) - reached, reached)
    size = like.shape[1] + 1
    counted = [np.bincount(score_bins.ravel(), part.ravel(), minlength=size)[1:] for part in parts]
    return np.stack(counted)


@dataclass(frozen=True)
class _View:
    """How what one labeler names relates to each possible first error; masks are (p, longest + 1)
    and False where the labeler names nothing."""

    kinds: Flags
    """(6, p, longest + 1): no error on both sides, false alarm, missed, exact, early, late."""
    near: Flags
    """Names the step right before or after."""
    can_early: Flags
    can_late: Flags
    """Whether the first error has an earlier (a later) step at all."""
    early_choice: Flags
    late_choice: Flags
    """Whether it has more than one."""
    elsewhere: Floats
    """log of the chance to name this step among those of its kind that are not neighbors."""

    @classmethod
    def of(cls, patterns: _Patterns, place: int) -> _View:
        """The view of one labeler."""
        named = patterns.named[place][:, None]
        given = patterns.given[place][:, None]
        steps = patterns.steps[:, None]
        truth = patterns.truths
        valid = patterns.latent & given
        error, names_none = valid & (truth < steps), named == steps
        clean = valid & (truth == steps)
        early, late = error & (named < truth), error & (named > truth) & ~names_none
        kinds = np.stack(
            [
                clean & names_none,
                clean & ~names_none,
                error & names_none,
                error & (named == truth),
                early,
                late,
            ]
        )
        others = np.ones(valid.shape)
        others = np.where(kinds[1], steps, others)
        near = np.abs(named - truth) == 1
        others = np.where(early & ~near, np.maximum(truth - 1, 1), others)
        others = np.where(late & ~near, np.maximum(steps - truth - 2, 1), others)
        return cls(
            kinds=kinds,
            near=near & (early | late),
            can_early=error & (truth > 0),
            can_late=error & (truth < steps - 1),
            early_choice=error & (truth > 1),
            late_choice=error & (truth < steps - 2),
            elsewhere=-np.log(others),
        )

    def log_likelihood(self, rates: Mapping[str, float]) -> Floats:
        """(p, longest + 1) log P(what the labeler says | first error); 0 where it says nothing."""
        yes = {name: np.log(rate) for name, rate in rates.items()}
        no = {name: np.log1p(-rate) for name, rate in rates.items()}
        clear, alarm, missed, exact, early, late = self.kinds
        logs = np.where(clear, no["false_alarm"], 0.0) + np.where(alarm, yes["false_alarm"], 0.0)
        logs += np.where(missed, yes["missed"], 0.0)
        logs += np.where(exact | early | late, no["missed"], 0.0)
        logs += np.where(early, yes["early"], 0.0)
        logs += np.where((exact | late) & self.can_early, no["early"], 0.0)
        logs += np.where(late, yes["late"], 0.0)
        logs += np.where(exact & self.can_late, no["late"], 0.0)
        for kind, choice, name in (
            (early, self.early_choice, "early_next"),
            (late, self.late_choice, "late_next"),
        ):
            chosen = kind & choice
            logs += np.where(chosen, np.where(self.near, yes[name], no[name]), 0.0)
        return np.asarray(logs + self.elsewhere)

    def counts(self, weights: Floats) -> dict[str, tuple[float, float]]:
        """For each rate how often it happened, and how often it could have."""
        clear, alarm, missed, exact, early, late = self.kinds

        def total(mask: Flags) -> float:
            return float(weights[mask].sum())

        return {
            "false_alarm": (total(alarm), total(alarm | clear)),
            "missed": (total(missed), total(missed | exact | early | late)),
            "early": (total(early), total((early | exact | late) & self.can_early)),
            "late": (total(late), total((exact | late) & self.can_late)),
            "early_next": (
                total(early & self.early_choice & self.near),
                total(early & self.early_choice),
            ),
            "late_next": (
                total(late & self.late_choice & self.near),
                total(late & self.late_choice),
            ),
        }
