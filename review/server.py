"""Starts and stops the web server: addresses, certificates, login links."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from stepgold.console import note
from stepgold.results import Result
from stepgold.workspace import WorkspaceFolder
from traces import Config, InputError, Need, StoreError, StrPath, option

if TYPE_CHECKING:
    import uvicorn
    from fastapi import APIRouter

    from review.security import Login, Rules

DEFAULT_PORT = 8765
STOP_WITHIN_S = 5
"""Seconds that open requests get when the server stops."""


class ServeOptions(Config):
    """Where pages are served, and to whom."""

    host: str = option(
        default="127.0.0.1",
        metavar="ADDRESS",
        help="Address to listen on. Any but this machine's own needs --certfile or --public-url.",
    )
    port: int = option(
        default=DEFAULT_PORT, metavar="N", between=(0, 65535), help="Port; 0 takes a free one."
    )
    certfile: StrPath | None = option(
        default=None,
        metavar="FILE",
        help="Certificate chain for https, as PEM.",
        needs=Need("--keyfile FILE", lambda options: options.keyfile is not None),
    )
    keyfile: StrPath | None = option(
        default=None,
        metavar="FILE",
        help="Private key of the certificate, as PEM.",
        needs=Need("--certfile FILE", lambda options: options.certfile is not None),
    )
    public_url: str | None = option(
        default=None,
        metavar="URL",
        help="https address of the reverse proxy that forwards to this server.",
    )
    lang: Literal["en", "ko"] = option(
        default="en", choices=("en", "ko"), help="Language of the pages until a visitor chooses."
    )
    images: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Folder that image paths are relative to; the workspace if not given.",
    )
    allow_phi: bool = option(
        default=False, help="Also show problems marked phi_removed: false.", flags=("--allow-phi",)
    )

    def check(self) -> None:
        """Refuse an address that others reach without encryption.

        Raises:
            InputError: it is one, or the proxy's address is not https.
        """
        super().check()
        if self.public_url is not None:
            proxy = urlsplit(self.public_url)
            if proxy.scheme != "https" or not proxy.hostname or proxy.path not in ("", "/"):
                raise InputError(
                    f"'{self.public_url}' is not the https address of a reverse proxy.",
                    where="--public-url",
                    remedy="write it as --public-url https://review.example.org",
                )
        encrypted = self.certfile is not None or self.public_url is not None
        if not self.is_loopback and not encrypted:
            raise InputError(
                f"{self.host} is reached by other machines, and nothing would be encrypted.",
                where="--host",
                remedy="add --certfile FILE --keyfile FILE, or --public-url https://NAME",
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class ViewOptions(ServeOptions):
    """A view has no other options."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ServeResult(Result):
    """A server that has ended."""

    command: str
    """The command that started it."""
    url: str
    """Where it was."""

    def as_json(self) -> dict[str, Any]:
        """The address."""
        return {"command": self.command, "url": self.url}

    def words(self) -> str:
        """That it has ended."""
        return f"Stopped serving {self.url}."


