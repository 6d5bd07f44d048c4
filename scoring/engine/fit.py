"""Fit a trace into the model's window: with all its documents, with fewer, or not at all; never
truncated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, TypeGuard

from retrieval import pack_evidence, pack_like_medprm, refuse_unknown_packing, render_document
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
