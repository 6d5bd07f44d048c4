"""Model specs (`gemini:`, `openai:`, `hf:`, `lab`) into models, policies and judges."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from commands.console import note
from commands.image_options import ImageOptions
from traces.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from commands.model_truth import ModelTruth
    from inference.budget import Purse
    from inference.dispatch import Dispatcher
    from inference.protocol import Message, TextModel
    from inference.specs import ModelSpec
    from labeling.stages import Policy
    from storage import Store


Service = Literal["standard", "flex"]
"""Whose prices and patience hold for hosted calls."""


LAB_CONTINUATION = 130
"""What the lab's window leaves for a continuation, tokens (`lab.candidates` says the same)."""


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """How a policy continues."""

    max_tokens: int
    """Limit of one continuation, tokens."""
    temperature: float
    """Sampling temperature."""
    separator: str
    """What stands between two steps."""
    system: str | None
    """System turn; None for none."""
    with_evidence: bool
    """Whether the policy sees the retrieved evidence."""
    template: Path | None
    """Tokenizer folder whose chat template renders prompts for /v1/completions; None for chat."""
    base_url: str | None
    """Server address; None takes the environment's."""
    concurrency: int | None
    """Requests in flight at once; None leaves the back end's default."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are, and whether they are shown."""
    stop: tuple[str, ...] = ()
    """Strings that end a continuation; cut off where a server leaves them in."""
    answer_judge: str | None = None
    """Model that compares free-text answers which spelling leaves apart; None for none."""

    def as_dict(self) -> dict[str, Any]:
        """What of it shapes the continuations, for the labeler's configuration."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "separator": self.separator,
            "system": self.system,
            "evidence": self.with_evidence,
            "template": template_identity(self.template),
            **self.images.as_dict(),
        } | {name: value for name, value in self._seldom().items() if value}

    def asks_elsewhere(self) -> bool:
        """Whether answers may leave this machine: then a trace's own mark holds, whatever the policy is."""
        return self.answer_judge is not None and not self.answer_judge.startswith("hf:")

    def _seldom(self) -> dict[str, Any]:
        """Named only where they are used: configurations stored before there were such options stay."""
        return {"stop": list(self.stop), "answer_judge": self.answer_judge}


def parse_spec(text: str) -> ModelSpec:
    """Parse a model spec.

    Raises:
        InputError: it is none of the known forms.
    """
    from inference.specs import ModelSpec

    return ModelSpec.parse(text)


def text_model(
    spec: ModelSpec,
    *,
    base_url: str | None = None,
    service: Service = "standard",
    template: Path | None = None,
    concurrency: int | None = None,
) -> TextModel:
    """The text model behind a spec; the heavy library of that back end alone is loaded.

    Raises:
        InputError: the model was shut down, no key is set, or the spec names no text model.
    """
    from inference.model_registry import retirement_notice

    ending = retirement_notice(spec)
    if ending is not None:
        note(ending)
    more: dict[str, Any] = {} if concurrency is None else {"concurrency": concurrency}
    if spec.kind == "gemini":
        from inference.gemini import GeminiModel

        return GeminiModel(spec.name, base_url=base_url, service=service, **more)
    if spec.kind == "openai":
        from inference.openai_server import OpenAIModel

        return OpenAIModel(spec.name, base_url=base_url, template=_chat_template(template), **more)
    if spec.kind == "hf":
        from inference.transformers_local import LocalTextModel

        local = LocalTextModel(spec.name, spec=str(spec))
        tell_slow(spec, local.slow_because)
        return local
    raise InputError(
        f"'{spec}' is not a text model.", remedy="use gemini:MODEL, openai:MODEL or hf:PATH"
    )


def tell_slow(spec: ModelSpec, why: str | None) -> None:
    """Say where a local model shares no prefixes: right, but many times slower."""
    if why is not None:
        note(f"'{spec}' writes every continuation from its beginning, slowly: {why}")


def dispatcher(
    model: TextModel,
    store: Store,
    closing: ExitStack,
    *,
    budget_usd: float | Purse | None = None,
    service: Service = "standard",
    truth: ModelTruth | None = None,
) -> Dispatcher:
    """A dispatcher that records every paid reply in the store before anything else happens to it.

    It is closed by `closing`. Two that share a budget are given one `Purse`; `truth` sees every
    reply and may end the run.
    """
    from inference.dispatch import Dispatcher

    runner = Dispatcher(
        model,
        store.responses,
        budget_usd=budget_usd,
        service=service,
        inspect=truth.see if truth is not None else None,
    )
    closing.callback(_tell_saved, runner)
    return closing.enter_context(runner)


def _tell_saved(runner: Dispatcher) -> None:
    """Say what was not asked of the model: a reply counts for its name, whatever server it is at."""
    saved = runner.counters.cached
    if saved:
        replies = "1 reply" if saved == 1 else f"{saved} replies"
        note(f"{replies} of {runner.model.spec} came from the store and cost nothing.")


def policy(
    spec: ModelSpec,
    store: Store,
    closing: ExitStack,
    options: PolicyOptions,
    *,
    allow_phi: bool = False,
    truth: ModelTruth | None = None,
    budget_usd: float | Purse | None = None,
) -> tuple[Policy, bool]:
    """The policy behind a spec, and whether texts leave this machine for it."""
    from inference.rendering import ContinuationPrompt

    prompt = ContinuationPrompt(system=options.system, separator=options.separator)
    if spec.kind in {"hf", "lab"}:
        from inference.local_policy import LocalPolicy

        local = LocalPolicy(
            model_folder(spec, "policy"),
            spec=str(spec),
            prompt=prompt,
            max_new_tokens=options.max_tokens,
            temperature=options.temperature,
            stop=options.stop,
            with_evidence=options.with_evidence,
            images=options.images.loader(),
        )
        tell_slow(spec, local.slow_because)
        return local, False
    from inference.server_policy import ServerPolicy

    model = text_model(
        spec,
        base_url=options.base_url,
        template=options.template,
        concurrency=options.concurrency,
    )
    server = ServerPolicy(
        dispatcher(model, store, closing, budget_usd=budget_usd, truth=truth),
        prompt=prompt,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stop=options.stop,
        with_evidence=options.with_evidence,
        allow_phi=allow_phi,
        images=options.images.loader(),
    )
    return server, model.hosted


def continuation_limit(spec: ModelSpec, given: int | None) -> int:
    """The limit of one continuation, tokens: as given, else 1,024, of which no lab model has so many."""
    if given is not None:
        return given
    return LAB_CONTINUATION if spec.kind == "lab" else 1024


def model_folder(spec: ModelSpec, role: Literal["policy", "judge", "prm"]) -> str:
    """The path or hub id of a transformers model; `lab` means the bundled model for `role`."""
    if spec.kind == "hf":
        return spec.name
    if spec.kind == "lab":
        from lab.bundled import model_folder as bundled

        return str(bundled(role))
    raise InputError(f"'{spec}' cannot be loaded here.", remedy="use hf:PATH or lab")


def template_identity(folder: Path | None) -> str | None:
    """Which template it is, for a labeler's configuration: the folder's name and what its files hold."""
    if folder is None:
        return None
    digest = sha256()
    for name in ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json"):
        if (folder / name).is_file():
            digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return f"{folder.name}@{digest.hexdigest()[:12]}"


def _chat_template(folder: Path | None) -> Callable[[Sequence[Message]], str] | None:
    if folder is None:
        return None
    from inference.chat_templates import template_from_tokenizer

    return template_from_tokenizer(folder)
