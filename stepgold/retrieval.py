"""Queries that a model writes for problems, through the dispatcher: each is paid for once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepgold.console import note, progress
from stepgold.outcome import Tally
from stepgold.workspace import WorkspaceFolder
from traces import (
    AbstentionReason,
    BudgetExhausted,
    CorpusError,
    Failure,
    IndexMismatch,
    InputError,
    ModelError,
    ModelRefused,
    QuotaExhausted,
    withheld,
)

if TYPE_CHECKING:
    from inference import Dispatcher, GenerationRequest
    from retrieval.search.bm25 import LexicalIndex
    from retrieval.search.choice import Dense
    from retrieval.search.config import Query, RetrievalConfig
    from retrieval.search.retriever import PassageRetriever
    from storage import Store
    from traces import ModelReply, Problem


STAGE = "retrieve"
_MAX_TOKENS = 2048
"""Limit of a reply, thinking included."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of one problem's queries."""

    problem_id: str
    """The problem."""
    queries: Sequence[Query]
    """Its own query and those written for it; empty where there are none to be had."""
    failure: Failure | None = None
    """Why there are none."""


def rewrite_queries(
    problems: Iterable[Problem],
    runner: Dispatcher,
    *,
    allow_phi: bool,
    marked: Collection[str] = (),
) -> Iterator[Rewritten]:
    """Yield the queries for each problem as replies come in, in any order.

    `marked` are ids of problems whose traces say `phi_removed: false`: as if they said so.

    Raises:
        ModelRefused, QuotaExhausted, BudgetExhausted: what was yielded before stays valid.
    """
    waiting: dict[str, Problem] = {}
    refused: list[Rewritten] = []

    def requests() -> Iterator[GenerationRequest]:
        for problem in problems:
            said = {"phi_removed": problem.id not in marked}
            why = withheld(problem.meta, said, hosted=runner.model.hosted, allow_phi=allow_phi)
            if why is not None:
                refused.append(_failed(problem, why.reason, why.detail, again=False))
                continue
            waiting[problem.id] = problem
            yield _request(problem)

    for request, outcome in runner.run(requests()):
        while refused:
            yield refused.pop()
        yield _read(waiting.pop(request.meta["problem_id"]), outcome)
    yield from refused


def rewriting_config(model: str) -> dict[str, Any]:
    """What decides the queries, for the configuration of the retrieval."""
    from retrieval.search.config import REWRITE_INSTRUCTION

    digest = hashlib.sha256(REWRITE_INSTRUCTION.encode()).hexdigest()[:12]
    return {"rewriter": model, "rewrite_prompt": digest}


def _request(problem: Problem) -> GenerationRequest:
    from inference import GenerationRequest, Message
    from retrieval.search.config import REWRITE_INSTRUCTION, REWRITE_SCHEMA, query_of

    return GenerationRequest(
        messages=(Message("system", REWRITE_INSTRUCTION), Message("user", query_of(problem))),
        max_tokens=_MAX_TOKENS,
        temperature=0.0,
        response_json_schema=REWRITE_SCHEMA,
        meta={"purpose": "rewrite", "problem_id": problem.id},
    )


def _read(problem: Problem, outcome: ModelReply | ModelError) -> Rewritten:
    from retrieval.search.config import parse_rewritten, rewritten_queries

    if isinstance(outcome, ModelError):
        return _failed(problem, AbstentionReason.MODEL_ERROR, outcome.what, again=True)
    queries = parse_rewritten(outcome.text)
    if queries is None:
        detail = (
            f"the rewriting model's reply holds no queries (finished by {outcome.finish_reason})"
        )
        return _failed(problem, AbstentionReason.UNREADABLE, detail, again=True)
    return Rewritten(problem.id, rewritten_queries(problem, queries))


def _failed(problem: Problem, reason: AbstentionReason, detail: str, *, again: bool) -> Rewritten:
    return Rewritten(problem.id, (), Failure(problem.id, STAGE, reason, again, detail))


