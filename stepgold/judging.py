"""A judge at work: models, dispatchers and labels joined together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from stepgold.console import note
from stepgold.images import ImageOptions
from stepgold.labeling_run import Labelled, LabelStage, evidence_source, label_missing
from stepgold.models import (
    BATCH,
    BatchOptions,
    ModelTruth,
    Service,
    batch_runner,
    dispatcher,
    model_folder,
    parse_spec,
    refuse_batch,
    text_model,
)
from stepgold.outcome import Tally
from traces.errors import InputError

if TYPE_CHECKING:
    from inference.budget import Purse
    from inference.specs import ModelSpec
    from judge.config import JudgeConfig
    from judge.rag_judge import RagJudge, Runner
    from labeling.stages import Judge
    from storage import Store
    from traces.problem import TraceInContext


@dataclass(frozen=True)
class Asking:
    """How a RAG judge asks, as given on the command line."""

    prompt: Path | None
    """The user's prompt file; None takes the packaged one."""
    evidence_tokens: int
    """Token budget of the documents."""
    max_tokens: int
    """Limit of one reply."""
    granularity: str
    """`trace` or `step`."""
    votes: int
    """Most votes a trace."""
    agree: int
    """Votes that end the voting early when they all agree."""
    temperature: float | None
    """Sampling temperature; None takes 0 for one vote, 0.7 for several."""
    require_quotes: bool
    """Whether an incorrect verdict needs a verified quote."""
    escalate: str | None
    """The model that a split is put to."""

    @cached_property
    def config(self) -> JudgeConfig:
        """The checked configuration.

        Raises:
            InputError: options that do not fit each other, or a prompt that cannot be used.
        """
        from judge.config import VOTING_TEMPERATURE, JudgeConfig
        from judge.prompt_file import read_prompt

        default = VOTING_TEMPERATURE if self.votes > 1 else 0.0
        if self.granularity not in ("trace", "step"):
            raise InputError(
                f"'{self.granularity}' is not a granularity.", remedy="use trace or step"
            )
        return JudgeConfig(
            read_prompt(self.prompt),
            self.evidence_tokens,
            self.max_tokens,
            default if self.temperature is None else self.temperature,
            "step" if self.granularity == "step" else "trace",
            self.require_quotes,
            self.votes,
            self.agree,
            self.escalate,
        )

    def refuse_for_lab(self) -> None:
        """Refuse what the lab's judge, which reads likelihoods, cannot do.

        Raises:
            InputError: votes, single steps, quotes, a prompt or an escalation were asked for.
        """
        asked = {
            "--votes": self.votes > 1,
            "--granularity": self.granularity != "trace",
            "--require-quotes": self.require_quotes,
            "--prompt": self.prompt is not None,
            "--escalate": self.escalate is not None,
        }
        if wrong := [name for name, given in asked.items() if given]:
            raise InputError(
                f"The lab's judge reads likelihoods: {', '.join(wrong)} means nothing to it.",
                remedy="leave it out, or take gemini:MODEL, openai:MODEL or hf:PATH",
            )


@dataclass(frozen=True)
class Calling:
    """Whom a judge asks, and on what terms, as given on the command line."""

    judge: str
    """The model spec."""
    base_url: str | None
    """Its server; None takes the environment's."""
    escalate_base_url: str | None
    """The second judge's server; None takes the environment's."""
    service: str
    """Whose prices and patience hold."""
    concurrency: int | None
    """Requests in flight at once; None leaves the back end's default."""
    budget: float | Purse | None
    """Most US dollars for both judges together, or the purse they share with others."""
    allow_phi: bool
    """Whether marked problems may go to a hosted model."""
    allow_mixed: bool
    """Whether further versions of the model are welcome."""
    batch: BatchOptions = field(default_factory=BatchOptions)
    """How jobs are packed and watched where the service is `batch`."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are, and whether they are shown."""


# --- A judge at work: models, dispatchers and labels joined together


def run_judge(
    store: Store,
    tally: Tally,
    asking: Asking,
    calling: Calling,
    *,
    limit: int | None,
    replace: bool,
) -> None:
    """Let a judge label what is missing; the tally says what came of it.

    Raises:
        InputError: options that do not fit each other, a prompt, model or service that cannot be used.
    """
    from traces.labels import Labeler, LabelerKind

    truth = ModelTruth(allow_mixed=calling.allow_mixed)
    dataset, spec = str(tally.dataset), parse_spec(calling.judge)
    if calling.service == BATCH:
        refuse_batch(spec)
    with ExitStack() as closing:
        exist = store.traces.has_images(dataset)
        if spec.kind == "lab":
            asking.refuse_for_lab()
            stage, settings = lab_judge()
            settings |= calling.images.settled(spec, exist=exist).as_dict()
        else:
            config = _with_images(asking.config, calling, exist=exist)
            settings = config.as_dict()
            rag = rag_judge(store, closing, config, calling, truth)
            stage = partial(rag_stage, judge=rag)
        _say_if_ungrounded(store, dataset, limit, asking)
        labeler = Labeler(str(tally.labeler), LabelerKind.JUDGE, settings, model=str(spec))
        labeler = evidence_source(store, dataset, labeler)
        label_missing(store, tally, labeler, stage, limit=limit, replace=replace, truth=truth)


