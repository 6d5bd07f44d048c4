"""The text layer of a PDF. The only file that imports pypdfium2.

PDFium says for every character where it is and how large, which is what it takes to see raised
digits, columns and tables; `layout` makes lines of it.
"""

from __future__ import annotations

import ctypes
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.documents.layout import Char, join_pages, page_lines

if TYPE_CHECKING:
    from pypdfium2 import PdfPage, PdfTextPage  # type: ignore[import-untyped]

_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st"}
_HYPHENS = frozenset({0x02, 0xFFFE})
"""What PDFium gives for a hyphen at the end of a line."""
_SPACES = frozenset({0x09, 0x0A, 0x0D, 0x20, 0xA0})
_INVISIBLE = 3
"""Text render mode of the text layer that OCR puts over a scan."""
_DRAWN = 30
"""Lines and curves from which a page without text is believed to show drawn letters."""
_MANY = 0.2


@dataclass(frozen=True, slots=True)
class PdfText:
    """What could be read from a PDF."""

    title: str
    """Title of the document's metadata; "" if it has none."""
    text: str
    """The pages' text, an empty line between two unless a sentence goes on."""
    image_pages: tuple[int, ...]
    """1-based numbers of the pages that show an image or drawing and no text."""
    scanned_pages: tuple[int, ...]
    """1-based numbers of pages read from a scan's text layer: raised digits may be lost."""
    unmapped_pages: tuple[int, ...]
    """1-based numbers of pages with a font that does not say which characters it shows."""


def pdf_to_text(path: Path) -> PdfText:
    """Read the text layer of a PDF as `layout` describes.

    A PDF that is encrypted without a user password (it opens everywhere) is read.

    Raises:
        ValueError: encrypted, damaged, or without any text; the message says which.
        OSError: the file cannot be opened.
    """
    import pypdfium2

    with path.open("rb"):  # the system's own error where it cannot be opened
        pass
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as fault:
        if "assword" in str(fault):
            raise ValueError("is encrypted: save a copy without password") from fault
        raise ValueError(f"is not a readable PDF ({fault})") from fault
    try:
        return _read(document)
    except pypdfium2.PdfiumError as fault:
        raise ValueError(f"is not a readable PDF ({fault})") from fault
    finally:
        document.close()


def _read(document: Any) -> PdfText:
    pages, images, scans, unmapped = [], [], [], []
    for number in range(1, len(document) + 1):
        page = document[number - 1]
        chars, errors = _chars(page)
        pages.append(page_lines(chars, height=page.get_height()))
        if not chars and _shows_something(page):
            images.append(number)
        if chars and _is_scan(page):
            scans.append(number)
        if errors > _MANY * sum(len(each) for each in chars):
            unmapped.append(number)
        page.close()
    text = join_pages(pages)
    if not text.strip():
        raise ValueError("has no text layer (scanned or image-only PDF): run OCR first")
    title = str(document.get_metadata_value("Title") or "").replace("\x00", "").strip()
    return PdfText(
        title=title,
        text=text,
        image_pages=tuple(images),
        scanned_pages=tuple(scans),
        unmapped_pages=tuple(unmapped),
    )


def _chars(page: PdfPage) -> tuple[list[list[Char]], int]:
    """The characters of a page by the direction they are written in, most first; map errors."""
    from pypdfium2 import raw

    text = page.get_textpage()
    found: defaultdict[int, list[Char]] = defaultdict(list)
    errors = 0
    space = True
    high = 0
    for place in range(text.count_chars()):
        code = raw.FPDFText_GetUnicode(text, place)
        if code in _SPACES:
            space = True
            continue
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if high and 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)
        high = 0
        errors += raw.FPDFText_HasUnicodeMapError(text, place) == 1
        if code in _HYPHENS:
            code = 0x2D
        elif code < 0x20 or 0xD800 <= code < 0xE000 or code == 0xFFFF:
            continue
        angle, char = _char(text, place, _LIGATURES.get(code) or chr(code), space=space)
        found[angle].append(char)
        space = False
    text.close()
    return sorted(found.values(), key=len, reverse=True), errors


def _char(text: PdfTextPage, place: int, shown: str, *, space: bool) -> tuple[int, Char]:
    """The angle in degrees of a character, and the character as if it were upright."""
    from pypdfium2 import raw

    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(text, place, x, y)
    sides = [ctypes.c_double() for _ in range(4)]
    raw.FPDFText_GetCharBox(text, place, *sides)
    left, right, bottom, top = (side.value for side in sides)
    loose = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(text, place, loose)
    matrix = raw.FS_MATRIX()
    raw.FPDFText_GetMatrix(text, place, matrix)
    scale = math.hypot(matrix.c, matrix.d) or 1.0
    size = abs(raw.FPDFText_GetFontSize(text, place)) * scale
    angle = round(math.degrees(math.atan2(matrix.b, matrix.a)))
    box = (loose.left, loose.bottom, loose.right, loose.top)
    if angle == 0:
        char = Char(
            text=shown,
            left=box[0],
            right=box[2],
            base=y.value,
            size=size,
            bottom=bottom,
            top=top,
            space=space,
        )
    else:
        turn = math.radians(-angle)
        corners = [(px, py) for px in (box[0], box[2]) for py in (box[1], box[3])]
        tight = [(px, py) for px in (left, right) for py in (bottom, top)]
        xs = [px * math.cos(turn) - py * math.sin(turn) for px, py in corners]
        ys = [px * math.sin(turn) + py * math.cos(turn) for px, py in tight]
        base = x.value * math.sin(turn) + y.value * math.cos(turn)
        char = Char(
            text=shown,
            left=min(xs),
            right=max(xs),
            base=base,
            size=size,
            bottom=min(ys),
            top=max(ys),
            space=space,
        )
    return angle, char


def _objects(page: PdfPage, kind: int) -> list[Any]:
    return list(page.get_objects(filter=[kind], max_depth=5))


def _shows_something(page: PdfPage) -> bool:
    from pypdfium2 import raw

    return bool(_objects(page, raw.FPDF_PAGEOBJ_IMAGE)) or (
        len(_objects(page, raw.FPDF_PAGEOBJ_PATH)) >= _DRAWN
    )


def _is_scan(page: PdfPage) -> bool:
    from pypdfium2 import raw

    texts = _objects(page, raw.FPDF_PAGEOBJ_TEXT)
    modes = [raw.FPDFTextObj_GetTextRenderMode(each) for each in texts]
    return bool(modes) and modes.count(_INVISIBLE) * 2 > len(modes)
