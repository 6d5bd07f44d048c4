"""The tables of the store, one SQLModel class each; nothing outside storage/ sees them.

Every table has its own key `pk`; `id` is always the user's word. Deleting a dataset, a corpus or a
labeler deletes what hangs on it (ON DELETE CASCADE). Evidence is the exception: see `corpora.py`.
"""

from storage.tables.base import METADATA
from storage.tables.batches import BATCH_JOBS, BATCH_REQUESTS
from storage.tables.corpora import (
    CORPORA,
    DOCUMENTS,
    EVIDENCE,
    EVIDENCE_PASSAGES,
    EVIDENCE_SETS,
    PASSAGES,
)
from storage.tables.corpus_files import CORPUS_FILES, CORPUS_SOURCES, DOCUMENT_ORIGINS
from storage.tables.datasets import DATASETS, PROBLEMS, REJECTED_ROWS, SOURCE_FILES, STEPS, TRACES
from storage.tables.labels import CONTINUATIONS, LABELERS, QUOTES, STEP_LABELS, TRACE_LABELS
from storage.tables.ledger import FAILURES, MODEL_CALLS
from storage.tables.trace_evidence import EVIDENCE_STEPS, TRACE_EVIDENCE
from storage.tables.votes import PROMPTS, VOTES

__all__ = [
    "BATCH_JOBS",
    "BATCH_REQUESTS",
    "CONTINUATIONS",
    "CORPORA",
    "CORPUS_FILES",
    "CORPUS_SOURCES",
    "DATASETS",
    "DOCUMENTS",
    "DOCUMENT_ORIGINS",
    "EVIDENCE",
    "EVIDENCE_PASSAGES",
    "EVIDENCE_SETS",
    "EVIDENCE_STEPS",
    "FAILURES",
    "LABELERS",
    "METADATA",
    "MODEL_CALLS",
    "PASSAGES",
    "PROBLEMS",
    "PROMPTS",
    "QUOTES",
    "REJECTED_ROWS",
    "SOURCE_FILES",
    "STEPS",
    "STEP_LABELS",
    "TRACES",
    "TRACE_EVIDENCE",
    "TRACE_LABELS",
    "VOTES",
]
