"""Options of models made into models: policies, dispatchers, batch runners, answer checkers."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stepgold.console import note
from stepgold.images import ImageOptions
from stepgold.options import HostedOptions, RequestOptions
from stepgold.versions import ModelTruth
from traces import Config, InputError, Need, StrPath, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference import (
        BatchLimits,
        BatchRunner,
        BatchService,
        Destination,
        Dispatcher,
        LocalPolicy,
        Message,
        ModelSpec,
        PolicyConfig,
        Purse,
        TextModel,
    )
    from labeling import AnswerChecker, Policy
    from stepgold.clusters import Cluster
    from storage import Store
    from traces import Problem


Service = Literal["standard", "flex"]
"""Service of hosted calls: its prices and response times."""


LAB_CONTINUATION = 130
"""Maximum tokens of a continuation in the lab's window; equals `lab.build.MAX_NEW_TOKENS`."""


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What the models of one run share."""

    store: Store
    """Where replies are stored."""
    closing: ExitStack
    """Closes connections and loaded models."""
    truth: ModelTruth
    """Checks which version of a model answers."""
    purse: Purse
    """The budget that all models share."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are, and whether they are shown."""
    cluster: Cluster | None = None
    """Where models run; None for this process."""

    def open(self, spec: ModelSpec, **how: Any) -> TextModel:
        """A text model, in this process or on the cluster; arguments as those of `text_model`."""
        make = partial(text_model, spec, **how)
        if self.cluster is None:
            return make()
        return self.cluster.text_model(str(spec), make, local=spec.kind == "hf")


SYSTEM = (
    "Solve the question step by step, one step a line. End with a line that says "
    "'The answer is' and the answer."
)
"""System turn of policies; the lab's policy was trained without one and gets none."""

_OPENAI = Need("--policy openai:MODEL", lambda config: config.policy.startswith("openai:"))
_SERVER = Need("--policy openai:MODEL", lambda config: not config.policy.startswith(("hf:", "lab")))


class PolicyOptions(RequestOptions):
    """Which policy writes text, and how it is prompted."""

    inherited_needs: ClassVar = {
        "base_url": _SERVER,
        "concurrency": _SERVER,
        "reasoning_effort": _OPENAI,
        "request_option": _OPENAI,
    }

    policy: str = option(
        metavar="MODEL", help="Policy: openai:, gemini: or vertex:MODEL, hf:PATH or lab."
    )
    max_tokens: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Maximum new tokens per text [default: 1024; lab: 130].",
    )
    temperature: float = option(
        default=0.7, metavar="T", between=(0, None), help="Sampling temperature."
    )
    evidence: bool | None = option(
        default=None,
        flags=("--evidence/--no-evidence",),
        help="Show the evidence to the policy [default: lab only].",
    )
    template: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Tokenizer folder: render prompts locally and send them to /v1/completions.",
        needs=_OPENAI,
    )
    system: str | None = option(
        default=SYSTEM, style="python", help="System turn; the lab's policy gets none."
    )

    @property
    def spec(self) -> ModelSpec:
        """The policy's model."""
        return parse_spec(self.policy)

    @property
    def is_lab(self) -> bool:
        """Whether it is the bundled lab's policy."""
        return self.spec.kind == "lab"

    @property
    def has_weights(self) -> bool:
        """Whether it is a model of transformers rather than a server's."""
        return self.spec.kind in {"hf", "lab"}

    @property
    def with_evidence(self) -> bool:
        """Whether the policy sees the evidence."""
        return self.is_lab if self.evidence is None else self.evidence

    @property
    def limit_of_a_text(self) -> int:
        """Maximum new tokens of one text."""
        if self.max_tokens is not None:
            return self.max_tokens
        return LAB_CONTINUATION if self.is_lab else 1024

    @property
    def system_turn(self) -> str | None:
        """The system turn that is sent."""
        return None if self.is_lab else self.system


def parse_spec(text: str) -> ModelSpec:
    """Parse a model spec; `gemini:` means Vertex AI if GOOGLE_GENAI_USE_VERTEXAI is true.

    Raises:
        InputError: it is none of the known forms.
    """
    from inference import ModelSpec

    return ModelSpec.parse(text).on_its_service(os.environ)


