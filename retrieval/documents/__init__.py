"""Guideline documents: from files to texts, and from texts to passages.

`reading` lists and reads files; `html`, `pdf` and `office` each know one family of formats;
`passages` splits a text and counts its tokens. The names below load on first use, because the
libraries of single formats are heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader  # type: ignore[import-untyped]

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
        SUFFIXES,
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

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "passages": [
            "TokenCounter",
            "cut_to_fit",
            "cut_to_tokens",
            "estimate_tokens",
            "sentence_ends",
            "split_document",
        ],
        "reading": [
            "MAX_TEXT_BYTES",
            "READER_VERSION",
            "SUFFIXES",
            "DocumentFile",
            "DocumentProblem",
            "Listing",
            "file_hash",
            "list_files",
            "make_document",
            "read_documents",
            "read_file",
            "same_name",
        ],
    },
)

__all__ = [
    "MAX_TEXT_BYTES",
    "READER_VERSION",
    "SUFFIXES",
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
