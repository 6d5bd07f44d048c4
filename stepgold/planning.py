"""What the Monte-Carlo labeler would send: its strategy run for real, over replies made up.

What a stage would send and cost: run for real, against a model that answers at no cost.

Nothing here guesses how many calls a judge makes: the judge itself draws its requests, votes and
single steps included, and finds those that are in the store. What is guessed is said so: how long
replies are (until some are in the store) and how long a call takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from inference import (
    ContinuationPrompt,
    DryCounts,
    DryRun,
    ModelSpec,
    ServerPolicy,
    Service,
    UnaskedModel,
    cost,
)
from judge import estimate_tokens
from labeling import AnswerChecker, MonteCarloConfig, continue_by_strategy
from stepgold.images import ImageOptions
from stepgold.models import parse_spec
from stepgold.scoring_run import ProblemByProblem, ScorerOptions, open_scorer
from traces import InputError, Usage

if TYPE_CHECKING:
    from inference import GenerationRequest, ProblemImages
    from judge import JudgeConfig
    from stepgold.models import PolicyOptions
    from storage import Store
    from traces import TraceInContext


SECONDS_A_CALL = {"standard": 5.0, "flex": 300.0}
"""How long a call takes, assumed: seconds for standard, 1 to 15 minutes for flex."""
HOURS_A_WAVE = 24.0
"""Within which a batch job answers by the service's own target."""
TOKENS_A_STEP = 80
"""Output tokens of a judge's word on a step (quote, reasoning, verdict), assumed."""
ENOUGH_REPLIES = 10
"""Stored replies from which on they say how long replies are, and how far the count is off."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage before it is run: what is expected, and the most it can come to."""

    stage: str
    """`judge`, `escalate` or `continue`."""
    model: str
    """The model as asked for."""
    service: str
    """Whose prices and patience hold."""
    traces: int
    """Traces that were asked for."""
    missing: int
    """Of these, without a word of the labeler."""
    stored: int
    """Calls whose replies are in the store already: they cost nothing."""
    calls: int
    """Calls to be sent if all votes agree at once."""
    calls_at_most: int
    """Calls to be sent if they never do."""
    input_tokens: int
    """Their input, counted offline."""
    output_tokens: int
    """Their output, thinking included."""
    tokens_from: str
    """`estimate`, or `measured` where stored replies corrected it."""
    usd: float | None
    """US dollars; None where no price is known, 0 for models on this machine."""
    usd_at_most: float | None
    """The same with every vote and every token of the output limits used."""
    hours: float | None
    """Hours on the wire; None for models on this machine."""

    def document(self) -> dict[str, Any]:
        """The stage as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a stage would be run."""

    service: str
    """standard, flex or batch."""
    concurrency: int
    """Calls on the wire at once."""
    today: date
    """The day whose prices hold."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are."""


def plan_judge(
    store: Store,
    spec: ModelSpec,
    config: JudgeConfig,
    contexts: Callable[[], Iterable[TraceInContext]],
    *,
    traces: int,
    missing: int,
    terms: Terms,
) -> list[Planned]:
    """The judge, and the second one that splits go to.

    Args:
        store: where replies are looked up; nothing is written.
        spec: the judge's model.
        config: how it asks.
        contexts: the traces to be judged, anew at every call.
        traces: how many were asked for.
        missing: how many of them are to be judged.
        terms: service and day.
    """
    images = terms.images.loader()
    few = _judge_counts(store, spec, config, contexts(), images, votes_agree=True)
    many = few
    if config.votes > 1:
        many = _judge_counts(store, spec, config, contexts(), images, votes_agree=False)
    sizes = {"traces": traces, "missing": missing}
    words = sum(len(context.trace.steps) for context in contexts())
    a_call = TOKENS_A_STEP * words / max(1, missing)
    if config.granularity == "step":
        a_call = TOKENS_A_STEP
    planned = [planned_stage("judge", spec, few[0], many[0], a_call, terms, **sizes)]
    if config.escalate is not None:
        second = ModelSpec.parse(config.escalate)
        planned.append(planned_stage("escalate", second, few[1], many[1], a_call, terms, **sizes))
    return planned


def _judge_counts(
    store: Store,
    spec: ModelSpec,
    config: JudgeConfig,
    contexts: Iterable[TraceInContext],
    images: ProblemImages,
    *,
    votes_agree: bool,
) -> tuple[DryCounts, DryCounts]:
    """What the judge and its second judge would send."""
    from judge import RagJudge

    def dry_run(each: ModelSpec) -> DryRun:
        return DryRun(
            UnaskedModel(str(each), hosted=is_hosted(each)),
            store.replies,
            count_tokens=estimate_tokens,
            answer=lambda request: judge_reply(request, agree=votes_agree),
        )

    first = dry_run(spec)
    second = dry_run(ModelSpec.parse(config.escalate or str(spec)))
    escalation = None if config.escalate is None else lambda: second
    judge = RagJudge(first, config, escalation=escalation, images=images)
    for _ in judge.judge(contexts):
        pass
    return first.counts, second.counts


