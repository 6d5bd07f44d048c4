"""The web application over one workspace: its pages, what all of them share, and how errors look.

Images are asked for by problem and number, never by path.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles

from review.pages import (
    CLIPPED,
    SETTINGS,
    STATIC,
    Pages,
    Site,
    address,
    clipped,
    see_other,
    site_of,
)
from review.security import FormTokens, Refused, form_token
from review.texts import text
from stepgold.browsing import PAGE, Browser, TracePage
from stepgold.label_arrays import OUTCOMES, SORTS, TraceQuery
from stepgold.showing import LabelerView, ShowResult
from stepgold.workspace import WorkspaceFolder
from traces import AbstentionReason, InputError, Quote, StoreError, ToolkitError, may_hold_phi

YEAR_S = 365 * 24 * 3600
FIRST_READ_S = 1.0
"""How long a page waits while the labels are read for the first time."""
FILTERS = ("subset", "labeler", "against", "outcome", "reason", "disputed", "least", "most", "text")
"""The conditions of a query in an address."""
CELL = ("verdict", "score", "abstention", "reasoning", "quote", "successes", "continuations")
"""What a labeler may say of a step."""


def create_app(
    workspace: WorkspaceFolder,
    *,
    lang: str = "en",
    images: Path | None = None,
    allow_phi: bool = False,
    routers: Sequence[APIRouter] = (),
    templates: Sequence[Path] = (),
) -> FastAPI:
    """The application; serve it through `review.server`, which guards it.

    Args:
        workspace: the workspace; its database is opened when the server starts.
        lang: language of visitors who have not chosen one.
        images: the folder that image paths are relative to; None means the workspace.
        allow_phi: whether problems marked `phi_removed: false` are shown.
        routers: the pages of a review, served instead of those that show what labelers say.
        templates: folders of their templates.
    """

    @asynccontextmanager
    async def open_workspace(app: FastAPI) -> AsyncIterator[None]:
        with Browser(workspace) as browser:
            app.state.site = Site(
                browser=browser,
                pages=Pages(lang, *templates),
                images=images or workspace.folder,
                allow_phi=allow_phi,
            )
            yield

    app = FastAPI(
        lifespan=open_workspace,
        dependencies=[Depends(form_token)],
        # The pages of FastAPI's own documentation load scripts from elsewhere.
        openapi_url=None,
        exception_handlers={
            Refused: _refused,
            ToolkitError: _told,
            404: _not_found,
            500: _defect,
        },
    )
    app.state.form_tokens = FormTokens()
    app.state.reviewing = bool(routers)
    for router in (shared, *(routers or (browsing,))):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


shared = APIRouter()
"""What every server has."""
browsing = APIRouter()
"""Pages to look at a workspace."""


@shared.get("/login")
def login() -> Response:
    """Turn the token of a login link into a cookie; the guard has checked it."""
    return see_other("/")


@shared.get("/stamp")
def stamp(request: Request) -> JSONResponse:
    """A number that changes whenever the workspace does."""
    return JSONResponse({"stamp": site_of(request).browser.stamp})


@shared.get("/settings")
def settings(request: Request, next: str = "/") -> Response:
    """The page on which a visitor chooses language, appearance and text size."""
    pages = site_of(request).pages
    return pages.render(request, "settings.html.j2", choices=SETTINGS, next=next)


@shared.post("/settings")
def save_settings(request: Request) -> Response:
    """Keep the visitor's choices in cookies."""
    form: dict[str, str] = request.state.form
    response = see_other(form.get("next", "/"))
    for name, values in SETTINGS.items():
        if form.get(name) in values:
            response.set_cookie(
                f"stepgold-{name}", form[name], max_age=YEAR_S, httponly=True, samesite="lax"
            )
    return response


@shared.get("/image")
def image(request: Request, dataset: str, problem: str, number: int) -> Response:
    """An image as PNG, JPEG or WebP; a DICOM is windowed and rendered.

    Args:
        request: the request.
        dataset: the dataset.
        problem: id of the problem.
        number: 0-based place among its images.
    """
    site = site_of(request)
    found = site.browser.image(dataset, problem, number, folder=site.images)
    if found is None:
        raise HTTPException(404)
    encoded, may_show_patient = found
    if may_show_patient and not site.allow_phi:
        raise HTTPException(403, "This image may show a patient: start with --allow-phi.")
    headers = {"Cache-Control": "private, max-age=300", "ETag": f'"{encoded.sha256}"'}
    return Response(encoded.data, media_type=encoded.mime, headers=headers)


