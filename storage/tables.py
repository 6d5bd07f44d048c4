"""The schema: one SQLModel class per table. Nothing outside storage/ sees these classes.

Rows are keyed by `pk`; `id` is always the user's identifier. Deleting a dataset, a corpus or a
labeler deletes what belongs to it (ON DELETE CASCADE), except for evidence.

Evidence copies its passage, because an audit of a verdict must show the text that the judge saw,
even after the corpus was removed or its document changed. An evidence row points at a snapshot
(`evidence_passages`, addressed by content), never at the live passage. Equal lists are one set.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from storage.columns import (
    AMOUNT,
    MODEL_TEXT,
    NAME,
    PACKED_TEXT,
    PLAIN_JSON,
    SIMILARITY,
    STRICT_JSON,
    TEXT,
    TEXTS,
    WORDS,
    Kind,
    choice,
    collate,
    one_of,
    parent,
    partial,
    within,
)
from storage.steps import EVERY_MARK
from traces import AbstentionReason, BatchEnding, BatchState, LabelerKind

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Our tables only. Constraints have names so that a migration can change them."""


class Base(SQLModel, registry=registry(metadata=METADATA)):
    """Base of every table."""


class Keyed(Base):
    """Base of the tables whose rows others point at."""

    pk: int | None = Field(default=None, primary_key=True)


def _of(kind: Kind, **options: Any) -> Any:
    """A column that holds values of this kind."""
    if kind.sa_type is not None:
        options["sa_type"] = kind.sa_type
    return Field(sa_column_kwargs={"info": {"kind": kind}}, **options)


def _choice(values: type[StrEnum]) -> Any:
    return _of(choice(values), sa_type=String)


# Datasets with their files, problems, traces and steps


class DatasetTable(Keyed, table=True):
    """A named set of problems and traces."""

    __tablename__ = "datasets"
    name: str = _of(NAME, unique=True)
    retrieval_config: Any = _of(PLAIN_JSON, nullable=True)
    """How the evidence was retrieved; NULL before the first retrieval."""
    created_at: str


class SourceFileTable(Keyed, table=True):
    """A file that was imported into a dataset, or a set of sampled candidates."""

    __tablename__ = "source_files"
    __table_args__ = (UniqueConstraint("dataset_pk", "name"),)

    dataset_pk: int = parent("datasets.pk")
    name: str = _of(NAME)
    sha256: str
    format: str
    options: Any = _of(PLAIN_JSON)
    imported_at: str


class RejectedRowTable(Base, table=True):
    """A row of a file that was not imported, or whose gold cannot be used."""

    __tablename__ = "rejected_rows"
    source_file_pk: int = parent("source_files.pk", primary_key=True)
    position: int = Field(primary_key=True)
    file: str = _of(MODEL_TEXT)
    line: int | None
    id: str | None = _of(MODEL_TEXT)
    reason: str = _of(MODEL_TEXT)
    imported: bool
    harmless: bool | None


class ProblemTable(Keyed, table=True):
    """A problem."""

    __tablename__ = "problems"
    __table_args__ = (UniqueConstraint("dataset_pk", "id"), Index(None, "dataset_pk", "pk"))

    dataset_pk: int = parent("datasets.pk")
    id: str = _of(NAME)
    question: str = _of(TEXT)
    options: Any = _of(TEXTS)
    answer: str | None = _of(TEXT)
    images: Any = _of(TEXTS)
    meta: Any = _of(PLAIN_JSON)
    digest: str
    """sha256 of the content, to detect a changed problem."""
    evidence_set_pk: int | None = Field(foreign_key="evidence_sets.pk", index=True)
    """What retrieval found; NULL until it has run, an empty set if it found nothing."""


class TraceTable(Keyed, table=True):
    """A trace."""

    __tablename__ = "traces"
    __table_args__ = (
        UniqueConstraint("dataset_pk", "id"),
        within("n_steps", 1),
        Index(None, "dataset_pk", "source_file_pk", "position", "pk"),  # the order of import
    )

    dataset_pk: int = parent("datasets.pk")
    problem_pk: int = parent("problems.pk", index=True)
    source_file_pk: int = parent("source_files.pk", index=True)
    position: int
    """0-based position in its file; (source_file_pk, position) is the order of import."""
    id: str = _of(NAME)
    subset: str = _of(NAME)
    generator: str | None = _of(TEXT)
    final_answer: str | None = _of(TEXT)
    final_answer_correct: bool | None
    n_steps: int
    meta: Any = _of(PLAIN_JSON)
    digest: str
    """sha256 of the content, including the problem's."""
    evidence_set_pk: int | None = Field(foreign_key="evidence_sets.pk", index=True)
    """Evidence that came with the row; NULL if none did."""


