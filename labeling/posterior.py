"""The posterior of a trace's first error from any number of labelers, fitted without gold.

The method of Dawid and Skene (1979, "Maximum likelihood estimation of observer error-rates using
the EM algorithm") with the *first error* as the latent class: a step of the trace, or none. Each
labeler has a confusion of five rates instead of a matrix, so that traces of any length share them:

- where the trace has no error, the share of false alarms (at a step drawn uniformly);
- where step e is the first error, the share that miss it, name an earlier step, or name a later
  step, each conditional on the ones before it and on such a step existing; how often an earlier or
  a later step is the neighbor of e.

A labeler with step scores also says how sure it is: the score of the step that it names, or its
lowest score where it names none, falls into one of three bands, and each kind of agreement with
the truth has its own shares of the bands. Scores, Monte Carlo counts included, count for nothing
else: the counts of one trace depend on each other (one problem, one policy), and taken as
independent evidence they outvote every other labeler.

Traces on which an anchor (gold or an expert) names the first error are taken as known, and count
`ANCHOR_WEIGHT` times, so that a few dozen of them decide which of two labelers is to be believed.
Without one, two labelers leave that open, which `FirstErrorPosterior.identified` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ANCHOR_WEIGHT = 8.0
"""How often a trace with a known first error counts in the estimates."""
BANDS = 3
"""How many bands of certainty a labeler with scores has."""
MAX_ROUNDS = 300
TOLERANCE = 1e-6
"""EM ends when no posterior changes by more."""

_RATES = ("false_alarm", "missed", "early", "late", "early_next", "late_next")
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
"""How many traces the start counts for."""
GROUP_PSEUDO = 20.0
"""How many traces the estimate over all groups counts for in the estimate of one group."""
_KINDS = ("no_error", "false_alarm", "missed", "exact", "early", "late")
"""How what a labeler names can relate to the truth."""


@dataclass(frozen=True, kw_only=True)
class NamedFirstErrors:
    """What one labeler says of each of n traces."""

    name: str
    given: Flags
    """(n,) whether it names a first error, "no error" included."""
    index: Ints
    """(n,) the 0-based step it names; the number of steps where it names none, or nothing."""
    certainty: Floats | None = None
    """(n,) the score of the named step, or the lowest score of a trace without one, in [0, 1];
    not read where it names nothing. None for a labeler without scores."""


@dataclass(frozen=True)
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
    bands: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """For each kind of agreement the shares of the bands of certainty, lowest scores first."""

    def as_json(self) -> dict[str, Any]:
        """The rates by name."""
        return {name: round(getattr(self, name), 6) for name in _RATES}


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

    Traces on which all labelers say the same count as one pattern, so that time and memory follow
    the number of different patterns. The order of traces and labelers changes nothing.

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
    patterns = _patterns(steps, labelers, groups, anchor)
    pooled = _Estimate.start(labelers)
    rounds = pooled.fit(patterns)
    posterior, confusions, shares = np.zeros(patterns.latent.shape), {}, {}
    for number, group in enumerate(patterns.groups):
        part = patterns.of_group(number)
        own, own_rounds = pooled, 0
        if len(patterns.groups) > 1:
            own = _Estimate.start(labelers, prior=pooled)
            own_rounds = own.fit(part)
        rounds += own_rounds
        posterior[patterns.group == number] = own.posterior(part)
        confusions[group] = {
            labeler.name: own.confusion(place) for place, labeler in enumerate(labelers)
        }
        shares[group] = own.no_error
    anchored = anchor is not None and bool(anchor.given.any())
    return FirstErrorPosterior(
        probabilities=posterior[patterns.of_trace],
        confusions=confusions,
        no_error=shares,
        identified=anchored or len(labelers) > 2,
        rounds=rounds,
    )


@dataclass(frozen=True)
class _Patterns:
    """The distinct things that labelers say of a trace."""

    steps: Ints
    """(p,)"""
    named: Ints
    """(labelers, p) the step named; the number of steps for none."""
    given: Flags
    """(labelers, p)"""
    band: Ints
    """(labelers, p) 0 where the labeler has no scores."""
    known: Ints
    """(p,) the anchored first error; read only where `anchored`."""
    anchored: Flags
    """(p,)"""
    group: Ints
    """(p,)"""
    count: Floats
    """(p,) how many traces have it, an anchored one `ANCHOR_WEIGHT` times."""
    latent: Flags
    """(p, longest + 1) the first errors that its traces can have."""
    of_trace: Ints
    """(n,) the pattern of each trace; empty in a part."""
    groups: tuple[str, ...] = ()

    @property
    def none(self) -> Flags:
        """(p, longest + 1) the column that means "no error"."""
        return np.asarray(np.arange(self.latent.shape[1]) == self.steps[:, None])

    @property
    def known_truth(self) -> Floats:
        """(p, longest + 1) all probability on the anchored first error."""
        return np.asarray(np.arange(self.latent.shape[1]) == self.known[:, None], np.float64)

    def of_group(self, number: int) -> _Patterns:
        """The patterns of one group."""
        chosen = self.group == number
        return _Patterns(
            steps=self.steps[chosen],
            named=self.named[:, chosen],
            given=self.given[:, chosen],
            band=self.band[:, chosen],
            known=self.known[chosen],
            anchored=self.anchored[chosen],
            group=self.group[chosen],
            count=self.count[chosen],
            latent=self.latent[chosen],
            of_trace=self.of_trace[:0],
        )


def _patterns(
    steps: Ints,
    labelers: Sequence[NamedFirstErrors],
    groups: Sequence[str] | None,
    anchor: NamedFirstErrors | None,
) -> _Patterns:
    names, group = np.unique(
        groups if groups is not None else [""] * len(steps), return_inverse=True
    )
    columns: list[Ints | Flags] = [steps, group]
    for one in labelers:
        columns += [one.given, np.where(one.given, one.index, 0), _bands(one, steps)]
    if anchor is None:
        columns += [np.zeros(len(steps), bool), np.zeros(len(steps), int)]
    else:
        columns += [anchor.given, np.where(anchor.given, anchor.index, 0)]
    table = np.stack([np.asarray(column, np.int64) for column in columns], axis=1)
    rows, of_trace, count = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    size, votes = rows[:, 0], rows[:, 2:-2].T
    anchored = rows[:, -2].astype(bool)
    longest = int(size.max(initial=0))
    return _Patterns(
        steps=size,
        named=votes[1::3],
        given=votes[0::3].astype(bool),
        band=votes[2::3],
        known=rows[:, -1],
        anchored=anchored,
        group=rows[:, 1],
        count=np.asarray(count, np.float64) * np.where(anchored, ANCHOR_WEIGHT, 1.0),
        latent=np.arange(longest + 1) <= size[:, None],
        of_trace=of_trace.reshape(-1),
        groups=tuple(str(name) for name in names),
    )


def _bands(labeler: NamedFirstErrors, steps: Ints) -> Ints:
    """(n,) the band of each trace: thirds of those that name an error, and of those that do not."""
    band = np.zeros(len(steps), np.int64)
    if labeler.certainty is None:
        return band
    for names_none in (False, True):
        chosen = labeler.given & ((labeler.index == steps) == names_none)
        if chosen.any():
            values = labeler.certainty[chosen]
            cuts = np.quantile(values, np.arange(1, BANDS) / BANDS)
            band[chosen] = np.searchsorted(cuts, values, side="left")
    return band


class _Estimate:
    """The parameters, and EM over them."""

    def __init__(self, labelers: Sequence[NamedFirstErrors], no_error: float) -> None:
        self.no_error = no_error
        self.prior_no_error = (no_error, _PSEUDO / 2)
        self.rates = [dict(_START) for _ in labelers]
        bands = [1 if labeler.certainty is None else BANDS for labeler in labelers]
        self.shares = [np.full((len(_KINDS), many), 1 / many) for many in bands]
        self.strength = _PSEUDO
        self.prior_rates = [dict(rates) for rates in self.rates]
        self.prior_shares = [shares.copy() for shares in self.shares]

    @classmethod
    def start(
        cls, labelers: Sequence[NamedFirstErrors], prior: _Estimate | None = None
    ) -> _Estimate:
        """Where EM begins: the rates of a good labeler, or those over all groups."""
        made = cls(labelers, 0.5 if prior is None else prior.no_error)
        if prior is not None:
            made.rates = [dict(rates) for rates in prior.rates]
            made.shares = [shares.copy() for shares in prior.shares]
            made.prior_rates, made.prior_shares = prior.rates, prior.shares
            made.strength = GROUP_PSEUDO
        return made

    def fit(self, patterns: _Patterns) -> int:
        """Repeat estimating posteriors and rates until nothing changes; the number of rounds."""
        views = [_View.of(patterns, place) for place in range(len(self.rates))]
        before = self._posterior(patterns, views)
        for done in range(1, MAX_ROUNDS + 1):
            self._estimate(patterns, views, before)
            after = self._posterior(patterns, views)
            if np.abs(after - before).max(initial=0.0) < TOLERANCE:
                return done
            before = after
        return MAX_ROUNDS

    def posterior(self, patterns: _Patterns) -> Floats:
        """(p, longest + 1) the posterior of each pattern's first error."""
        views = [_View.of(patterns, place) for place in range(len(self.rates))]
        return self._posterior(patterns, views)

    def _posterior(self, patterns: _Patterns, views: Sequence[_View]) -> Floats:
        none = patterns.none
        prior = np.where(none, self.no_error, (1 - self.no_error) / patterns.steps[:, None])
        logs = np.where(patterns.latent, np.log(prior), -np.inf)
        for place, view in enumerate(views):
            logs += view.log_likelihood(self.rates[place], self.shares[place])
        logs -= logs.max(axis=1, keepdims=True)
        weights = np.exp(logs)
        weights /= weights.sum(axis=1, keepdims=True)
        weights[patterns.anchored] = patterns.known_truth[patterns.anchored]
        return weights

    def _estimate(self, patterns: _Patterns, views: Sequence[_View], posterior: Floats) -> None:
        weights = posterior * patterns.count[:, None]
        share, pseudo = self.prior_no_error
        clean = weights[patterns.none].sum()
        self.no_error = float((clean + share * pseudo) / (weights.sum() + pseudo))
        for place, view in enumerate(views):
            self.rates[place] = {
                name: (happened + self.prior_rates[place][name] * self.strength)
                / (possible + self.strength)
                for name, (happened, possible) in view.counts(weights).items()
            }
            prior = self.prior_shares[place]
            bands = view.band_counts(weights, prior.shape[1]) + prior * self.strength
            self.shares[place] = bands / bands.sum(axis=1, keepdims=True)

    def confusion(self, place: int) -> Confusion:
        """The estimate of one labeler."""
        bands = {kind: tuple(self.shares[place][n].tolist()) for n, kind in enumerate(_KINDS)}
        return Confusion(**self.rates[place], bands=bands)


@dataclass(frozen=True)
class _View:
    """How what one labeler names relates to each possible first error; masks are (p, longest + 1)
    and False where the labeler names nothing."""

    kinds: Flags
    """(kinds, p, longest + 1), in the order of `_KINDS`."""
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
    band: Ints
    """(p,)"""

    @classmethod
    def of(cls, patterns: _Patterns, place: int) -> _View:
        """The view of one labeler."""
        named = patterns.named[place][:, None]
        given = patterns.given[place][:, None]
        steps = patterns.steps[:, None]
        truth = np.arange(patterns.latent.shape[1])[None, :]
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
            band=patterns.band[place],
        )

    def log_likelihood(self, rates: Mapping[str, float], shares: Floats) -> Floats:
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
        logs += self.elsewhere
        for kind, mask in enumerate(self.kinds):
            logs += np.where(mask, np.log(shares[kind])[self.band][:, None], 0.0)
        return logs

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

    def band_counts(self, weights: Floats, bands: int) -> Floats:
        """(kinds, bands) how often each kind came with each band."""
        per_kind = np.where(self.kinds, weights, 0.0).sum(axis=2)
        return np.asarray(per_kind @ (np.arange(bands) == self.band[:, None]))
