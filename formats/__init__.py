"""Readers and writers of the field's files; the only place where -1, "N/A" or 1-based indices exist."""

from formats.known import EXPORT_FORMATS, IMPORT_FORMATS
from formats.reading import read_file, source_file
from formats.rows import ExportRow, FormatLimit, NeutralPolicy, SkippedTrace
from formats.scores import read_scores
from formats.writing import WriteOutcome, write_file

__all__ = [
    "EXPORT_FORMATS",
    "IMPORT_FORMATS",
    "ExportRow",
    "FormatLimit",
    "NeutralPolicy",
    "SkippedTrace",
    "WriteOutcome",
    "read_file",
    "read_scores",
    "source_file",
    "write_file",
]
