"""The store: every stage's memory, in one file. Dataclasses in, dataclasses out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from storage import contexts, corpora, datasets, evidence, imports
from storage import failures as failure_rows
from storage import labels as label_rows
from storage import labels as labelers
from storage.calls import BatchJobs, Responses
from storage.connection import Connections
from storage.corpora import CorpusFiles
from storage.evidence import TraceEvidence
from storage.labels import Shortened
from storage.opening import open_connections
from storage.outcomes import (
    CallTotals,
    CorpusOutcome,
    CorpusSummary,
    DatasetCounts,
    DocumentSource,
    ImportOutcome,
    ImportSummary,
    LabelerSummary,
)
from storage.sampled import Sampled
from storage.votes import Votes
from traces import (
    Continuation,
    Evidence,
    Failure,
    ImportedTrace,
    InputError,
    Labeler,
    Passage,
    Problem,
    RejectedRow,
    SourceFile,
    StoredDocument,
    TraceInContext,
    TraceLabel,
)


class CorpusStore:
    """What `Store` knows of corpora and of the evidence that was found in them."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.trace_evidence = TraceEvidence(connections)
        """What was retrieved for single traces."""
        self.corpus_files = CorpusFiles(connections)
        """The files that documents came from."""

    def add_documents(
        self,
        corpus: str,
        documents: Iterable[tuple[StoredDocument, Sequence[Passage]]],
        *,
        licence: str | None = None,
    ) -> CorpusOutcome:
        """Add documents with their passages to a corpus, which is made if it is new.

        A document that changed, or that is split otherwise, gets new passages with new ids.

        Raises:
            CorpusError: a name comes twice, or a passage is not a part of its document's text.
        """
        with self._connections.write() as connection:
            return corpora.add_documents(connection, corpus, documents, licence=licence)

    def corpora(self) -> list[CorpusSummary]:
        """How large every corpus is, by name."""
        with self._connections.read() as connection:
            return corpora.summaries(connection)

    def remove_corpus(self, name: str) -> None:
        """Remove a corpus; evidence that was found in it keeps its copies of the passages."""
        with self._connections.write() as connection:
            corpora.remove(connection, name)

    def passages(self, corpus: str | None = None) -> Iterator[tuple[int, Passage]]:
        """Passages (of one corpus or of all) with their ids, by id. An id is positive, never reused."""
        return corpora.passages(self._connections, corpus)

    def passages_by_id(self, ids: Collection[int]) -> dict[int, Passage]:
        """The passages with these ids; one that is not there (any more) is left out."""
        with self._connections.read() as connection:
            return corpora.passages_by_id(connection, ids)

    def passage_ids(self, corpus: str) -> list[int]:
        """Ids of the passages of a corpus, ascending."""
        with self._connections.read() as connection:
            return corpora.passage_ids(connection, corpus)

    def document_sources(
        self, named: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], DocumentSource]:
        """Where documents came from, by (corpus, document); one that is not there is left out."""
        with self._connections.read() as connection:
            return corpora.document_sources(connection, named)

    def document_names(self) -> list[tuple[str, str]]:
        """(corpus, document) of every document, in the order they were stored."""
        with self._connections.read() as connection:
            return corpora.document_names(connection)

    def corpus_fingerprint(self) -> str:
        """sha256 over the ids and contents of all passages, for the manifest of an index."""
        return corpora.fingerprint(self._connections)

    def declare_retrieval(
        self, dataset: str, config: Mapping[str, Any], *, replace: bool = False
    ) -> None:
        """Say how evidence is retrieved; with `replace`, another way drops what the old one found."""
        with self._connections.write() as connection:
            evidence.declare_retrieval(connection, dataset, config, replace=replace)

    def retrieval_config(self, dataset: str) -> Mapping[str, Any] | None:
        """How the evidence of the dataset was retrieved; None if it was not."""
        with self._connections.read() as connection:
            return evidence.retrieval_config(connection, dataset)

    def put_evidence(self, dataset: str, items: Iterable[tuple[str, Sequence[Evidence]]]) -> int:
        """Store (problem id, evidence best first), committed every 64 problems; return how many."""
        return evidence.put_evidence(self._connections, dataset, items)

    def problems_without_evidence(self, dataset: str) -> list[Problem]:
        """Problems for which retrieval has not run; one that found nothing has run."""
        with self._connections.read() as connection:
            return evidence.problems_without_evidence(connection, dataset)


