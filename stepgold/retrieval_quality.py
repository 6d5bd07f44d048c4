"""`stepgold retrieve --evaluate`: what a way of retrieving finds of what is relevant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import progress
from stepgold.outcome import Tally
from stepgold.retrieval import Asked, Rewriting, open_retriever, rewritten
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from retrieval.search.config import RetrievalConfig
    from storage import Store
    from traces import Evidence, Relevance


_DEPTH = 100
"""Passages a problem that are measured."""
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """The measures, for programs and for people."""

    document: dict[str, Any]
    """Of the command's JSON document, all but command and dataset."""
    words: str
    """The same for a person."""


@dataclass(frozen=True, slots=True)
class _Judgements:
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


def measure_retrieval(
    workspace: WorkspaceFolder,
    store: Store,
    dataset: str,
    config: RetrievalConfig,
    rewriting: Rewriting | None,
    qrels: Path,
    encoder: str | None,
) -> Measured:
    """Retrieve for the judged problems and measure the ranking of documents; nothing is attached.

    A document stands where its best passage stands.

    Raises:
        InputError: the judgements do not fit the dataset or the corpora, or `--query step`.
    """
    from evaluation.ranking import RankedProblem, evaluate_rankings
    from formats.qrels import read_qrels
    from retrieval.search.config import Query, query_of

    if config.query == "step":
        raise InputError(
            "Relevance is judged by problem, and --query step retrieves by trace.",
            remedy="measure with --query problem or --query rewrite",
        )
    judgements = _judgements(store, dataset, read_qrels(qrels), qrels)
    problems = [each for each in store.traces.problems(dataset) if each.id in judgements.grades]
    deep = replace(config, k=max(config.k, _DEPTH))
    retriever = open_retriever(workspace, store, encoder, deep)
    tally = Tally("retrieve", dataset)
    asked: list[Asked]
    if rewriting is None:
        asked = [(problem.id, (Query(query_of(problem)),)) for problem in problems]
    else:
        asked = rewritten(store, tally, problems, rewriting)
    found = dict(progress(retriever.retrieve_for(asked), total=len(asked), label="retrieve"))
    ranked = [
        RankedProblem(_documents(found.get(problem.id, ())), judgements.grades[problem.id])
        for problem in problems
    ]
    measures: dict[str, Any] = evaluate_rankings(ranked, recall_at=(config.k, 10, _DEPTH))
    document = {
        "qrels": str(qrels),
        "k": config.k,
        "problems": len(problems),
        "measures": measures,
        "decisive": _decisive(found, judgements.decisive, config.k),
        "unanswered": len(problems) - len(found),
        "unknown_problems": judgements.unknown_problems,
        "unknown_documents": judgements.unknown_documents,
        "without_relevant": judgements.without_relevant,
        "config": retriever.config() | {"k": config.k},
    }
    return Measured(document, _words(document))


def _judgements(store: Store, dataset: str, judged: Sequence[Relevance], path: Path) -> _Judgements:
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
            f"The judgements speak of no problem of dataset '{dataset}' with a relevant document.",
            where=str(path),
            remedy="problem ids are those of the dataset, as `stepgold export traces` writes them",
        )
    return _Judgements(
        useful, decisive, list(unknown_problems), list(unknown_documents), len(grades) - len(useful)
    )


def _document_keys(store: Store) -> dict[str, set[str]]:
    """What a judgement may call a document: its name, CORPUS/NAME, or the id of its JSONL row."""
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
    """Share of the problems one of whose passages holds the deciding text; None if none is named."""
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


def _words(document: Mapping[str, Any]) -> str:
    measures = document["measures"]
    low, high = measures["ndcg@10_ci95"]
    shown = [
        f"ndcg@10 {measures['ndcg@10']:.4f} [{low:.4f}, {high:.4f}]",
        f"mrr {measures['mrr']:.4f}",
    ]
    shown += [
        f"{name} {value:.4f}" for name, value in measures.items() if name.startswith("recall")
    ]
    lines = [
        f"retrieve: {document['problems']} problems measured, nothing attached",
        ", ".join(shown),
    ]
    if (decisive := document["decisive"]) is not None:
        lines.append(
            f"the deciding text came first for {decisive['first']:.1%} of {decisive['problems']}"
            f" problems, among the first {document['k']} for {decisive['within_k']:.1%}"
        )
    for key, what in (("unknown_problems", "problems"), ("unknown_documents", "documents")):
        if document[key]:
            listed = ", ".join(document[key][:_LISTED])
            lines.append(f"{len(document[key])} judged {what} are not here: {listed}")
    if document["unanswered"]:
        lines.append(f"{document['unanswered']} problems got no queries and count as nothing found")
    return "\n".join(lines)