def _with_images(config: JudgeConfig, calling: Calling, *, exist: bool) -> JudgeConfig:
    """The configuration, which says so where the problems' images are not shown."""
    specs = [parse_spec(each) for each in (calling.judge, config.escalate) if each is not None]
    return replace_fields(config, images=calling.images.settled(*specs, exist=exist).shown)


def rag_judge(
    store: Store,
    closing: ExitStack,
    config: JudgeConfig,
    calling: Calling,
    truth: ModelTruth,
    *,
    first_sample: int = 0,
) -> RagJudge:
    """The judge behind a spec, and the one that its splits are put to; `closing` closes both.

    With `first_sample` above 0, what is stored is asked anew (see `judge.prompt.render_vote`).

    Raises:
        InputError: a model or service that cannot be used.
    """
    from inference.budget import Purse
    from judge.rag_judge import RagJudge

    purse = calling.budget
    if not isinstance(purse, Purse):
        purse = Purse(purse)
    spec = parse_spec(calling.judge)
    second = None if config.escalate is None else parse_spec(config.escalate)
    if second is not None and (second == spec or second.kind == "lab"):
        raise InputError(
            f"Splits cannot be put to '{second}'.",
            where="--escalate",
            remedy="take another model than the judge's, best of another family",
        )
    runners = [
        _runner(each, url, store, closing, calling, purse, truth)
        for each, url in ((spec, calling.base_url), (second, calling.escalate_base_url))
        if each is not None
    ]
    return RagJudge(
        runners[0],
        config,
        allow_phi=calling.allow_phi,
        escalation=None if second is None else lambda: runners[1],
        in_rounds=calling.service == BATCH,
        first_sample=first_sample,
        images=calling.images.loader(),
    )


def _runner(
    spec: ModelSpec,
    base_url: str | None,
    store: Store,
    closing: ExitStack,
    calling: Calling,
    purse: Purse,
    truth: ModelTruth,
) -> Runner:
    """Who sends the calls of one model; a second judge without a batch service is asked call by call."""
    batch = calling.service == BATCH
    if batch and (spec.kind == "gemini" or str(spec) == calling.judge):
        return batch_runner(
            spec, store, closing, calling.batch, base_url=base_url, budget_usd=purse, truth=truth
        )
    tier: Service = "standard" if batch else _service(calling.service)
    model = text_model(spec, base_url=base_url, service=tier, concurrency=calling.concurrency)
    return dispatcher(model, store, closing, budget_usd=purse, service=tier, truth=truth)


def rag_stage(contexts: Iterable[TraceInContext], judge: RagJudge) -> Iterator[Labelled]:
    """The RAG judge as a stage of `label_missing`."""
    prompt = judge.config.prompt
    for judged in judge.judge_with_votes(contexts):
        yield Labelled(
            judged.label,
            resolved_model=judged.label.meta.get("resolved_model"),
            votes=judged.votes,
            prompt=(prompt.sha256, prompt.text),
        )


def _plain_stage(contexts: Iterable[TraceInContext], judge: Judge) -> Iterator[Labelled]:
    from labeling.pipeline import judge_traces

    for label in judge_traces(contexts, judge):
        yield Labelled(label, resolved_model=label.meta.get("resolved_model"))


def lab_judge() -> tuple[LabelStage, dict[str, Any]]:
    """The bundled lab's judge as a stage, and its configuration."""
    from lab.judge import LikelihoodJudge

    note("The lab's judge reads token likelihoods: it writes no reasoning and no quotes.")
    bundled = LikelihoodJudge(model_folder(parse_spec("lab"), "judge"))
    return partial(_plain_stage, judge=bundled), bundled.config()


def _say_if_ungrounded(store: Store, dataset: str, limit: int | None, asking: Asking) -> None:
    # Asked of what the judge is shown: evidence may also have come with the rows of an import.
    if any(context.evidence for context in store.traces.contexts(dataset, limit=limit)):
        return
    note("There is no evidence for these traces: the verdicts will be ungrounded.")
    if asking.require_quotes:
        note("With --require-quotes every incorrect verdict will be the abstention no_evidence.")


def _service(name: str) -> Service:
    for tier in get_args(Service):
        if name == tier:
            return cast(Service, tier)
    raise InputError(f"'{name}' is not a service.", remedy="use standard, flex or batch")
