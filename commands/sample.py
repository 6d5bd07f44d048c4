"""`stepgold sample`: candidate traces for problems."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.continue_ import SYSTEM, PolicySpec, Temperature, TemplateFolder, WithEvidence
from commands.options import (
    AllowPhi,
    BaseUrl,
    Concurrency,
    Dataset,
    Json,
    Replace,
    Seed,
    parse_policy,
)
from stepgold.console import note, progress
from stepgold.images import IgnoreImages, ImageOptions, ImagesFolder
from stepgold.labeling_run import STOPS
from stepgold.models import (
    continuation_limit,
    dispatcher,
    model_folder,
    tell_slow,
    template_identity,
    text_model,
)
from stepgold.outcome import Outcome, Tally
from stepgold.workspace import WorkspaceFolder
from traces.errors import BudgetExhausted, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference import ModelSpec
    from labeling import CandidateRule, ProblemCandidates, Sampler
    from storage import Store
    from traces import Evidence, Problem

Asked = tuple["Problem", "Sequence[Evidence]"]
"""A problem with what was retrieved for it."""

_AT_ONCE = 256
"""Problems whose rounds are drawn together."""

CandidateCount = Annotated[int, typer.Option("-n", "--n", min=1, help="Candidates per problem.")]
CandidatesName = Annotated[
    str, typer.Option("--name", help="The name of this set of candidates; part of their ids.")
]
MinSteps = Annotated[int, typer.Option("--min-steps", min=1, help="Fewest steps of a candidate.")]
MaxSteps = Annotated[int, typer.Option("--max-steps", min=1, help="Most steps of a candidate.")]
Rounds = Annotated[
    int, typer.Option("--rounds", min=1, help="Draws; later ones replace what was turned away.")
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        help="Between two steps, \\n is a line break [default: 'Step n:' lines, or blank lines].",
    ),
]
KeepAll = Annotated[
    bool, typer.Option("--keep-all", help="Keep candidates that break the rule of steps.")
]
ProblemsFile = Annotated[
    Path | None,
    typer.Option("--problems", help="Problems as JSONL [default: those of the dataset]."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help="Limit of one candidate; default 1024, for lab 130."),
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Stop before spending more, USD.")
]
ProblemLimit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N problems: a pilot.")
]


def sample(
    ctx: typer.Context,
    dataset: Dataset,
    policy_spec: PolicySpec,
    n: CandidateCount = 16,
    name: CandidatesName = "sample",
    problems: ProblemsFile = None,
    min_steps: MinSteps = 3,
    max_steps: MaxSteps = 9,
    rounds: Rounds = 3,
    delimiter: Delimiter = None,
    keep_all: KeepAll = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.7,
    evidence: WithEvidence = None,
    template: TemplateFolder = None,
    images: ImagesFolder = None,
    ignore_images: IgnoreImages = False,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    budget: Budget = None,
    allow_phi: AllowPhi = False,
    seed: Seed = 0,
    limit: ProblemLimit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Write candidate traces for every problem, split into steps, kept by a stated rule."""
    _check(name, min_steps, max_steps)
    workspace: WorkspaceFolder = ctx.obj
    spec = parse_policy(ctx, policy_spec)
    shown = ImageOptions.of(workspace, images, ignore=ignore_images)
    rule = _rule(
        spec, delimiter, n, seed, rounds=rounds, steps=(min_steps, max_steps), keep_all=keep_all
    )
    config = rule.as_dict() | {
        "policy": str(spec),
        "max_tokens": continuation_limit(spec, max_tokens),
        "temperature": temperature,
        "evidence": spec.kind == "lab" if evidence is None else evidence,
        "template": template_identity(template),
    }
    tally = Tally("sample", dataset, name)
    given = None if problems is None else _read(problems)
    with workspace.open_store(create=given is not None) as store, ExitStack() as closing:
        known = given if given is not None else _stored_problems(store, dataset)
        shown = shown.settled(spec, exist=any(problem.images for problem, _ in known))
        config |= shown.as_dict()
        wanted = known[:limit]
        store.traces.sampled.refuse_changed(dataset, [problem for problem, _ in wanted])
        stored = store.traces.sampled.declare(dataset, name, config, replace=replace)
        tally.unchanged = stored.traces
        missing = [pair for pair in wanted if pair[0].id not in stored.problems]
        server = (template, base_url, concurrency)
        marked = None if allow_phi else store.traces.marked_problems(dataset)
        sampler = _sampler(spec, store, closing, config, shown, server, budget, marked)
        turned_away = _draw(store, tally, missing, sampler, rule, str(spec))
    return _outcome(tally, len(wanted), turned_away, json_output)


