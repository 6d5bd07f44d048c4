"""`stepgold plan`: calls, tokens, dollars and hours before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from commands.continue_ import SYSTEM, Strategy
from commands.options import Dataset, Json, Limit
from commands.score import FamilyName, Mode, ReferenceModel
from stepgold.images import IgnoreImages, ImageOptions, ImagesFolder
from stepgold.judging import JudgeOptions
from stepgold.models import PolicyOptions, parse_spec
from stepgold.outcome import Outcome
from stepgold.planning import plan_prm, scoring_words
from stepgold.scoring_run import ScorerOptions
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from inference import ModelSpec
    from labeling import MonteCarloConfig
    from stepgold.planning import Planned, Terms
    from storage import Store
    from traces import TraceInContext

SERVICES = ("standard", "flex", "batch")

PromptFile = Annotated[Path | None, typer.Option("--prompt", help="An own prompt file.")]
ServiceName = Annotated[
    str, typer.Option("--service", help="standard, flex or batch (half the price).")
]
EvidenceTokens = Annotated[
    int, typer.Option("--evidence-tokens", min=0, help="Token budget of the evidence.")
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, help="Limit of one reply, thinking included.")
]
GranularityName = Annotated[
    str, typer.Option("--granularity", help="trace: one call a trace; step: one call a step.")
]
VoteCount = Annotated[int, typer.Option("--votes", min=1, help="At most N votes on a trace.")]
Agree = Annotated[
    int,
    typer.Option("--agree", min=2, max=3, help="Voting ends when this many votes all agree: 2, 3."),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", min=0, max=2, help="Sampling [default: 0; with --votes 0.7]."),
]
Escalate = Annotated[
    str | None, typer.Option("--escalate", help="Another model that split votes are put to.")
]


JudgeModel = Annotated[str | None, typer.Option("--judge", help="Plan a judge: its model.")]
PolicyModel = Annotated[
    str | None, typer.Option("--policy", help="Plan Monte-Carlo labels: the policy's model.")
]
PrmModel = Annotated[
    str | None, typer.Option("--prm", help="Plan PRM scores: its model, run on a sample.")
]
JudgeLabeler = Annotated[str, typer.Option("--name", help="The judge's labeler.")]
McLabeler = Annotated[str, typer.Option("--mc-name", help="The policy's labeler.")]
PrmLabeler = Annotated[str, typer.Option("--prm-name", help="The PRM's labeler.")]
JudgeTemperature = Annotated[
    float | None,
    typer.Option("--temperature", min=0, max=2, help="The judge's sampling temperature."),
]
ContinuationsEach = Annotated[int, typer.Option("--k", "-k", min=1, help="Continuations a prefix.")]
PolicyMaxTokens = Annotated[
    int, typer.Option("--policy-max-tokens", min=1, help="Limit of one continuation.")
]
PrmWindow = Annotated[
    int | None, typer.Option("--prm-max-tokens", min=1, help="The PRM's window in tokens.")
]
Wires = Annotated[int, typer.Option("--concurrency", min=1, help="Calls at once, for the hours.")]


def plan(
    ctx: typer.Context,
    dataset: Dataset,
    judge: JudgeModel = None,
    policy: PolicyModel = None,
    prm: PrmModel = None,
    name: JudgeLabeler = "judge",
    mc_name: McLabeler = "mc",
    prm_name: PrmLabeler = "prm",
    votes: VoteCount = 1,
    agree: Agree = 2,
    granularity: GranularityName = "trace",
    escalate: Escalate = None,
    service: ServiceName = "standard",
    prompt: PromptFile = None,
    evidence_tokens: EvidenceTokens = 3072,
    max_tokens: MaxTokens = 8192,
    temperature: JudgeTemperature = None,
    k: ContinuationsEach = 16,
    strategy: Strategy = "all",
    policy_max_tokens: PolicyMaxTokens = 1024,
    family: FamilyName = None,
    reference: ReferenceModel = None,
    mode: Mode = "strict",
    prm_max_tokens: PrmWindow = None,
    concurrency: Wires = 16,
    images: ImagesFolder = None,
    ignore_images: IgnoreImages = False,
    limit: Limit = None,
    json_output: Json = False,
) -> Outcome:
    """Say what stages would send and cost; nothing is sent, nothing is written."""
    from stepgold.planning import Terms, total_of

    _refuse_nothing(judge, policy, prm, service)
    workspace: WorkspaceFolder = ctx.obj
    shown = ImageOptions.of(workspace, images, ignore=ignore_images)
    terms = Terms(service, concurrency, date.today(), shown)
    stages: list[Planned] = []
    scoring: list[dict[str, Any]] = []
    with workspace.open_store() as store:
        store.traces.require_dataset(dataset)
        if judge is not None:
            asking = JudgeOptions(
                dataset=dataset,
                judge=judge,
                name=name,
                prompt=prompt,
                evidence_tokens=evidence_tokens,
                max_tokens=max_tokens,
                granularity=cast(Any, granularity),
                votes=votes,
                agree=agree,
                temperature=temperature,
                escalate=escalate,
                limit=limit,
            )
            stages += _plan_judge(store, asking, terms)
        if policy is not None:
            how = (_drawing(k, strategy), policy_max_tokens)
            stages.append(_plan_policy(store, dataset, policy, mc_name, *how, terms, limit))
        if prm is not None:
            asked = _missing(store, dataset, prm_name, parse_spec(prm), limit)
            chosen = ScorerOptions(
                prm, family, prm_max_tokens, mode=mode, images=shown, reference=reference
            )
            scoring.append(plan_prm(store, dataset, chosen, asked))
    document = _document(dataset, stages, total_of(stages))
    document["stages"] += scoring
    words = _words(stages, document) + [line for each in scoring for line in scoring_words(each)]
    return Outcome(document, "\n".join(words), as_json=json_output)


def _refuse_nothing(judge: str | None, policy: str | None, prm: str | None, service: str) -> None:
    if judge is None and policy is None and prm is None:
        raise InputError("There is nothing to plan.", remedy="add --judge, --policy or --prm SPEC")
    if service not in SERVICES:
        raise InputError(f"'{service}' is not a service.", remedy=f"use {', '.join(SERVICES)}")


def _plan_judge(store: Store, asking: JudgeOptions, terms: Terms) -> list[Planned]:
    from stepgold.planning import plan_judge

    dataset, spec = asking.dataset, parse_spec(asking.judge)
    _refuse_retired(asking.judge, asking.escalate)
    if spec.kind == "lab":
        raise InputError(
            "The lab's judge calls no model by prompts.",
            remedy="plan gemini:MODEL, openai:MODEL or hf:PATH",
        )
    second = [] if asking.escalate is None else [parse_spec(asking.escalate)]
    shown = terms.images.settled(spec, *second, exist=store.traces.has_images(dataset))
    asked, missing = _missing(store, dataset, asking.name, spec, asking.limit)

    def contexts() -> Iterator[TraceInContext]:
        return store.traces.contexts(dataset, trace_ids=missing)

    return plan_judge(
        store,
        spec,
        asking.but(show_images=shown.shown),
        contexts,
        traces=asked,
        missing=len(missing),
        terms=terms,
    )


def _plan_policy(
    store: Store,
    dataset: str,
    policy: str,
    name: str,
    config: MonteCarloConfig,
    max_tokens: int,
    terms: Terms,
    limit: int | None,
) -> Planned:
    from stepgold.planning import plan_policy

    spec = parse_spec(policy)
    _refuse_retired(policy)
    lab = spec.kind == "lab"
    options = PolicyOptions(
        max_tokens=max_tokens,
        temperature=0.7,
        separator="\n",
        system=None if lab else SYSTEM,
        with_evidence=lab,
        template=None,
        base_url=None,
        concurrency=None,
        images=terms.images.settled(spec, exist=store.traces.has_images(dataset)),
    )
    asked, missing = _missing(store, dataset, name, spec, limit)
    return plan_policy(
        store,
        spec,
        options,
        lambda: store.traces.contexts(dataset, trace_ids=missing),
        config=config,
        traces=asked,
        missing=len(missing),
        terms=terms,
    )


def _drawing(k: int, strategy: str) -> MonteCarloConfig:
    """How prefixes are continued; a strategy that does not exist is refused."""
    from labeling import MonteCarloConfig, strategy_named

    strategy_named(strategy)
    return MonteCarloConfig(k, strategy=strategy)


def _refuse_retired(*specs: str | None) -> None:
    from inference import retirement_notice
    from stepgold.console import note

    for spec in specs:
        ending = None if spec is None else retirement_notice(parse_spec(spec))
        if ending is not None:
            note(ending)


def _missing(
    store: Store, dataset: str, name: str, spec: ModelSpec, limit: int | None
) -> tuple[int, list[str]]:
    """How many traces were asked for, and those on which the labeler has no word.

    Another model under this name has to give way before it can run: all traces are missing then.
    """
    asked = [
        context.trace.id
        for context in store.traces.contexts(dataset, with_evidence=False, limit=limit)
    ]
    labelers = [row.labeler for row in store.labels.labelers(dataset)]
    known = any((each.name, each.model) == (name, str(spec)) for each in labelers)
    unlabelled = set(store.labels.unlabeled_trace_ids(dataset, name)) if known else set(asked)
    return len(asked), [trace_id for trace_id in asked if trace_id in unlabelled]


def _document(dataset: str, stages: list[Planned], total: dict[str, Any]) -> dict[str, Any]:
    from inference import PRICES_AS_OF
    from stepgold.planning import HOURS_A_WAVE, SECONDS_A_CALL, TOKENS_A_CONTINUATION, TOKENS_A_STEP

    return {
        "command": "plan",
        "dataset": dataset,
        "stages": [stage.document() for stage in stages],
        "total": total,
        "prices_as_of": PRICES_AS_OF.isoformat(),
        "assumed": {
            "seconds_a_call": SECONDS_A_CALL,
            "hours_a_batch_wave": HOURS_A_WAVE,
            "output_tokens_a_judged_step": TOKENS_A_STEP,
            "output_tokens_a_continuation": TOKENS_A_CONTINUATION,
        },
    }


def _words(stages: list[Planned], document: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for stage in stages:
        usd = "price unknown" if stage.usd is None else f"{stage.usd:.2f} USD"
        most = "" if stage.usd_at_most is None else f" (at most {stage.usd_at_most:.2f})"
        calls = f"{stage.calls} calls"
        if stage.calls_at_most != stage.calls:
            calls += f" (at most {stage.calls_at_most})"
        time = "" if stage.hours is None else f", about {stage.hours:.1f} h"
        lines += [
            f"{stage.stage} with {stage.model} ({stage.service}): {stage.missing} of "
            f"{stage.traces} traces missing, {calls}, {stage.stored} answered already",
            f"  {stage.input_tokens} tokens in, {stage.output_tokens} out ({stage.tokens_from}): "
            f"{usd}{most}{time}",
        ]
    return [*lines, f"prices as of {document['prices_as_of']}"] if stages else []
