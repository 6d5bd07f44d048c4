"""Guideline documents of every type that is read, one by one or by the folder.

What cannot be read is yielded as a `DocumentProblem` with its reason, and the rest goes on.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.documents.html import html_to_text
from retrieval.documents.pdf import pdf_to_text
from retrieval.documents.rows import read_rows
from traces import CorpusError, StoredDocument, record_defect

if TYPE_CHECKING:
    from retrieval.documents.office import OfficeText

MAX_TEXT_BYTES = 50_000_000
"""Largest file, and longest JSONL line: beyond it a file is a dump, not a document."""
READER_VERSION = 4
"""Version of what is made of a file; files read by another one are read again."""

_OFFICE = {
    ".doc",
    ".rtf",
    ".odt",
    ".ppt",
    ".pptx",
    ".xls",
    ".xlsx",
    ".epub",
    ".pages",
    ".mht",
    ".mhtml",
}
_SOURCES = {".tex", ".adoc", ".org", ".csv", ".tsv", ".json", ".gz", ".zip", ".ps", ".djvu"}
_EXPECTED = frozenset(_OFFICE | _SOURCES | {".xml"})
"""Types a person may believe to be read with a folder: named as unusable, not just counted."""
_SAYS_SOMETHING = re.compile(r"readme|changelog|guideline|notes?|index", re.IGNORECASE)
"""Names without a suffix that are text in all likelihood."""

_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)

_SNIFFED = 1 << 16
"""Bytes that are looked at before a file is read whole."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks; UTF-32's begin with UTF-16's."""
_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*=\s*[\"']?([\w.:-]{1,40})",
    re.IGNORECASE,
)


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


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file to read documents from."""

    path: Path
    """The file, as the user named it or its folder."""
    name: str
    """Path below its root, with `/`: the name of its document, or the beginning of their names."""
    root: Path
    """The folder the user named; for a file the user named, its parent folder. Absolute."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of what a user named."""

    files: tuple[DocumentFile, ...]
    """Files of types that are read or that a person may believe to be read, in order."""
    passed_over: tuple[Path, ...]
    """Files of other types (pictures, styles, licenses), which are not opened."""
    problems: tuple[DocumentProblem, ...]
    """Folders that could not be listed, and links to folders, which are not followed."""
    folders: tuple[Path, ...]
    """Absolute paths of the named folders that could be listed as a whole."""


def list_files(paths: Iterable[Path | str]) -> Listing:
    """The files of files and folders, in the order given, folders sorted by path.

    Hidden files are passed over; nothing is opened. A link to a folder inside a folder is named and
    not followed: it may lead round in circles, or out of the corpus.

    Raises:
        CorpusError: a path does not exist.
    """
    named = [Path(path) for path in paths]
    for path in named:
        if not path.exists():
            raise CorpusError(
                f"There is no file or folder '{path}'.", remedy="check the path of the corpus"
            )
    files: list[DocumentFile] = []
    passed_over: list[Path] = []
    problems: list[DocumentProblem] = []
    folders: list[Path] = []
    for path in named:
        if not path.is_dir():
            files.append(DocumentFile(path, path.name, path.resolve().parent))
            continue
        root = path.resolve()
        faults: list[OSError] = []
        links: list[Path] = []
        for file in _files_below(path, faults, links):
            if _is_expected(file):
                files.append(DocumentFile(file, file.relative_to(path).as_posix(), root))
            else:
                passed_over.append(file)
        problems += [
            DocumentProblem(Path(fault.filename), f"cannot be listed ({fault.strerror})")
            for fault in faults
        ]
        problems += [
            DocumentProblem(link, "is a link to a folder and not followed: add that folder itself")
            for link in sorted(links)
        ]
        if not faults:
            folders.append(root)
    return Listing(tuple(files), tuple(passed_over), tuple(problems), tuple(folders))


def _is_expected(file: Path) -> bool:
    if not file.suffix:
        return _SAYS_SOMETHING.match(file.name) is not None
    return _reader(file) is not None or file.suffix.lower() in _EXPECTED