def text_model(
    spec: ModelSpec,
    *,
    base_url: Sequence[str] = (),
    insecure_http: bool = False,
    service: Service = "standard",
    template: Path | None = None,
    concurrency: int | None = None,
    fields: Mapping[str, Any] | None = None,
    allow_phi: bool = False,
) -> TextModel:
    """The text model that a spec names; only the library of its backend is loaded.

    `fields` are added to every request of an OpenAI-compatible server.

    Raises:
        InputError: the model was shut down, no key is set, its server cannot be used, or the spec
            names no text model.
    """
    from inference import retirement_notice

    ending = retirement_notice(spec)
    if ending is not None:
        note(ending)
    more: dict[str, Any] = {"insecure_http": insecure_http}
    if concurrency is not None:
        more["concurrency"] = concurrency
    if spec.is_gemini:
        from inference import GeminiModel, VertexModel

        made = VertexModel if spec.kind == "vertex" else GeminiModel
        gemini = made(spec.name, base_url=only_server(spec, base_url), service=service, **more)
        tell_destination(spec, gemini.client.server)
        tell_phi(gemini, allowed=allow_phi)
        return gemini
    if spec.kind == "openai":
        from inference import OpenAIModel

        added = dict(fields or {})
        switches = added.get("chat_template_kwargs") if template is not None else None
        served = OpenAIModel(
            spec.name, base_url=base_url, template=_chat_template(template, switches), **more
        )
        served.options, served.report = added, note
        for server in served.servers:
            tell_destination(spec, server.destination)
        tell_phi(served, allowed=allow_phi)
        return served
    if spec.kind == "hf":
        from inference import LocalTextModel

        local = LocalTextModel(spec.name, spec=str(spec))
        tell_slow(spec, local.slow_because)
        return local
    raise InputError(
        f"'{spec}' is not a text model.", remedy="use gemini:MODEL, openai:MODEL or hf:PATH"
    )


def tell_phi(model: TextModel, *, allowed: bool) -> None:
    """Name the service that protected health information may go to, if that is allowed."""
    if allowed and model.hosted:
        where = getattr(model, "service_name", model.spec)
        note(f"--allow-phi: problems marked phi_removed: false are sent to {where}.")


def only_server(spec: ModelSpec, base_url: Sequence[str]) -> str | None:
    """The one server of a model; None for the provider's own.

    Raises:
        InputError: there are several.
    """
    if len(base_url) > 1:
        raise InputError(
            f"'{spec}' has one server, but {len(base_url)} were given.",
            where="--base-url",
            remedy="give one; requests of openai:MODEL are spread over several",
        )
    return base_url[0] if base_url else None


def tell_destination(spec: ModelSpec, server: Destination) -> None:
    """Name the server that receives keys and texts, unless it is the provider's own."""
    if not server.is_default:
        note(f"{spec} is served by {server.host}: keys and texts go there.")


def tell_slow(spec: ModelSpec, why: str | None) -> None:
    """Warn that a local model cannot share prefixes: correct, but many times slower."""
    if why is not None:
        note(f"'{spec}' cannot share prefixes and computes every continuation in full: {why}")


def dispatcher(model: TextModel, terms: RunTerms, *, service: Service = "standard") -> Dispatcher:
    """A dispatcher that stores every paid reply before it is used."""
    from inference import Dispatcher

    runner = Dispatcher(
        model,
        terms.store.replies,
        budget_usd=terms.purse,
        service=service,
        inspect=terms.truth.see,
    )
    terms.closing.callback(_tell_shares, model)
    terms.closing.callback(_tell_saved, runner)
    return terms.closing.enter_context(runner)


def _tell_shares(model: TextModel) -> None:
    """Note how the requests of a model with several servers were shared."""
    servers = getattr(model, "servers", ())
    if len(servers) < 2:
        return
    shares = [
        f"{each.destination.host} answered {each.requests} of {len(each.traces)} traces"
        for each in servers
    ]
    note(f"Requests of {model.spec} by server: {'; '.join(shares)}.")


