"""The text layer of a PDF, page by page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

_WRAPPED_LINE = re.compile(r"(?<=[^\s.:;?!-])[ \t]*\n(?=[a-z(])")
_WRAPPED_HYPHEN = re.compile(r"(?<=[^\W\d_]-)\n(?=[a-z])")


@dataclass(frozen=True, slots=True)
class PdfText:
    """What could be read from a PDF."""

    title: str
    """Title of the document's metadata; "" if it has none."""
    text: str
    """The pages' text, an empty line between two pages."""
    image_pages: tuple[int, ...]
    """1-based numbers of the pages that show an image and no text: nothing of them is in `text`."""


def pdf_to_text(path: Path) -> PdfText:
    """Read the text layer of a PDF; lines broken within a sentence are joined.

    A PDF that is encrypted without a user password (it opens everywhere) is read.

    Raises:
        ValueError: encrypted, damaged, or without any text; the message says which.
        OSError: the file cannot be opened.
    """
    from pypdf import PdfReader

    try:
        with path.open("rb") as stream:
            reader = PdfReader(stream)
            _unlock(reader)
            pages = [(page.extract_text(), page) for page in reader.pages]
            image_pages = tuple(
                number
                for number, (text, page) in enumerate(pages, start=1)
                if not text.strip() and _shows_image(page)
            )
            title = ((reader.metadata and reader.metadata.title) or "").strip()
    except (OSError, _Unusable):
        raise
    except Exception as fault:  # pypdf raises whatever a broken object leads it to
        raise ValueError(f"is not a readable PDF ({type(fault).__name__}: {fault})") from fault
    # Fonts without a full character map give NULs and lone surrogates, which no database takes.
    joined = "\n\n".join(text.strip() for text, _ in pages if text.strip())
    clean = joined.replace("\x00", "").encode(errors="replace").decode()
    if not clean.strip():
        raise ValueError("has no text layer (scanned or image-only PDF): run OCR first")
    return PdfText(title, _join_wrapped_lines(clean), image_pages)


class _Unusable(ValueError):
    """A PDF that pypdf could open, and that still gives no text."""


def _unlock(reader: PdfReader) -> None:
    if reader.is_encrypted and not reader.decrypt(""):
        raise _Unusable("is encrypted: save a copy without password")


def _shows_image(page: PageObject) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    if objects is None:
        return False
    return any(
        entry.get_object().get("/Subtype") == "/Image" for entry in objects.get_object().values()
    )


def _join_wrapped_lines(text: str) -> str:
    """A line end before a lower-case letter is layout, not structure; hyphens stay as printed."""
    return _WRAPPED_LINE.sub(" ", _WRAPPED_HYPHEN.sub("", text))