def read_documents(
    paths: Iterable[Path | str], *, max_bytes: int = MAX_TEXT_BYTES
) -> Iterator[StoredDocument | DocumentProblem]:
    """Yield the documents of files and folders, in the order given, folders sorted by path.

    A document's name is its path relative to the folder given (the file name for a file given),
    for a JSONL row followed by `#id`. A second document of the same name is a problem, not a
    replacement. Hidden files are passed over.

    Raises:
        CorpusError: a path does not exist (raised before the first document).
    """
    listing = list_files(paths)
    return chain(
        listing.problems,
        _refuse_same_names(
            (file.path, entry)
            for file in listing.files
            for entry in read_file(file, max_bytes=max_bytes)
        ),
    )


def _refuse_same_names(
    entries: Iterable[tuple[Path, StoredDocument | DocumentProblem]],
) -> Iterator[StoredDocument | DocumentProblem]:
    read_from: dict[str, Path] = {}
    for path, entry in entries:
        if isinstance(entry, StoredDocument):
            before = read_from.setdefault(entry.name, path)
            if before is not path:
                yield DocumentProblem(path, same_name(str(before)), id=entry.name)
                continue
        yield entry


def same_name(other: str) -> str:
    """The reason why a document is not taken whose name another one has."""
    return f"has the same name as '{other}': add its parent folder instead"


def _files_below(folder: Path, faults: list[OSError], links: list[Path]) -> list[Path]:
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=faults.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(folder).parts)


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        # Opening a named pipe would wait for ever for somebody to write into it.
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_file(
    file: DocumentFile, *, max_bytes: int = MAX_TEXT_BYTES
) -> Iterator[StoredDocument | DocumentProblem]:
    """Yield the documents of one file; what cannot be read is a problem, and the rest goes on.

    Args:
        file: the file.
        max_bytes: largest text, HTML or PDF file; for JSONL the longest line.
    """
    reader = _reader(file.path)
    if reader is None:
        kind = f"is of a type that is not read ('{file.path.suffix}')"
        kind = kind if file.path.suffix else "has no suffix that names its type"
        reason = f"{kind}: convert it to .txt, .md, .html, .docx or .pdf"
        yield DocumentProblem(file.path, reason)
        return
    try:
        if not file.path.is_file() and file.path.exists():
            raise ValueError("cannot be read (it is a pipe, a socket or a device, not a file)")
        if file.path.stat().st_size == 0:
            raise ValueError("is empty (0 bytes)")
        yield from reader(file.path, file.name, max_bytes)
    except ValueError as fault:
        yield DocumentProblem(file.path, str(fault))
    except OSError as fault:
        yield DocumentProblem(file.path, f"cannot be read ({fault.strerror or fault})")
    except RecursionError:
        yield DocumentProblem(file.path, "is nested too deeply to be read")
    except Exception as fault:
        # A foreign document must not end the run, whatever its reader did not expect.
        yield DocumentProblem(file.path, f"was not read: {record_defect(fault, str(file.path))}")


Reader = Callable[[Path, str, int], Iterator[StoredDocument | DocumentProblem]]
"""Takes the file, the name of its document and the most bytes."""


def _reader(path: Path) -> Reader | None:
    if path.name.lower().endswith(".jsonl.gz"):
        return _read_jsonl
    return _READERS.get(path.suffix.lower())


def _read_text(path: Path, name: str, max_bytes: int) -> Iterator[StoredDocument]:
    yield make_document(name, path.stem, read_text(path, max_bytes=max_bytes), str(path))


def _read_markdown(path: Path, name: str, max_bytes: int) -> Iterator[StoredDocument]:
    text = read_text(path, max_bytes=max_bytes)
    heading = _HEADING.search(text)
    yield make_document(name, heading.group(1) if heading else path.stem, text, str(path))


def _read_html(path: Path, name: str, max_bytes: int) -> Iterator[StoredDocument]:
    title, text = html_to_text(read_text(path, max_bytes=max_bytes, html=True))
    yield make_document(name, title or path.stem, text, str(path))


def _read_pdf(path: Path, name: str, max_bytes: int) -> Iterator[StoredDocument | DocumentProblem]:
    _check_size(path, max_bytes)
    pdf = pdf_to_text(path)
    yield make_document(name, pdf.title or path.stem, pdf.text, str(path))
    faults = (
        (pdf.image_pages, "was read without the text of image-only pages {}: run OCR"),
        (
            pdf.scanned_pages,
            "was read from the text layer of a scan on pages {}: raised digits may be lost there"
            " (10^9 may read 109)",
        ),
        (
            pdf.unmapped_pages,
            "was read, but on pages {} a font does not say which characters it shows: the text may"
            " be wrong there, run OCR",
        ),
    )
    for pages, reason in faults:
        if pages:
            yield DocumentProblem(path, reason.format(_some_pages(pages)), partial=True)


