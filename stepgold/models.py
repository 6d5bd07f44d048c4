"""How the answers of continuations are checked: by rule, and by a model where a user names one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepgold.console import note
from stepgold.images import ImageOptions
from traces.config import Config, Need, option
from traces.errors import InputError, ModelChanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference import BatchRunner, Dispatcher, Message, ModelSpec, Purse, TextModel
    from labeling import AnswerChecker, Policy
    from storage import Store
    from traces import ModelReply, Problem


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
    from inference import ModelSpec

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
    from inference import retirement_notice

    ending = retirement_notice(spec)
    if ending is not None:
        note(ending)
    more: dict[str, Any] = {} if concurrency is None else {"concurrency": concurrency}
    if spec.kind == "gemini":
        from inference import GeminiModel

        return GeminiModel(spec.name, base_url=base_url, service=service, **more)
    if spec.kind == "openai":
        from inference import OpenAIModel

        return OpenAIModel(spec.name, base_url=base_url, template=_chat_template(template), **more)
    if spec.kind == "hf":
        from inference import LocalTextModel

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
    from inference import Dispatcher

    runner = Dispatcher(
        model,
        store.replies,
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
    from inference import ContinuationPrompt

    prompt = ContinuationPrompt(system=options.system, separator=options.separator)
    if spec.kind in {"hf", "lab"}:
        from inference import LocalPolicy

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
    from inference import ServerPolicy

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
    from inference import template_from_tokenizer

    return template_from_tokenizer(folder)


# --- How the answers of continuations are checked: by rule, and by a model where a user names one


def checker_factory(
    answer_judge: str | None,
    store: Store,
    closing: ExitStack,
    *,
    purse: Purse,
    truth: ModelTruth,
    allow_phi: bool,
) -> Callable[[Problem], AnswerChecker]:
    """What makes the answer checker of a problem.

    Args:
        answer_judge: the model that compares free-text answers; None for rules alone. Its server is
            the one that the environment names.
        store: where its replies are kept.
        closing: closes its connections.
        purse: the budget it shares with the policy.
        truth: sees every reply.
        allow_phi: whether protected questions may be sent.
    """
    from labeling import AnswerChecker

    if answer_judge is None:
        return AnswerChecker.for_problem
    from labeling import AnswerJudge

    model = text_model(parse_spec(answer_judge))
    runner = dispatcher(model, store, closing, budget_usd=purse, truth=truth)
    judge = AnswerJudge(runner, allow_phi=allow_phi)
    return partial(AnswerChecker.for_problem, means_same=judge.same)


# --- Options of `--service batch` into a runner, and its open jobs for `status`


BATCH = "batch"
"""The service whose calls are jobs: half the price, within a day."""

_IN_BATCHES = Need("--service batch", lambda config: config.service == BATCH)


class BatchOptions(Config):
    """Whose prices and patience apply, and how batch jobs are packed and watched."""

    service: Literal["standard", "flex", "batch"] = option(
        default="standard",
        choices=("standard", "flex", BATCH),
        help="Service of hosted calls; batch is half the price, within a day.",
    )
    enqueued_tokens: int | None = option(
        default=None,
        between=(1, None),
        metavar="N",
        help="batch: input tokens in flight at once [default: the model's in Tier 1].",
        needs=_IN_BATCHES,
    )
    poll_seconds: float = option(
        default=30.0,
        between=(0.1, 600),
        metavar="S",
        help="batch: seconds between two checks of the jobs.",
        needs=_IN_BATCHES,
    )
    stuck_hours: float = option(
        default=24.0,
        between=(0.1, 48),
        metavar="H",
        help="batch: cancel a job without progress for this long, and send it again.",
        needs=_IN_BATCHES,
    )


def refuse_batch(spec: ModelSpec) -> None:
    """Refuse the batch service for a model that has none.

    Raises:
        InputError: the model is not one of Gemini.
    """
    if spec.kind != "gemini":
        raise InputError(
            f"The service 'batch' is Gemini's: '{spec}' has none.",
            where="--service",
            remedy="leave --service out, or take gemini:MODEL",
        )


def batch_runner(
    spec: ModelSpec,
    store: Store,
    closing: ExitStack,
    options: BatchOptions,
    *,
    base_url: str | None = None,
    budget_usd: float | Purse | None = None,
    truth: ModelTruth | None = None,
) -> BatchRunner:
    """A runner in the place of `backends.dispatcher`; `closing` closes it and leaves its jobs running.

    Raises:
        InputError: the model has no batch service, no key is set, or a budget cannot be kept.
    """
    refuse_batch(spec)
    from inference import BatchLimits, BatchRunner, GeminiBatches, GeminiModel, enqueued_tokens

    model = text_model(spec, base_url=base_url)
    if not isinstance(model, GeminiModel):
        raise TypeError(f"{spec} is no Gemini model")
    limits = BatchLimits(
        options.enqueued_tokens or enqueued_tokens(spec.name),
        poll_s=options.poll_seconds,
        stuck_s=options.stuck_hours * 3600,
    )
    return closing.enter_context(
        BatchRunner(
            GeminiBatches(model),
            store.replies.batch_jobs,
            store.replies,
            limits,
            budget_usd,
            inspect=truth.see if truth is not None else None,
            report=note,
        )
    )


def open_jobs(store: Store) -> list[dict[str, Any]]:
    """The batch jobs that are on their way, for the document of `status`."""
    return [
        {
            "name": job.name,
            "display_name": job.display_name,
            "model": job.model,
            "requests": job.requests,
            "outstanding": job.outstanding,
            "enqueued_tokens": job.tokens,
            "usd_at_most": job.usd,
            "created_at": datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds"),
            "cancelled": job.cancelled_at is not None,
        }
        for job in store.replies.batch_jobs.alive()
    ]


def job_words(jobs: list[dict[str, Any]]) -> list[str]:
    """The same for a person."""
    return [
        f"  batch job {job['name'] or job['display_name']} ({job['model']}): "
        f"{job['outstanding']} of {job['requests']} requests on their way since "
        f"{job['created_at']}, at most {job['usd_at_most']:.4f} USD"
        + (", cancelled" if job["cancelled"] else "")
        for job in jobs
    ]


# --- Which version of a model really answered: a labeler that mixes two says so, or does not run


class ModelTruth:
    """Watches the versions that answer for one labeler, over all its runs.

    The first version that answers for a model is the one; another ends the run. A model whose
    service does not name its version cannot be watched.
    """

    def __init__(self, *, allow_mixed: bool = False) -> None:
        """Nothing has answered yet.

        Args:
            allow_mixed: whether further versions are welcome.
        """
        self._allow_mixed = allow_mixed
        self._stored: frozenset[str] = frozenset()
        self._store: Store | None = None
        self._known: dict[str, set[str]] = defaultdict(set)

    def expect(self, store: Store, dataset: str, labeler: str) -> None:
        """Take over what answered for the labeler in earlier runs."""
        answered = store.labels.labeler(dataset, labeler).resolved_model or ""
        self._stored, self._store = frozenset(filter(None, answered.split(", "))), store

    def see(self, reply: ModelReply) -> None:
        """Note who wrote a reply, bought or stored.

        Raises:
            ModelChanged: another version answered before, and mixing is not allowed.
        """
        if reply.resolved_model is None:
            return
        earlier: frozenset[str] = frozenset()
        if self._store is not None and not self._known[reply.model]:
            # a labeler may ask two models (a second judge): this one's versions are in the ledger
            earlier = self._stored & self._store.replies.versions(reply.model)
        self._note(reply.model, reply.resolved_model, earlier)

    def see_label(self, model: str | None, versions: str | None) -> None:
        """Note who made a label, where no dispatcher has shown the replies; raises as `see` does.

        Args:
            model: the labeler's model; None where none is involved.
            versions: what answered, joined by commas; None if unknown.
        """
        seen = {each for known in self._known.values() for each in known}
        for version in (versions or "").split(", "):
            if model and version and version not in seen:
                self._note(model, version, self._stored)

    def _note(self, model: str, version: str, earlier: frozenset[str]) -> None:
        known = self._known[model]
        if not known:
            known |= earlier
        if version in known:
            return
        if known and not self._allow_mixed:
            before = ", ".join(sorted(known))
            raise ModelChanged(
                f'Where "{model}" is asked, "{version}" answers now; "{before}" answered before.',
                remedy="label with this version under another --name, "
                "or mix both in one labeler with --allow-mixed",
            )
        known.add(version)
