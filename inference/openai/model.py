"""Any OpenAI-compatible server through the openai client, whose errors are mapped here alone.

Servers differ more than the shared name suggests, so this backend assumes little: one request per
continuation (some ignore `n`), stop strings are cut here too (some keep them), a server that does
not know `response_format` is asked again without it, and a field that it refuses by name is renamed
or left out for the rest of the run (`Dialect`).

A request that ends with an assistant turn is a prefix to continue. With a chat template it is
rendered here, verbatim, and sent to /completions. Without one it is sent to /chat/completions with
the two flags that vLLM and llama.cpp understand. llama.cpp returns the prefix before the new text;
transformers serve refuses the flags and needs the template.

Requests may be spread over several servers of the same model. All requests of a trace go to one
server, whose prefix cache holds what they share; when it dies, they move to another.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openai

from inference.destinations import Destination, Redirected
from inference.images import about_an_image, has_images
from inference.openai.wire import (
    Dialect,
    chat_options,
    cut_at_stop,
    read_body,
    response_format,
    turns,
)
from inference.prices import PRICES_AS_OF, Service, cost
from inference.protocol import GenerationRequest, Message, WireReply, over_length_reply
from inference.retries import (
    HttpFault,
    Pace,
    RequestTooLong,
    Retrier,
    RetryPolicy,
    Sleep,
    Subject,
    TransientFault,
    exception_for,
    one_reply,
)
from inference.specs import OPENAI_BASE_URL_VARIABLE as BASE_URL_VARIABLE
from inference.specs import OPENAI_KEY_VARIABLE as KEY_VARIABLE
from traces import InputError, ModelRefused, ModelReply

DEFAULT_BASE_URL = "https://api.openai.com/v1"
Template = Callable[[Sequence[Message]], str]
"""Renders a conversation to the text that a model reads; a final assistant turn stays open."""

_CHAT_ONLY = ("chat_template_kwargs", "reasoning_effort")
"""Fields that mean nothing to /completions: there, the prompt was rendered with them."""


class ServerDown(TransientFault):
    """The connection to a server failed: another one may answer."""


@dataclass(slots=True)
class ModelServer:
    """One server, and what was found out about it."""

    destination: Destination
    subject: Subject
    client: openai.AsyncOpenAI
    chat: Dialect = field(default_factory=Dialect)
    completions: Dialect = field(default_factory=Dialect)
    schema_refused: bool = False
    echoes_prefix: bool = True
    """Whether it repeats a prefix before new text; true until a reply shows that it does not."""
    requests: int = 0
    """Requests that it answered."""
    traces: set[str] = field(default_factory=set)
    """Traces (or problems) of which it answered a request."""
    faults: int = 0
    """Calls without an answer in a row."""
    down_until: float = 0.0
    """Monotonic seconds until which no request is sent if another server is up."""

    async def post(
        self, path: str, options: Mapping[str, Any], report: Callable[[str], None]
    ) -> str:
        """The body of a reply, after changes that the server asks for.

        Raises:
            ServerDown, TransientFault, RequestTooLong, QuotaExhausted, ModelRefused: see
                `retries.exception_for`.
        """
        dialect = self.chat if "messages" in options else self.completions
        while True:
            sent = dialect.fitted(options)
            try:
                return await self._exchange(path, sent)
            except ModelRefused as refusal:
                known = dialect.renamed.keys() | dialect.dropped
                changes = list(dialect.learn(_error_named(refusal), sent))
                if not changes:
                    raise
            if dialect.renamed.keys() | dialect.dropped != known:
                for change in changes:
                    report(f"{self.subject.spec} at {self.destination.host} {change}.")

    async def _exchange(self, path: str, options: Mapping[str, Any]) -> str:
        """One call without changes."""
        with self._translated():
            return await self.client.post(path, body=options, cast_to=str)

    async def send(self, path: str, body: Mapping[str, Any]) -> str:
        """The body of the reply to a POST of JSON; raises as `post`."""
        return await self._exchange(path, body)

    async def get(self, path: str) -> str:
        """The body of the reply to a GET; raises as `post`."""
        with self._translated():
            return await self.client.get(path, cast_to=str)

    async def upload(self, name: str, file: Path) -> str:
        """Upload a file of batch requests; the body of the reply. Raises as `post`."""
        with self._translated():
            return await self.client.post(
                "/files",
                body={"purpose": "batch"},
                files=[("file", (name, file.read_bytes(), "application/jsonl"))],
                options={"headers": {"Content-Type": "multipart/form-data"}},
                cast_to=str,
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Map every third-party error of the block; this is the only place that does."""
        try:
            yield
        except openai.APIStatusError as error:
            raise exception_for(_fault(error), self.subject) from error
        except openai.APITimeoutError as error:
            raise TransientFault("timeout while waiting for the reply") from error
        except openai.APIError as error:
            cause = error.__cause__
            if isinstance(cause, Redirected):
                raise cause from None
            raise ServerDown(f"connection failed: {cause or error}") from error
        except OSError as error:
            raise ServerDown(f"connection failed: {error}") from error


