"""Fit traces into a model's window, whole or with fewer documents; never truncated.

`plan_scoring` says how many traces fit at which limit, and how long scoring takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, TypeGuard

from retrieval import pack_evidence, pack_like_medprm, refuse_unknown_packing, render_document
from scoring.engine.forward import plant
from scoring.family import CannotLayOut, Family, LaidOutTrace
from traces import (
    Abstention,
    AbstentionReason,
    Evidence,
    InputError,
    StepLabel,
    TraceInContext,
    TraceLabel,
    abstained,
)

if TYPE_CHECKING:
    from scoring.engine.engine import Scorer

_NAMED = 3
"""Over-long traces named in an error."""
_NOTHING_TO_READ = StepLabel(
    abstention=Abstention(AbstentionReason.NOT_MEASURED, "The step has no token of its own.")
)


class Overflow(StrEnum):
    """What to do with a trace that does not fit with all its documents."""

    DROP_DOCUMENTS = "drop-documents"
    """Score it with the documents that fit, if necessary with none. The default."""
    ABSTAIN = "abstain"
    """Abstain (`over_length`)."""
    ERROR = "error"
    """Fail before anything is scored."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Window and documents as the user chooses them; the fields are those of `FitRules`."""

    max_tokens: int | None = None
    """None for the default."""
    overflow: Overflow = Overflow.DROP_DOCUMENTS
    reserve: int = 0
    packing: str = "fit"