# --- The workspace's encoder, index and lexical index, put together for the commands that search


_WORTH_A_WORD = 20_000
"""Passages from which building the lexical index takes long enough to be mentioned."""


def open_retriever(
    workspace: WorkspaceFolder,
    store: Store,
    encoder_spec: str | None,
    config: RetrievalConfig,
    fingerprint: str | None = None,
) -> PassageRetriever:
    """The retriever over the workspace's indexes, checked against encoder and corpora.

    Raises:
        IndexMismatch: there is no index, or it belongs to another encoder or corpus state.
        InputError: a quota names no corpus of the store, or a model cannot be loaded.
    """
    from retrieval.search.rerank import load_reranker
    from retrieval.search.retriever import PassageRetriever

    corpora = {summary.name for summary in store.corpora.summaries()}
    for corpus in config.quotas:
        if corpus not in corpora:
            raise InputError(
                f"There is no corpus '{corpus}'.",
                where=f"--quota {corpus}={config.quotas[corpus]}",
                remedy=f"corpora: {', '.join(sorted(corpora))}" if corpora else "corpus add",
            )
    state = fingerprint or store.corpora.fingerprint()
    return PassageRetriever(
        config,
        store.corpora.passages_by_id,
        dense=None if config.mode == "bm25" else _dense(workspace, encoder_spec, state),
        lexical=None if config.mode == "dense" else lexical_index(workspace, store, state),
        reranker=None if config.rerank is None else load_reranker(config.rerank),
        ids_of_corpus=store.corpora.passage_ids,
    )


def lexical_index(workspace: WorkspaceFolder, store: Store, fingerprint: str) -> LexicalIndex:
    """The lexical index of this state of the corpora; built and saved where there is none.

    Raises:
        CorpusError: there is no passage.
        StoreError: it cannot be written.
    """
    from retrieval.search.bm25 import LexicalIndex

    folder = workspace.index_folder / "bm25"
    if (found := LexicalIndex.load(folder, corpus_fingerprint=fingerprint)) is not None:
        return found
    rows = [(passage_id, p.title, p.text) for passage_id, p in store.corpora.passages()]
    if not rows:
        raise CorpusError(
            "There is no passage to search.",
            where=workspace.url,
            remedy="stepgold corpus add PATH --corpus NAME",
        )
    if len(rows) >= _WORTH_A_WORD:
        note(f"building the lexical index of {len(rows)} passages")
    built = LexicalIndex.build(*(list(column) for column in zip(*rows, strict=True)))
    built.save(folder, corpus_fingerprint=fingerprint)
    return built


def _dense(workspace: WorkspaceFolder, encoder_spec: str | None, fingerprint: str) -> Dense:
    from retrieval.index.encoder import load_encoder
    from retrieval.index.index import PassageIndex
    from retrieval.search.choice import Dense

    if not workspace.index_folder.is_dir():
        raise IndexMismatch(
            "The workspace has no index yet.",
            where=str(workspace.index_folder),
            remedy="stepgold index, or search by words alone with --mode bm25",
        )
    if encoder_spec is None:
        encoder_spec = PassageIndex.encoder_spec(workspace.index_folder)
    encoder = load_encoder(encoder_spec)
    index = PassageIndex.load(
        workspace.index_folder, encoder=encoder.name, corpus_fingerprint=fingerprint
    )
    return Dense(index, encoder)


# --- Evidence for what has none yet: queries, rewritten ones among them, through the retriever


Asked = tuple[str, "Sequence[Query]"]
"""A problem or trace id with its queries."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Which model writes queries, and within which bounds."""

    model: str
    """Its spec."""
    base_url: str | None
    """Server address; None takes the environment's."""
    concurrency: int | None
    """Requests in flight at once; None leaves the back end's default."""
    budget: float | None
    """Most US dollars to spend; None for no bound."""
    allow_phi: bool
    """Whether problems marked `phi_removed: false` may go to a hosted model."""

    def config(self) -> dict[str, Any]:
        """What of it decides the queries."""

        return rewriting_config(self.model)


