"""Images in Gemini's requests: inline up to a size limit, as uploaded files beyond it.

A file's name follows from its content and the day, so that another process, or another machine with
the same key, finds it instead of uploading it again. The service keeps files for 48 hours, so a
file with today's name lives at least 24 more, enough for a batch job.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.genai import errors, types

from formats import EncodedImage
from inference.gemini.client import GeminiClient, Uris
from inference.protocol import GenerationRequest
from inference.retries import TransientFault

INLINE_BYTES = 14_000_000
"""Total size of a request's images sent inline: a request of 20 MB is refused, base64 adds a third,
and a prompt needs room too (ai.google.dev/gemini-api/docs/image-understanding)."""
LIFE_S = 48 * 3600.0
"""How long the service keeps a file, unless its reply states an expiration time."""
MARGIN_S = 3600.0
"""A single call does not use a file in its last hour."""
JOB_S = 24 * 3600.0
"""Remaining lifetime that a file of a batch job needs: the service's target for jobs."""
_DAY_S = 86_400
_FILE = re.compile(r"\bfiles?\b", re.IGNORECASE)
_URI_SIGNS = 120


@dataclass(frozen=True, slots=True)
class _Uploaded:
    uri: str
    until: float


class ImageUploads:
    """The uploaded images of one connection; each is uploaded once while its file lives."""

    def __init__(
        self,
        client: GeminiClient,
        *,
        inline_bytes: int = INLINE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: the connection.
            inline_bytes: total size of a request's images sent inline.
            clock: Unix seconds, because files outlive processes.
        """
        self._client = client
        self._inline_bytes = inline_bytes
        self._clock = clock
        self._known: dict[str, _Uploaded] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def uris(
        self, request: GenerationRequest, *, lasting_s: float = MARGIN_S
    ) -> dict[str, str]:
        """Upload images that are too large to send inline; return their URIs by hash.

        Args:
            request: the request.
            lasting_s: remaining lifetime that the files need, in seconds, at most 24 hours.

        Raises:
            TransientFault: the upload failed this time.
            ModelRefused, QuotaExhausted: as for any call.
        """
        return {
            image.sha256: await self._uri(image, lasting_s) for image in self._too_large(request)
        }

    def assumed(self, request: GenerationRequest) -> dict[str, str]:
        """Like `uris` without uploading: placeholders at least as long, to compute sizes."""
        longest = max((len(known.uri) for known in self._known.values()), default=_URI_SIGNS)
        return {image.sha256: "-" * max(longest, _URI_SIGNS) for image in self._too_large(request)}

    @contextmanager
    def in_use(self, uris: Uris) -> Iterator[None]:
        """Wrap an SDK call that names these files: those that are gone are uploaded again.

        Raises:
            TransientFault: one of them no longer exists; the next attempt uploads it.
        """
        try:
            yield
        except errors.APIError as error:
            if (
                not uris
                or error.code not in (400, 403, 404)
                or not _FILE.search(str(error.message))
            ):
                raise
            for sha256 in uris:
                self._known.pop(sha256, None)
            raise TransientFault("an uploaded image is gone") from error

    def _too_large(self, request: GenerationRequest) -> list[EncodedImage]:
        """The largest images, until the others fit inline."""
        images = [image for message in request.messages for image in message.images]
        left = sum(len(image.data) for image in images)
        chosen: dict[str, EncodedImage] = {}
        for image in sorted(images, key=lambda each: -len(each.data)):
            if left <= self._inline_bytes:
                break
            left -= len(image.data)
            chosen[image.sha256] = image
        return list(chosen.values())

    async def _uri(self, image: EncodedImage, lasting_s: float) -> str:
        async with self._locks[image.sha256]:  # requests with the same image wait for one upload
            known = self._known.get(image.sha256)
            if known is None or known.until - lasting_s < self._clock():
                known = await self._find_or_upload(image)
                self._known[image.sha256] = known
            return known.uri

    async def _find_or_upload(self, image: EncodedImage) -> _Uploaded:
        name = file_name(image.sha256, self._clock())
        with self._client.translated():
            return self._checked(await self._found(name) or await self._upload(name, image))

    async def _found(self, name: str) -> types.File | None:
        try:
            return await self._client.api.files.get(name=name)
        except errors.APIError as error:
            # A missing file gives 403; if the key itself is refused, the upload will show it.
            if error.code in (403, 404):
                return None
            raise

    async def _upload(self, name: str, image: EncodedImage) -> types.File:
        config = types.UploadFileConfig(name=name, mime_type=image.mime, display_name=image.sha256)
        try:
            return await self._client.api.files.upload(file=io.BytesIO(image.data), config=config)
        except (KeyError, ValueError) as error:  # raised by the SDK for an unfinished upload
            raise TransientFault(f"the upload was not finished: {error}") from error
        except errors.APIError as error:
            if error.code == 409:  # another process was faster: the next attempt finds its file
                raise TransientFault("the image is being uploaded by another process") from error
            raise

    def _checked(self, file: types.File) -> _Uploaded:
        """The file, if it can be used now."""
        state = file.state.value if file.state else "ACTIVE"
        if state != "ACTIVE" or not file.uri:
            raise TransientFault(f"an uploaded image is not ready ({state})")
        until = file.expiration_time.timestamp() if file.expiration_time else None
        return _Uploaded(file.uri, until or self._clock() + LIFE_S)


def file_name(sha256: str, now: float) -> str:
    """The service's name for an image uploaded today, within its limit of 40 characters."""
    return f"files/sg-{sha256[:30]}-{int(now // _DAY_S)}"