def judge_reply(request: GenerationRequest, *, agree: bool) -> str:
    """A made-up reply of a judge: no error, or in every vote another first error.

    Args:
        request: the judge's request; its meta names the vote and, for one step per call, the step.
        agree: whether all votes say the same.
    """
    shown = request.messages[-1].text.count('<step number="')
    asked = request.meta.get("step_index")
    steps = range(1, shown + 1) if asked is None else [asked + 1]
    vote = 0 if agree else int(request.meta.get("vote", 0))
    wrong = None if vote == 0 else (vote - 1) % max(1, shown) + 1
    entries = [
        {
            "step": step,
            "document": None,
            "quote": None,
            "reasoning": "",
            "verdict": "incorrect" if step == wrong else "correct",
        }
        for step in steps
    ]
    return json.dumps({"steps": entries})


def planned_stage(
    stage: str,
    spec: ModelSpec,
    few: DryCounts,
    many: DryCounts,
    output_a_call: float,
    terms: Terms,
    **sizes: int,
) -> Planned:
    """One stage from what dry runs came to.

    Args:
        stage: its name.
        spec: the model.
        few: what it sends if all goes well.
        many: what it sends at most.
        output_a_call: output tokens of a call, as long as no stored replies tell.
        terms: service and day.
        sizes: `traces` and `missing`.
    """
    enough = few.stored_estimate > 0 and few.stored >= ENOUGH_REPLIES
    used = few.stored_usage
    factor = used.input_tokens / few.stored_estimate if enough else 1.0
    if enough:
        output_a_call = (used.output_tokens + used.thinking_tokens) / few.stored
    tokens_in, tokens_out = round(few.input_tokens * factor), round(few.calls * output_a_call)
    hosted = is_hosted(spec)
    most_in = round(many.input_tokens * max(factor, 1.0))
    return Planned(
        stage=stage,
        model=str(spec),
        service=terms.service if hosted else "local",
        stored=few.stored,
        calls=few.calls,
        calls_at_most=many.calls,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        tokens_from="measured" if enough else "estimate",
        usd=_usd(spec, tokens_in, tokens_out, terms),
        usd_at_most=_usd(spec, most_in, many.output_limit, terms),
        hours=_hours(spec, few.calls, tokens_in, terms) if hosted else None,
        **sizes,
    )


def _usd(spec: ModelSpec, tokens_in: int, tokens_out: int, terms: Terms) -> float | None:
    if not is_hosted(spec):
        return 0.0
    service: Service = "standard"
    for each in ("flex", "batch"):
        service = each if terms.service == each else service
    return cost(Usage(tokens_in, 0, tokens_out), spec.name, service, on=terms.today)