def query_of(values: Mapping[str, str]) -> TraceQuery:
    """A query from the values of an address; empty ones do not count.

    Raises:
        InputError: no dataset is named, or a value is not one that its name may have.
    """
    given = {name: value for name, value in values.items() if value.strip()}
    known = {each.name for each in fields(TraceQuery)}
    found: dict[str, Any] = {name: value for name, value in given.items() if name in known}
    if "dataset" not in found:
        raise InputError("The address names no dataset.", remedy="start at the workspace")
    allowed = {"outcome": OUTCOMES, "sort": SORTS, "reason": tuple(AbstentionReason)}
    for name, choices in allowed.items():
        if name in found and found[name] not in choices:
            raise InputError(
                f"'{clipped(found[name], 40)}' is no value of {name}.",
                remedy=f"write one of {', '.join(choices)}",
            )
    for name in ("least", "most"):
        if name in found:
            found[name] = _number(name, found[name])
    if "reason" in found:
        found["reason"] = AbstentionReason(found["reason"])
    found["disputed"] = "disputed" in found
    return TraceQuery(**found)


def _number(name: str, value: str) -> float:
    try:
        number = float(value.replace(",", "."))
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise InputError(
            f"'{clipped(value, 40)}' is no score for {name}.", remedy="write a number from 0 to 1"
        )
    return number


def address_of(query: TraceQuery) -> dict[str, Any]:
    """A query as values of an address; `query_of` reads them."""
    found = {each.name: getattr(query, each.name) for each in fields(query)}
    found["disputed"] = "1" if query.disputed else None
    if query.sort == "import":
        del found["sort"]
    return {name: value for name, value in found.items() if value is not None}


@browsing.get("/")
def home(request: Request) -> Response:
    """Datasets and labelers with their figures."""
    site = site_of(request)
    browser = site.browser
    ready = browser.wait_until_read(FIRST_READ_S)
    return site.pages.render(
        request,
        "home.html.j2",
        ready=ready,
        stamp=browser.stamp,
        fault=browser.fault,
        workspace=browser.name,
        datasets=browser.datasets(),
    )


@browsing.get("/traces")
def traces(request: Request) -> Response:
    """A page of the table of traces; the whole state is in the address."""
    site = site_of(request)
    browser = site.browser
    ready = browser.wait_until_read(FIRST_READ_S)
    stamp, asked = browser.stamp, query_of(request.query_params)
    found = browser.page(asked) if ready else None
    query = asked if found is None else found.query
    if found is not None and query.text and not site.allow_phi:
        found = _without_phi(found)
    start = address_of(replace(asked, after=None, before=None))
    return site.pages.render(
        request,
        "traces.html.j2",
        # A search would start again with every change of the workspace.
        stamp=None if query.text else stamp,
        page=found,
        query=query,
        asked=asked,
        start=start,
        filtered=any(
            getattr(asked, name) for name in FILTERS if name not in ("labeler", "against")
        ),
        dataset=next((x for x in browser.datasets() if x.name == query.dataset), None),
        reasons=browser.reasons(query.dataset, query.labeler) if found and query.labeler else {},
        outcomes=OUTCOMES,
        sorts=SORTS,
        size=PAGE,
    )


def _without_phi(page: TracePage) -> TracePage:
    """The page without protected problems: which of them have a text would say what they hold."""
    return replace(page, traces=tuple(x for x in page.traces if x.row.question is not None))


@browsing.get("/trace")
def trace(request: Request, id: str, work: str | None = None) -> Response:
    """One trace with its evidence and every labeler's view; `work` names one to show in full."""
    site = site_of(request)
    site.browser.wait_until_read(FIRST_READ_S)
    stamp, query = site.browser.stamp, query_of(request.query_params)
    found = site.browser.trace(query.dataset, id, labeler=work or None)
    metas = (found.context.problem.meta, found.context.trace.meta)
    if any(map(may_hold_phi, metas)) and not site.allow_phi:
        return site.pages.render(request, "protected.html.j2", status=403, id=id)
    whole = "whole" in request.query_params
    return site.pages.render(
        request,
        "trace.html.j2",
        stamp=stamp,
        shown=found,
        views=[_view_of(view, found) for view in found.views],
        work=next((view for view in found.views if view.labeler.name == work), None),
        calls=[_call_of(call) for view in found.views for call in view.calls],
        continuations=_by_step(found),
        marks=_marks(found),
        limit=None if whole else CLIPPED,
        is_long=any(len(each) > CLIPPED for each in _texts(found)),
        start=address_of(replace(query, after=None, before=None)),
        neighbors=_neighbors(site, query, request.query_params.get("place")),
        place=request.query_params.get("place"),
    )


def _texts(found: ShowResult) -> Iterator[str]:
    """Every text of the page that may be long."""
    problem, views = found.context.problem, found.views
    yield from (problem.question, *problem.options, *found.context.trace.steps)
    yield from (each.passage.text for each in found.context.evidence)
    yield from (one.text for view in views for one in view.continuations)
    for view in views:
        yield from (step.reasoning or "" for step in view.label.step_labels)
        for call in view.calls:
            yield from (call.request, call.reply.raw, call.reply.text or "")