# --- The store: every stage's memory, in one file. Dataclasses in, dataclasses out


class Store(CorpusStore):
    """Datasets, labels, corpora, evidence and model calls in one database.

    Every writing method is one transaction, committed when it returns and all or nothing; inside a
    `transaction()` block they are one together. It may be shared between threads. A dataset, labeler,
    corpus or trace that is not there raises InputError naming the known ones; a database that cannot
    be read or written raises StoreError.
    """

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self.responses = Responses(connections)
        """Replies of models under their content address."""
        self.batch_jobs = BatchJobs(connections)
        """Requests on their way in batch jobs."""
        self.sampled = Sampled(connections)
        """Candidate traces that policies wrote."""
        self.shortened = Shortened(connections)
        """What labelers saw with fewer documents than it has."""
        self.votes = Votes(connections)
        """What stands behind judges' labels: votes, quotes by verdict, prompts."""

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """Open the database at `url` (`sqlite:///FILE`; `sqlite://` is in memory).

        An empty or missing file becomes a new database; an older schema is brought up to date.

        Raises:
            InputError: the URL is not one of a SQLite database.
            StoreError: none is there and `create` is False; not writable, foreign or newer: left as is.
        """
        return cls(open_connections(url, create=create))

    def close(self) -> None:
        """Release the database."""
        self._connections.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes of this thread in the block one: an error that leaves it undoes them all."""
        with self._connections.write():
            yield

    # Import and reading

    def import_traces(
        self,
        dataset: str,
        source: SourceFile,
        rows: Iterable[ImportedTrace | RejectedRow],
        *,
        replace: bool = False,
    ) -> ImportOutcome:
        """Import a file into a dataset, which is made if it is new; `rows` is read while it is stored.

        A row that cannot be stored (a duplicate id, a NUL byte, a label that does not fit) is rejected
        and listed. The same file again is not read and gives the rejected rows of its first import.
        With `replace`, traces whose content did not change keep all their labels.

        Raises:
            InputError: the file changed and `replace` is False; not one row can be used; a labeler of
                the rows is known with another configuration. Nothing of the call is kept.
        """
        with self._connections.write() as connection:
            return imports.import_file(connection, dataset, source, rows, replace=replace)

    def import_summary(self, dataset: str) -> ImportSummary:
        """The dataset as its gold labels see it."""
        with self._connections.read() as connection:
            return imports.summary(connection, dataset)

    def rejected_rows(self) -> list[tuple[str, RejectedRow]]:
        """Rows of imported files that were not imported, with their datasets."""
        with self._connections.read() as connection:
            return imports.rejected_rows(connection)

    def datasets(self) -> dict[str, DatasetCounts]:
        """How large every dataset is, in the order of import."""
        with self._connections.read() as connection:
            return datasets.counts(connection)

    def require_dataset(self, dataset: str) -> None:
        """Raise InputError, naming the known ones, if there is no such dataset."""
        with self._connections.read() as connection:
            datasets.dataset_pk(connection, dataset)

    def contexts(
        self,
        dataset: str,
        *,
        trace_ids: Collection[str] | None = None,
        with_evidence: bool = True,
        limit: int | None = None,
    ) -> Iterator[TraceInContext]:
        """Traces (all, or those with these ids; the first `limit`) in the order of import.

        Evidence is what was retrieved for the problem; before retrieval has run, what came with the
        row. Labels may be written while this is read.
        """
        if limit is not None and limit < 0:
            raise InputError(f"The limit {limit} is negative.")
        return contexts.contexts(
            self._connections,
            dataset,
            trace_ids=trace_ids,
            with_evidence=with_evidence,
            limit=limit,
        )

    def problems(self, dataset: str) -> Iterator[Problem]:
        """Problems in the order of import."""
        return contexts.problems(self._connections, dataset)

    def has_images(self, dataset: str) -> bool:
        """Whether any problem of the dataset has an image."""
        return contexts.has_images(self._connections, dataset)

    def marked_problems(self, dataset: str) -> frozenset[str]:
        """Ids of problems that say `phi_removed: false`, or of which a trace does."""
        return contexts.marked_problems(self._connections, dataset)

    def remove_dataset(self, dataset: str) -> None:
        """Remove a dataset with its traces, labels, evidence and failures; paid replies stay."""
        with self._connections.write() as connection:
            datasets.remove(connection, dataset)

    # Labelers and labels

    def declare_labeler(self, dataset: str, labeler: Labeler, *, replace: bool = False) -> None:
        """Make a labeler known; the same one again keeps its labels, also with `replace`.

        Raises:
            InputError: the name is taken by another kind, model or configuration; with `replace` that
                one is dropped with its labels instead.
        """
        with self._connections.write() as connection:
            owner = datasets.dataset_pk(connection, dataset)
            labelers.declare(connection, owner, labeler, replace=replace)

    def labelers(self, dataset: str | None = None) -> list[LabelerSummary]:
        """How much each labeler has said, of one dataset or of all."""
        with self._connections.read() as connection:
            return labelers.summaries(connection, dataset)

    def labeler(self, dataset: str, name: str) -> Labeler:
        """The labeler of that name; `resolved_model` holds every version that answered."""
        with self._connections.read() as connection:
            return labelers.load_labelers(connection, dataset, name)

    def remove_labeler(self, dataset: str, name: str) -> None:
        """Remove a labeler with all its labels."""
        with self._connections.write() as connection:
            labelers.remove(connection, dataset, name)

    def unlabeled_trace_ids(self, dataset: str, name: str) -> list[str]:
        """Traces without a stored word of the labeler, in the order of import; an abstention is one."""
        with self._connections.read() as connection:
            return label_rows.unlabeled_trace_ids(connection, dataset, name)

    def put_labels(
        self,
        dataset: str,
        name: str,
        labels: Iterable[TraceLabel],
        *,
        resolved_model: str | None = None,
        continuations: Iterable[Continuation] = (),
    ) -> int:
        """Store labels with the continuations behind them, all or none; return how many labels.

        A label takes the place of what the labeler said on the trace before, with its continuations.
        `resolved_model` is added to those of the labeler.

        Raises:
            InputError: a label does not fit its trace, says nothing, or has a score outside [0, 1].
        """
        # Taken from the caller's generator before the write lock is: making labels may take hours.
        ready, drawn = list(labels), list(continuations)
        with self._connections.write() as connection:
            return label_rows.put(
                connection,
                dataset,
                name,
                ready,
                resolved_model=resolved_model,
                continuations=drawn,
            )

    def drop_labels(self, dataset: str, name: str, trace_ids: Sequence[str]) -> int:
        """Forget what a labeler said on these traces: they are missing again. Return how many it were."""
        with self._connections.write() as connection:
            return label_rows.drop(connection, dataset, name, trace_ids)

    def labels(self, dataset: str, name: str) -> dict[str, TraceLabel]:
        """All labels of a labeler by trace id, in the order of import."""
        with self._connections.read() as connection:
            return label_rows.load(connection, dataset, name)

    def continuations(self, dataset: str, name: str, trace_id: str) -> list[Continuation]:
        """The continuations behind a label, by step and number; empty if there are none."""
        with self._connections.read() as connection:
            return label_rows.continuations(connection, dataset, name, trace_id)

    # Ledger and failures

    def call_totals(self) -> CallTotals:
        """Model calls sent and saved, and what they cost."""
        return self.responses.totals()

    def put_failures(self, dataset: str, failures: Iterable[Failure]) -> int:
        """Keep failures that are no labels; evidence or a label for the item clears its failure."""
        with self._connections.write() as connection:
            return failure_rows.put(connection, dataset, failures)

    def failures(self, dataset: str | None = None) -> list[tuple[str, Failure]]:
        """Failures with their datasets: those put, abstentions of working labelers, unusable gold."""
        with self._connections.read() as connection:
            return failure_rows.load(connection, dataset)
