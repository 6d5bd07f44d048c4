"""The web application over one workspace: what every page shares, and how errors look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles

from review import browse
from review.pages import SETTINGS, STATIC, Pages, Site, see_other, site_of
from review.security import FormTokens, Refused, form_token
from review.texts import text
from stepgold.browsing import Browser
from stepgold.workspace import WorkspaceFolder
from traces import StoreError, ToolkitError

YEAR_S = 365 * 24 * 3600


def create_app(
    workspace: WorkspaceFolder,
    *,
    lang: str = "en",
    images: Path | None = None,
    allow_phi: bool = False,
    routers: Sequence[APIRouter] = (),
    templates: Sequence[Path] = (),
    reviewing: bool = False,
) -> FastAPI:
    """The application; serve it through `review.server`, which guards it.

    Args:
        workspace: the workspace; its database is opened when the server starts.
        lang: language of visitors who have not chosen one.
        images: the folder that image paths are relative to; None means the workspace.
        allow_phi: whether problems marked `phi_removed: false` are shown.
        routers: further pages.
        templates: folders of their templates.
        reviewing: whether the pages link to the review.
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
    app.state.reviewing = reviewing
    for router in (shared, browse.router, *routers):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


shared = APIRouter()


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


async def _refused(request: Request, fault: Any) -> Response:
    refused: Refused = fault
    lang = site_of(request).pages.chosen(request)["lang"]
    headers = dict(refused.headers)
    if refused.key == "refused.form":
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
