"""What a scoring run will meet: how many traces do not fit at which limit, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from scoring.engine.engine import Scorer
from scoring.engine.fit import Fitted, fit
from scoring.engine.forward import plant
from scoring.family import CannotLayOut, LaidOutTrace
from traces import Evidence, TraceInContext

_LOOKED_AT = 2_000
"""Traces that are laid out at most; of a larger dataset every so-manieth problem stands for all."""
_SAMPLE_SECONDS = 20.0
_ENDLESS = 1 << 30
"""Tokens that no trace has and no window holds."""
_LIMITS = (1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class AtLimit:
    """What a limit does to the traces."""

    max_tokens: int
    """The limit."""
    whole: int
    """Traces that fit with all their documents."""
    shortened: int
    """Traces that fit with fewer documents, or without any."""
    abstained: int
    """Traces that do not fit at all."""


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What a run over a dataset would do."""

    traces: int
    """Traces in the dataset."""
    looked_at: int
    """Traces that were laid out; fewer than `traces` if a sample of problems stands for all."""
    longest: int
    """Tokens of the longest one with all its documents."""
    limits: tuple[AtLimit, ...]
    """By limit, scaled to the whole dataset where only a sample was looked at."""
    unreadable: int
    """Traces that no limit helps: an image of theirs cannot be read; scaled too."""
    operations: float
    """Multiply-adds times two, of the linear layers and of attention."""
    sampled: int
    """Traces that were scored to measure the speed."""
    seconds: float | None
    """Time of the run, loading apart; None if nothing could be measured."""
    seconds_range: tuple[float, float] | None
    """The same at the pace of the fastest and of the slowest forward pass; None as above."""

    def as_json(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "traces": self.traces,
            "looked_at": self.looked_at,
            "longest": self.longest,
            "limits": [
                {
                    "max_tokens": at.max_tokens,
                    "whole": at.whole,
                    "shortened": at.shortened,
                    "abstained": at.abstained,
                }
                for at in self.limits
            ],
            "unreadable": self.unreadable,
            "operations": self.operations,
            "sampled": self.sampled,
            "seconds": self.seconds,
            "seconds_range": None if self.seconds_range is None else list(self.seconds_range),
        }


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Tokens of one trace."""

    whole: int
    """With all its documents, and with the reserve that the rules keep free."""
    bare: int
    """With as few as the rules allow; as `whole` if it has none."""


def plan_scoring(
    scorer: Scorer,
    contexts: Iterable[TraceInContext],
    *,
    traces: int,
    looked_at: int = _LOOKED_AT,
    sample_seconds: float = _SAMPLE_SECONDS,
) -> ScoringPlan:
    """Lay traces out, score a few of them, and reckon.

    Args:
        scorer: with the rules of the run.
        contexts: the traces to be scored, candidates of a problem together.
        traces: how many there are.
        looked_at: traces that are laid out at most.
        sample_seconds: the sample ends with the first forward pass behind this time.
    """
    started = time.perf_counter()
    chosen = list(_spread(contexts, max(1, -(-traces // looked_at))))
    laid_out, lengths, longest = _lay_out(scorer, chosen)
    laying_out = time.perf_counter() - started
    scale = traces / max(1, len(chosen))
    work = scorer.work
    nodes = plant(laid_out, share=scorer.shares)
    operations = scale * sum(work.tokens(len(node.ids), node.start) for node in nodes)
    sampled, paces = _measure(scorer, chosen, sample_seconds)
    seconds, between = _time(operations, paces, apart=laying_out * scale)
    return ScoringPlan(
        traces=traces,
        looked_at=len(chosen),
        longest=longest,
        limits=tuple(_at(limit, lengths, scale) for limit in _limits(scorer)),
        unreadable=round((len(chosen) - len(lengths)) * scale),
        operations=operations,
        sampled=sampled,
        seconds=seconds,
        seconds_range=between,
    )


def _time(
    operations: float, passes: Sequence[tuple[float, float]], *, apart: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Seconds at the measured pace, and between the fastest and the slowest pass."""
    if not passes:
        return None, None
    done, spent = (sum(column) for column in zip(*passes, strict=True))
    paces = [each / seconds for each, seconds in passes]
    fastest, slowest = apart + operations / max(paces), apart + operations / min(paces)
    return apart + operations * spent / done, (fastest, slowest)


def _spread(contexts: Iterable[TraceInContext], every: int) -> Iterator[TraceInContext]:
    """All traces of every so-manieth problem."""
    problems = groupby(contexts, key=lambda context: context.problem.id)
    for number, (_, together) in enumerate(problems):
        if number % every == 0:
            yield from together


def _lay_out(
    scorer: Scorer, contexts: Sequence[TraceInContext]
) -> tuple[list[LaidOutTrace], list[_Lengths], int]:
    """The traces as they would be scored; of all, the lengths, and that of the longest."""
    family = scorer.family
    laid_out, lengths, longest = [], [], 0
    for context in contexts:
        evidence = context.evidence if family.takes_documents else ()
        try:
            whole = family.lay_out(context, evidence)
        except CannotLayOut:
            continue  # counted by what is missing among the lengths
        longest = max(longest, len(whole.ids))
        found = fit(family, context, scorer.rules)
        if isinstance(found, Fitted) and any(found.laid_out.read_at):
            laid_out.append(found.laid_out)
        lengths.append(_lengths(scorer, context, evidence, len(whole.ids)))
    return laid_out, lengths, longest


def _lengths(
    scorer: Scorer, context: TraceInContext, evidence: Sequence[Evidence], whole: int
) -> _Lengths:
    """The lengths of a trace that has `whole` tokens with all its documents."""
    if not evidence:
        return _Lengths(whole, whole)
    rules = scorer.rules
    if rules.packing == "medprm-compat":
        # The published rule takes the same documents whatever the window: no more give way to it.
        packed = fit(scorer.family, context, replace(rules, max_tokens=_ENDLESS))
        if isinstance(packed, Fitted):
            size = len(packed.laid_out.ids)
            return _Lengths(_ENDLESS if packed.dropped else size, size)
    bare = len(scorer.family.lay_out(context, ()).ids)
    return _Lengths(whole + max(0, rules.reserve - bare), bare)


def _limits(scorer: Scorer) -> list[int]:
    """The usual limits that the model's window allows, and the one asked for."""
    window = scorer.window
    usual = {limit for limit in _LIMITS if limit <= window}
    return sorted(usual | {scorer.rules.max_tokens})


def _at(limit: int, lengths: Sequence[_Lengths], scale: float) -> AtLimit:
    whole = sum(each.whole <= limit for each in lengths)
    fitting = sum(each.bare <= limit for each in lengths)
    return AtLimit(
        limit,
        round(whole * scale),
        round((fitting - whole) * scale),
        round((len(lengths) - fitting) * scale),
    )


def _measure(
    scorer: Scorer, contexts: Sequence[TraceInContext], seconds: float
) -> tuple[int, list[tuple[float, float]]]:
    """Score some; how many, and operations and seconds of each forward pass."""
    scorer.passes.clear()
    sampled = 0
    for batch in scorer.score_batches(contexts):
        sampled += len(batch)
        if sum(spent for _, spent in scorer.passes) >= seconds:
            break
    # The first forward also pays for what is set up once.
    passes = list(scorer.passes)
    return sampled, passes[1:] or passes
