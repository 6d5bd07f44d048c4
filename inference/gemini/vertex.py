"""Gemini on Vertex AI: project, region and credentials, as google-genai reads them.

Credentials are Application Default Credentials (a service-account file, a user's login, a machine's
own account), or an express key, which needs no project. They are loaded here and not by the SDK,
because its token requests would follow redirects and leave the machine unencrypted.

Source: cloud.google.com/vertex-ai/generative-ai/docs/start/gcp-auth and .../learn/locations, and
google-genai 3.6, which reads the same variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import google.auth
import google.auth.transport
import httpx2
from google.auth import credentials as auth_credentials
from google.auth import exceptions as auth_errors

from inference.destinations import Destination, is_loopback
from inference.gemini.client import Access, key_of
from inference.gemini.images import ImageUploads
from inference.gemini.model import GeminiModel
from inference.retries import Subject
from inference.specs import (
    GOOGLE_CREDENTIALS_VARIABLE,
    GOOGLE_LOCATION_VARIABLE,
    GOOGLE_PROJECT_VARIABLE,
    VERTEX_BASE_URL_VARIABLE,
)
from traces import InputError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_TIMEOUT_S = 60.0
_MULTI_REGIONS = ("us", "eu")
_METADATA_HOSTS = frozenset({"169.254.169.254", "metadata.google.internal", "metadata"})
"""Google's metadata server, which gives a machine the tokens of its own account over plain http."""
_LOGIN = (
    f"run: gcloud auth application-default login, or set {GOOGLE_CREDENTIALS_VARIABLE} to a "
    "service-account file"
)