def _view_of(view: LabelerView, found: ShowResult) -> dict[str, Any]:
    """A labeler's cells: for each step its verdict, score, reason, reasoning and quote."""
    document = view.as_json()
    steps = document["steps"]
    cells = []
    for index in range(len(found.context.trace.steps)):
        step = dict.fromkeys(CELL) | (steps[index] if index < len(steps) else {})
        first = document["first_error"]
        if not steps and view.label.first_error_given:
            # A first error alone: correct before it, nothing after it.
            step["verdict"] = "incorrect" if index == first else None
            if first is None or index < first:
                step["verdict"] = "correct"
        step["is_first"] = index == first
        cells.append(step)
    return {**document, "cells": cells}


def _marks(found: ShowResult) -> dict[int, list[tuple[int, int]]]:
    """The verified quotes by 0-based number of the evidence."""
    marks: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for view in found.views:
        for step in view.label.step_labels:
            span = _span(step.quote)
            if span is not None:
                marks[span[0]].append(span[1:])
    return marks


def _span(quote: Quote | None) -> tuple[int, int, int] | None:
    if quote is None or not quote.document or quote.start is None or quote.end is None:
        return None
    return quote.document - 1, quote.start, quote.end


def _call_of(call: Any) -> dict[str, Any]:
    """A model call: its messages as role and text, its settings as JSON, and the reply."""
    settings = json.loads(call.request)
    messages = settings.pop("messages", None) if isinstance(settings, dict) else None
    if not messages:
        messages, settings = [("request", call.request)], None
    shown = [(role, text if isinstance(text, str) else json.dumps(text)) for role, text in messages]
    words = None if settings is None else json.dumps(settings, ensure_ascii=False, indent=1)
    return {"messages": shown, "settings": words, "reply": call.reply}


def _by_step(found: ShowResult) -> dict[int, list[Any]]:
    steps: dict[int, list[Any]] = defaultdict(list)
    for view in found.views:
        for one in view.continuations:
            steps[one.step_index].append(one)
    return dict(sorted(steps.items()))


def _neighbors(site: Site, query: TraceQuery, place: str | None) -> Sequence[str | None]:
    """Addresses of the traces before and after this one in the table it was opened from."""
    if not place:
        return None, None
    sides = (
        replace(query, before=place, after=None),
        replace(query, after=place, before=None),
    )
    found: list[str | None] = []
    for wish in sides:
        try:
            page = site.browser.page(wish, size=1)
        except InputError:  # the place is gone
            return None, None
        values = address_of(replace(query, after=None, before=None))
        found.append(_trace_address(values, page) if page.traces else None)
    return found


def _trace_address(values: dict[str, Any], page: TracePage) -> str:
    first = page.traces[0]
    return address("/trace", values, id=first.row.id, place=first.place)


@browsing.get("/costs")
def costs(request: Request) -> Response:
    """What was spent, what runs, and what could not be labeled."""
    site = site_of(request)
    browser = site.browser
    browser.wait_until_read(FIRST_READ_S)
    stamp, ledger = browser.stamp, browser.ledger()
    reasons = {
        (dataset.name, each.labeler.name): browser.reasons(dataset.name, each.labeler.name)
        for dataset in browser.datasets()
        for each in dataset.labelers
    }
    total = Counter[str]()
    for each in ledger.spending:
        total.update({"usd": each.usd, "saved": each.saved_usd, "sent": each.sent})
    return site.pages.render(
        request,
        "costs.html.j2",
        stamp=stamp,
        ledger=ledger,
        total=total,
        reasons={labeler: found for labeler, found in reasons.items() if found},
    )


async def _refused(request: Request, fault: Any) -> Response:
    refused: Refused = fault
    lang = site_of(request).pages.chosen(request)["lang"]
    headers = dict(refused.headers)
    if refused.key in ("refused.form", "refused.replay"):
        # For our script, which sends the form again; another site cannot read it.
        visitor = request.state.visitor
        headers["X-Form-Token"] = request.app.state.form_tokens.issue(visitor.session)
    return PlainTextResponse(f"{text(lang, refused.key)}\n", refused.status, headers)


async def _told(request: Request, fault: Any) -> Response:
    error: ToolkitError = fault
    status = 503 if isinstance(error, StoreError) else 404
    key = "error.database" if status == 503 else "error.title"
    return site_of(request).pages.render(
        request, "error.html.j2", status=status, error=error, title=key
    )


async def _not_found(request: Request, _: Any) -> Response:
    return site_of(request).pages.render(
        request, "error.html.j2", status=404, error=None, title="error.title"
    )


async def _defect(request: Request, _: Any) -> Response:
    lang = site_of(request).pages.chosen(request)["lang"]
    return PlainTextResponse(f"{text(lang, 'refused.defect')}\n", 500)
