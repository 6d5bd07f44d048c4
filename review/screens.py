"""The pages of the review: a step at a time, adjudication, splits, and the figures."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from review.pages import see_other, site_of
from review.queue import Queue, StepQuestion
from stepgold.reviewing import (
    Split,
    disputes,
    gold_is_incorrect,
    returned_answers,
    review_figures,
    review_splits,
)
from storage import expert_labeler, standing
from traces import (
    Evidence,
    ExpertAnswer,
    InputError,
    LabelerKind,
    Quote,
    ReviewAnswer,
    ReviewPurpose,
    StepLabel,
    TraceInContext,
    may_hold_phi,
)

if TYPE_CHECKING:
    from review.review_server import ReviewOptions
    from stepgold.reviewing import ReviewFigures
    from storage import Store

AROUND = 400
"""Characters shown before and after a quote; the whole passage is a click away."""
KEPT_S = 10.0
"""How long figures are shown before they are computed again."""
KEYS = {
    ExpertAnswer.CORRECT: "c",
    ExpertAnswer.INCORRECT: "i",
    ExpertAnswer.NEUTRAL: "n",
    ExpertAnswer.CANNOT_TELL: "t",
    ExpertAnswer.SKIP: "s",
}
"""The key of each answer."""
DECIDING = tuple(KEYS)[:4]
"""Answers of an adjudicator or checker, who cannot skip."""
_TAKEN_BACK = frozenset({ExpertAnswer.UNDO, ExpertAnswer.UNFLAG})
_MACHINES = frozenset({LabelerKind.JUDGE, LabelerKind.MC, LabelerKind.CONSENSUS, LabelerKind.PRM})


@dataclass(frozen=True, slots=True)
class StepOpinion:
    """What a labeler says of a step."""

    name: str
    label: StepLabel


@dataclass(frozen=True, slots=True)
class Cited:
    """A passage beside a step."""

    number: int
    """1-based, as judges count."""
    evidence: Evidence
    spans: list[tuple[int, int]]
    """Quotes in the passage."""
    start: int
    end: int
    """The part around the quotes that is shown at once."""

    @property
    def excerpt(self) -> tuple[str, list[tuple[int, int]]]:
        """That part, with its quotes."""
        text = self.evidence.passage.text[self.start : self.end]
        return text, [(low - self.start, high - self.start) for low, high in self.spans]


class ReviewedDataset:
    """The review of one dataset as the pages see it; safe to share between threads."""

    def __init__(self, store: Store, options: ReviewOptions) -> None:
        """Build the queue.

        Raises:
            InputError: there is no such dataset or labeler.
        """
        self.store, self.options, self.dataset = store, options, options.dataset
        self.queue = Queue(store, options.dataset, options.queue_settings())
        self._figures: tuple[float, ReviewFigures | None] | None = None
        self._lock = threading.Lock()

    def context(self, trace_id: str) -> TraceInContext:
        """A trace with its problem and evidence."""
        try:
            return next(self.store.traces.contexts(self.dataset, trace_ids=[trace_id]))
        except (InputError, StopIteration) as fault:
            raise HTTPException(404) from fault

    def knows(self, code: str) -> bool:
        """Whether a code may answer: one of those given, or any if none was."""
        try:
            expert_labeler(code)
        except InputError:
            return False
        return not self.options.expert or code in self.options.expert

    def shown_before(self, trace_id: str, step: int, expert: str) -> str:
        """When labelers' opinions were shown to an expert who answers now.

        Who answers a step again has seen them after the first answer.
        """
        show = self.options.show_opinions
        again = any(
            one.expert == expert
            and one.step_index == step
            and one.purpose is not ReviewPurpose.TRAINING
            for one in self.log([trace_id])
        )
        return "before" if again and show == "after" else show

    def log(self, trace_ids: Sequence[str] | None = None) -> list[ReviewAnswer]:
        """The answers, oldest first."""
        return list(self.store.reviews.answers(self.dataset, trace_ids=trace_ids))

    def opinions(self, trace_id: str, step: int) -> list[StepOpinion]:
        """What every labeler that is no person says of a step."""
        found = []
        for row in self.store.labels.labelers(self.dataset):
            if row.labeler.kind not in _MACHINES:
                continue
            label = self.store.labels.load(self.dataset, row.labeler.name, [trace_id]).get(trace_id)
            if label is not None and step < len(label.step_labels):
                found.append(StepOpinion(row.labeler.name, label.step_labels[step]))
        return found

    def gold(self, trace_id: str, step: int) -> bool | None:
        """Whether gold calls a step incorrect; None where it does not say."""
        found = self.store.labels.load(self.dataset, self.options.gold, [trace_id])
        label = found.get(trace_id)
        return None if label is None else gold_is_incorrect(label, step)

    def splits(self, log: Sequence[ReviewAnswer]) -> list[Split]:
        """The splits as they are."""
        return review_splits(
            self.queue.ids,
            self.queue.done(),
            log,
            size=self.options.split_size,
            share=self.options.check_share,
        )

    def figures(self) -> ReviewFigures | None:
        """The figures, a few seconds old at most."""
        with self._lock:
            if self._figures is None or self._figures[0] + KEPT_S < time.monotonic():
                found = review_figures(self.store, self.dataset, gold=self.options.gold)
                self._figures = (time.monotonic(), found)
            return self._figures[1]


def cited(context: TraceInContext, quotes: Sequence[Quote]) -> list[Cited]:
    """The evidence of a trace, passages with a quote on this step first."""
    found = []
    for number, evidence in enumerate(context.evidence, start=1):
        text = evidence.passage.text
        spans = []
        for quote in quotes:
            if quote.document == number and quote.start is not None and quote.end is not None:
                spans.append((quote.start, min(quote.end, len(text))))
        low = min((start for start, _ in spans), default=0)
        high = max((end for _, end in spans), default=0)
        found.append(
            Cited(
                number,
                evidence,
                spans,
                start=max(0, low - AROUND),
                end=min(len(text), high + AROUND),
            )
        )
    return sorted(found, key=lambda one: not one.spans)


def fingerprint(context: TraceInContext) -> str:
    """Names the text that a page showed: an answer counts for no other text."""
    problem, trace = context.problem, context.trace
    shown = (problem.question, problem.options, problem.images, trace.steps)
    return blake2b(repr(shown).encode(), digest_size=12).hexdigest()


def review_pages(reviewed: ReviewedDataset) -> APIRouter:
    """The pages of a review."""
    pages = APIRouter()
    for path, page in (
        ("/", _home),
        ("/review", _question),
        ("/review/step", _again),
        ("/review/evidence", _evidence),
        ("/review/adjudicate", _adjudicate),
        ("/review/splits", _splits),
        ("/review/figures", _shown_figures),
    ):
        pages.add_api_route(path, _bound(page, reviewed), methods=["GET"])
    for path, page in (
        ("/review/expert", _enter),
        ("/review/answer", _answer),
        ("/review/undo", _undo),
        ("/review/return", _return_split),
    ):
        pages.add_api_route(path, _bound(page, reviewed), methods=["POST"])
    return pages


def _home(_: ReviewedDataset, __: Request) -> Response:
    """The review: the pages of `view` would show an expert what others say of a step."""
    return see_other("/review")


def _bound(page: Any, reviewed: ReviewedDataset) -> Any:
    def bound(request: Request) -> Response:
        found: Response = page(reviewed, request)
        return found

    return bound


def _expert(reviewed: ReviewedDataset, request: Request) -> str | None:
    """The code of the expert who asks: that of their login, or the one they entered."""
    name: str | None = request.state.visitor.name
    code = name or request.cookies.get("stepgold-expert", "")
    return code if reviewed.knows(code) else None


def _asking(reviewed: ReviewedDataset, request: Request) -> str:
    found = _expert(reviewed, request)
    if found is None:
        raise HTTPException(403, "Enter your code on /review first.")
    return found


def _who(reviewed: ReviewedDataset, request: Request, *, wrong: str = "") -> Response:
    """The page that asks for the expert's code."""
    known, page = reviewed.options.expert, "review_expert.html.j2"
    return _render(reviewed, request, page, expert=None, wrong=wrong, known=known)


