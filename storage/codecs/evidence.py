"""Passages and evidence."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from storage import checks
from traces import Evidence, InputError, Passage

Columns = dict[str, Any]
"""Column values by name."""


def passage_columns(passage: Passage) -> Columns:
    """The columns that a passage of a document and the copy of one have in common.

    Raises:
        InputError: a field cannot be stored, or the offsets do not fit the text.
    """
    where = f"passage {passage.index} of document {passage.document!r}"
    columns: Columns = {
        "passage_index": checks.count(passage.index, f"The index of {where}"),
        "start_char": checks.count(passage.start, f"The start of {where}"),
        "end_char": checks.count(passage.end, f"The end of {where}"),
        "title": checks.plain_text(passage.title, f"The title of {where}"),
        "text": checks.plain_text(passage.text, f"The {where}"),
    }
    if passage.end - passage.start != len(passage.text):
        raise InputError(
            f"The {where} has {len(passage.text)} characters, but its offsets"
            f" {passage.start} and {passage.end} say {passage.end - passage.start}."
        )
    return columns


def copied_passage_columns(passage: Passage) -> Columns:
    """The columns of a passage copied as evidence, its digest included."""
    columns = passage_columns(passage) | {
        "corpus": checks.plain_text(passage.corpus, "The corpus of the evidence"),
        "document": checks.plain_text(passage.document, "The document of the evidence"),
    }
    return columns | {"digest": checks.digest(columns)}


def place_columns(evidence: Evidence, position: int) -> Columns:
    """The columns of one place in a list of evidence, without the keys.

    The step stands in them only where there is one: lists without steps keep their address.

    Raises:
        InputError: a value cannot be stored, or the passage was cut (what is stored is what was found).
    """
    where = f"evidence {position}"
    if evidence.cut:
        raise InputError(f"The {where} was cut for a prompt; only whole passages are stored.")
    columns: Columns = {
        "position": position,
        "rank": checks.count(evidence.rank, f"The rank of {where}"),
        "similarity": checks.similarity(evidence.similarity, f"The similarity of {where}"),
    }
    if evidence.step is not None:
        columns["step"] = checks.count(evidence.step, f"The step of {where}")
    return columns


def passage_from(row: Row[Any]) -> Passage:
    """The passage in a row that names its `corpus` and `document`."""
    return Passage(
        row.corpus,
        row.document,
        row.passage_index,
        row.start_char,
        row.end_char,
        row.text,
        row.title,
    )
