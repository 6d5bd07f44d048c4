"""Evidence for problems and traces: queries, written by a model if wanted, through the retriever.

With relevance judgments, retrieval is measured instead and nothing is attached.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval import (
    REWRITE_INSTRUCTION,
    REWRITE_SCHEMA,
    REWRITE_WITH_IMAGES,
    Query,
    RetrievalConfig,
    parse_rewritten,
    query_of,
    rewritten_queries,
    step_queries,
)
from stepgold.console import note, progress
from stepgold.hub import input_file
from stepgold.images import ImageOptions
from stepgold.options import BudgetOptions, DatasetOptions, ImageFolderOptions, RequestOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import Result
from stepgold.searching import SearchingOptions, open_retriever, with_clinical_context
from traces import (
    Abstention,
    AbstentionReason,
    BudgetExhausted,
    Failure,
    InputError,
    ModelError,
    ModelRefused,
    Need,
    QuotaExhausted,
    StrPath,
    option,
    withheld,
)

if TYPE_CHECKING:
    from inference import Dispatcher, EncodedImage, GenerationRequest, ProblemImages
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import Evidence, ModelReply, Problem, Relevance


STAGE = "retrieve"
_MAX_TOKENS = 2048
"""Limit of a reply, thinking included."""
_DEPTH = 100
"""Passages per problem that are measured."""
_LISTED = 10
_REWRITING = Need("--query rewrite", lambda options: options.rewriter is not None)

_SEEING = Need("--query image or rewrite", lambda options: options.query in ("image", "rewrite"))
_SERVED = Need(
    "--rewriter openai:MODEL", lambda options: (options.rewriter or "").startswith("openai:")
)

Asked = tuple[str, Sequence[Query]]
"""A problem or trace id with its queries."""


class RetrieveOptions(
    ImageFolderOptions,
    BudgetOptions,
    RequestOptions,
    SearchingOptions,
    RetrievalConfig,
    DatasetOptions,
):
    """What to search for, and how."""

    inherited_needs = dict.fromkeys(
        ("budget", "base_url", "concurrency", "allow_phi", "insecure_http"), _REWRITING
    ) | {
        "reasoning_effort": _SERVED,
        "request_option": _SERVED,
        "images": _SEEING,
        "ignore_images": _REWRITING,
    }

    rewriter: str | None = option(
        default=None,
        metavar="MODEL",
        help="Model that writes the queries: gemini:MODEL, openai:MODEL or hf:PATH.",
    )
    evaluate: StrPath | None = option(
        default=None,
        metavar="FILE",
        help="Relevance judgments (TREC or JSONL): measure retrieval, attach nothing.",
    )
    replace: bool = option(
        default=False,
        help="Replace evidence that was retrieved with other options.",
        flags=("--replace",),
    )

    def check(self) -> None:
        """Refuse a rewriter without rewriting, the reverse, and words for images.

        Raises:
            InputError: one is given without the other, or images are to be searched by words.
        """
        super().check()
        if self.query == "image" and (self.mode != "dense" or self.rerank is not None):
            raise InputError(
                "--query image compares vectors alone.",
                remedy="add --mode dense, and leave --rerank out",
            )
        if (self.query == "rewrite") != (self.rewriter is not None):
            raise InputError(
                "--query rewrite and --rewriter must be used together.",
                remedy="name the model that writes them: --query rewrite --rewriter openai:MODEL",
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class RetrieveResult(LabelingResult):
    """How many problems (or traces) got evidence."""


@dataclass(frozen=True, kw_only=True, repr=False)
class RetrievalQuality(Result):
    """How well a way of retrieving finds what is relevant."""

    dataset: str
    """The dataset."""
    qrels: Path
    """File of the relevance judgments."""
    k: int
    """Passages per problem that retrieval would attach."""
    problems: int
    """Problems that were measured."""
    measures: Mapping[str, Any]
    """nDCG@10, MRR and recall, each in [0, 1], with intervals."""
    decisive: Mapping[str, Any] | None
    """How often the deciding text was found; None if the judgments name none."""
    unanswered: int
    """Problems for which there were no queries."""
    unknown_problems: tuple[str, ...]
    """Judged problems that the dataset does not have."""
    unknown_documents: tuple[str, ...]
    """Judged documents that no corpus has."""
    without_relevant: int
    """Judged problems to which nothing is relevant."""
    config: Mapping[str, Any]
    """How evidence was searched for."""

    def as_json(self) -> dict[str, Any]:
        """The document of `retrieve --evaluate`."""
        return {
            "command": "retrieve",
            "dataset": self.dataset,
            "qrels": str(self.qrels),
            "k": self.k,
            "problems": self.problems,
            "measures": dict(self.measures),
            "decisive": None if self.decisive is None else dict(self.decisive),
            "unanswered": self.unanswered,
            "unknown_problems": list(self.unknown_problems),
            "unknown_documents": list(self.unknown_documents),
            "without_relevant": self.without_relevant,
            "config": dict(self.config),
        }

    def rows(self) -> list[dict[str, Any]]:
        """A single row: the measures."""
        return [{"dataset": self.dataset, "problems": self.problems, **self.measures}]

    def words(self) -> str:
        """The measures, and what the judgments name that is missing."""
        measures = self.measures
        low, high = measures["ndcg@10_ci95"]
        shown = [
            f"ndcg@10 {measures['ndcg@10']:.4f} [{low:.4f}, {high:.4f}]",
            f"mrr {measures['mrr']:.4f}",
        ]
        shown += [
            f"{name} {value:.4f}" for name, value in measures.items() if name.startswith("recall")
        ]
        lines = [f"retrieve: {self.problems} problems measured, nothing attached", ", ".join(shown)]
        if self.decisive is not None:
            lines.append(
                f"the deciding text came first for {self.decisive['first']:.1%} of"
                f" {self.decisive['problems']} problems, among the first {self.k} for"
                f" {self.decisive['within_k']:.1%}"
            )
        for what, names in (
            ("problems", self.unknown_problems),
            ("documents", self.unknown_documents),
        ):
            if names:
                listed = ", ".join(names[:_LISTED])
                lines.append(f"{len(names)} judged {what} are not here: {listed}")
        if self.unanswered:
            lines.append(f"{self.unanswered} problems got no queries and count as nothing found")
        return "\n".join(lines)


def retrieve(
    workspace: WorkspaceFolder, options: RetrieveOptions
) -> RetrieveResult | RetrievalQuality:
    """Find evidence for the problems (or traces) that have none yet; with `evaluate`, measure it.

    Raises:
        InputError: evidence was retrieved in another way, and `replace` is not given; or the
            judgments do not fit the dataset or the corpora.
        IndexMismatch: there is no index, or it does not belong to corpora or encoder.
    """
    tally = Tally("retrieve", options.dataset)
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        if options.evaluate is not None:
            return _measured(workspace, store, options, input_file(options.evaluate))
        _attach(workspace, store, options, tally)
    return RetrieveResult(**tally.figures())


def _attach(
    workspace: WorkspaceFolder, store: Store, options: RetrieveOptions, tally: Tally
) -> None:
    """Retrieve for the problems, or for `step` the traces, for which retrieval has not run."""
    from labeling import retrieve_evidence

    dataset = options.dataset
    fingerprint = store.corpora.fingerprint()
    retriever = open_retriever(workspace, store, options, fingerprint=fingerprint)
    images = _images_of(workspace, store, options)
    stored = retriever.config() | {"corpus": fingerprint}
    if options.rewriter is not None:
        stored |= rewriting_config(options.rewriter, images) | options.request_settings()
    store.evidence.declare(dataset, stored, replace=options.replace)
    if options.query == "step":
        missing = store.evidence.missing_traces(dataset)
        tally.unchanged = store.traces.datasets()[dataset].traces - len(missing)
        found = retriever.retrieve_for(_step_queries(store, dataset, missing))
        shown = progress(found, total=len(missing), label="retrieve")
        tally.done = store.evidence.put_for_traces(dataset, shown)
        return
    problems = store.evidence.missing_problems(dataset)
    tally.unchanged = store.traces.datasets()[dataset].problems - len(problems)
    if options.query == "problem":
        found = retrieve_evidence(problems, retriever)
        total = len(problems)
    else:
        asked = _written(store, tally, problems, options, images=images)
        found, total = retriever.retrieve_for(asked), len(asked)
    tally.done = store.evidence.put(dataset, progress(found, total=total, label="retrieve"))


def _measured(
    workspace: WorkspaceFolder, store: Store, options: RetrieveOptions, qrels: Path
) -> RetrievalQuality:
    """Retrieve for the judged problems and measure the ranking of documents.

    A document ranks where its best passage ranks.
    """
    from evaluation import RankedProblem, evaluate_rankings
    from formats import read_qrels

    if options.query == "step":
        raise InputError(
            "Relevance is judged by problem, and --query step retrieves by trace.",
            remedy="measure with --query problem or --query rewrite",
        )
    judgments = _judgments(store, options.dataset, read_qrels(qrels), qrels)
    problems = [
        each for each in store.traces.problems(options.dataset) if each.id in judgments.grades
    ]
    retriever = open_retriever(workspace, store, options.but(k=max(options.k, _DEPTH)))
    asked: list[Asked]
    if options.query == "problem":
        asked = [(problem.id, (Query(query_of(problem)),)) for problem in problems]
    else:
        images = _images_of(workspace, store, options)
        tally = Tally("retrieve", options.dataset)
        asked = _written(store, tally, problems, options, images=images)
    found = dict(progress(retriever.retrieve_for(asked), total=len(asked), label="retrieve"))
    ranked = [
        RankedProblem(_documents(found.get(problem.id, ())), judgments.grades[problem.id])
        for problem in problems
    ]
    return RetrievalQuality(
        dataset=options.dataset,
        qrels=qrels,
        k=options.k,
        problems=len(problems),
        measures=evaluate_rankings(ranked, recall_at=(options.k, 10, _DEPTH)),
        decisive=_decisive(found, judgments.decisive, options.k),
        unanswered=len(problems) - len(found),
        unknown_problems=tuple(judgments.unknown_problems),
        unknown_documents=tuple(judgments.unknown_documents),
        without_relevant=judgments.without_relevant,
        config=retriever.config() | {"k": options.k},
    )


def _images_of(
    workspace: WorkspaceFolder, store: Store, options: RetrieveOptions
) -> ImageOptions | None:
    """Where the images that decide queries are; None if none do."""
    exist = store.traces.has_images(options.dataset)
    if options.query == "image" and not exist:
        raise InputError(
            f"No problem of '{options.dataset}' has an image.",
            where="--query image",
            remedy="use --query problem",
        )
    if options.query not in ("image", "rewrite") or not exist:
        return None
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    if options.rewriter is not None:
        from stepgold.models import parse_spec

        images = images.settled(parse_spec(options.rewriter), exist=exist)
    return images if images.shown else None


def _written(
    store: Store,
    tally: Tally,
    problems: Sequence[Problem],
    options: RetrieveOptions,
    *,
    images: ImageOptions | None,
) -> list[Asked]:
    """The queries that a model writes for the problems, or their images."""
    if images is not None and options.query == "image":
        asked, failures = images.as_queries(problems, stage=STAGE)
        store.labels.failures.put(options.dataset, failures)
        tally.abstained.update(failure.reason.value for failure in failures)
        return asked
    return _rewritten(store, tally, problems, options, images=images)


def _rewritten(
    store: Store,
    tally: Tally,
    problems: Sequence[Problem],
    options: RetrieveOptions,
    *,
    images: ImageOptions | None,
) -> list[Asked]:
    """The problems' queries, as far as the model wrote some; the others are counted and listed.

    Raises:
        ModelRefused, QuotaExhausted: before the first query was written.
    """
    from inference import Purse
    from stepgold.models import RunTerms, dispatcher, parse_spec, text_model
    from stepgold.versions import ModelTruth

    asked: list[Asked] = []
    failures = []
    with ExitStack() as closing:
        model = text_model(
            parse_spec(str(options.rewriter)),
            base_url=options.base_url,
            insecure_http=options.insecure_http,
            concurrency=options.concurrency,
            fields=options.request_fields,
            allow_phi=options.allow_phi,
        )
        truth = ModelTruth(allow_mixed=True)
        runner = dispatcher(model, RunTerms(store, closing, truth, Purse(options.budget)))
        written = rewrite_queries(
            with_clinical_context(store, options.dataset, problems),
            runner,
            allow_phi=options.allow_phi,
            marked=store.traces.marked_problems(options.dataset),
            images=None if images is None else images.loader(),
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
    store.labels.failures.put(options.dataset, failures)
    tally.abstained.update(failure.reason.value for failure in failures)
    return asked


def _step_queries(store: Store, dataset: str, trace_ids: Sequence[str]) -> Iterator[Asked]:
    contexts: Iterable[Any] = (
        store.traces.contexts(dataset, trace_ids=trace_ids, with_evidence=False)
        if trace_ids
        else ()
    )
    for context in contexts:
        yield context.trace.id, step_queries(context.problem, context.trace.steps)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The queries of one problem."""

    problem_id: str
    """The problem."""
    queries: Sequence[Query]
    """Its own query and those written for it; empty if there are none."""
    failure: Failure | None = None
    """Why there are none."""


