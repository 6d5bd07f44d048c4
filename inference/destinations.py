"""Where keys and texts go: the server that was named, and no other.

A key belongs to an origin (scheme, host and port). No redirect is followed, because the server that
a redirect names would receive the prompt, and some clients also send it the key.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from inference.specs import GEMINI_KEY_VARIABLES, OPENAI_KEY_VARIABLE
from traces import InputError, ModelRefused

if TYPE_CHECKING:
    import httpx2

_PORTS = {"http": 80, "https": 443}
_SECRET_VARIABLES = (*GEMINI_KEY_VARIABLES, OPENAI_KEY_VARIABLE, "HF_TOKEN")
_SHORTEST_KEY = 8
_KEY_MARK = "[key]"


class Redirected(ModelRefused):
    """A server names another address instead of answering."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The server that a model's keys and texts go to."""

    url: str
    """Base URL, checked, without a trailing slash."""
    is_default: bool
    """Whether it is the provider's own server."""

    @classmethod
    def chosen(
        cls, given: str | None, *, variable: str, environ: Mapping[str, str], default: str
    ) -> Destination:
        """The server that the user named, else the provider's own.

        Args:
            given: the URL of `--base-url`.
            variable: the environment variable that names a server if `--base-url` does not.
            environ: the environment.
            default: the provider's own URL.

        Raises:
            InputError: the URL cannot be used.
        """
        named = given or environ.get(variable) or default
        url = checked_base_url(named, named_by="--base-url" if given else variable)
        return cls(url, is_default=url == default)

    @property
    def is_loopback(self) -> bool:
        """Whether it runs on this machine; see `is_loopback`."""
        return not self.is_default and is_loopback(self.url)

    @property
    def host(self) -> str:
        """Host, and port if one is named, for messages."""
        return urlsplit(self.url).netloc

    def refuse_plain_http(self, key: str, *, key_variable: str, allowed: bool | None) -> None:
        """Refuse to send a key over a network without encryption.

        Args:
            key: the key; empty if there is none.
            key_variable: the environment variable that holds it.
            allowed: whether the user allows it (`--insecure-http`); None if that is no option.

        Raises:
            InputError: plain http to another machine, with a key.
        """
        if not key or allowed or urlsplit(self.url).scheme != "http" or self.is_loopback:
            return
        raise InputError(
            f"The connection to {self.host} would not be encrypted, so that anyone in between could"
            f" read the key in {key_variable}.",
            where=self.url,
            remedy=f"use https://, or unset {key_variable} if this server needs no key"
            + ("" if allowed is None else ", or allow it with --insecure-http"),
        )

    def hooks(self, spec: str) -> dict[str, list[Callable[[Any], Awaitable[None]]]]:
        """Event hooks of an httpx2 client: a request or redirect to another origin raises.

        Args:
            spec: the model as the user named it, for messages.
        """
        own = _origin(self.url)

        async def stay(request: httpx2.Request) -> None:
            other = _origin(str(request.url))
            if other != own:
                raise _redirected(spec, own, other, "names another address for a request")

        async def refuse_redirect(response: httpx2.Response) -> None:
            if 300 <= response.status_code < 400:
                other = _origin(response.headers.get("location", ""), base=self.url)
                raise _redirected(
                    spec, own, other, f"answers with a redirect ({response.status_code})"
                )

        return {"request": [stay], "response": [refuse_redirect]}

    def redirected(self, spec: str, location: str, *, remedy: str) -> Redirected:
        """The error of a reply that points to `location` instead of answering."""
        other = _origin(location, base=self.url)
        return _redirected(spec, _origin(self.url), other, "answers with a redirect", remedy=remedy)


def _redirected(
    spec: str, own: str, other: str, what: str, *, remedy: str | None = None
) -> Redirected:
    # Scheme, host and port only: the rest of a foreign address may repeat the key.
    return Redirected(
        f'The server of "{spec}" {what}: {own} points to {other}. Nothing was sent there.',
        where=own,
        remedy=remedy or f"if {other} is the right server, name it with --base-url",
    )


def _origin(url: str, *, base: str = "") -> str:
    """Scheme, host and port of a URL, which may be relative to `base`, as far as they are read."""
    try:
        parts = urlsplit(urljoin(base, url))
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "an address that cannot be read"
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")


def checked_base_url(url: str, *, named_by: str) -> str:
    """The base URL, checked, without a trailing slash.

    Args:
        url: the URL that the user gave.
        named_by: the option or environment variable it came from, for messages.

    Raises:
        InputError: not http(s), no host, or with user:password, which would end up in logs and in
            the database; the message never repeats the credentials.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        credentials = "@" in parts.netloc
        _ = parts.port  # raises ValueError if the port is not a number
    except ValueError:
        usable, credentials = False, "@" in url
    if credentials:
        raise InputError(
            "A base URL must not contain user:password.",
            where=named_by,
            remedy="remove the credentials from the URL; keys come from the environment",
        )
    if not usable:
        raise InputError(
            f'"{url}" is not an http or https URL.',
            where=named_by,
            remedy="give a URL such as http://127.0.0.1:8080/v1",
        )
    return url.strip().rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine: all addresses that its name stands for are loopback.

    A name is looked up once per process; one that cannot be looked up is another machine.
    """
    return _is_this_machine(urlsplit(url).hostname or "")


@cache
def _is_this_machine(host: str) -> bool:
    try:
        return _loops_back(ip_address(host))
    except ValueError:  # a name, or a short form such as 127.1
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = {str(address[0]).partition("%")[0] for *_, address in found}
    return bool(addresses) and all(_loops_back(ip_address(each)) for each in addresses)


def _loops_back(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def without_key(text: str, key: str) -> str:
    """The text without the key, which a server may repeat; JSON escapes are read.

    Args:
        text: a message, or the body of a reply.
        key: the key. One below 8 characters, or a plain lower-case word, is a placeholder for
            servers that need none: replies may contain it, so it stays.
    """
    if len(key) < _SHORTEST_KEY or (key.isalpha() and key.islower()):
        return text
    plain = _replaced(text, key)
    if "\\u" not in plain and "\\/" not in plain:
        return plain
    try:
        read = json.dumps(json.loads(plain), ensure_ascii=False)
    except (ValueError, RecursionError):  # not JSON, or not for us to read
        return plain
    shown = _replaced(read, key)
    return plain if shown == read else shown


def _replaced(text: str, key: str) -> str:
    for form in _forms(key):
        text = text.replace(form, _KEY_MARK)
    return text


@cache
def _forms(key: str) -> frozenset[str]:
    """The key as it stands, in JSON, and in a URL."""
    return frozenset({key, json.dumps(key)[1:-1], quote(key, safe="")})


def without_keys(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text without the keys that the environment holds, e.g. for a traceback."""
    for variable in _SECRET_VARIABLES:
        text = without_key(text, environ.get(variable, "").strip())
    return text
