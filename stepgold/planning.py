"""`plan`: what stages would send and cost, from a dry run that sends nothing.

The judge and the Monte Carlo strategy make their real requests, including votes and single steps,
and find those whose replies are stored. Only two things are assumed: how long replies are (until
enough are stored) and how long a call takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.continuing import ContinueOptions
from stepgold.images import ImageOptions
from stepgold.judging import JudgeOptions
from stepgold.models import parse_spec, policy_config
from stepgold.results import Result, flat
from stepgold.scoring_run import ScoreOptions
from traces import (
    AbstentionReason,
    Config,
    InputError,
    Labeler,
    TraceInContext,
    Usage,
    declared_options,
    option,
)

if TYPE_CHECKING:
    from inference import DryCounts, DryRun, GenerationRequest, ModelSpec, Service
    from stepgold.workspace import WorkspaceFolder
    from storage import Store

Stage = JudgeOptions | ContinueOptions | ScoreOptions
"""The stages that can be planned, by the options that they would run with."""

STAGES: Mapping[str, tuple[type[Stage], str]] = {
    "judge": (JudgeOptions, ""),
    "policy": (ContinueOptions, "policy_"),
    "prm": (ScoreOptions, "prm_"),
}
"""By the option that plans a stage: its config, and the prefix for names already in use."""
SHARED = frozenset({"dataset", "limit", "images", "ignore_images", "concurrency"})
"""Options that all stages share."""
_UNUSED = frozenset({"replace", "budget", "allow_phi", "insecure_http", "allow_mixed"})
"""Options of a run that do not change its plan."""

CALLS_AT_ONCE = 16
"""Assumed calls in flight without --concurrency."""
SECONDS_A_CALL = {"standard": 5.0, "flex": 300.0}
"""Assumed seconds per call; flex answers within 1 to 15 minutes."""
HOURS_A_WAVE = 24.0
"""Hours within which the service aims to finish a batch job."""
TOKENS_A_STEP = 80
"""Assumed output tokens of a judged step (quote, reasoning, verdict)."""
ENOUGH_REPLIES = 10
"""Minimum number of stored replies from which lengths are measured instead of assumed."""
TOKENS_A_CONTINUATION = 200
"""Assumed output tokens of a continuation."""


class PlanOptions(Config):
    """Which stages to plan, for one dataset."""

    stages: Sequence[Stage] = option(style="python", help="Options of the stages to plan.")

    def check(self) -> None:
        """Refuse an empty plan, and stages of several datasets.

        Raises:
            InputError: there is nothing to plan, or more than one dataset.
        """
        super().check()
        if not self.stages:
            raise InputError(
                "There is nothing to plan.", remedy="add --judge, --policy or --prm MODEL"
            )
        if len({stage.dataset for stage in self.stages}) > 1:
            raise InputError(
                "The stages use different datasets.", remedy="plan one dataset at a time"
            )


@cache
def stage_fields() -> Mapping[str, Mapping[str, str]]:
    """For each stage of `STAGES`, its fields by the name of their option of `plan`."""
    taken: set[str] = set()
    fields: dict[str, dict[str, str]] = {}
    for stage, (config, prefix) in STAGES.items():
        fields[stage] = {}
        for name, _, declared in declared_options(config):
            if declared.style == "python" or name in _UNUSED:
                continue
            shown = name
            if name in taken - SHARED:
                shown = ("mc_" if (stage, name) == ("policy", "name") else prefix) + name
            fields[stage][shown] = name
        taken |= fields[stage].keys()
    return fields


def stages_of(chosen: Mapping[str, Any]) -> list[Stage]:
    """The options of the stages to plan.

    Args:
        chosen: the options that the user set, by their name as options of `plan`.

    Raises:
        InputError: an option is missing, or has no effect on the stages given.
        TypeError: no stage has an option of that name.
    """
    if unknown := chosen.keys() - {name for fields in stage_fields().values() for name in fields}:
        raise TypeError(f"plan has no option {', '.join(sorted(unknown))}")
    stages: list[Stage] = []
    idle: dict[str, str] = {}
    for stage, (config, _) in STAGES.items():
        fields = {shown: name for shown, name in stage_fields()[stage].items() if shown in chosen}
        if stage not in chosen:
            idle |= dict.fromkeys(fields.keys() - SHARED, stage)
            continue
        if "dataset" not in chosen:
            raise InputError("The dataset is missing.", remedy="add --dataset NAME")
        options = config(**{name: chosen[shown] for shown, name in fields.items()})
        options.refuse_idle(fields.values())
        stages.append(options)
    for stage in idle.values():
        flags = ", ".join(f"--{n.replace('_', '-')}" for n in sorted(idle) if idle[n] == stage)
        raise InputError(f"{flags} has no effect without --{stage}.", remedy=f"add --{stage} MODEL")
    return stages


@dataclass(frozen=True, slots=True)
class Planned:
    """The expected and maximum calls and cost of one stage."""

    stage: str
    """`judge`, `escalate` or `continue`."""
    model: str
    """The model as the user named it."""
    service: str
    """The service of the calls; `local` for models on this machine."""
    traces: int
    """Traces that were asked for."""
    missing: int
    """Of these, traces without a label."""
    stored: int
    """Calls with a stored reply, which cost nothing."""
    calls: int
    """Calls if all votes agree."""
    calls_at_most: int
    """Calls if no votes agree."""
    input_tokens: int
    """Input tokens, counted offline."""
    output_tokens: int
    """Output tokens, including thinking."""
    tokens_from: str
    """`estimate`, or `measured` if stored replies corrected it."""
    usd: float | None
    """US dollars; None if the price is unknown, 0 for models on this machine."""
    usd_at_most: float | None
    """US dollars if every vote and every token of the output limits is used."""
    hours: float | None
    """Hours of calls; None for models on this machine."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(Result):
    """What the stages would send and cost; nothing is sent or stored."""

    dataset: str
    """The dataset."""
    stages: tuple[Planned, ...]
    """Judge, second judge and Monte Carlo labeler."""
    scoring: tuple[dict[str, Any], ...]
    """PRM scoring: what fits at which limit, and how long it takes."""

    @property
    def total(self) -> dict[str, Any]:
        """Sums over the stages; None if a part is unknown."""

        def add(name: str) -> float | None:
            known = [value for stage in self.stages if (value := getattr(stage, name)) is not None]
            return sum(known) if len(known) == len(self.stages) else None

        counts = ("calls", "calls_at_most", "input_tokens", "output_tokens")
        return {
            **{name: sum(getattr(stage, name) for stage in self.stages) for name in counts},
            "usd": add("usd"),
            "usd_at_most": add("usd_at_most"),
            "hours": sum(stage.hours or 0.0 for stage in self.stages),
        }

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        from inference import PRICES_AS_OF

        return {
            "command": "plan",
            "dataset": self.dataset,
            "stages": [*map(asdict, self.stages), *self.scoring],
            "total": self.total,
            "prices_as_of": PRICES_AS_OF.isoformat(),
            "assumed": {
                "seconds_a_call": SECONDS_A_CALL,
                "hours_a_batch_wave": HOURS_A_WAVE,
                "output_tokens_a_judged_step": TOKENS_A_STEP,
                "output_tokens_a_continuation": TOKENS_A_CONTINUATION,
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage."""
        return [asdict(stage) for stage in self.stages] + [flat(one) for one in self.scoring]

    def words(self) -> str:
        """Calls, tokens, dollars and hours per stage."""
        from inference import PRICES_AS_OF

        lines = [line for stage in self.stages for line in _stage_words(stage)]
        if lines:
            lines.append(f"prices as of {PRICES_AS_OF.isoformat()}")
        return "\n".join([*lines, *(line for one in self.scoring for line in scoring_words(one))])


def _stage_words(stage: Planned) -> list[str]:
    usd = "price unknown" if stage.usd is None else f"{stage.usd:.2f} USD"
    most = "" if stage.usd_at_most is None else f" (at most {stage.usd_at_most:.2f})"
    calls = f"{stage.calls} calls"
    if stage.calls_at_most != stage.calls:
        calls += f" (at most {stage.calls_at_most})"
    time = "" if stage.hours is None else f", about {stage.hours:.1f} h"
    return [
        f"{stage.stage} with {stage.model} ({stage.service}): {stage.missing} of "
        f"{stage.traces} traces missing, {calls}, {stage.stored} already answered",
        f"  {stage.input_tokens} tokens in, {stage.output_tokens} out ({stage.tokens_from}): "
        f"{usd}{most}{time}",
    ]


@dataclass(frozen=True, slots=True)
class _Planning:
    """One stage on the traces that it would label."""

    store: Store
    stage: str
    spec: ModelSpec
    service: str
    concurrency: int
    images: ImageOptions
    asked: int
    """Traces that were asked for."""
    missing: Sequence[str]
    """Of these, the ones without a label."""
    dataset: str
    fields: Mapping[str, Any]
    """Fields that are added to requests of an OpenAI-compatible server."""

    def contexts(self) -> Iterator[TraceInContext]:
        return self.store.traces.contexts(self.dataset, trace_ids=self.missing)

    def dry_run(self, spec: ModelSpec, answer: Callable[[GenerationRequest], str]) -> DryRun:
        from inference import DryRun, UnaskedModel
        from judge import estimate_tokens

        model = UnaskedModel(str(spec), hosted=is_hosted(spec))
        model.options = self.fields if spec.kind == "openai" else {}
        return DryRun(
            model,
            self.store.replies,
            count_tokens=estimate_tokens,
            answer=answer,
        )


def plan(workspace: WorkspaceFolder, options: PlanOptions) -> Plan:
    """Estimate what stages would send and cost; nothing is sent or stored.

    Raises:
        InputError: a model without calls to plan, or a checkpoint that cannot be used.
    """
    stages: list[Planned] = []
    scoring: list[dict[str, Any]] = []
    with workspace.open_store() as store:
        store.traces.require_dataset(options.stages[0].dataset)
        for stage in options.stages:
            if isinstance(stage, ScoreOptions):
                scoring.append(_plan_prm(workspace, store, stage))
            elif isinstance(stage, JudgeOptions):
                stages += _plan_judge(workspace, store, stage)
            else:
                stages.append(_plan_policy(workspace, store, stage))
    return Plan(dataset=options.stages[0].dataset, stages=tuple(stages), scoring=tuple(scoring))


def _plan_judge(workspace: WorkspaceFolder, store: Store, options: JudgeOptions) -> list[Planned]:
    """The judge, and the second judge of split votes."""
    from judge import RagJudge

    spec = parse_spec(options.judge)
    second = None if options.escalate is None else parse_spec(options.escalate)
    if spec.kind == "lab":
        raise InputError(
            "The lab's judge makes no calls to plan.",
            remedy="use gemini:MODEL, openai:MODEL or hf:PATH",
        )
    specs = [spec] if second is None else [spec, second]
    _note_retirement(*specs)
    one = _planning(workspace, store, options, stage="judge", specs=specs)
    options = options.but(show_images=one.images.shown)

    def counts(*, agree: bool) -> tuple[DryCounts, DryCounts]:
        runs = [
            one.dry_run(each, lambda request: judge_reply(request, agree=agree))
            for each in (spec, second or spec)
        ]
        judge = RagJudge(
            runs[0],
            options,
            escalation=None if second is None else lambda: runs[1],
            images=one.images.loader(),
        )
        for _ in judge.judge(one.contexts()):
            pass
        return runs[0].counts, runs[1].counts

    few = counts(agree=True)
    many = counts(agree=False) if options.votes > 1 else few
    tokens = float(TOKENS_A_STEP)
    if options.granularity == "trace":
        steps = sum(len(context.trace.steps) for context in one.contexts())
        tokens = TOKENS_A_STEP * steps / max(1, len(one.missing))
    planned = [_planned(one, few[0], many[0], output_a_call=tokens)]
    if second is not None:
        other = _planning(workspace, store, options, stage="escalate", specs=specs, at=1)
        planned.append(_planned(other, few[1], many[1], output_a_call=tokens))
    return planned


def _plan_policy(workspace: WorkspaceFolder, store: Store, options: ContinueOptions) -> Planned:
    """The Monte Carlo labeler: expected if every prefix reaches the answer; at most as `all`."""
    from inference import ServerPolicy
    from labeling import AnswerChecker, continue_by_strategy

    _note_retirement(options.spec)
    one = _planning(workspace, store, options, stage="continue", specs=[options.spec])
    reached = AnswerChecker("word", "yes", lambda _: "yes", lambda _: True)

    def counts(config: ContinueOptions) -> DryCounts:
        dry = one.dry_run(options.spec, lambda _: "The answer is: yes")
        policy = ServerPolicy(
            dry,
            policy_config(options, separator=options.step_separator, stop=options.stop),
            images=one.images.loader(),
        )
        usable = (each for each in one.contexts() if (each.problem.answer or "").strip())
        for _ in continue_by_strategy(usable, policy, lambda _: reached, config):
            pass
        return dry.counts

    few = counts(options)
    # Every label rule allows the strategy `all`; the others need the rule `hard`.
    many = few if options.strategy == "all" else counts(options.but(strategy="all"))
    tokens = min(TOKENS_A_CONTINUATION, options.limit_of_a_text)
    return _planned(one, few, many, output_a_call=tokens)


def _planning(
    workspace: WorkspaceFolder,
    store: Store,
    options: JudgeOptions | ContinueOptions,
    *,
    stage: str,
    specs: Sequence[ModelSpec],
    at: int = 0,
) -> _Planning:
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    asked, missing = _missing(store, options, specs[0])
    return _Planning(
        store=store,
        stage=stage,
        spec=specs[at],
        service=options.service if isinstance(options, JudgeOptions) else "standard",
        concurrency=options.concurrency or CALLS_AT_ONCE,
        images=images.settled(*specs, exist=store.traces.has_images(options.dataset)),
        asked=asked,
        missing=missing,
        dataset=options.dataset,
        fields=options.request_fields,
    )


def _missing(store: Store, options: Stage, spec: ModelSpec) -> tuple[int, list[str]]:
    """How many traces were asked for, and those without a label.

    If the name belongs to another model, it would have to be replaced, so all traces are missing.
    """
    contexts = store.traces.contexts(options.dataset, with_evidence=False, limit=options.limit)
    asked = [context.trace.id for context in contexts]
    labelers = [row.labeler for row in store.labels.labelers(options.dataset)]
    if all((each.name, each.model) != (options.name, str(spec)) for each in labelers):
        return len(asked), asked
    unlabeled = set(store.labels.unlabeled_trace_ids(options.dataset, options.name))
    return len(asked), [trace_id for trace_id in asked if trace_id in unlabeled]


def _note_retirement(*specs: ModelSpec) -> None:
    from inference import retirement_notice

    for spec in specs:
        if (ending := retirement_notice(spec)) is not None:
            note(ending)


def judge_reply(request: GenerationRequest, *, agree: bool) -> str:
    """A placeholder for a judge's reply: no error, or, unless all `agree`, a different first error
    in every vote. The request's meta names the vote and, for one step per call, the step."""
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


def _planned(one: _Planning, few: DryCounts, many: DryCounts, *, output_a_call: float) -> Planned:
    """One stage from its dry runs.

    Args:
        one: the stage.
        few: what it is expected to send.
        many: what it sends at most.
        output_a_call: assumed output tokens per call, used until replies are stored.
    """
    enough = few.stored_estimate > 0 and few.stored >= ENOUGH_REPLIES
    used = few.stored_usage
    factor = used.input_tokens / few.stored_estimate if enough else 1.0
    if enough:
        output_a_call = (used.output_tokens + used.thinking_tokens) / few.stored
    tokens_in, tokens_out = round(few.input_tokens * factor), round(few.calls * output_a_call)
    most_in = round(many.input_tokens * max(factor, 1.0))
    hosted = is_hosted(one.spec)
    return Planned(
        stage=one.stage,
        model=str(one.spec),
        service=one.service if hosted else "local",
        traces=one.asked,
        missing=len(one.missing),
        stored=few.stored,
        calls=few.calls,
        calls_at_most=many.calls,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        tokens_from="measured" if enough else "estimate",
        usd=_usd(one, tokens_in, tokens_out),
        usd_at_most=_usd(one, most_in, many.output_limit),
        hours=_hours(one, few.calls, tokens_in) if hosted else None,
    )


def _usd(one: _Planning, tokens_in: int, tokens_out: int) -> float | None:
    from inference import cost

    if not is_hosted(one.spec):
        return 0.0
    service: Service = "standard"
    for each in ("flex", "batch"):
        service = each if one.service == each else service
    return cost(Usage(tokens_in, 0, tokens_out), one.spec.name, service, on=date.today())


def _hours(one: _Planning, calls: int, tokens_in: int) -> float:
    if one.service == "batch":
        from inference import enqueued_tokens

        return HOURS_A_WAVE * -(-tokens_in // enqueued_tokens(one.spec.name))
    return calls * SECONDS_A_CALL[one.service] / one.concurrency / 3600


def is_hosted(spec: ModelSpec) -> bool:
    """Whether calls go to a service; a self-hosted server has no known price."""
    return spec.kind in ("gemini", "vertex", "openai")


def _plan_prm(workspace: WorkspaceFolder, store: Store, options: ScoreOptions) -> dict[str, Any]:
    """What scoring would do, as JSON; scores some traces to measure the speed, stores nothing.

    Raises:
        InputError: an option that does not fit.
        PrmError: the checkpoint cannot be used.
    """
    from scoring import plan_rescue, plan_scoring
    from stepgold.labeling_run import ProblemByProblem
    from stepgold.scoring_run import is_imported, open_scorer, stored_options

    spec = parse_spec(options.prm)
    if options.checkpoint is not None:
        # The server's window is the same; the time is measured on this machine.
        options = options.but(prm=options.checkpoint, checkpoint=None, route=None, base_url=None)
    stored = _stored_labeler(store, options, spec)
    if stored is not None and is_imported(stored):
        # Its file's configuration holds, whatever the command line says.
        device, limit = options.device, options.limit
        known = replace(stored, model=str(spec))
        options = stored_options(known, options.dataset, max_tokens=options.max_tokens)
        options = options.but(device=device, limit=limit)
    asked, missing = _missing(store, options, spec)
    over = [] if stored is None else _over_length(store, options)
    if stored is not None and stored.model is None:
        missing = store.labels.unlabeled_trace_ids(options.dataset, options.name)
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    scorer = open_scorer(options, images.for_prm(exist=store.traces.has_images(options.dataset)))
    contexts = ProblemByProblem(store, options.dataset, scorer.expected_work).contexts(missing)
    rescue = None
    if over:
        rescue = plan_rescue(scorer, store.traces.contexts(options.dataset, trace_ids=over))
    return {
        "stage": "score",
        "model": str(spec),
        "family": scorer.family.name,
        "max_tokens": scorer.rules.max_tokens,
        **plan_scoring(scorer, contexts, traces=len(missing)).as_json(),
        "traces": asked,
        "missing": len(missing),
        **(
            {} if rescue is None else {"over_length": {"labeler": options.name, **rescue.as_json()}}
        ),
    }


def _stored_labeler(store: Store, options: ScoreOptions, spec: ModelSpec) -> Labeler | None:
    """The labeler of this name, if the model is its own or a file did not say which it is."""
    for row in store.labels.labelers(options.dataset):
        if row.labeler.name == options.name and row.labeler.model in (None, str(spec)):
            return row.labeler
    return None


def _over_length(store: Store, options: ScoreOptions) -> list[str]:
    """The traces that the labeler abstained from because they were too long."""
    return [
        trace_id
        for trace_id, label in store.labels.load(options.dataset, options.name).items()
        if label.abstention is not None and label.abstention.reason is AbstentionReason.OVER_LENGTH
    ]


def scoring_words(planned: dict[str, Any]) -> list[str]:
    """The plan of a PRM, as lines for a person."""
    lines = [
        f"score with {planned['model']} ({planned['family']}): {planned['missing']} of"
        f" {planned['traces']} traces missing, the longest has {planned['longest']} tokens"
    ]
    if planned["looked_at"] < planned["missing"]:
        lines.append(
            f"  estimated from {planned['looked_at']} of them, at a fixed stride over problems"
        )
    for at in planned["limits"]:
        mark = " (this run)" if at["max_tokens"] == planned["max_tokens"] else ""
        lines.append(
            f"  --max-tokens {at['max_tokens']}{mark}: {at['whole']} fit with all documents,"
            f" {at['shortened']} with fewer, {at['abstained']} not at all"
        )
    over = planned.get("over_length")
    if over is not None:
        lines.append(
            f"  {over['traces']} traces of '{over['labeler']}' were too long; of these,"
            " stepgold retry --max-tokens N scores"
        )
        lines += [
            f"    N = {at['max_tokens']}: {at['whole'] + at['shortened']}" for at in over["limits"]
        ]
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