def _tell_saved(runner: Dispatcher) -> None:
    """Note how many replies came from the store; replies are keyed by model, not by server."""
    saved = runner.counters.cached
    if saved:
        replies = "1 reply" if saved == 1 else f"{saved} replies"
        note(f"{replies} of {runner.model.spec} came from the store and cost nothing.")


def policy_config(
    options: PolicyOptions, *, separator: str = "\n", stop: Sequence[str] = ()
) -> PolicyConfig:
    """The prompt and sampling that the options name."""
    from inference import ContinuationPrompt, PolicyConfig

    return PolicyConfig(
        prompt=ContinuationPrompt(system=options.system_turn, separator=separator),
        max_tokens=options.limit_of_a_text,
        temperature=options.temperature,
        stop=tuple(stop),
        with_evidence=options.with_evidence,
    )


def open_policy(
    options: PolicyOptions, terms: RunTerms, *, separator: str, stop: Sequence[str] = ()
) -> tuple[Policy, bool]:
    """The policy that continues prefixes, and whether texts are sent to a hosted model."""
    if options.has_weights:
        return local_policy(options, terms.images, separator=separator, stop=stop), False
    from inference import ServerPolicy

    model = policy_server(options, terms)
    server = ServerPolicy(
        dispatcher(model, terms),
        policy_config(options, separator=separator, stop=stop),
        allow_phi=options.allow_phi,
        images=terms.images.loader(),
    )
    return server, model.hosted


def local_policy(
    options: PolicyOptions, images: ImageOptions, *, separator: str, stop: Sequence[str] = ()
) -> LocalPolicy:
    """The policy with its weights in this process."""
    from inference import LocalPolicy

    config = policy_config(options, separator=separator, stop=stop)
    folder, spec = model_folder(options.spec, "policy"), options.spec
    local = LocalPolicy(folder, config, spec=str(spec), images=images.loader())
    tell_slow(spec, local.slow_because)
    return local


def withholds_phi(options: PolicyOptions, *, answer_judge: str | None, hosted: bool) -> bool:
    """Whether marked problems are withheld: policy or answer judge is hosted, and no permission."""
    elsewhere = hosted or (answer_judge is not None and not answer_judge.startswith("hf:"))
    return elsewhere and not options.allow_phi


def policy_server(options: PolicyOptions, terms: RunTerms) -> TextModel:
    """The hosted model of a policy."""
    return terms.open(
        options.spec,
        base_url=options.base_url,
        insecure_http=options.insecure_http,
        template=None if options.template is None else Path(options.template),
        concurrency=options.concurrency,
        fields=options.request_fields,
        allow_phi=options.allow_phi,
    )


def model_folder(spec: ModelSpec, role: Literal["policy", "judge", "prm"]) -> str:
    """The path or hub id of a transformers model; `lab` means the bundled model for `role`."""
    if spec.kind == "hf":
        return spec.name
    if spec.kind == "lab":
        from lab import bundled_model_folder as bundled

        return str(bundled(role))
    raise InputError(f"'{spec}' cannot be loaded here.", remedy="use hf:PATH or lab")


def template_identity(template: StrPath | None) -> str | None:
    """A template for a labeler's configuration: the folder's name and a hash of its files."""
    if template is None:
        return None
    folder, digest = Path(template), sha256()
    for name in ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json"):
        if (folder / name).is_file():
            digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return f"{folder.name}@{digest.hexdigest()[:12]}"


def _chat_template(
    folder: Path | None, switches: Any = None
) -> Callable[[Sequence[Message]], str] | None:
    if folder is None:
        return None
    from inference import template_from_tokenizer

    return template_from_tokenizer(folder, switches if isinstance(switches, dict) else None)


def checker_factory(
    answer_judge: str | None, terms: RunTerms, options: HostedOptions, *, tolerance: float
) -> Callable[[Problem], AnswerChecker]:
    """The maker of answer checkers, one per problem.

    Args:
        answer_judge: the model that compares free-text answers; None for rules only. Its server
            comes from the environment.
        terms: store, budget and connections, shared with the policy.
        options: what may be sent to the model.
        tolerance: relative difference up to which a decimal equals another number.
    """
    from labeling import AnswerChecker, AnswerJudge

    if answer_judge is None:
        return partial(AnswerChecker.for_problem, tolerance=tolerance)
    model = terms.open(
        parse_spec(answer_judge),
        insecure_http=options.insecure_http,
        allow_phi=options.allow_phi,
    )
    runner = dispatcher(model, terms)
    judge = AnswerJudge(runner, allow_phi=options.allow_phi)
    return partial(AnswerChecker.for_problem, means_same=judge.same, tolerance=tolerance)


