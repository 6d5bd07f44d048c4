"""`stepgold continue`: Monte-Carlo continuation of every prefix."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace as replace_fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from commands.options import (
    AllowMixed,
    AllowPhi,
    BaseUrl,
    Budget,
    Concurrency,
    Dataset,
    Json,
    Limit,
    Name,
    Replace,
    Seed,
    parse_policy,
)
from stepgold.continuing import continue_stage
from stepgold.images import IgnoreImages, ImageOptions, ImagesFolder
from stepgold.labeling_run import evidence_source, label_missing
from stepgold.models import ModelTruth, PolicyOptions, checker_factory, continuation_limit, policy
from stepgold.outcome import Outcome, Tally
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from inference import ModelSpec
    from labeling import MonteCarloConfig

SYSTEM = (
    "Solve the question step by step, one step a line. End with a line that says "
    "'The answer is' and the answer."
)
"""What policies are told that were not trained on this layout; the lab's policy is told nothing."""


PolicySpec = Annotated[
    str, typer.Option("--policy", help="openai:MODEL, gemini:MODEL, hf:PATH or lab.")
]
Continuations = Annotated[int, typer.Option("--k", "-k", min=1, help="Continuations a prefix.")]
Strategy = Annotated[
    str, typer.Option("--strategy", help="all, early-stop, binary or adaptive: which prefixes.")
]
LabelOption = Annotated[
    str, typer.Option("--label", help="hard, soft or advantage: what a step's label is.")
]
LastStepOption = Annotated[
    str, typer.Option("--last-step", help="rollout, or outcome: what the final answer says.")
]
AfterFirstErrorOption = Annotated[
    str,
    typer.Option("--after-first-error", help="keep, incorrect or not-measured: steps behind it."),
]
HardThreshold = Annotated[
    int, typer.Option("--threshold", min=0, help="Hard label: correct iff successes > threshold.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=1, help="Limit of one continuation; default 1024, for lab 130."
    ),
]
Temperature = Annotated[float, typer.Option("--temperature", min=0, help="Sampling temperature.")]
Separator = Annotated[
    str, typer.Option("--step-separator", help="Between two steps; \\n is a line break.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="Ends a continuation; \\n is a line break; repeatable."),
]
AnswerJudge = Annotated[
    str | None,
    typer.Option(
        "--answer-judge", help="A model that compares free-text answers [default: spelling alone]."
    ),
]
WithEvidence = Annotated[
    bool | None,
    typer.Option(
        "--evidence/--no-evidence", help="Show the evidence to the policy [default: lab only]."
    ),
]
TemplateFolder = Annotated[
    Path | None,
    typer.Option("--template", help="Tokenizer folder: render prompts here, use /v1/completions."),
]


def continue_(
    ctx: typer.Context,
    dataset: Dataset,
    policy_spec: PolicySpec,
    k: Continuations = 16,
    name: Name = "mc",
    strategy: Strategy = "all",
    threshold: HardThreshold = 0,
    label: LabelOption = "hard",
    last_step: LastStepOption = "rollout",
    after_first_error: AfterFirstErrorOption = "keep",
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.7,
    separator: Separator = "\\n",
    stop: Stop = None,
    answer_judge: AnswerJudge = None,
    evidence: WithEvidence = None,
    template: TemplateFolder = None,
    images: ImagesFolder = None,
    ignore_images: IgnoreImages = False,
    budget: Budget = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    allow_phi: AllowPhi = False,
    allow_mixed: AllowMixed = False,
    seed: Seed = 0,
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Label steps by how often a policy reaches the gold answer from them."""
    config = _config(k, threshold, seed, strategy, label, last_step, after_first_error)
    spec = parse_policy(ctx, policy_spec)
    lab = spec.kind == "lab"
    options = PolicyOptions(
        max_tokens=continuation_limit(spec, max_tokens),
        temperature=temperature,
        separator=separator.replace("\\n", "\n"),
        system=None if lab else SYSTEM,
        with_evidence=lab if evidence is None else evidence,
        template=template,
        base_url=base_url,
        concurrency=concurrency,
        images=ImageOptions.of(ctx.obj, images, ignore=ignore_images),
        stop=_stop_strings(stop or ()),
        answer_judge=answer_judge,
    )
    return _continue(
        ctx.obj,
        Tally("continue", dataset, name),
        spec,
        options,
        config,
        ModelTruth(allow_mixed=allow_mixed),
        budget,
        allow_phi,
        limit,
        replace,
        json_output,
    )


def _config(
    k: int, threshold: int, seed: int, strategy: str, label: str, last_step: str, behind: str
) -> MonteCarloConfig:
    """What is measured, checked before anything is loaded."""
    from labeling import MonteCarloConfig, strategy_named

    strategy_named(strategy)
    rules = {"label": label, "last_step": last_step, "after_first_error": behind}
    return MonteCarloConfig(
        k, threshold=threshold, seed=seed, strategy=strategy, **cast(Any, rules)
    )


def _stop_strings(given: Iterable[str]) -> tuple[str, ...]:
    """As the options write them, with their line breaks.

    Raises:
        InputError: one is empty: servers refuse it, or end every continuation at once.
    """
    strings = tuple(text.replace("\\n", "\n") for text in given)
    if "" in strings:
        raise InputError(
            "A stop string is empty.", where="--stop", remedy="leave it out, or name a text"
        )
    return strings


def _continue(
    workspace: WorkspaceFolder,
    tally: Tally,
    spec: ModelSpec,
    options: PolicyOptions,
    config: MonteCarloConfig,
    truth: ModelTruth,
    budget: float | None,
    allow_phi: bool,
    limit: int | None,
    replace: bool,
    json_output: bool,
) -> Outcome:
    from inference import Purse
    from traces import Labeler, LabelerKind

    with workspace.open_store() as store, ExitStack() as closing:
        store.traces.require_dataset(str(tally.dataset))
        shown = options.images.settled(spec, exist=store.traces.has_images(str(tally.dataset)))
        options = replace_fields(options, images=shown)
        settings = {"strategy": "all"} | config.as_dict() | options.as_dict()
        labeler = Labeler(str(tally.labeler), LabelerKind.MC, settings, model=str(spec))
        if options.with_evidence:
            labeler = evidence_source(store, str(tally.dataset), labeler)
        purse = Purse(budget)
        chosen, hosted = policy(
            spec, store, closing, options, allow_phi=allow_phi, truth=truth, budget_usd=purse
        )
        checkers = checker_factory(
            options.answer_judge, store, closing, purse=purse, truth=truth, allow_phi=allow_phi
        )
        stage = partial(
            continue_stage,
            policy=chosen,
            checkers=checkers,
            config=config,
            hosted=hosted or options.asks_elsewhere(),
            allow_phi=allow_phi,
        )
        label_missing(store, tally, labeler, stage, limit=limit, replace=replace, truth=truth)
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)