def rewrite_queries(
    problems: Iterable[Problem],
    runner: Dispatcher,
    *,
    allow_phi: bool,
    marked: Collection[str] = (),
    images: ProblemImages | None = None,
) -> Iterator[Rewritten]:
    """Yield the queries for each problem as replies come in, in any order.

    `marked` are ids of problems whose traces say `phi_removed: false`: as if they said so. With
    `images`, the model is shown the images of the problems.

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
            shown: tuple[EncodedImage, ...] | Abstention = ()
            if images is not None:
                hosted = runner.model.hosted
                shown = images.sendable(problem, hosted=hosted, allow_phi=allow_phi)
            if isinstance(shown, Abstention):
                refused.append(_failed(problem, shown.reason, shown.detail, again=False))
                continue
            waiting[problem.id] = problem
            yield _request(problem, shown)

    for request, outcome in runner.run(requests()):
        while refused:
            yield refused.pop()
        yield _read(waiting.pop(request.meta["problem_id"]), outcome)
    yield from refused


def rewriting_config(model: str, images: ImageOptions | None) -> dict[str, Any]:
    """What decides the queries, for the configuration of the retrieval."""
    instruction = _instruction(sees=images is not None)
    digest = hashlib.sha256(instruction.encode()).hexdigest()[:12]
    seen = {} if images is None else {"rewriter_sees_images": True}
    return {"rewriter": model, "rewrite_prompt": digest} | seen


def _instruction(*, sees: bool) -> str:
    return REWRITE_INSTRUCTION + REWRITE_WITH_IMAGES if sees else REWRITE_INSTRUCTION


def _request(problem: Problem, images: tuple[EncodedImage, ...]) -> GenerationRequest:
    from inference import GenerationRequest, Message

    instruction = _instruction(sees=bool(images))
    return GenerationRequest(
        messages=(Message("system", instruction), Message("user", query_of(problem), images)),
        max_tokens=_MAX_TOKENS,
        temperature=0.0,
        response_json_schema=REWRITE_SCHEMA,
        meta={"purpose": "rewrite", "problem_id": problem.id},
    )


def _read(problem: Problem, outcome: ModelReply | ModelError) -> Rewritten:
    if isinstance(outcome, ModelError):
        return _failed(problem, AbstentionReason.MODEL_ERROR, outcome.what, again=True)
    queries = parse_rewritten(outcome.text)
    if queries is None:
        detail = outcome.only_reasoning or (
            f"the rewriting model's reply holds no queries (finished by {outcome.finish_reason})"
        )
        return _failed(problem, AbstentionReason.UNREADABLE, detail, again=True)
    return Rewritten(problem.id, rewritten_queries(problem, queries))


def _failed(problem: Problem, reason: AbstentionReason, detail: str, *, again: bool) -> Rewritten:
    failure = Failure(problem.id, STAGE, reason, retryable=again, detail=detail)
    return Rewritten(problem.id, (), failure)


@dataclass(frozen=True, slots=True)
class _Judgments:
    """What is relevant to the problems of the dataset."""

    grades: Mapping[str, Mapping[str, int]]
    """By problem, the grades of the judged documents."""
    decisive: Mapping[str, Sequence[str]]
    """By problem, the texts of which a passage must hold one to decide it."""
    unknown_problems: list[str]
    """Problems of the file that the dataset does not have."""
    unknown_documents: list[str]
    """Documents of the file that no corpus has; they stay relevant, and cannot be found."""
    without_relevant: int
    """Judged problems to which nothing is relevant: no measure is defined for them."""


def _judgments(store: Store, dataset: str, judged: Sequence[Relevance], path: Path) -> _Judgments:
    problems = {problem.id: problem.id for problem in store.traces.problems(dataset)}
    by_text = {problem.question: problem.id for problem in store.traces.problems(dataset)}
    documents = _document_keys(store)
    grades: defaultdict[str, dict[str, int]] = defaultdict(dict)
    decisive: defaultdict[str, list[str]] = defaultdict(list)
    unknown_problems: dict[str, None] = {}
    unknown_documents: dict[str, None] = {}
    for each in judged:
        problem = (by_text if each.by_text else problems).get(each.problem)
        if problem is None:
            unknown_problems[each.problem] = None
            continue
        names = documents.get(each.document, set())
        if len(names) > 1:
            raise InputError(
                f"'{each.document}' names several documents.",
                where=str(path),
                remedy=f"write CORPUS/DOCUMENT, e.g. '{min(names)}'",
            )
        if not names:
            unknown_documents[each.document] = None
        grades[problem][next(iter(names), each.document)] = each.grade
        if each.decisive is not None:
            decisive[problem].append(each.decisive)
    useful = {problem: by for problem, by in grades.items() if any(by.values())}
    if not useful:
        raise InputError(
            f"The judgments name no relevant document for any problem of dataset '{dataset}'.",
            where=str(path),
            remedy="problem ids are those of the dataset, as `stepgold export traces` writes them",
        )
    return _Judgments(
        grades=useful,
        decisive=decisive,
        unknown_problems=list(unknown_problems),
        unknown_documents=list(unknown_documents),
        without_relevant=len(grades) - len(useful),
    )


def _document_keys(store: Store) -> dict[str, set[str]]:
    """What a judgment may call a document: its name, CORPUS/NAME, or the id of its JSONL row."""
    keys: defaultdict[str, set[str]] = defaultdict(set)
    for corpus, name in store.corpora.document_names():
        full = f"{corpus}/{name}"
        for key in {full, name, name.rpartition("#")[2]}:
            keys[key].add(full)
    return keys


def _documents(evidence: Sequence[Evidence]) -> tuple[str, ...]:
    names = (f"{each.passage.corpus}/{each.passage.document}" for each in evidence)
    return tuple(dict.fromkeys(names))


def _decisive(
    found: Mapping[str, Sequence[Evidence]], wanted: Mapping[str, Sequence[str]], k: int
) -> dict[str, Any] | None:
    """Share of problems for which a passage holds the deciding text; None if none is named."""
    if not wanted:
        return None

    def share(depth: int) -> float:
        hits = sum(
            any(
                text in each.passage.text
                for each in found.get(problem, ())[:depth]
                for text in texts
            )
            for problem, texts in wanted.items()
        )
        return hits / len(wanted)

    return {"problems": len(wanted), "first": share(1), "within_k": share(k)}
