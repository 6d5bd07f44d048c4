"""Pages to look at a workspace: datasets, traces, one trace, costs and failures."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from review.pages import site_of

router = APIRouter()

FIRST_READ_S = 1.0
"""How long a page waits while the labels are read for the first time."""


@router.get("/")
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
        workspace=browser.name,
        datasets=browser.datasets(),
    )