def attach_evidence(
    workspace: WorkspaceFolder,
    store: Store,
    tally: Tally,
    config: RetrievalConfig,
    rewriting: Rewriting | None,
    encoder: str | None,
    *,
    replace: bool,
) -> None:
    """Retrieve for the problems, or for `step` the traces, for which retrieval has not run.

    Raises:
        InputError: evidence was retrieved in another way, and `replace` is not given.
        IndexMismatch: there is no index, or it does not belong to corpora or encoder.
    """
    from labeling import retrieve_evidence

    dataset = str(tally.dataset)
    fingerprint = store.corpora.fingerprint()
    retriever = open_retriever(workspace, store, encoder, config, fingerprint)
    stored = retriever.config() | {"corpus": fingerprint}
    stored |= rewriting.config() if rewriting is not None else {}
    store.evidence.declare(dataset, stored, replace=replace)
    if config.query == "step":
        missing = store.evidence.missing_traces(dataset)
        tally.unchanged = store.traces.datasets()[dataset].traces - len(missing)
        found = retriever.retrieve_for(_step_queries(store, dataset, missing))
        shown = progress(found, total=len(missing), label="retrieve")
        tally.done = store.evidence.put_for_traces(dataset, shown)
        return
    problems = store.evidence.missing_problems(dataset)
    tally.unchanged = store.traces.datasets()[dataset].problems - len(problems)
    if rewriting is None:
        found = retrieve_evidence(problems, retriever)
        total = len(problems)
    else:
        asked = rewritten(store, tally, problems, rewriting)
        found, total = retriever.retrieve_for(asked), len(asked)
    tally.done = store.evidence.put(dataset, progress(found, total=total, label="retrieve"))


def rewritten(
    store: Store, tally: Tally, problems: Sequence[Problem], rewriting: Rewriting
) -> list[Asked]:
    """The problems' queries, as far as the model wrote some; the others are counted and listed.

    Raises:
        ModelRefused, QuotaExhausted: before the first query was written.
    """
    from inference import Purse
    from stepgold.models import ModelTruth, RunTerms, dispatcher, parse_spec, text_model

    asked: list[Asked] = []
    failures = []
    with ExitStack() as closing:
        model = text_model(
            parse_spec(rewriting.model),
            base_url=rewriting.base_url,
            concurrency=rewriting.concurrency,
        )
        truth = ModelTruth(allow_mixed=True)
        terms = RunTerms(store, closing, truth, Purse(rewriting.budget))
        runner = dispatcher(model, terms)
        written = rewrite_queries(
            problems,
            runner,
            allow_phi=rewriting.allow_phi,
            marked=store.traces.marked_problems(str(tally.dataset)),
        )
        try:
            for each in progress(written, total=len(problems), label="rewrite queries"):
                if each.failure is None:
                    asked.append((each.problem_id, each.queries))
                else:
                    failures.append(each.failure)
        except (BudgetExhausted, QuotaExhausted, ModelRefused) as stop:
            if not asked and not isinstance(stop, BudgetExhausted):
                raise
            tally.stopped = stop
            tally.failed += len(problems) - len(asked) - len(failures)
            note(str(stop))
    store.labels.failures.put(str(tally.dataset), failures)
    tally.abstained.update(failure.reason.value for failure in failures)
    return asked


def _step_queries(store: Store, dataset: str, trace_ids: Sequence[str]) -> Iterator[Asked]:
    from retrieval.search.config import step_queries

    contexts: Iterable[Any] = (
        store.traces.contexts(dataset, trace_ids=trace_ids, with_evidence=False)
        if trace_ids
        else ()
    )
    for context in contexts:
        yield context.trace.id, step_queries(context.problem, context.trace.steps)