def _enter(reviewed: ReviewedDataset, request: Request) -> Response:
    """Keep the code that an expert entered."""
    code = request.state.form.get("code", "").strip()
    if not reviewed.knows(code):
        return _who(reviewed, request, wrong=code)
    reviewed.store.reviews.begin(reviewed.dataset, [code])
    response = see_other("/review")
    response.set_cookie("stepgold-expert", code, httponly=True, samesite="lax", max_age=31536000)
    return response


def _question(reviewed: ReviewedDataset, request: Request) -> Response:
    """The next step of the expert who asks."""
    expert = _expert(reviewed, request)
    if expert is None:
        return _who(reviewed, request)
    question = reviewed.queue.next(expert, at=time.time())
    last = _last(reviewed, request, expert)
    if question is None:
        return _render(reviewed, request, "review_done.html.j2", expert=expert, last=last)
    return _asked(reviewed, request, question, expert, last=last)


def _again(reviewed: ReviewedDataset, request: Request) -> Response:
    """An answered step, to look at it or answer it again."""
    expert = _asking(reviewed, request)
    trace, step = request.query_params.get("trace", ""), _number(request.query_params.get("step"))
    mine = [
        one
        for one in standing(reviewed.log([trace])).values()
        if one.expert == expert and one.step_index == step
    ]
    if not mine:
        raise HTTPException(404)
    question = StepQuestion(trace_id=trace, step_index=step, purpose=mine[-1].purpose)
    return _asked(reviewed, request, question, expert, before=mine[-1])