BATCH = "batch"
"""The service that runs calls as jobs: half the price, within a day."""

_IN_BATCHES = Need("--service batch", lambda config: config.service == BATCH)


class BatchOptions(Config):
    """The service of hosted calls, and how batch jobs are packed and polled."""

    service: Literal["standard", "flex", "batch"] = option(
        default="standard",
        choices=("standard", "flex", BATCH),
        help="Service of hosted calls; batch costs half and takes up to a day.",
    )
    enqueued_tokens: int | None = option(
        default=None,
        between=(1, None),
        metavar="N",
        help="batch: maximum input tokens in flight [default: the model's Tier 1 limit].",
        needs=_IN_BATCHES,
    )
    poll_seconds: float = option(
        default=30.0,
        between=(0.1, 600),
        metavar="S",
        help="batch: seconds between two checks of a job.",
        needs=_IN_BATCHES,
    )
    bucket: str | None = option(
        default=None,
        metavar="URI",
        help="batch on Vertex AI: gs://BUCKET[/FOLDER] for requests and replies.",
        needs=_IN_BATCHES,
    )
    stuck_hours: float = option(
        default=24.0,
        between=(0.1, 48),
        metavar="H",
        help="batch: resubmit a job that has made no progress for this many hours.",
        needs=_IN_BATCHES,
    )


def refuse_batch(spec: ModelSpec) -> None:
    """Refuse the batch service for a model that has none.

    Raises:
        InputError: the model runs on this machine.
    """
    if spec.kind not in ("gemini", "vertex", "openai"):
        raise InputError(
            f"'{spec}' has no batch service.",
            where="--service",
            remedy="leave --service out, or use gemini:MODEL or openai:MODEL",
        )


def batch_runner(
    spec: ModelSpec,
    terms: RunTerms,
    options: BatchOptions,
    *,
    base_url: Sequence[str] = (),
    insecure_http: bool = False,
    fields: Mapping[str, Any] | None = None,
    allow_phi: bool = False,
) -> BatchRunner:
    """A batch runner, used instead of a dispatcher; closing it leaves its jobs running.

    Raises:
        InputError: the model has no batch service, no key is set, or a budget cannot be kept.
    """
    refuse_batch(spec)
    from inference import BatchLimits, BatchRunner, enqueued_tokens

    limits = BatchLimits(
        options.enqueued_tokens or enqueued_tokens(spec.name),
        poll_s=options.poll_seconds,
        stuck_s=options.stuck_hours * 3600,
    )
    model = text_model(
        spec, base_url=base_url, insecure_http=insecure_http, fields=fields, allow_phi=allow_phi
    )
    service, limits = _batch_service(model, limits, options.bucket)
    return terms.closing.enter_context(
        BatchRunner(
            service,
            terms.store.replies.batch_jobs,
            terms.store.replies,
            limits,
            budget_usd=terms.purse,
            inspect=terms.truth.see,
            report=note,
        )
    )


def _batch_service(
    model: TextModel, limits: BatchLimits, bucket: str | None
) -> tuple[BatchService, BatchLimits]:
    """The batch service of a hosted model, and its limits."""
    if model.spec.startswith("openai:"):
        from inference import OPENAI_FILE_BYTES, OpenAIBatches, OpenAIModel

        if isinstance(model, OpenAIModel):
            return OpenAIBatches(model), replace(limits, file_bytes=OPENAI_FILE_BYTES)
    from inference import GeminiBatches, GeminiModel, VertexBatches, VertexModel

    if isinstance(model, VertexModel):
        return VertexBatches(model, bucket), limits
    if not isinstance(model, GeminiModel):
        raise TypeError(f"{model.spec} has no batch service")
    return GeminiBatches(model), limits
