"""The pages of the review: a step at a time, adjudication, splits, and the figures."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    from review.desk import ReviewOptions
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


class Desk:
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


def review_pages(desk: Desk) -> APIRouter:
    """The pages of a review."""
    pages = APIRouter()
    for path, page in (
        ("/review", _question),
        ("/review/step", _again),
        ("/review/evidence", _evidence),
        ("/review/adjudicate", _adjudicate),
        ("/review/splits", _splits),
        ("/review/figures", _shown_figures),
    ):
        pages.add_api_route(path, _bound(page, desk), methods=["GET"])
    for path, page in (
        ("/review/expert", _enter),
        ("/review/answer", _answer),
        ("/review/undo", _undo),
        ("/review/return", _return_split),
    ):
        pages.add_api_route(path, _bound(page, desk), methods=["POST"])
    return pages


def _bound(page: Any, desk: Desk) -> Any:
    def bound(request: Request) -> Response:
        found: Response = page(desk, request)
        return found

    return bound


def _expert(request: Request) -> str | None:
    """The code of the expert who asks: that of their login, or the one they entered."""
    name: str | None = request.state.visitor.name
    code = name or request.cookies.get("stepgold-expert", "")
    try:
        return code if expert_labeler(code) else None
    except InputError:
        return None


def _asking(request: Request) -> str:
    found = _expert(request)
    if found is None:
        raise HTTPException(403, "Enter your code on /review first.")
    return found


def _enter(desk: Desk, request: Request) -> Response:
    """Keep the code that an expert entered."""
    code = request.state.form.get("code", "").strip()
    known = desk.options.expert
    try:
        expert_labeler(code)
        wrong = bool(known) and code not in known
    except InputError:
        wrong = True
    if wrong:
        return _render(desk, request, "review_expert.html.j2", expert=None, wrong=code, known=known)
    desk.store.reviews.begin(desk.dataset, [code])
    response = see_other("/review")
    response.set_cookie("stepgold-expert", code, httponly=True, samesite="lax", max_age=31536000)
    return response


def _question(desk: Desk, request: Request) -> Response:
    """The next step of the expert who asks."""
    expert = _expert(request)
    if expert is None:
        known = desk.options.expert
        return _render(desk, request, "review_expert.html.j2", expert=None, wrong="", known=known)
    question = desk.queue.next(expert, at=time.time())
    last = _last(desk, expert)
    if question is None:
        return _render(desk, request, "review_done.html.j2", expert=expert, last=last)
    return _asked(desk, request, question, expert, last=last)


def _again(desk: Desk, request: Request) -> Response:
    """An answered step, to look at it or answer it again."""
    expert = _asking(request)
    trace, step = request.query_params.get("trace", ""), _number(request.query_params.get("step"))
    mine = [
        one
        for one in standing(desk.log([trace])).values()
        if one.expert == expert and one.step_index == step
    ]
    if not mine:
        raise HTTPException(404)
    question = StepQuestion(trace_id=trace, step_index=step, purpose=mine[-1].purpose)
    return _asked(desk, request, question, expert, before=mine[-1])


def _asked(
    desk: Desk,
    request: Request,
    question: StepQuestion,
    expert: str,
    *,
    last: dict[str, Any] | None = None,
    before: ReviewAnswer | None = None,
) -> Response:
    """The page that asks about a step."""
    context = desk.context(question.trace_id)
    step = question.step_index
    opinions = desk.opinions(question.trace_id, step)
    quotes = [one.label.quote for one in opinions if one.label.quote is not None]
    log = desk.log([question.trace_id])
    mine = {one.step_index: one for one in standing(log).values() if one.expert == expert}
    withheld = not site_of(request).allow_phi and (
        may_hold_phi(context.problem.meta) or may_hold_phi(context.trace.meta)
    )
    trained = desk.queue.trained(expert)
    return _render(
        desk,
        request,
        "review_step.html.j2",
        expert=expert,
        question=question,
        context=context,
        evidence=cited(context, quotes),
        mine=mine,
        withheld=withheld,
        opinions=opinions if desk.options.show_opinions == "before" else [],
        token=secrets.token_urlsafe(12),
        shown_at=f"{time.time():.3f}",
        progress=desk.queue.progress(expert),
        trained=trained if question.purpose is ReviewPurpose.TRAINING else None,
        last=last,
        before=before,
    )


def _last(desk: Desk, expert: str) -> dict[str, Any] | None:
    """The expert's last answer, and what may now be shown about it."""
    answer = desk.queue.last(expert)
    trained = (
        standing((one for one in desk.log() if one.expert == expert), {ReviewPurpose.TRAINING})
        if desk.options.training
        else {}
    )
    if answer is None and trained:
        answer = list(trained.values())[-1]
    if answer is None:
        return None
    training = answer.purpose is ReviewPurpose.TRAINING
    may = desk.options.show_opinions != "never" and not training
    return {
        "answer": answer,
        "opinions": desk.opinions(answer.trace_id, answer.step_index) if may else [],
        "gold": desk.gold(answer.trace_id, answer.step_index) if training else None,
        "training": training,
    }