def _asked(
    reviewed: ReviewedDataset,
    request: Request,
    question: StepQuestion,
    expert: str,
    *,
    last: dict[str, Any] | None = None,
    before: ReviewAnswer | None = None,
) -> Response:
    """The page that asks about a step."""
    context = reviewed.context(question.trace_id)
    step = question.step_index
    opinions = reviewed.opinions(question.trace_id, step)
    quotes = [one.label.quote for one in opinions if one.label.quote is not None]
    log = reviewed.log([question.trace_id])
    mine = {one.step_index: one for one in standing(log).values() if one.expert == expert}
    trained = reviewed.queue.trained(expert)
    return _render(
        reviewed,
        request,
        "review_step.html.j2",
        expert=expert,
        question=question,
        context=context,
        evidence=cited(context, quotes),
        seen=fingerprint(context),
        mine=mine,
        withheld=_is_withheld(request, context),
        opinions=opinions if reviewed.options.show_opinions == "before" else [],
        token=secrets.token_urlsafe(12),
        shown_at=f"{time.time():.3f}",
        progress=reviewed.queue.progress(expert),
        trained=trained if question.purpose is ReviewPurpose.TRAINING else None,
        last=last,
        before=before,
    )


def _is_withheld(request: Request, context: TraceInContext) -> bool:
    """Whether a trace is not to be shown, because it may say who the patient is."""
    metas = (context.problem.meta, context.trace.meta)
    return not site_of(request).allow_phi and any(map(may_hold_phi, metas))