class StepTable(Base, table=True):
    """One step of a trace."""

    __tablename__ = "steps"
    trace_pk: int = parent("traces.pk", primary_key=True)
    step_index: int = Field(primary_key=True)
    text: str


class LabelerTable(Keyed, table=True):
    """A labeler of one dataset."""

    __tablename__ = "labelers"
    __table_args__ = (UniqueConstraint("dataset_pk", "name"), one_of("kind", LabelerKind))

    dataset_pk: int = parent("datasets.pk")
    name: str = _of(NAME)
    kind: str = _choice(LabelerKind)
    config: Any = _of(PLAIN_JSON)
    model: str | None = _of(TEXT)
    resolved_model: str | None = _of(TEXT)
    created_at: str


class TraceLabelTable(Keyed, table=True):
    """One labeler's label on one trace."""

    __tablename__ = "trace_labels"
    __table_args__ = (
        UniqueConstraint("labeler_pk", "trace_pk"),
        one_of("abstention", AbstentionReason),
        CheckConstraint("first_error_given OR first_error_index IS NULL", name="first_error"),
        partial("ix_trace_labels_abstained", "labeler_pk", where="abstention IS NOT NULL"),
    )

    labeler_pk: int = parent("labelers.pk")
    trace_pk: int = parent("traces.pk", index=True)
    first_error_given: bool
    first_error_index: int | None
    abstention: str | None
    abstention_detail: str | None
    meta: Any = _of(STRICT_JSON)
    imported: bool
    """Whether it came with a row of the dataset's file; such labels follow the file."""
    created_at: str


class StepLabelTable(Base, table=True):
    """The labels of the steps of one trace; `storage/steps.py` writes and reads them."""

    __tablename__ = "step_labels"
    __table_args__ = (
        CheckConstraint("labeled BETWEEN 0 AND length(marks)", name="labeled"),
        CheckConstraint(f"length(marks) > 0 AND ltrim(marks, '{EVERY_MARK}') = ''", name="marks"),
        CheckConstraint("length(scores) BETWEEN 8 AND 8 * length(marks)", name="scores"),
    )

    trace_label_pk: int = parent("trace_labels.pk", primary_key=True)
    marks: str
    """One character per step: its verdict, or why it has none; upper case if it has a score."""
    scores: bytes | None
    """The scores of the steps that have one, as little-endian doubles."""
    labeled: int
    """Steps with a verdict or a score."""


class StepNoteTable(Base, table=True):
    """What the labels of the steps of one trace hold beside words and scores, as lists by field."""

    __tablename__ = "step_notes"
    trace_label_pk: int = parent("step_labels.trace_label_pk", primary_key=True)
    notes: Any = _of(STRICT_JSON)


class QuoteTable(Base, table=True):
    """What a judge cited for one step."""

    __tablename__ = "quotes"
    __table_args__ = {"sqlite_with_rowid": False}

    trace_label_pk: int = parent("step_labels.trace_label_pk", primary_key=True)
    step_index: int = Field(primary_key=True)
    text: str = _of(MODEL_TEXT)
    document: int | None
    verified: bool
    start_char: int | None
    end_char: int | None
    method: str | None


class ContinuationTable(Base, table=True):
    """One completion of a prefix; it belongs to the label that was made from it."""

    __tablename__ = "continuations"
    trace_label_pk: int = parent("trace_labels.pk", primary_key=True)
    step_index: int = Field(primary_key=True)
    continuation_index: int = Field(primary_key=True)
    text: str = _of(MODEL_TEXT)
    finish_reason: str
    answer: str | None = _of(MODEL_TEXT)
    correct: bool | None
    tokens: int


class VoteTable(Base, table=True):
    """One model's reading of one trace; it belongs to the label that was made from it."""

    __tablename__ = "votes"
    __table_args__ = (
        one_of("abstention", AbstentionReason),
        CheckConstraint("first_error_named OR first_error_index IS NULL", name="first_error"),
    )

    trace_label_pk: int = parent("trace_labels.pk", primary_key=True)
    model: str = _of(TEXT, primary_key=True)
    vote_index: int = Field(primary_key=True)
    escalated: bool
    resolved_model: str | None = _of(TEXT)
    words: Any = _of(WORDS)
    """For each step the verdict, or the reason of the abstention."""
    first_error_named: bool
    first_error_index: int | None
    abstention: str | None
    abstention_detail: str | None
    request_keys: Any = _of(TEXTS)
    """Keys of its calls in `model_calls`."""


class FailureTable(Base, table=True):
    """An item that a stage could not handle and that is no abstention among the labels."""

    __tablename__ = "failures"
    __table_args__ = (one_of("reason", AbstentionReason),)

    dataset_pk: int = parent("datasets.pk", primary_key=True)
    id: str = _of(NAME, primary_key=True)
    stage: str = _of(NAME, primary_key=True)
    reason: str = _choice(AbstentionReason)
    retryable: bool
    detail: str = _of(MODEL_TEXT)
    created_at: str


