"""Guideline documents: from files to texts, and from texts to passages.

`reading` lists and reads files; `html`, `pdf` and `office` each know one family of formats;
`passages` splits a text and counts its tokens. The names below load on first use, because the
libraries of single formats are heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.documents.passages import (
        TokenCounter,
        cut_to_fit,
        cut_to_tokens,
        estimate_tokens,
        sentence_ends,
        split_document,
    )
    from retrieval.documents.reading import (
        MAX_TEXT_BYTES,
        READER_VERSION,
        DocumentFile,
        DocumentProblem,
        Listing,
        file_hash,
        list_files,
        make_document,
        read_documents,
        read_file,
        same_name,
    )

_HOMES = {
    "passages": (
        "TokenCounter cut_to_fit cut_to_tokens estimate_tokens sentence_ends split_document"
    ),
    "reading": (
        "MAX_TEXT_BYTES READER_VERSION DocumentFile DocumentProblem Listing file_hash list_files"
        " make_document read_documents read_file same_name"
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "MAX_TEXT_BYTES",
    "READER_VERSION",
    "DocumentFile",
    "DocumentProblem",
    "Listing",
    "TokenCounter",
    "cut_to_fit",
    "cut_to_tokens",
    "estimate_tokens",
    "file_hash",
    "list_files",
    "make_document",
    "read_documents",
    "read_file",
    "same_name",
    "sentence_ends",
    "split_document",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
