"""Images of problems, by problem and number: never by path."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from review.pages import site_of

router = APIRouter()


@router.get("/image")
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
