"""`stepgold judge`: RAG-as-a-judge over the traces of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from commands.backends import Service, dispatcher, model_folder, parse_spec, text_model
from commands.console import note
from commands.labelling import Labelled, label_missing
from commands.options import AllowPhi, BaseUrl, Concurrency, Dataset, Json, Limit, Name, Replace
from commands.outcome import Outcome, Tally
from commands.workspace import Workspace
from traces.errors import InputError

if TYPE_CHECKING:
    from inference.dispatch import Dispatcher
    from labeling.stages import Judge
    from storage import Store
    from traces.context import TraceInContext


JudgeSpec = Annotated[
    str, typer.Option("--judge", help="gemini:MODEL, openai:MODEL, hf:PATH or lab.")
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Stop before spending more, USD.")
]
PromptFile = Annotated[Path | None, typer.Option("--prompt", help="An own prompt file.")]
ServiceName = Annotated[str, typer.Option("--service", help="standard or flex.")]
EvidenceTokens = Annotated[
    int, typer.Option("--evidence-tokens", min=0, help="Token budget of the evidence.")
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, help="Limit of one reply, thinking included.")
]


def judge(
    ctx: typer.Context,
    dataset: Dataset,
    judge: JudgeSpec,
    name: Name = "judge",
    budget: Budget = None,
    prompt: PromptFile = None,
    service: ServiceName = "standard",
    evidence_tokens: EvidenceTokens = 3072,
    max_tokens: MaxTokens = 8192,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    allow_phi: AllowPhi = False,
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Put verdicts on steps, grounded in the retrieved evidence."""
    from traces.labels import Labeler, LabelerKind

    workspace: Workspace = ctx.obj
    spec, tier = parse_spec(judge), _service(service)
    tally = Tally("judge", dataset, name)
    with workspace.open_store() as store, ExitStack() as closing:
        store.require_dataset(dataset)
        _say_if_ungrounded(store, dataset, limit)
        if spec.kind == "lab":
            chosen, settings = _lab_judge()
        else:
            model = text_model(spec, base_url=base_url, service=tier, concurrency=concurrency)
            runner = dispatcher(model, store, closing, budget_usd=budget, service=tier)
            chosen, settings = _rag_judge(runner, prompt, evidence_tokens, max_tokens, allow_phi)
        labeler = Labeler(name, LabelerKind.JUDGE, settings, model=str(spec))
        stage = partial(_stage, judge=chosen)
        label_missing(store, tally, labeler, stage, limit=limit, replace=replace)
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)


def _stage(contexts: Iterable[TraceInContext], judge: Judge) -> Iterator[Labelled]:
    from labeling.pipeline import judge_traces

    for label in judge_traces(contexts, judge):
        yield Labelled(label, resolved_model=label.meta.get("resolved_model"))


def _say_if_ungrounded(store: Store, dataset: str, limit: int | None) -> None:
    # Asked of what the judge is shown: evidence may also have come with the rows of an import.
    if not any(context.evidence for context in store.contexts(dataset, limit=limit)):
        note("There is no evidence for these traces: the verdicts will be ungrounded.")


def _lab_judge() -> tuple[Judge, dict[str, Any]]:
    from lab.judge import LikelihoodJudge

    note("The lab's judge reads token likelihoods: it writes no reasoning and no quotes.")
    bundled = LikelihoodJudge(model_folder(parse_spec("lab"), "judge"))
    return bundled, bundled.config()


def _rag_judge(
    runner: Dispatcher, prompt: Path | None, evidence_tokens: int, max_tokens: int, allow_phi: bool
) -> tuple[Judge, dict[str, Any]]:
    from judge.config import JudgeConfig
    from judge.prompt_file import read_prompt
    from judge.rag_judge import RagJudge

    config = JudgeConfig(read_prompt(prompt), evidence_tokens, max_tokens)
    return RagJudge(runner, config, allow_phi=allow_phi), config.as_dict()


def _service(name: str) -> Service:
    for tier in get_args(Service):
        if name == tier:
            return cast(Service, tier)
    raise InputError(f"'{name}' is not a service.", remedy="use standard or flex")