DOWN_S = 30.0
"""Seconds for which a server that failed gets no requests while another one is up."""
MOST_FAULTS = 3
"""Calls without an answer in a row after which a server counts as down."""


class ServerPool:
    """Spreads requests over servers; those of one trace go to one server."""

    def __init__(
        self, servers: Sequence[ModelServer], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """All servers are up; `clock` gives monotonic seconds."""
        self.servers = tuple(servers)
        self._clock = clock
        self._of_trace: dict[str, ModelServer] = {}
        self._assigned = dict.fromkeys(range(len(self.servers)), 0)

    def choose(self, trace: str | None) -> ModelServer:
        """The server of a trace; a new one if it has none yet, or its server is down.

        Args:
            trace: id of the trace or problem; None for a request of neither.
        """
        if len(self.servers) == 1:
            return self.servers[0]
        known = None if trace is None else self._of_trace.get(trace)
        up = [number for number, each in enumerate(self.servers) if self._is_up(each)]
        if known is not None and (self._is_up(known) or not up):
            return known
        if not up:
            return min(self.servers, key=lambda each: each.down_until)
        number = min(up, key=lambda each: self._assigned[each])
        self._assigned[number] += 1
        if trace is not None:
            self._of_trace[trace] = self.servers[number]
        return self.servers[number]

    def answered(self, server: ModelServer, trace: str | None) -> None:
        """Note an answered request."""
        server.faults, server.down_until = 0, 0.0
        server.requests += 1
        if trace is not None:
            server.traces.add(trace)

    def failed(self, server: ModelServer, fault: TransientFault) -> TransientFault:
        """Note a call without an answer; the fault, without a wait if another server is up."""
        server.faults += not fault.throttled
        if isinstance(fault, ServerDown) or server.faults >= MOST_FAULTS:
            server.down_until = self._clock() + DOWN_S
            if any(map(self._is_up, self.servers)):
                return TransientFault(fault.what, delay_s=0.0)
        return fault

    def _is_up(self, server: ModelServer) -> bool:
        return server.down_until <= self._clock()


class OpenAIModel:
    """A model on one or several OpenAI-compatible servers as a `TextModel`."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | Sequence[str] | None = None,
        template: Template | None = None,
        concurrency: int = 8,
        retry: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        insecure_http: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up the clients; nothing is sent.

        Args:
            name: the model's name as the server lists it.
            base_url: the server, or several of the same model; None reads OPENAI_BASE_URL, else
                OpenAI's own.
            template: renders conversations for /completions; None uses /chat/completions.
            concurrency: requests in flight at once, at least 1.
            retry: bounds of the retries; None for the defaults.
            sleep: waits between attempts.
            insecure_http: whether a key may go over plain http to another machine.
            environ: environment variables with key and base URL.

        Raises:
            InputError: no key for OpenAI's own service, or a base URL that cannot be used.
        """
        self.name = name
        self.options: Mapping[str, Any] = {}
        """Fields that the user adds to every request; part of the request key."""
        self.report: Callable[[str], None] = lambda _: None
        """Receives what is changed in requests because a server refused it."""
        self._template = template
        self._concurrency = max(1, concurrency)
        policy = retry or RetryPolicy()
        self._retrier = Retrier(policy, Pace(self._concurrency, sleep=sleep), sleep=sleep)
        given = (base_url,) if base_url is None or isinstance(base_url, str) else base_url
        self._pool = ServerPool(
            [
                self._connected(url, environ, policy.attempt_s, insecure_http=insecure_http)
                for url in dict.fromkeys(given or (None,))
            ]
        )

    def _connected(
        self,
        base_url: str | None,
        environ: Mapping[str, str],
        attempt_s: float,
        *,
        insecure_http: bool,
    ) -> ModelServer:
        destination = Destination.chosen(
            base_url, variable=BASE_URL_VARIABLE, environ=environ, default=DEFAULT_BASE_URL
        )
        key = environ.get(KEY_VARIABLE, "").strip()
        if not key and destination.is_default:
            raise InputError(
                "No OpenAI key in the environment.",
                remedy=f"set {KEY_VARIABLE}, or {BASE_URL_VARIABLE} for a server without keys",
            )
        destination.refuse_plain_http(key, key_variable=KEY_VARIABLE, allowed=insecure_http)
        client = openai.AsyncOpenAI(
            # The client requires a key; a server without keys ignores it.
            api_key=key or "none",
            base_url=destination.url,
            max_retries=0,
            timeout=attempt_s,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=attempt_s,
                follow_redirects=False,
                event_hooks=destination.hooks(self.spec),
                # A proxy would be another machine that receives the text.
                trust_env=not destination.is_loopback,
            ),
        )
        return ModelServer(destination, Subject(self.spec, KEY_VARIABLE, key), client)

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return f"openai:{self.name}"

    @property
    def servers(self) -> tuple[ModelServer, ...]:
        """The servers that keys and texts go to, in the order given."""
        return self._pool.servers

    @property
    def service_name(self) -> str:
        """Where texts go."""
        return ", ".join(each.destination.host for each in self.servers)

    @property
    def hosted(self) -> bool:
        """True unless all servers run on this machine."""
        return not all(each.destination.is_loopback for each in self.servers)

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight at once."""
        return self._concurrency

    @property
    def pace(self) -> Pace:
        """Limits the calls in flight."""
        return self._retrier.pace

    @property
    def retries(self) -> int:
        """Retries so far."""
        return self._retrier.retries

    def rendered(self, request: GenerationRequest) -> str | None:
        """The rendered prefix; None for a request to /chat/completions."""
        if self._template is None or not _is_prefix(request):
            return None
        return self._template(request.messages)

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries; see `TextModel.generate`.

        If the server cannot read an image, this request alone raises ModelUnavailable.
        """
        if self._template is not None and _is_prefix(request) and has_images(request):
            raise ModelRefused(
                f'"{self.spec}" is called through /completions, which takes no images.',
                remedy="leave --template out",
            )
        trace = request.meta.get("trace_id") or request.meta.get("problem_id")

        async def attempt() -> tuple[ModelServer, str, WireReply]:
            server = self._pool.choose(trace)
            try:
                received = await self._exchange(server, request)
                with one_reply(self.spec):
                    body = server.subject.redacted(received)
                    wire = read_body(body)
            except TransientFault as fault:
                raise self._pool.failed(server, fault) from fault
            except asyncio.CancelledError:
                # The attempt's time is up: a server that hangs is as down as one that is gone.
                self._pool.failed(server, TransientFault("no reply in time"))
                raise
            self._pool.answered(server, trace)
            return server, body, wire

        try:
            server, body, wire = await self._retrier.run(attempt, subject=self.spec)
        except RequestTooLong as error:
            return over_length_reply(self.spec, str(error))
        except ModelRefused as refusal:
            unreadable = about_an_image(request, refusal)
            if unreadable is None:
                raise
            raise unreadable from refusal
        return self.reply_of(request, server, body, wire)

    def reply_of(
        self, request: GenerationRequest, server: ModelServer, body: str, wire: WireReply
    ) -> ModelReply:
        """The reply in a body that a server sent, without the prefix and what follows a stop."""
        fresh = self._without_prefix(server, request, wire.text)
        text, was_cut = cut_at_stop(fresh, request.stop)
        reply = self.batch_reply(server, body, wire, service="standard")
        return replace(reply, text=text, finish_reason="stop" if was_cut else wire.finish_reason)

    def batch_reply(
        self, server: ModelServer, body: str, wire: WireReply, *, service: Service = "batch"
    ) -> ModelReply:
        """The reply in a body as it is, at today's price of the service."""
        billed = wire.resolved_model or self.name
        elsewhere = not server.destination.is_loopback
        usd = (cost(wire.usage, billed, service) if wire.is_counted else None) if elsewhere else 0.0
        return ModelReply(
            text=wire.text,
            finish_reason=wire.finish_reason,
            model=self.spec,
            resolved_model=wire.resolved_model,
            usage=wire.usage,
            usd=usd,
            prices_as_of=PRICES_AS_OF.isoformat() if elsewhere and usd is not None else None,
            raw=body,
            server=server.destination.host if len(self.servers) > 1 else None,
        )

    async def aclose(self) -> None:
        """Release connections."""
        for server in self.servers:
            await server.client.close()

    async def _exchange(self, server: ModelServer, request: GenerationRequest) -> str:
        """Send the request in a form that this server accepts."""
        if _is_prefix(request):
            return await self._continue(server, request)
        body = self.chat_body(request, server)
        wanted = body.pop("response_format", None)
        if wanted is None:
            return await server.post("/chat/completions", body, self.report)
        try:
            return await server.post(
                "/chat/completions", body | {"response_format": wanted}, self.report
            )
        except ModelRefused as refusal:
            if not _is_about_fields(refusal):
                raise
        answer = await server.post("/chat/completions", body, self.report)
        server.schema_refused = True
        return answer

    def chat_body(self, request: GenerationRequest, server: ModelServer) -> dict[str, Any]:
        """The body of a request to /chat/completions, the same in a row of a batch file."""
        # OpenAI's own service refuses max_tokens for newer models; others know only max_tokens.
        own = server.destination.is_default
        body = chat_options(
            request,
            model=self.name,
            limit_named="max_completion_tokens" if own else "max_tokens",
            messages=turns(request.messages),
        )
        if request.response_json_schema is not None and not server.schema_refused:
            body["response_format"] = response_format(request.response_json_schema)
        return body | dict(self.options)

    async def _continue(self, server: ModelServer, request: GenerationRequest) -> str:
        """Send a request whose last turn is a prefix."""
        prompt = self.rendered(request)
        if prompt is not None:
            body = chat_options(request, model=self.name, prompt=prompt)
            more = {name: each for name, each in self.options.items() if name not in _CHAT_ONLY}
            return await server.post("/completions", body | more, self.report)
        flags = {"add_generation_prompt": False, "continue_final_message": True}
        try:
            return await server.post(
                "/chat/completions", self.chat_body(request, server) | flags, self.report
            )
        except ModelRefused as refusal:
            if not _is_about_fields(refusal):
                raise
            raise ModelRefused(
                f"{refusal.what} (asked to continue an assistant turn)",
                remedy="give the model's tokenizer folder with --template, so that the prefix can "
                "be sent to /completions",
            ) from refusal

    def _without_prefix(
        self, server: ModelServer, request: GenerationRequest, text: str | None
    ) -> str | None:
        """The new text without the prefix, which some chat servers repeat before it."""
        if text is None or self._template is not None or not _is_prefix(request):
            return text
        prefix = request.messages[-1].text
        server.echoes_prefix = server.echoes_prefix and text.startswith(prefix)
        return text.removeprefix(prefix) if server.echoes_prefix else text