def _hours(spec: ModelSpec, calls: int, tokens_in: int, terms: Terms) -> float:
    if terms.service == "batch":
        from inference import enqueued_tokens

        return HOURS_A_WAVE * -(-tokens_in // enqueued_tokens(spec.name))
    return calls * SECONDS_A_CALL[terms.service] / terms.concurrency / 3600


def is_hosted(spec: ModelSpec) -> bool:
    """Whether calls go to a service; a server of one's own has no price, and none is assumed."""
    return spec.kind in ("gemini", "openai")


def total_of(stages: Sequence[Planned]) -> dict[str, Any]:
    """The sum over stages; None where a part is not known."""

    def add(values: Iterable[float | None]) -> float | None:
        known = list(values)
        return None if None in known else sum(value for value in known if value is not None)

    return {
        "calls": sum(stage.calls for stage in stages),
        "calls_at_most": sum(stage.calls_at_most for stage in stages),
        "input_tokens": sum(stage.input_tokens for stage in stages),
        "output_tokens": sum(stage.output_tokens for stage in stages),
        "usd": add(stage.usd for stage in stages),
        "usd_at_most": add(stage.usd_at_most for stage in stages),
        "hours": sum(stage.hours or 0.0 for stage in stages),
    }


# --- What the Monte-Carlo labeler would send: its strategy run for real, over replies made up


TOKENS_A_CONTINUATION = 200
"""Output tokens of a continuation, assumed."""


def plan_policy(
    store: Store,
    spec: ModelSpec,
    options: PolicyOptions,
    contexts: Callable[[], Iterable[TraceInContext]],
    *,
    config: MonteCarloConfig,
    traces: int,
    missing: int,
    terms: Terms,
) -> Planned:
    """The Monte-Carlo labeler: what its strategy draws if every prefix reaches the answer.

    At most it draws every prefix k times, as `all` always does.

    Args:
        store: where replies are looked up; nothing is written.
        spec: the policy's model.
        options: how it is prompted.
        contexts: the traces to be labelled, anew at every call.
        config: strategy, k and seed.
        traces: how many were asked for.
        missing: how many of them are to be labelled.
        terms: service and day.
    """
    few = _policy_counts(store, spec, options, contexts(), config)
    many = few
    if config.strategy != "all":
        many = _policy_counts(store, spec, options, contexts(), replace(config, strategy="all"))
    sizes = {"traces": traces, "missing": missing}
    a_call = min(TOKENS_A_CONTINUATION, options.max_tokens)
    return planned_stage("continue", spec, few, many, a_call, terms, **sizes)


def _policy_counts(
    store: Store,
    spec: ModelSpec,
    options: PolicyOptions,
    contexts: Iterable[TraceInContext],
    config: MonteCarloConfig,
) -> DryCounts:
    """What the labeler would send if every continuation reached the answer."""
    dry = DryRun(
        UnaskedModel(str(spec), hosted=is_hosted(spec)),
        store.replies,
        count_tokens=estimate_tokens,
        answer=lambda _: "The answer is: yes",
    )
    reached = AnswerChecker("word", "yes", lambda _: "yes", lambda _: True)
    policy = ServerPolicy(
        dry,
        ContinuationPrompt(system=options.system, separator=options.separator),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stop=options.stop,
        with_evidence=options.with_evidence,
        images=options.images.loader(),
    )
    with_answer = (context for context in contexts if (context.problem.answer or "").strip())
    for _ in continue_by_strategy(with_answer, policy, lambda _: reached, config):
        pass
    return dry.counts


# --- The part of `stepgold plan` that looks at a PRM: what does not fit, and how long it takes


def plan_prm(
    store: Store,
    dataset: str,
    chosen: ScorerOptions,
    asked: tuple[int, Sequence[str]],
) -> dict[str, Any]:
    """What scoring would do, as JSON; some traces are scored to measure the speed, none is stored.

    Args:
        store: where the traces are; nothing is written.
        dataset: theirs.
        chosen: the PRM, and how traces are laid out for it.
        asked: how many traces were asked for, and those without a word of the labeler.

    Raises:
        InputError: an option that does not fit.
        PrmError: the checkpoint cannot be used.
    """
    from scoring.planning import plan_scoring

    if parse_spec(chosen.prm).kind == "openai":
        raise InputError(
            f'The plan for "{chosen.prm}" is that of its checkpoint: a server tells nothing beforehand.',
            remedy="plan with --prm hf:PATH: the same traces fit; the time is that of this machine",
        )
    traces, missing = asked
    shown = chosen.images.for_prm(exist=store.traces.has_images(dataset))
    scorer = open_scorer(replace(chosen, images=shown))
    contexts = ProblemByProblem(store, dataset, scorer.expected_work).contexts(missing)
    planned = plan_scoring(scorer, contexts, traces=len(missing)).as_json()
    return {
        "stage": "score",
        "model": chosen.prm,
        "family": scorer.family.name,
        "max_tokens": scorer.rules.max_tokens,
        **planned,
        "traces": traces,
        "missing": len(missing),
    }


def scoring_words(planned: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines = [
        f"score with {planned['model']} ({planned['family']}): {planned['missing']} of"
        f" {planned['traces']} traces missing, the longest has {planned['longest']} tokens"
    ]
    if planned["looked_at"] < planned["missing"]:
        lines.append(f"  told from {planned['looked_at']} of them, every so-manieth problem")
    for at in planned["limits"]:
        mark = " (this run)" if at["max_tokens"] == planned["max_tokens"] else ""
        lines.append(
            f"  --max-tokens {at['max_tokens']}{mark}: {at['whole']} fit with all documents,"
            f" {at['shortened']} with fewer, {at['abstained']} not at all"
        )
    if planned["unreadable"]:
        lines.append(f"  {planned['unreadable']} have an image that cannot be read")
    if planned["seconds"] is not None:
        low, high = (_clock(seconds) for seconds in planned["seconds_range"])
        lines.append(
            f"  about {_clock(planned['seconds'])} ({low} to {high}), measured on"
            f" {planned['sampled']} traces"
        )
    return lines


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
