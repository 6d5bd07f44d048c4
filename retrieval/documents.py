"""Guideline documents: .txt .md .html .pdf .jsonl(.gz), one by one or by the folder.

What cannot be read is yielded as a `DocumentProblem` with its reason, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.html_text import html_to_text
from retrieval.jsonl_rows import read_rows
from retrieval.pdf_text import pdf_to_text
from traces.errors import CorpusError
from traces.records import StoredDocument

MAX_TEXT_BYTES = 50_000_000
"""Largest text or HTML file, and longest JSONL line: beyond it a file is a dump, not a document."""

_OFFICE = {".doc", ".docx", ".rtf", ".odt", ".ppt", ".pptx", ".xls", ".xlsx", ".epub"}
_EXPECTED = frozenset(_OFFICE | {".xml", ".xhtml", ".tex", ".csv", ".tsv", ".json", ".gz", ".zip"})
"""Types a person may believe to be read with a folder: named when met, not passed over."""

_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DocumentProblem:
    """A document, or a part of one, that was not read."""

    path: Path
    """The file, as the user named it or its folder."""
    reason: str
    """Why, as the end of a sentence that starts with the file or row."""
    line: int | None = None
    """1-based line of a JSONL row; None for whole files."""
    id: str | None = None
    """The row's id; None if it has none."""
    partial: bool = False
    """True if the document itself was yielded and only a part of it is missing."""


def read_documents(paths: Iterable[Path | str]) -> Iterator[StoredDocument | DocumentProblem]:
    """Yield the documents of files and folders, in the order given, folders sorted by path.

    A document's name is its path relative to the folder given (the file name for a file given),
    for a JSONL row with `#id` behind it. A second document of the same name is a problem, not a
    replacement. Hidden files are passed over.

    Raises:
        CorpusError: a path does not exist (raised before the first document).
    """
    named = [Path(path) for path in paths]
    for path in named:
        if not path.exists():
            raise CorpusError(
                f"There is no file or folder '{path}'.", remedy="check the path of the corpus"
            )
    return _refuse_same_names(entry for path in named for entry in _read_path(path))


Entry = tuple[Path, StoredDocument | DocumentProblem]


def _refuse_same_names(entries: Iterable[Entry]) -> Iterator[StoredDocument | DocumentProblem]:
    read_from: dict[str, Path] = {}
    for path, entry in entries:
        if isinstance(entry, StoredDocument):
            before = read_from.setdefault(entry.name, path)
            if before is not path:
                reason = f"has the same name as '{before}': add its parent folder instead"
                yield DocumentProblem(path, reason, id=entry.name)
                continue
        yield entry


def _read_path(path: Path) -> Iterator[Entry]:
    if not path.is_dir():
        yield from _read_file(path, path.name)
        return
    for file in _files_below(path):
        if _reader(file) is not None or file.suffix.lower() in _EXPECTED:
            yield from _read_file(file, file.relative_to(path).as_posix())


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(folder).parts)


def _read_file(path: Path, name: str) -> Iterator[Entry]:
    reader = _reader(path)
    if reader is None:
        reason = f"is of a type that is not read ('{path.suffix}'): convert it to .txt, .md, .html or .pdf"
        yield path, DocumentProblem(path, reason)
        return
    try:
        if path.stat().st_size == 0:
            raise ValueError("is empty (0 bytes)")
        for entry in reader(path, name):
            yield path, entry
    except ValueError as fault:
        yield path, DocumentProblem(path, str(fault))
    except OSError as fault:
        yield path, DocumentProblem(path, f"cannot be read ({fault.strerror or fault})")


def _reader(path: Path) -> Callable[[Path, str], Iterator[StoredDocument | DocumentProblem]] | None:
    if path.name.lower().endswith(".jsonl.gz"):
        return _read_jsonl
    return _READERS.get(path.suffix.lower())


def _read_text(path: Path, name: str) -> Iterator[StoredDocument]:
    yield make_document(name, path.stem, _decoded(path), str(path))


def _read_markdown(path: Path, name: str) -> Iterator[StoredDocument]:
    text = _decoded(path)
    heading = _HEADING.search(text)
    yield make_document(name, heading.group(1) if heading else path.stem, text, str(path))


def _read_html(path: Path, name: str) -> Iterator[StoredDocument]:
    title, text = html_to_text(_decoded(path))
    yield make_document(name, title or path.stem, text, str(path))


def _read_pdf(path: Path, name: str) -> Iterator[StoredDocument | DocumentProblem]:
    pdf = pdf_to_text(path)
    yield make_document(name, pdf.title or path.stem, pdf.text, str(path))
    if pdf.image_pages:
        numbers = ", ".join(str(number) for number in pdf.image_pages[:10])
        more = "" if len(pdf.image_pages) <= 10 else f" and {len(pdf.image_pages) - 10} more"
        reason = f"was read without the text of image-only pages {numbers}{more}: run OCR"
        yield DocumentProblem(path, reason, partial=True)


def _read_jsonl(path: Path, name: str) -> Iterator[StoredDocument | DocumentProblem]:
    for row in read_rows(path, max_bytes=MAX_TEXT_BYTES):
        if row.problem is not None:
            yield DocumentProblem(path, row.problem, line=row.line, id=row.id)
            continue
        try:
            yield make_document(f"{name}#{row.id}", row.title, row.text, row.source or str(path))
        except ValueError as fault:
            yield DocumentProblem(path, str(fault), line=row.line, id=row.id)


_READERS: dict[str, Callable[[Path, str], Iterator[StoredDocument | DocumentProblem]]] = {
    ".txt": _read_text,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
    ".jsonl": _read_jsonl,
}


def _decoded(path: Path) -> str:
    """The file as text, without byte-order mark."""
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"has {size:,} bytes, more than {MAX_TEXT_BYTES:,}: split it")
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("is UTF-16: convert it to UTF-8")
    if b"\x00" in content:
        raise ValueError("is a binary file (NUL bytes)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        byte = f"byte 0x{content[fault.start]:02x} at offset {fault.start}"
        raise ValueError(f"is not UTF-8 ({byte}): convert it to UTF-8") from fault


def make_document(name: str, title: str, text: str, source: str) -> StoredDocument:
    """Put a document together: line ends as `\\n`, hash over title and text.

    Raises:
        ValueError: there is no visible text, or a character that no database takes.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title = title.strip()
    if not text.strip():
        raise ValueError("holds no text")
    for part in (name, title, text, source):
        if "\x00" in part:
            raise ValueError("holds a NUL character")
        try:
            part.encode()
        except UnicodeEncodeError as fault:
            raise ValueError("holds half a surrogate pair, which is no character") from fault
    sha256 = hashlib.sha256(json.dumps([title, text]).encode()).hexdigest()
    return StoredDocument(name, title, text, sha256, source)