def _answer(desk: Desk, request: Request) -> Response:
    """Store an answer; only then is the next step shown."""
    form, expert = request.state.form, _asking(request)
    try:
        answer, purpose = ExpertAnswer(form["answer"]), ReviewPurpose(form["purpose"])
        seconds = max(0.0, time.time() - float(form["shown_at"]))
        token, trace = form["token"], form["trace"]
    except (KeyError, ValueError) as fault:
        raise HTTPException(400, "The form is not complete.") from fault
    if trace not in desk.queue.ids_known or answer is ExpertAnswer.UNDO:
        raise HTTPException(400, "There is no such trace.")
    desk.queue.answer(
        ReviewAnswer(
            trace_id=trace,
            step_index=_number(form.get("step")),
            expert=expert,
            answer=answer,
            token=f"{expert}-{token}",
            note=form.get("note", "").strip() or None,
            seconds=round(seconds, 1),
            opinions=desk.options.show_opinions,
            purpose=purpose,
        ),
        at=time.time(),
    )
    there = {ReviewPurpose.ADJUDICATION: "/adjudicate", ReviewPurpose.CHECK: "/splits"}
    return see_other(f"/review{there.get(purpose, '')}")


def _undo(desk: Desk, request: Request) -> Response:
    """Take the last answer back; the step is asked again."""
    expert = _asking(request)
    last = desk.queue.last(expert)
    if last is not None:
        undone = ReviewAnswer(
            trace_id=last.trace_id,
            step_index=last.step_index,
            expert=expert,
            answer=ExpertAnswer.UNDO,
            token=f"undo-{last.token}",
            purpose=last.purpose,
            opinions=desk.options.show_opinions,
        )
        desk.queue.answer(undone, at=time.time())
    return see_other("/review")


def _evidence(desk: Desk, request: Request) -> Response:
    """A whole passage with what was quoted from it."""
    trace, step = request.query_params.get("trace", ""), _number(request.query_params.get("step"))
    context = desk.context(trace)
    quotes = [one.label.quote for one in desk.opinions(trace, step) if one.label.quote is not None]
    number = _number(request.query_params.get("number"))
    found = [one for one in cited(context, quotes) if one.number == number]
    if not found or (not site_of(request).allow_phi and may_hold_phi(context.problem.meta)):
        raise HTTPException(404)
    return _render(
        desk, request, "review_evidence.html.j2", expert=_expert(request), cited=found[0]
    )


def _adjudicate(desk: Desk, request: Request) -> Response:
    """The next step on which experts differ, with all answers and notes."""
    expert, found = _asking(request), disputes(desk.log())
    mine = [one for one in found if all(each.expert != expert for each in one.answers)] or found
    one = mine[0] if mine else None
    context = None if one is None else desk.context(one.trace_id)
    opinions = [] if one is None else desk.opinions(one.trace_id, one.step_index)
    quotes = [each.label.quote for each in opinions if each.label.quote is not None]
    return _render(
        desk,
        request,
        "review_adjudicate.html.j2",
        expert=expert,
        dispute=one,
        left=len(found),
        context=context,
        evidence=[] if context is None else cited(context, quotes),
        opinions=opinions if desk.options.show_opinions == "before" else [],
        token=secrets.token_urlsafe(12),
        shown_at=f"{time.time():.3f}",
    )


def _splits(desk: Desk, request: Request) -> Response:
    """All splits, and the next step of a finished one to check."""
    expert, log = _asking(request), desk.log()
    found = desk.splits(log)
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
    context = desk.context(todo[0][0]) if todo else None
    return _render(
        desk,
        request,
        "review_splits.html.j2",
        expert=expert,
        splits=found,
        limit=desk.options.max_errors,
        context=context,
        step=todo[0][1] if todo else 0,
        evidence=[] if context is None else cited(context, []),
        token=secrets.token_urlsafe(12),
        shown_at=f"{time.time():.3f}",
    )


def _return_split(desk: Desk, request: Request) -> Response:
    """Give a split with too many errors back to its experts: every step is asked again."""
    _asking(request)
    number, log = _number(request.state.form.get("split")), desk.log()
    found = [one for one in desk.splits(log) if one.number == number]
    rate = found[0].error_rate if found else None
    if rate is None or rate <= desk.options.max_errors:
        raise HTTPException(400, "The split does not have too many errors.")
    size = desk.options.split_size
    ids = set(desk.queue.ids[(number - 1) * size : number * size])
    note = f"split {number} returned: error rate {rate:.1%}"
    for answer in returned_answers(ids, log, note=note):
        desk.queue.answer(answer, at=time.time())
    return see_other("/review/splits")


def _shown_figures(desk: Desk, request: Request) -> Response:
    """The figures of the review."""
    return _render(
        desk,
        request,
        "review_figures.html.j2",
        expert=_expert(request),
        figures=desk.figures(),
        progress=desk.queue.progress(_expert(request) or ""),
    )


def _render(desk: Desk, request: Request, template: str, **context: Any) -> Response:
    common: dict[str, Any] = {
        "dataset": desk.dataset,
        "options": desk.options,
        "keys": KEYS,
        "deciding": DECIDING,
        "show": desk.options.show_opinions,
    }
    return site_of(request).pages.render(request, template, **common | context)


def _number(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError as fault:
        raise HTTPException(400, "A number is missing.") from fault