@dataclass(frozen=True, slots=True)
class TokenReply:
    """A reply of a token endpoint as google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class GuardedRequest(google.auth.transport.Request):
    """Sends google-auth's token requests: encrypted, and never to where a redirect points."""

    def __init__(self, spec: str) -> None:
        """Nothing is sent; `spec` is the model as the user named it, for messages."""
        self._spec = spec

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> TokenReply:
        """Send one request.

        Raises:
            InputError: it would go over plain http to another machine.
            Redirected: the endpoint answers with a redirect.
            TransportError: no reply.
        """
        parts = urlsplit(url)
        # A proxy would be another machine that reads what goes over plain http.
        here = is_loopback(url) or parts.hostname in _METADATA_HOSTS
        if parts.scheme != "https" and not here:
            raise InputError(
                "The credentials name a token endpoint that is not encrypted: "
                f"{parts.scheme}://{parts.netloc}",
                where=GOOGLE_CREDENTIALS_VARIABLE,
                remedy="use credentials whose token_uri is https://",
            )
        destination = Destination(f"{parts.scheme}://{parts.netloc}", is_default=False)
        try:
            with httpx2.Client(
                follow_redirects=False, trust_env=not here, timeout=timeout or TOKEN_TIMEOUT_S
            ) as client:
                reply = client.request(method, url, content=body, headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            what = f"{type(error).__name__} {error}".strip()
            raise auth_errors.TransportError(what) from error  # type: ignore[no-untyped-call]
        if 300 <= reply.status_code < 400:
            raise destination.redirected(
                self._spec,
                reply.headers.get("location", ""),
                remedy=f"use credentials of Google Cloud whose token endpoint answers: {_LOGIN}",
            )
        return TokenReply(reply.status_code, reply.headers, reply.content)


class GuardedCredentials(auth_credentials.Credentials):
    """Credentials whose tokens are always requested through a `GuardedRequest`."""

    def __init__(self, inner: auth_credentials.Credentials, request: GuardedRequest) -> None:
        """No token is requested yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner, self._request = inner, request
        self._quota_project_id = getattr(inner, "quota_project_id", None)

    def refresh(self, request: object) -> None:
        """Get a token; the SDK's own request is not used."""
        self._inner.refresh(self._request)  # type: ignore[no-untyped-call]
        self.token, self.expiry = self._inner.token, self._inner.expiry


@dataclass(frozen=True, slots=True)
class VertexPlace:
    """Where requests are processed, and on whose behalf."""

    project: str | None
    """The Google Cloud project; None with an express key."""
    location: str | None
    """The region; None with an express key."""
    credentials: GuardedCredentials | None = None
    """None with an express key."""

    @property
    def name(self) -> str:
        """The service with region, for the ledger."""
        return f"vertex:{self.location or 'express'}"

    @property
    def url(self) -> str:
        """Google's own endpoint for the location."""
        if self.location in (None, "global"):
            return "https://aiplatform.googleapis.com"
        if self.location in _MULTI_REGIONS:
            return f"https://aiplatform.{self.location}.rep.googleapis.com"
        return f"https://{self.location}-aiplatform.googleapis.com"


def vertex_place(spec: str, environ: Mapping[str, str]) -> VertexPlace:
    """Project, location and credentials, in google-genai's order.

    A project or a location in the environment means Application Default Credentials; without
    either, a key in the environment is an express key.

    Raises:
        InputError: no credentials, no project, or a name that is none of a location.
    """
    project = environ.get(GOOGLE_PROJECT_VARIABLE, "").strip() or None
    location = environ.get(GOOGLE_LOCATION_VARIABLE, "").strip() or None
    if project is None and location is None and key_of(environ) is not None:
        return VertexPlace(None, None)
    if location is not None and not re.fullmatch(r"[a-z0-9-]+", location):
        raise InputError(
            f"{location!r} is not a location of Google Cloud.",
            where=GOOGLE_LOCATION_VARIABLE,
            remedy="set it to one such as europe-west4, or global",
        )
    request = GuardedRequest(spec)
    try:
        inner, found = google.auth.default(scopes=[SCOPE], request=request)
    except (auth_errors.GoogleAuthError, OSError, ValueError) as error:
        raise InputError(
            f"No Google Cloud credentials for '{spec}': {' '.join(str(error).split())[:200]}",
            remedy=_LOGIN,
        ) from error
    if (project := project or found) is None:
        raise InputError(
            f"No Google Cloud project for '{spec}'.", remedy=f"set {GOOGLE_PROJECT_VARIABLE}"
        )
    return VertexPlace(project, location or "global", GuardedCredentials(inner, request))


class VertexModel(GeminiModel):
    """A Gemini model on Vertex AI as a `TextModel`; arguments as those of `GeminiModel`.

    Its constructor also raises InputError without project or credentials, and for the service
    `flex`.
    """

    kind: ClassVar[str] = "vertex"
    place: VertexPlace

    def _access(
        self, base_url: str | None, environ: Mapping[str, str], *, insecure_http: bool
    ) -> Access:
        if self.service != "standard":
            raise InputError(
                f'The service "{self.service}" is not available on Vertex AI.',
                remedy="use --service standard or batch",
            )
        self.place = place = vertex_place(self.spec, environ)
        named = None if place.credentials is not None else key_of(environ)
        variable, key = named or (GOOGLE_CREDENTIALS_VARIABLE, "")
        server = Destination.chosen(
            base_url, variable=VERTEX_BASE_URL_VARIABLE, environ=environ, default=place.url
        )
        server.refuse_plain_http(key or "token", key_variable=variable, allowed=insecure_http)
        options: dict[str, Any] = {"vertexai": True}
        if place.credentials is None:
            options["api_key"] = key
        else:
            options |= {
                "project": place.project,
                "location": place.location,
                "credentials": place.credentials,
            }
        subject = Subject(self.spec, variable, key, credentials=place.credentials)
        return Access(server, subject, options, "v1beta1")

    def _uploads(self) -> ImageUploads:
        # Vertex AI has no Files API: every image is sent inline.
        return ImageUploads(self.client, inline_bytes=1 << 62)

    @property
    def service_name(self) -> str:
        """Where texts go."""
        if self.place.project is None:
            return f"Vertex AI (express key, {self.client.server.host})"
        return f"Vertex AI (project {self.place.project}, {self.place.location})"

    @property
    def ledger_name(self) -> str:
        """Service and region, kept with every reply."""
        return self.place.name