class CorpusTable(Keyed, table=True):
    """A named set of documents."""

    __tablename__ = "corpora"
    name: str = _of(NAME, unique=True)
    licence: str | None
    created_at: str


class CorpusSourceTable(Base, table=True):
    """Where a corpus as a whole comes from, as the user stated it."""

    __tablename__ = "corpus_sources"
    corpus_pk: int = parent("corpora.pk", primary_key=True)
    source: str


class CorpusFileTable(Keyed, table=True):
    """A file that documents were read from."""

    __tablename__ = "corpus_files"
    __table_args__ = (UniqueConstraint("corpus_pk", "root", "path"),)

    corpus_pk: int = parent("corpora.pk")
    root: str
    """Absolute path of the folder that was added; of the parent folder for a file added by name."""
    path: str
    """Path below the root, with `/`."""
    sha256: str | None
    """Hash of the file's bytes; NULL until all of its documents are stored."""
    settings: str
    """How it was read and split: other settings give other documents."""
    problems: Any = Field(sa_type=JSON)
    """What could not be read, to repeat it when the unchanged file is added again."""


class DocumentTable(Keyed, table=True):
    """A document with its full text; passages are offsets into it."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("corpus_pk", "name"),)

    corpus_pk: int = parent("corpora.pk")
    name: str = _of(NAME)
    title: str = _of(TEXT)
    text: str = _of(TEXT)
    sha256: str
    source: str = _of(TEXT)
    language: str | None


class DocumentOriginTable(Base, table=True):
    """The file a document came from. Documents of older databases have none."""

    __tablename__ = "document_origins"
    document_pk: int = parent("documents.pk", primary_key=True)
    corpus_file_pk: int = parent("corpus_files.pk", index=True)
    split: str
    """Settings of the splitter; with the document's hash they determine its passages."""


