"""`stepgold continue`: Monte-Carlo continuation of every prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.backends import PolicyOptions, parse_spec, policy
from commands.labelling import Labelled, label_missing
from commands.options import BaseUrl, Concurrency, Dataset, Json, Limit, Name, Replace, Seed
from commands.outcome import Outcome, Tally
from commands.workspace import Workspace
from traces.errors import InputError

if TYPE_CHECKING:
    from labeling.monte_carlo import MonteCarloConfig
    from labeling.stages import Policy
    from traces.context import TraceInContext

SYSTEM = (
    "Solve the question step by step, one step a line. End with a line that says "
    "'The answer is' and the answer."
)
"""What policies are told that were not trained on this layout; the lab's policy is told nothing."""


def continue_(
    ctx: typer.Context,
    dataset: Dataset,
    policy_spec: Annotated[
        str, typer.Option("--policy", help="openai:MODEL, gemini:MODEL, hf:PATH or lab.")
    ],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Continuations a prefix.")] = 16,
    name: Name = "mc",
    strategy: Annotated[str, typer.Option("--strategy", help="all: every prefix k times.")] = "all",
    threshold: Annotated[
        int,
        typer.Option("--threshold", min=0, help="Hard label: correct iff successes > threshold."),
    ] = 0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Limit of one continuation.")
    ] = 1024,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="Sampling temperature.")
    ] = 0.7,
    separator: Annotated[
        str, typer.Option("--step-separator", help="Between two steps; \\n is a line break.")
    ] = "\\n",
    evidence: Annotated[
        bool | None,
        typer.Option(
            "--evidence/--no-evidence", help="Show the evidence to the policy [default: lab only]."
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            "--template", help="Tokenizer folder: render prompts here, use /v1/completions."
        ),
    ] = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    seed: Seed = 0,
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Label steps by how often a policy reaches the gold answer from them."""
    from labeling.monte_carlo import MonteCarloConfig
    from traces.labels import Labeler, LabelerKind

    if strategy != "all":
        raise InputError(f"'{strategy}' is not a strategy.", remedy="use --strategy all")
    spec = parse_spec(policy_spec)
    lab = spec.kind == "lab"
    options = PolicyOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        separator=separator.replace("\\n", "\n"),
        system=None if lab else SYSTEM,
        with_evidence=lab if evidence is None else evidence,
        template=template,
        base_url=base_url,
        concurrency=concurrency,
    )
    config = MonteCarloConfig(k=k, threshold=threshold, seed=seed)
    workspace: Workspace = ctx.obj
    tally = Tally("continue", dataset, name)
    with workspace.open_store() as store, ExitStack() as closing:
        store.require_dataset(dataset)
        labeler = Labeler(
            name,
            LabelerKind.MC,
            config.as_dict()
            | {
                "strategy": strategy,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "separator": options.separator,
                "system": options.system,
                "evidence": options.with_evidence,
                "template": template.name if template else None,
            },
            model=str(spec),
        )
        chosen = policy(spec, store, closing, options)
        label_missing(
            store,
            tally,
            labeler,
            lambda contexts: _stage(contexts, chosen, config),
            limit=limit,
            replace=replace,
        )
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)


def _stage(
    contexts: Iterable[TraceInContext], policy: Policy, config: MonteCarloConfig
) -> Iterator[Labelled]:
    from labeling.answers import AnswerChecker
    from labeling.pipeline import continue_traces

    for label, continuations, resolved in continue_traces(
        contexts, policy, AnswerChecker.for_problem, config
    ):
        yield Labelled(label, tuple(continuations), resolved)
