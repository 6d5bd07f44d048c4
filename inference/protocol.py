"""What a text model is: one request in, one reply out. Every back end keeps this and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from traces.errors import ModelError
from traces.records import ModelReply, StoredCall

if TYPE_CHECKING:
    from formats.images import EncodedImage

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    """Who speaks."""
    text: str
    """What is said. An assistant turn that comes last is a prefix to be continued."""
    images: tuple[EncodedImage, ...] = ()
    """What a user turn shows before its text: to services each under a line "Image 1:" and so on, to a
    model on this machine as its template does. Equal by their hashes."""

    def __post_init__(self) -> None:
        """Refuse images where no service takes them.

        Raises:
            ValueError: images of a system or assistant turn, which would be lost on the way.
        """
        if self.images and self.role != "user":
            raise ValueError(f"a {self.role} turn shows no images")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to a text model. Frozen and hashable content: it is the key of the response store."""

    messages: tuple[Message, ...]
    """The conversation so far."""
    max_tokens: int
    """Limit of the reply, thinking included."""
    temperature: float | None = None
    """Sampling temperature; None leaves the service's default (Gemini 3.x ignores it)."""
    top_p: float | None = None
    """Nucleus; None leaves the default."""
    stop: tuple[str, ...] = ()
    """Stop strings; a server may or may not leave them in the text."""
    seed: int | None = None
    """Sampling seed where the service takes one."""
    response_json_schema: Mapping[str, Any] | None = None
    """JSON schema the reply must follow; None for free text."""
    sample_index: int = 0
    """0-based number of the sample among equal requests: part of the key, so that samples differ."""
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the call is for (trace id, step, vote); stored with it, not part of the key."""


class TextModel(Protocol):
    """A language model that answers requests."""

    @property
    def spec(self) -> str:
        """The model as the user named it, e.g. `gemini:gemini-3.5-flash-lite`."""

    @property
    def hosted(self) -> bool:
        """True if texts leave this machine's control (Gemini, a remote server)."""

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once, at least 1."""

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries.

        Raises:
            ModelUnavailable: overload, time-out or connection fault outlasted the retries.
            ModelRefused: key, model or request refused.
            QuotaExhausted: the day's quota is used up.
        """

    async def aclose(self) -> None:
        """Release connections."""


class ResponseStore(Protocol):
    """Where paid replies are kept, addressed by content. `put` returns only when it is durable."""

    def get(self, key: str) -> ModelReply | None:
        """The reply recorded under `key`; None if there is none."""

    def put(self, call: StoredCall) -> None:
        """Record a reply durably; a second put of the same key is a no-op."""


class Runner(Protocol):
    """What the stages need of a `Dispatcher`: a batch runner and a dry run are runners too."""

    @property
    def model(self) -> TextModel:
        """The model that answers."""

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, ModelReply | ModelError]]:
        """Answer requests in any order, each recorded before it is yielded."""