def _is_prefix(request: GenerationRequest) -> bool:
    return request.messages[-1].role == "assistant"


def _is_about_fields(refusal: ModelRefused) -> bool:
    """Whether a field of the request may have been refused, rather than the key or the model."""
    cause = refusal.__cause__
    return isinstance(cause, openai.BadRequestError | openai.UnprocessableEntityError)


def _error_named(refusal: ModelRefused) -> Mapping[str, Any]:
    """The server's error object, if a field may have been refused; else empty."""
    cause = refusal.__cause__
    if not _is_about_fields(refusal) or not isinstance(cause, openai.APIStatusError):
        return {}
    body = cause.body if isinstance(cause.body, Mapping) else {}
    return {**body, "message": _server_message(cause)}


def _fault(error: openai.APIStatusError) -> HttpFault:
    return HttpFault(
        status=error.status_code,
        message=_server_message(error),
        headers={name.lower(): value for name, value in error.response.headers.items()},
        body=error.body,
    )


def _server_message(error: openai.APIStatusError) -> str:
    """The server's message: `message` (OpenAI's shape) or `detail` (FastAPI's), else the body."""
    body = error.body
    if isinstance(body, Mapping):
        for name in ("message", "detail"):
            if body.get(name):
                return str(body[name])
    return error.response.text or error.message