@dataclass(frozen=True, slots=True)
class FitRules:
    """How traces are made to fit."""

    max_tokens: int
    """Window for a trace with its documents, in tokens."""
    overflow: Overflow = Overflow.DROP_DOCUMENTS
    reserve: int = 0
    """Tokens kept free for question and solution even if they need fewer: all traces up to this
    length see the same documents of their problem. 0: every trace sees as many as fit."""
    packing: str = "fit"
    """fit, or medprm-compat: the documents of Med-PRM's released code, whatever the trace's length.
    """

    def __post_init__(self) -> None:
        refuse_unknown_packing(self.packing)
        if not 0 <= self.reserve < self.max_tokens:
            raise InputError(
                f"A reserve of {self.reserve} tokens does not fit into a window of"
                f" {self.max_tokens}.",
                remedy=f"choose --reserve from 0 to {self.max_tokens - 1}",
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the rules for the labeler's configuration."""
        return {
            "max_tokens": self.max_tokens,
            "overflow": self.overflow.value,
            "reserve": self.reserve,
            # Left out by default, so that labels made before there was a choice stay valid.
            **({} if self.packing == "fit" else {"packing": self.packing}),
        }


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trace that fits, with what was left out."""

    laid_out: LaidOutTrace
    documents: int
    """Documents in the prompt."""
    dropped: int
    """Documents that did not fit."""
    whole: int
    """Tokens with all its documents."""

    def meta(self) -> dict[str, Any]:
        """Return what is stored with the label."""
        return {
            "tokens": len(self.laid_out.ids),
            "documents": self.documents,
            "documents_dropped": self.dropped,
        }

    def label(self, probabilities: Sequence[float]) -> TraceLabel:
        """Return the trace's label: the lowest probability read for each step.

        Args:
            probabilities: one for each reading position, in the order of `laid_out.read_at`.
        """
        values = iter(probabilities)
        read_at = self.laid_out.read_at
        scores = [min(islice(values, len(places)), default=None) for places in read_at]
        steps = tuple(_NOTHING_TO_READ if s is None else StepLabel(score=s) for s in scores)
        return TraceLabel(self.laid_out.trace_id, steps, meta=self.meta())


def fit(family: Family, context: TraceInContext, rules: FitRules) -> Fitted | TraceLabel:
    """Lay out a trace within the window.

    The documents that a trace sees depend on the trace, its problem and the rules only, never on
    the other candidates of a run.

    Returns:
        the trace that fits, or the abstention: `over_length`, or `unreadable` for an image.
    """
    try:
        return _fit(family, context, rules)
    except CannotLayOut as fault:
        return abstained(context.trace.id, fault.abstention.reason, fault.abstention.detail)


def _fit(family: Family, context: TraceInContext, rules: FitRules) -> Fitted | TraceLabel:
    evidence = context.evidence if family.takes_documents else ()
    if rules.packing == "medprm-compat" and evidence:
        return _like_medprm(family, context, rules)
    whole = family.lay_out(context, evidence)
    size, limit = len(whole.ids), rules.max_tokens
    if size <= limit and not (rules.reserve and evidence):
        return Fitted(whole, len(evidence), 0, size)
    if size > limit and (rules.overflow is not Overflow.DROP_DOCUMENTS or not evidence):
        return _over_length(context, size, limit, documents=len(evidence))
    bare = family.lay_out(context, ())
    if len(bare.ids) > limit:
        return _over_length(context, len(bare.ids), limit, documents=0)
    budget = limit - max(len(bare.ids), rules.reserve) - _wording(family, context, evidence, bare)
    # Whole passages: one cut to the free room would differ between candidates.
    packed = pack_evidence(
        evidence, budget=max(budget, 0), count_tokens=lambda text: _count(family, text), whole=True
    )
    kept = list(packed.kept)
    fitted = family.lay_out(context, kept) if kept else bare
    # Two adjacent texts may take one token more than each alone.
    while len(fitted.ids) > limit:
        kept.pop()
        fitted = family.lay_out(context, kept)
    return Fitted(fitted, len(kept), len(evidence) - len(kept), size)


def refuse_over_length(family: Family, contexts: Iterable[TraceInContext], rules: FitRules) -> None:
    """With `Overflow.ERROR`, check all traces before any is scored.

    Raises:
        InputError: some do not fit with all their documents; names the first ones.
    """
    if rules.overflow is not Overflow.ERROR:
        return
    found = (fit(family, context, rules) for context in contexts)
    over = [label.trace_id for label in found if _is_over_length(label)]
    if over:
        names = ", ".join(f'"{name}"' for name in over[:_NAMED])
        more = f" and {len(over) - _NAMED} more" if len(over) > _NAMED else ""
        raise InputError(
            f"{len(over)} traces with their documents exceed {rules.max_tokens} tokens.",
            where=names + more,
            remedy="raise --max-tokens, or use --overflow drop-documents or --overflow abstain",
        )


def _is_over_length(found: Fitted | TraceLabel) -> TypeGuard[TraceLabel]:
    why = found.abstention if isinstance(found, TraceLabel) else None
    return why is not None and why.reason is AbstentionReason.OVER_LENGTH


def _like_medprm(family: Family, context: TraceInContext, rules: FitRules) -> Fitted | TraceLabel:
    """Use the documents that Med-PRM's code takes; abstain where it would cut steps off."""
    evidence = context.evidence
    packed = pack_like_medprm(evidence, count_tokens=lambda text: _count(family, text))
    fitted = family.lay_out(context, packed.kept)
    size = len(fitted.ids)
    if size > rules.max_tokens:
        return _over_length(context, size, rules.max_tokens, documents=len(packed.kept))
    return Fitted(fitted, len(packed.kept), len(packed.skipped), size)


def _wording(
    family: Family, context: TraceInContext, evidence: Sequence[Evidence], bare: LaidOutTrace
) -> int:
    """Return how many tokens the prompt itself grows with documents, these not counted."""
    with_one = family.lay_out(context, evidence[:1])
    document = _count(family, render_document(1, evidence[0]))
    return max(0, len(with_one.ids) - len(bare.ids) - document)


def _count(family: Family, text: str) -> int:
    return len(family.tokenizer(text, add_special_tokens=False)["input_ids"])


def _over_length(context: TraceInContext, size: int, limit: int, *, documents: int) -> TraceLabel:
    shown = f" with {documents} documents" if documents else ""
    detail = f"{size} tokens{shown} do not fit into the PRM's {limit}."
    return abstained(context.trace.id, AbstentionReason.OVER_LENGTH, detail)


_LOOKED_AT = 2_000
"""Upper bound on the traces laid out for the plan; larger datasets are sampled at a fixed stride
over problems."""
_SAMPLE_SECONDS = 20.0
_ENDLESS = 1 << 30
"""More tokens than any trace or window."""
_LIMITS = (1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class AtLimit:
    """What a limit does to the traces."""

    max_tokens: int
    whole: int
    """Traces that fit with all their documents."""
    shortened: int
    """Traces that fit with fewer documents or none."""
    abstained: int
    """Traces that do not fit at all."""


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What a run over a dataset would do."""

    traces: int
    """Traces in the dataset."""
    looked_at: int
    """Traces that were laid out; fewer than `traces` for a sample."""
    longest: int
    """Tokens of the longest trace with all its documents."""
    limits: tuple[AtLimit, ...]
    """By limit, scaled from the sample to the whole dataset."""
    unreadable: int
    """Traces that fit no limit because an image cannot be read; scaled too."""
    operations: float
    """Operations of the linear layers and of attention; a multiply-add counts two."""
    sampled: int
    """Traces that were scored to measure the speed."""
    seconds: float | None
    """Time of the run without loading; None if nothing could be measured."""
    seconds_range: tuple[float, float] | None
    """The same at the pace of the fastest and of the slowest forward pass; None as above."""

    def as_json(self) -> dict[str, Any]:
        """Return strict JSON."""
        return {
            "traces": self.traces,
            "looked_at": self.looked_at,
            "longest": self.longest,
            "limits": [asdict(limit) for limit in self.limits],
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
    """With all its documents and the reserve."""
    bare: int
    """With as few documents as the rules allow; as `whole` if it has none."""


def plan_scoring(
    scorer: Scorer,
    contexts: Iterable[TraceInContext],
    *,
    traces: int,
    looked_at: int = _LOOKED_AT,
    sample_seconds: float = _SAMPLE_SECONDS,
) -> ScoringPlan:
    """Lay out traces, score a few of them, and estimate the whole run.

    Args:
        scorer: with the rules of the run.
        contexts: the traces to be scored, candidates of a problem together.
        traces: how many there are.
        looked_at: most traces that are laid out.
        sample_seconds: the sample ends with the first forward pass after this time.
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
    seconds, between = _time(operations, paces, fixed=laying_out * scale)
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


@dataclass(frozen=True, slots=True)
class Rescue:
    """Which over-long traces fit at which limit."""

    limits: tuple[AtLimit, ...]
    """By limit."""
    tokens: dict[str, int]
    """By trace id, the smallest window that it fits into."""

    def as_json(self) -> dict[str, Any]:
        """Return strict JSON."""
        return {
            "traces": len(self.tokens),
            "limits": [asdict(limit) for limit in self.limits],
            "tokens": self.tokens,
        }


def plan_rescue(scorer: Scorer, contexts: Iterable[TraceInContext]) -> Rescue:
    """Lay out traces that exceeded a window; nothing is scored.

    Args:
        scorer: with the rules of the run; its window is one of the limits.
        contexts: the traces.
    """
    known: dict[str, _Lengths] = {}
    for context in contexts:
        evidence = context.evidence if scorer.family.takes_documents else ()
        try:
            whole = len(scorer.family.lay_out(context, evidence).ids)
            known[context.trace.id] = _lengths(scorer, context, evidence, whole)
        except CannotLayOut:
            continue
    lengths = list(known.values())
    return Rescue(
        tuple(_at(limit, lengths, 1.0) for limit in _limits(scorer)),
        {trace_id: each.bare for trace_id, each in known.items()},
    )


def _time(
    operations: float, passes: Sequence[tuple[float, float]], *, fixed: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the seconds at the measured pace, and those at the pace of the fastest and slowest
    pass."""
    if not passes:
        return None, None
    done, spent = (sum(column) for column in zip(*passes, strict=True))
    paces = [each / seconds for each, seconds in passes]
    fastest, slowest = fixed + operations / max(paces), fixed + operations / min(paces)
    return fixed + operations * spent / done, (fastest, slowest)


def _spread(contexts: Iterable[TraceInContext], every: int) -> Iterator[TraceInContext]:
    """Yield all traces of every n-th problem."""
    problems = groupby(contexts, key=lambda context: context.problem.id)
    for number, (_, together) in enumerate(problems):
        if number % every == 0:
            yield from together


def _lay_out(
    scorer: Scorer, contexts: Sequence[TraceInContext]
) -> tuple[list[LaidOutTrace], list[_Lengths], int]:
    """Return the traces as they would be scored; the lengths of all; and the longest."""
    family = scorer.family
    laid_out, lengths, longest = [], [], 0
    for context in contexts:
        evidence = context.evidence if family.takes_documents else ()
        try:
            whole = family.lay_out(context, evidence)
        except CannotLayOut:
            continue  # counted as the difference to the number of lengths
        longest = max(longest, len(whole.ids))
        found = fit(family, context, scorer.rules)
        if isinstance(found, Fitted) and any(found.laid_out.read_at):
            laid_out.append(found.laid_out)
        lengths.append(_lengths(scorer, context, evidence, len(whole.ids)))
    return laid_out, lengths, longest


def _lengths(
    scorer: Scorer, context: TraceInContext, evidence: Sequence[Evidence], whole: int
) -> _Lengths:
    """Return the lengths of a trace that has `whole` tokens with all its documents."""
    if not evidence:
        return _Lengths(whole, whole)
    rules = scorer.rules
    if rules.packing == "medprm-compat":
        # The published rule takes the same documents whatever the window.
        packed = fit(scorer.family, context, replace(rules, max_tokens=_ENDLESS))
        if isinstance(packed, Fitted):
            size = len(packed.laid_out.ids)
            return _Lengths(_ENDLESS if packed.dropped else size, size)
    bare = len(scorer.family.lay_out(context, ()).ids)
    return _Lengths(whole + max(0, rules.reserve - bare), bare)


def _limits(scorer: Scorer) -> list[int]:
    """Return the usual limits that the model's window allows, and the one asked for."""
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
    """Score some traces; return how many, and operations and seconds of each forward pass."""
    scorer.passes.clear()
    sampled = 0
    for batch in scorer.score_batches(contexts):
        sampled += len(batch)
        if sum(spent for _, spent in scorer.passes) >= seconds:
            break
    # The first pass includes one-time setup.
    passes = list(scorer.passes)
    return sampled, passes[1:] or passes