class Running:
    """A server that runs; a context manager that serves from a thread of its own."""

    def __init__(
        self,
        workspace: WorkspaceFolder,
        options: ServeOptions,
        *,
        login: Login | None = None,
        routers: Sequence[APIRouter] = (),
        templates: Sequence[Path] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the port; requests are answered from `serve` on.

        Args:
            workspace: the workspace.
            options: where to serve.
            login: finds the owner of a token; None lets everyone in who reaches the address.
            routers: the pages of a review; without them, those to look at the workspace.
            templates: folders of their templates.
            settings: of the guard, e.g. `per_second`; see `review.security.Rules`.

        Raises:
            InputError: the extra `review` is not installed, the address cannot be used, or the
                certificate cannot be read.
        """
        try:
            import uvicorn

            from review.app import create_app
            from review.security import Guard
        except ModuleNotFoundError as fault:
            raise InputError(
                f"The pages need the package {fault.name}.", remedy="pip install 'stepgold[review]'"
            ) from fault
        self._socket = _listen(options)
        app = create_app(
            workspace,
            lang=options.lang,
            images=None if options.images is None else Path(options.images),
            allow_phi=options.allow_phi,
            routers=routers,
            templates=templates,
        )
        rules = replace(_rules(options, self.port, login), **(settings or {}))
        try:
            config = _configured(Guard(app, rules), options)
        except InputError:
            self._socket.close()
            raise
        self.url = _url(options, self.port)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="stepgold-pages", daemon=True)

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self._socket.getsockname()[1])

    def serve(self) -> None:
        """Answer requests until Ctrl-C, SIGTERM or `stop`; Ctrl-C is no failure of a server.

        Raises:
            StoreError: the workspace could not be opened.
        """
        with _stopped_by_signals(self.stop), self:
            while self._thread.is_alive():  # with a timeout, so that Windows hears of Ctrl-C
                self._thread.join(0.5)
        if not self._server.started:
            raise StoreError("The server could not start.", remedy="run it again with --debug")

    def stop(self) -> None:
        """Finish open requests and end."""
        self._server.should_exit = True

    def _run(self) -> None:
        # In a thread, because uvicorn would take the signals of the main thread.
        self._server.run([self._socket])

    def __enter__(self) -> Self:
        """Serve from a thread; requests that come before it is ready wait."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()
        self._socket.close()


def _configured(application: Any, options: ServeOptions) -> uvicorn.Config:
    """How uvicorn serves it.

    Raises:
        InputError: the certificate cannot be used.
    """
    import uvicorn

    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=options.public_url is not None,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        ssl_certfile=None if options.certfile is None else str(options.certfile),
        ssl_keyfile=None if options.keyfile is None else str(options.keyfile),
    )
    try:
        config.load()
    except OSError as fault:  # also ssl.SSLError
        raise InputError(
            f"The certificate cannot be used: {fault}.",
            where=str(options.certfile),
            remedy="give a PEM chain with --certfile and its key with --keyfile",
        ) from fault
    return config


@contextmanager
def _stopped_by_signals(stop: Any) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the server in good order."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(options: ServeOptions) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family, backlog=256)
    except (OSError, OverflowError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise InputError(
            f"Port {options.port} of {options.host} cannot be used: {reason}.",
            where="--port",
            remedy="name another port, or take a free one with --port 0",
        ) from fault


def _rules(options: ServeOptions, port: int, login: Login | None) -> Rules:
    from review.security import Rules

    names = {"localhost", "127.0.0.1", "::1", options.host.lower()}
    if options.public_url is not None:
        names.add(urlsplit(options.public_url).hostname or "")
    if not options.is_loopback:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return Rules(
        hosts=frozenset(names),
        any_address=not options.is_loopback,
        cookie=f"stepgold-{port}",  # browsers send cookies to all ports of a machine
        secure=options.certfile is not None or options.public_url is not None,
        login=login,
        lang=options.lang,
    )


def _url(options: ServeOptions, port: int) -> str:
    if options.public_url is not None:
        return options.public_url.rstrip("/")
    scheme = "http" if options.certfile is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    if not options.is_loopback and _is_any(options.host):
        host = socket.gethostname()
    return f"{scheme}://{host}:{port}"


def _is_any(host: str) -> bool:
    """Whether it means all addresses of the machine, as 0.0.0.0 does."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def view(workspace: WorkspaceFolder, options: ViewOptions) -> ServeResult:
    """Serve read-only pages over the workspace until Ctrl-C.

    Raises:
        InputError: the address cannot be used, or the extra `review` is not installed.
        StoreError: there is no database.
    """
    workspace.open_store().close()
    login, query = None, ""
    if not options.is_loopback:
        login, query = _one_token()
    running = Running(workspace, options, login=login)
    note(f"Serving {workspace.folder} at {running.url}{query or '/'}  (Ctrl-C stops)")
    running.serve()
    return ServeResult(command="view", url=running.url)


def _one_token() -> tuple[Login, str]:
    """A login for everyone who has the link, and what the link adds to the address."""
    try:
        from review.security import hash_of, new_token, single_login
    except ModuleNotFoundError as fault:
        raise InputError(
            f"The pages need the package {fault.name}.", remedy="pip install 'stepgold[review]'"
        ) from fault
    token = new_token()
    return single_login(hash_of(token), "viewer"), f"/login?token={token}"