class PassageTable(Base, table=True):
    """A passage of a document. Its id is its id in the FAISS index and is never used twice."""

    __tablename__ = "passages"
    __table_args__ = (
        UniqueConstraint("document_pk", "passage_index"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    document_pk: int = parent("documents.pk")
    passage_index: int
    start_char: int
    end_char: int
    title: str
    text: str


class EvidencePassageTable(Keyed, table=True):
    """The copy of a passage as it was when it became evidence, or as it came with a file."""

    __tablename__ = "evidence_passages"
    digest: str = Field(unique=True)
    corpus: str = _of(TEXT)
    document: str = _of(TEXT)
    passage_index: int
    start_char: int
    end_char: int
    title: str = _of(TEXT)
    text: str = _of(TEXT)


class EvidenceSetTable(Keyed, table=True):
    """A list of evidence, best first; it may be empty."""

    __tablename__ = "evidence_sets"
    digest: str = Field(unique=True)


class EvidenceTable(Base, table=True):
    """One entry of a list of evidence."""

    __tablename__ = "evidence"
    __table_args__ = (within("similarity", -1, 1), within("rank", 0))

    evidence_set_pk: int = parent("evidence_sets.pk", primary_key=True)
    position: int = Field(primary_key=True)
    rank: int
    similarity: float | None = _of(SIMILARITY)
    evidence_passage_pk: int = Field(foreign_key="evidence_passages.pk", index=True)


class EvidenceStepTable(Base, table=True):
    """The step whose query ranked a passage highest; no row where the problem's query did."""

    __tablename__ = "evidence_steps"
    __table_args__ = (
        ForeignKeyConstraint(
            ["evidence_set_pk", "position"],
            ["evidence.evidence_set_pk", "evidence.position"],
            ondelete="CASCADE",
        ),
        within("step_index", 0),
    )

    evidence_set_pk: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    step_index: int


class TraceEvidenceTable(Base, table=True):
    """What retrieval found for a trace; it takes precedence over its problem's evidence."""

    __tablename__ = "trace_evidence"
    trace_pk: int = parent("traces.pk", primary_key=True)
    evidence_set_pk: int = Field(foreign_key="evidence_sets.pk", index=True)


# Replies of models, batch jobs and prompts
_SUMMED = "usd", "hits", "input_tokens", "cached_tokens", "output_tokens", "thinking_tokens"


class ModelCallTable(Base, table=True):
    """A model call under its content address: a paid reply is never bought twice."""

    __tablename__ = "model_calls"
    # The index covers every column of the totals: rows are long, and reading them all is slow.
    __table_args__ = (
        within("usd", 0),
        Index("ix_model_calls_spending", "model", "purpose", "resolved_model", *_SUMMED),
    )

    key: str = _of(NAME, primary_key=True)
    request: bytes = _of(PACKED_TEXT)
    text: str | None = _of(MODEL_TEXT)
    raw: str = _of(MODEL_TEXT)
    finish_reason: str
    model: str
    resolved_model: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thinking_tokens: int
    usd: float | None = _of(AMOUNT)
    prices_as_of: str | None
    meta: Any = _of(STRICT_JSON)
    hits: int
    """How often the reply was reused instead of being bought."""
    created_at: str
    purpose: str | None
    """The purpose that the meta states (`judge`, `continue`); NULL if it states none."""


class BatchJobTable(Base, table=True):
    """A batch job; written before it is sent, kept when it is closed."""

    __tablename__ = "batch_jobs"
    __table_args__ = (
        one_of("state", BatchState),
        one_of("ending", BatchEnding),
        CheckConstraint("(state = 'closed') = (ending IS NOT NULL)", name="closed"),
    )

    id: str = _of(NAME, primary_key=True)
    model: str = _of(NAME)
    endpoint: str
    state: str = _choice(BatchState)
    name: str | None
    requests: int
    progress: str
    progress_at: float
    cancelled_at: float | None
    created_at: float
    closed_at: float | None
    ending: str | None = _choice(BatchEnding)
    detail: str | None = _of(MODEL_TEXT)


class BatchRequestTable(Base, table=True):
    """A request without a recorded reply. Its key is unique: it is in at most one job at a time."""

    __tablename__ = "batch_requests"
    __table_args__ = (within("usd", 0),)

    key: str = _of(NAME, primary_key=True)
    job_id: str | None = Field(foreign_key="batch_jobs.id", index=True)
    """The job it is in; NULL after a job that ended without its reply."""
    jobs: int
    """How many jobs it has been in."""
    request: str = _of(MODEL_TEXT)
    tokens: int
    usd: float | None = _of(AMOUNT)
    meta: Any = _of(STRICT_JSON)


class PromptTable(Base, table=True):
    """A prompt under its hash, which labelers hold in their configuration."""

    __tablename__ = "prompts"
    sha256: str = Field(primary_key=True)
    text: str = _of(TEXT)
    created_at: str


class ClaimantTable(Base, table=True):
    """A running command that claims work; its claims end with its lease."""

    __tablename__ = "claimants"
    token: str = Field(primary_key=True)
    command: str
    host: str
    pid: int
    process: str | None
    started_at: float
    expires_at: float


class ClaimTable(Base, table=True):
    """A trace or problem that a command works on, for a labeler or a set of candidates."""

    __tablename__ = "claims"
    dataset_pk: int = parent("datasets.pk", primary_key=True)
    unit: str = Field(primary_key=True)
    labeler: str = _of(NAME, primary_key=True)
    item: str = _of(NAME, primary_key=True)
    claimant: str = parent("claimants.token", index=True)


collate(METADATA.tables.values())

# Core tables: bulk writes through them are ten times faster than through the ORM.
_TABLES = METADATA.tables
DATASETS = _TABLES["datasets"]
SOURCE_FILES = _TABLES["source_files"]
REJECTED_ROWS = _TABLES["rejected_rows"]
PROBLEMS = _TABLES["problems"]
TRACES = _TABLES["traces"]
STEPS = _TABLES["steps"]
LABELERS = _TABLES["labelers"]
TRACE_LABELS = _TABLES["trace_labels"]
STEP_LABELS = _TABLES["step_labels"]
STEP_NOTES = _TABLES["step_notes"]
QUOTES = _TABLES["quotes"]
CONTINUATIONS = _TABLES["continuations"]
VOTES = _TABLES["votes"]
FAILURES = _TABLES["failures"]
CORPORA = _TABLES["corpora"]
CORPUS_SOURCES = _TABLES["corpus_sources"]
CORPUS_FILES = _TABLES["corpus_files"]
DOCUMENTS = _TABLES["documents"]
DOCUMENT_ORIGINS = _TABLES["document_origins"]
PASSAGES = _TABLES["passages"]
EVIDENCE_PASSAGES = _TABLES["evidence_passages"]
EVIDENCE_SETS = _TABLES["evidence_sets"]
EVIDENCE = _TABLES["evidence"]
EVIDENCE_STEPS = _TABLES["evidence_steps"]
TRACE_EVIDENCE = _TABLES["trace_evidence"]
MODEL_CALLS = _TABLES["model_calls"]
BATCH_JOBS = _TABLES["batch_jobs"]
BATCH_REQUESTS = _TABLES["batch_requests"]
PROMPTS = _TABLES["prompts"]
CLAIMANTS = _TABLES["claimants"]
CLAIMS = _TABLES["claims"]