def _some_pages(pages: Sequence[int]) -> str:
    more = "" if len(pages) <= 10 else f" and {len(pages) - 10} more"
    return ", ".join(str(number) for number in pages[:10]) + more


def _read_docx(path: Path, name: str, max_bytes: int) -> Iterator[StoredDocument | DocumentProblem]:
    from retrieval.documents.office import docx_to_text

    _check_size(path, max_bytes)
    yield from _office_document(path, name, docx_to_text(path, max_bytes=max_bytes))


def _read_markup(
    path: Path, name: str, max_bytes: int
) -> Iterator[StoredDocument | DocumentProblem]:
    from retrieval.documents.office import TEXT_FORMATS, is_jats

    text = read_text(path, max_bytes=max_bytes, html=True)
    suffix = path.suffix.lower()
    if suffix == ".xml":
        if not is_jats(text):
            raise ValueError("is XML of a kind that is not read (JATS articles are)")
        suffix = ".nxml"
    yield from _office_document(path, name, TEXT_FORMATS[suffix](text))


def _office_document(
    path: Path, name: str, read: OfficeText
) -> Iterator[StoredDocument | DocumentProblem]:
    yield make_document(name, read.title or path.stem, read.text, str(path))
    if read.left_out:
        reason = f"was read without what StepGold does not know: {', '.join(read.left_out[:10])}"
        yield DocumentProblem(path, reason, partial=True)


def _check_size(path: Path, max_bytes: int) -> None:
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(
            f"has {size:,} bytes, more than {max_bytes:,}: split it, or raise --max-file-mb"
        )


def _read_jsonl(
    path: Path, name: str, max_bytes: int
) -> Iterator[StoredDocument | DocumentProblem]:
    for row in read_rows(path, max_bytes=max_bytes):
        if row.problem is not None:
            yield DocumentProblem(path, row.problem, line=row.line, id=row.id)
            continue
        try:
            yield make_document(f"{name}#{row.id}", row.title, row.text, row.source or str(path))
        except ValueError as fault:
            yield DocumentProblem(path, str(fault), line=row.line, id=row.id)


_READERS: dict[str, Reader] = {
    ".txt": _read_text,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
    ".docx": _read_docx,
    ".nxml": _read_markup,
    ".rst": _read_markup,
    ".xhtml": _read_markup,
    ".xml": _read_markup,
    ".jsonl": _read_jsonl,
}
SUFFIXES = (*_READERS, ".jsonl.gz")
"""Ends of the names of files that are read."""


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
    return StoredDocument(name, title, text, sha256=sha256, source=source)


def read_text(path: Path, *, max_bytes: int, html: bool = False) -> str:
    """A file as text, without byte-order mark.

    UTF-8, UTF-16 and UTF-32 are known by their marks; without one the text must be UTF-8, or an
    HTML page that names its charset.

    Args:
        path: the file.
        max_bytes: a larger file is not read.
        html: whether the file may name its charset.

    Raises:
        ValueError: too large, binary, or of an encoding that nothing tells; the message says which.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_SNIFFED)
        mark = next((encoding for bom, encoding in _MARKS if start.startswith(bom)), None)
        if mark is None and b"\x00" in start:
            raise ValueError("is a binary file (NUL bytes)")
        if size > max_bytes:
            raise ValueError(
                f"has {size:,} bytes, more than {max_bytes:,}: split it, or raise --max-file-mb"
            )
        content = start + stream.read()
    if mark is not None:
        return _decoded(content, mark, "names itself")
    if b"\x00" in content:
        raise ValueError("is a binary file (NUL bytes)")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        named = _CHARSET.search(start) if html else None
        if named is not None:
            return _decoded(content, named[1].decode("ascii"), "says it is")
        byte = f"byte 0x{content[fault.start]:02x} at offset {fault.start}"
        raise ValueError(f"is not UTF-8 ({byte}): convert it to UTF-8") from fault


def _decoded(content: bytes, encoding: str, told: str) -> str:
    try:
        return content.decode(encoding)
    except LookupError as fault:
        raise ValueError(
            f"{told} '{encoding}', which is no encoding: convert it to UTF-8"
        ) from fault
    except UnicodeError as fault:
        raise ValueError(f"{told} '{encoding}' and is not: convert it to UTF-8") from fault
