"""The store: SQLModel tables on SQLite, migrations, and one facade. Rows in, dataclasses out."""

from storage.outcomes import (
    CallTotals,
    CorpusOutcome,
    CorpusSummary,
    DatasetCounts,
    ImportOutcome,
    ImportSummary,
    LabelerSummary,
)
from storage.store import Store
from traces import SourceFile, StoredDocument

__all__ = [
    "CallTotals",
    "CorpusOutcome",
    "CorpusSummary",
    "DatasetCounts",
    "ImportOutcome",
    "ImportSummary",
    "LabelerSummary",
    "SourceFile",
    "Store",
    "StoredDocument",
]