def _last(reviewed: ReviewedDataset, request: Request, expert: str) -> dict[str, Any] | None:
    """The expert's last answer, and what may now be shown about it."""
    answer = reviewed.queue.last(expert)
    if answer is None and reviewed.options.training:
        mine = (one for one in reviewed.log() if one.expert == expert)
        answer = next(reversed(standing(mine, {ReviewPurpose.TRAINING}).values()), None)
    if answer is None:
        return None
    is_flag = answer.answer is ExpertAnswer.FLAG
    training = answer.purpose is ReviewPurpose.TRAINING and not is_flag
    may = reviewed.options.show_opinions != "never" and not training
    may = may and not _is_withheld(request, reviewed.context(answer.trace_id))
    may = may and not is_flag
    return {
        "answer": answer,
        "opinions": reviewed.opinions(answer.trace_id, answer.step_index) if may else [],
        "gold": reviewed.gold(answer.trace_id, answer.step_index) if training else None,
        "training": training,
    }


def _answer(reviewed: ReviewedDataset, request: Request) -> Response:
    """Store an answer; only then is the next step shown."""
    form, expert = request.state.form, _asking(reviewed, request)
    try:
        answer, purpose = ExpertAnswer(form["answer"]), ReviewPurpose(form["purpose"])
        shown_at, token, trace = float(form["shown_at"]), form["token"][:64], form["trace"]
        seen = form["seen"]
    except (KeyError, ValueError) as fault:
        raise HTTPException(400, "The form is not complete.") from fault
    if trace not in reviewed.queue.ids_known or answer in _TAKEN_BACK or not isfinite(shown_at):
        raise HTTPException(400, "There is no such trace.")
    there = {ReviewPurpose.ADJUDICATION: "/adjudicate", ReviewPurpose.CHECK: "/splits"}
    after = see_other(f"/review{there.get(purpose, '')}")
    if seen != fingerprint(reviewed.context(trace)):
        return after  # an answer on another text: the trace is asked again as it is now
    step = _number(form.get("step"))
    reviewed.queue.answer(
        ReviewAnswer(
            trace_id=trace,
            step_index=step,
            expert=expert,
            answer=answer,
            # A page that could not send an answer may send another one instead.
            token=f"{expert}-{token}-{answer.value}",
            note=form.get("note", "").strip() or None,
            seconds=round(max(0.0, time.time() - shown_at), 1),
            opinions=reviewed.shown_before(trace, step, expert),
            purpose=purpose,
        ),
        at=time.time(),
    )
    return after


def _undo(reviewed: ReviewedDataset, request: Request) -> Response:
    """Take the last answer or flag back; the step is asked again.

    The form names it, so that an undo that is sent again takes no further answer back.
    """
    expert = _asking(reviewed, request)
    last = reviewed.queue.last(expert)
    if last is not None and last.token == request.state.form.get("undone"):
        is_flag = last.answer is ExpertAnswer.FLAG
        undone = ReviewAnswer(
            trace_id=last.trace_id,
            step_index=last.step_index,
            expert=expert,
            answer=ExpertAnswer.UNFLAG if is_flag else ExpertAnswer.UNDO,
            token=f"undo-{last.token}",
            purpose=last.purpose,
            opinions=reviewed.options.show_opinions,
        )
        reviewed.queue.answer(undone, at=time.time())
    return see_other("/review")


def _evidence(reviewed: ReviewedDataset, request: Request) -> Response:
    """A whole passage with what was quoted from it."""
    trace, step = request.query_params.get("trace", ""), _number(request.query_params.get("step"))
    context = reviewed.context(trace)
    quotes = [
        one.label.quote for one in reviewed.opinions(trace, step) if one.label.quote is not None
    ]
    number = _number(request.query_params.get("number"))
    found = [one for one in cited(context, quotes) if one.number == number]
    if not found or _is_withheld(request, context):
        raise HTTPException(404)
    expert = _expert(reviewed, request)
    return _render(reviewed, request, "review_evidence.html.j2", expert=expert, cited=found[0])