def _check(name: str, min_steps: int, max_steps: int) -> None:
    if min_steps > max_steps:
        raise InputError(f"--min-steps {min_steps} is more than --max-steps {max_steps}.")
    if ":" in name:
        raise InputError(f"The name {name!r} holds a colon.", remedy="it is part of trace ids")


def _rule(
    spec: ModelSpec,
    delimiter: str | None,
    n: int,
    seed: int,
    *,
    rounds: int,
    steps: tuple[int, int],
    keep_all: bool,
) -> CandidateRule:
    from labeling import CandidateRule

    by_line = "\\n" if spec.kind == "lab" else None  # the lab's policy writes one step a line
    given = by_line if delimiter is None else delimiter
    split = None if given is None else given.replace("\\n", "\n")
    return CandidateRule(
        n=n,
        seed=seed,
        min_steps=steps[0],
        max_steps=steps[1],
        rounds=rounds,
        delimiter=split,
        keep_all=keep_all,
    )


def _draw(
    store: Store,
    tally: Tally,
    missing: Sequence[Asked],
    sampler: Sampler,
    rule: CandidateRule,
    generator: str,
) -> Counter[str]:
    """Sample what is missing and store every problem as it is done; count what was turned away."""
    from labeling import sample_candidates

    turned_away: Counter[str] = Counter()
    dataset, name = str(tally.dataset), str(tally.labeler)
    groups = [missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE)]
    drawn = (
        one
        for group in groups
        for one in sample_candidates(group, sampler, rule, name=name, generator=generator)
    )
    stored = 0
    try:
        for one in progress(drawn, total=len(missing), label="sample"):
            stored += 1
            _store(store, dataset, name, one)
            if one.abstention is not None:
                tally.abstained[one.abstention.reason.value] += 1
                continue
            tally.done += len(one.kept)
            tally.failed += rule.n - len(one.kept)
            turned_away.update(why for _, why in one.refused)
    except STOPS as stop:
        if not tally.done and not isinstance(stop, BudgetExhausted):
            raise
        tally.stopped = stop
        tally.failed += (len(missing) - stored) * rule.n
        note(str(stop))
    return turned_away


def _store(store: Store, dataset: str, name: str, one: ProblemCandidates) -> None:
    from traces import Failure

    if one.abstention is None:
        store.traces.sampled.add(dataset, name, one.problem, kept=one.kept, refused=one.refused)
        return
    why = one.abstention
    # Nothing is stored as sampled: the problem stays missing, and the next call asks again.
    store.labels.failures.put(
        dataset, [Failure(one.problem.id, name, why.reason, True, why.detail)]
    )


def _read(file: Path) -> list[Asked]:
    from formats.problems import read_problems

    return [(problem, ()) for problem in read_problems(file)]


def _stored_problems(store: Store, dataset: str) -> list[Asked]:
    """The problems of a dataset, with their evidence."""
    store.traces.require_dataset(dataset)
    found: dict[str, Asked] = {}
    for context in store.traces.contexts(dataset):
        found.setdefault(context.problem.id, (context.problem, context.evidence))
    return list(found.values())


def _sampler(
    spec: ModelSpec,
    store: Store,
    closing: ExitStack,
    config: dict[str, Any],
    images: ImageOptions,
    server: tuple[Path | None, str | None, int | None],
    budget: float | None,
    marked: frozenset[str] | None,
) -> Sampler:
    """The sampler; `marked` problems go to no hosted model, None lets all of them go."""
    from inference import ContinuationPrompt

    prompt = ContinuationPrompt(system=None if spec.kind == "lab" else SYSTEM)
    if spec.kind in {"hf", "lab"}:
        from inference import LocalSampler

        local = LocalSampler(
            model_folder(spec, "policy"),
            prompt=prompt,
            max_new_tokens=config["max_tokens"],
            temperature=config["temperature"],
            with_evidence=config["evidence"],
            images=images.loader(),
        )
        tell_slow(spec, local.slow_because)
        return local
    from inference import ServerSampler

    template, base_url, concurrency = server
    model = text_model(spec, base_url=base_url, template=template, concurrency=concurrency)
    return ServerSampler(
        dispatcher(model, store, closing, budget_usd=budget),
        prompt,
        max_tokens=config["max_tokens"],
        temperature=config["temperature"],
        with_evidence=config["evidence"],
        allow_phi=marked is None,
        images=images.loader(),
        marked=marked or (),
    )


def _outcome(tally: Tally, problems: int, turned_away: Counter[str], json_output: bool) -> Outcome:
    document = tally.document(problems=problems, turned_away=dict(sorted(turned_away.items())))
    lines = [tally.sentence()]
    if turned_away:
        reasons = ", ".join(f"{count} with {why}" for why, count in turned_away.most_common())
        lines.append(f"turned away and drawn again: {reasons}")
    return Outcome(document, "\n".join(lines), tally.exit_code, json_output)