def _adjudicate(reviewed: ReviewedDataset, request: Request) -> Response:
    """The next step on which experts differ, with all answers and notes."""
    expert, found = _asking(reviewed, request), disputes(reviewed.log())
    mine = [one for one in found if all(each.expert != expert for each in one.answers)] or found
    one, context = None, None
    for each in mine:
        there = reviewed.context(each.trace_id)
        if not _is_withheld(request, there):
            one, context = each, there
            break
    opinions = [] if one is None else reviewed.opinions(one.trace_id, one.step_index)
    quotes = [each.label.quote for each in opinions if each.label.quote is not None]
    return _render(
        reviewed,
        request,
        "review_adjudicate.html.j2",
        expert=expert,
        seen="" if context is None else fingerprint(context),
        dispute=one,
        left=len(found),
        context=context,
        evidence=[] if context is None else cited(context, quotes),
        opinions=opinions if reviewed.options.show_opinions == "before" else [],
        token=secrets.token_urlsafe(12),
        shown_at=f"{time.time():.3f}",
    )


def _splits(reviewed: ReviewedDataset, request: Request) -> Response:
    """All splits, and the next step of a finished one to check."""
    expert, log = _asking(reviewed, request), reviewed.log()
    found = reviewed.splits(log)
    answers = standing(log)
    checked = standing(log, {ReviewPurpose.CHECK})
    order = {one.token: place for place, one in enumerate(log)}
    by: dict[tuple[str, int], list[ReviewAnswer]] = {}
    for (trace, step, _), one in answers.items():
        by.setdefault((trace, step), []).append(one)
    since = {key: max(order[one.token] for one in some) for key, some in by.items()}
    done = {
        (trace, step)
        for (trace, step, _), one in checked.items()
        if order[one.token] > since.get((trace, step), -1)
    }
    todo = [
        key
        for split in found
        for key in split.sample
        if key not in done and all(one.expert != expert for one in by[key])
    ]
    step, context = 0, None
    for trace, at in todo:
        there = reviewed.context(trace)
        if not _is_withheld(request, there):
            step, context = at, there
            break
    return _render(
        reviewed,
        request,
        "review_splits.html.j2",
        expert=expert,
        splits=found,
        limit=reviewed.options.max_errors,
        context=context,
        seen="" if context is None else fingerprint(context),
        step=step,
        evidence=[] if context is None else cited(context, []),
        token=secrets.token_urlsafe(12),
        shown_at=f"{time.time():.3f}",
    )


def _return_split(reviewed: ReviewedDataset, request: Request) -> Response:
    """Give a split with too many errors back to its experts: every step is asked again."""
    _asking(reviewed, request)
    number, log = _number(request.state.form.get("split")), reviewed.log()
    found = [one for one in reviewed.splits(log) if one.number == number]
    rate = found[0].error_rate if found else None
    if rate is None or rate <= reviewed.options.max_errors:
        raise HTTPException(400, "The split does not have too many errors.")
    size = reviewed.options.split_size
    ids = set(reviewed.queue.ids[(number - 1) * size : number * size])
    note = f"split {number} returned: error rate {rate:.1%}"
    reviewed.queue.take_back(returned_answers(ids, log, note=note))
    return see_other("/review/splits")


def _shown_figures(reviewed: ReviewedDataset, request: Request) -> Response:
    """The figures of the review."""
    return _render(
        reviewed,
        request,
        "review_figures.html.j2",
        expert=_expert(reviewed, request),
        figures=reviewed.figures(),
        progress=reviewed.queue.progress(_expert(reviewed, request) or ""),
    )


def _render(reviewed: ReviewedDataset, request: Request, template: str, **context: Any) -> Response:
    common: dict[str, Any] = {
        "dataset": reviewed.dataset,
        "options": reviewed.options,
        "keys": KEYS,
        "deciding": DECIDING,
        "show": reviewed.options.show_opinions,
    }
    return site_of(request).pages.render(request, template, **common | context)


def _number(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError as fault:
        raise HTTPException(400, "A number is missing.") from fault
