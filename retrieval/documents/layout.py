"""Placed characters of a page into lines of text, in the order in which they are read.

Raised and lowered digits are found by size and baseline and written out (`10^9/L`). Columns are
read one after the other; cells of a table row are joined by ` | `. Running heads, feet and page
numbers are left out, words hyphenated at a line end are put together.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from retrieval.documents.raised import END, LOWERED, RAISED, without_marks, write_out
from traces.words import has_runs, is_hangul

_SMALL = 0.92
"""Characters below this share of their neighbors' size may be raised or lowered."""
_TINY = 0.35
_RAISED, _LOWERED, _FAR_UP, _FAR_DOWN = 0.12, -0.06, 0.75, -0.5
"""Distance from the baseline, as a share of the line's size."""
_LONGEST_SHIFTED = 15
_STRIP = 30.0
"""Height in points of the strips that are searched for what a raised part hangs on."""
_WORD_GAP = 0.22
_WIDE_GAP = 1.0
"""Gaps that part words, and that part columns or cells, as a share of the size."""
_LABEL = re.compile(r"[•▪◦●○■–—*·o-]|[(\[]?\w{1,4}[.)\]]|\d{1,2}(?:\.\d{1,2})*\.?")
_EDGE = 0.14
"""Share of the page's height at its top and bottom where running heads and feet are."""
_MOST_EDGE_LINES = 3
_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b")
_COMPOUND = frozenset(
    [
        "all",
        "alpha",
        "beta",
        "delta",
        "double",
        "ex",
        "far",
        "first",
        "full",
        "gamma",
        "half",
        "high",
        "intra",
        "long",
        "low",
        "mid",
        "multi",
        "non",
        "off",
        "once",
        "one",
        "post",
        "pre",
        "quasi",
        "second",
        "self",
        "semi",
        "short",
        "single",
        "third",
        "two",
        "well",
        "x",
    ]
)
"""First parts that keep their hyphen at a line end, where the document does not show otherwise."""


@dataclass(frozen=True, slots=True)
class Char:
    """A character on a page, as if its line ran from left to right; lengths in points."""

    text: str
    left: float
    right: float
    base: float
    """Height of the baseline above the bottom of the page."""
    size: float
    """Font size."""
    bottom: float
    top: float
    """The ink itself."""
    space: bool
    """Whether white space comes before it."""


@dataclass(slots=True)
class Line:
    """A line of text."""

    text: str
    base: float
    """Height of its baseline above the bottom of the page, in points."""
    size: float
    """Font size, in points."""
    at_edge: bool = False
    """Whether it is where running heads and feet are."""
    starts_block: bool = False
    """Whether more space than usual comes before it."""


class _Piece:
    """Characters that follow each other without a wide gap."""

    __slots__ = ("base", "chars", "left", "right", "shifted", "size")

    def __init__(self, chars: Sequence[Char]) -> None:
        self.chars: list[Char] = []
        self.shifted: list[Char] = []
        """Those of smaller size above or below the baseline."""
        self.base, self.size = chars[0].base, chars[0].size
        self.left, self.right = chars[0].left, chars[0].right
        self.add(chars)

    def add(self, chars: Sequence[Char], shifted: Sequence[Char] = ()) -> None:
        """Take in characters."""
        self.chars += chars
        self.shifted += shifted
        for char in (*chars, *shifted):
            self.left = min(self.left, char.left)
            self.right = max(self.right, char.right)


def page_lines(directions: Sequence[Sequence[Char]], *, height: float) -> list[Line]:
    """The lines of a page.

    Args:
        directions: its characters in the order of the file, a list for every direction of writing.
        height: of the page, in points.
    """
    lines: list[Line] = []
    for number, chars in enumerate(directions):
        pieces = _joined(_with_shifted(_pieces(chars)))
        found = _read_in_order(pieces)
        _mark_blocks(found)
        if number == 0:
            heights = sorted(line.base for line in found)
            edges = {*heights[:_MOST_EDGE_LINES], *heights[-_MOST_EDGE_LINES:]}
            for line in found:
                near = not _EDGE * height < line.base < (1 - _EDGE) * height
                line.at_edge = near and line.base in edges
        elif found:
            found[0].starts_block = True
        lines += found
    return lines


def join_pages(pages: Sequence[Sequence[Line]]) -> str:
    """The text of the pages, without what runs along their edges."""
    text = ""
    for lines in _without_running_lines(pages):
        page = ""
        for line in lines:
            page += ("\n\n" if line.starts_block else "\n") if page else ""
            page += line.text
        if text and page:
            goes_on = text[-1] not in ".:;?!" and page[0].islower()
            text += "\n" if goes_on else "\n\n"
        text += page
    return _unwrapped(text)


def _pieces(chars: Sequence[Char]) -> list[_Piece]:
    """Runs of one size on one baseline, as they follow each other in the file."""
    pieces: list[_Piece] = []
    for char in chars:
        last = pieces[-1].chars[-1] if pieces else None
        if (
            last is not None
            and abs(char.base - last.base) <= 0.05 * last.size
            and abs(char.size - last.size) <= (1 - _SMALL) * last.size
            and -0.5 * last.size <= char.left - last.right <= _WIDE_GAP * last.size
        ):
            pieces[-1].add([char])
        else:
            pieces.append(_Piece([char]))
    return pieces


def _with_shifted(pieces: list[_Piece]) -> list[_Piece]:
    """Give each raised or lowered piece to the piece it hangs on."""
    by_size = sorted(pieces, key=lambda piece: (-round(piece.size, 1), -len(piece.chars)))
    kept: defaultdict[int, list[_Piece]] = defaultdict(list)
    for piece in by_size:
        strip = int(piece.base // _STRIP)
        near = [each for place in (strip - 1, strip, strip + 1) for each in kept[place]]
        owner = min(
            (each for each in near if _hangs_on(piece, each)),
            key=lambda each: abs(piece.base - each.base),
            default=None,
        )
        if owner is None:
            kept[strip].append(piece)
        else:
            owner.add((), piece.chars + piece.shifted)
    order = {id(piece): place for place, piece in enumerate(pieces)}
    left = (piece for strip in kept.values() for piece in strip)
    return sorted(left, key=lambda piece: order[id(piece)])


def _hangs_on(piece: _Piece, owner: _Piece) -> bool:
    if len(piece.chars) > _LONGEST_SHIFTED:
        return False
    distance = (piece.base - owner.base) / owner.size
    share = piece.size / owner.size
    beside = (
        piece.chars[0].left <= owner.right + 0.6 * owner.size
        and piece.chars[-1].right >= owner.left - 0.6 * owner.size
    )
    if not beside or share < _TINY:
        return False
    if share <= _SMALL:
        return _FAR_DOWN < distance < _FAR_UP and not _LOWERED <= distance <= 0.02
    short = len(piece.chars) <= 4 and len(piece.chars) < len(owner.chars)
    return short and (0.2 < distance < 0.6 or -0.4 < distance < -0.12)


def _joined(pieces: list[_Piece]) -> list[_Piece]:
    """Pieces of one baseline that are side by side without a wide gap, as one."""
    rows = _rows(pieces)
    joined: list[_Piece] = []
    for row in rows:
        current: _Piece | None = None
        for piece in sorted(row, key=lambda piece: piece.left):
            if current is not None and piece.left - current.right <= _WIDE_GAP * max(
                piece.size, current.size
            ):
                current.add(piece.chars, piece.shifted)
            else:
                current = piece
                joined.append(current)
    return joined


def _rows(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Pieces by baseline, from top to bottom."""
    rows: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.base):
        if rows and rows[-1][0].base - piece.base <= 0.3 * min(rows[-1][0].size, piece.size):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return rows


def _read_in_order(pieces: list[_Piece]) -> list[Line]:
    """Lines from top to bottom; columns, where there are some, one after the other."""
    gutters = _gutters(pieces)
    lines: list[Line] = []
    columns: list[list[_Piece]] = [[] for _ in range(len(gutters) + 1)]
    wide: list[_Piece] = []

    def flush() -> None:
        nonlocal wide
        for column in columns:
            lines.extend(_row_lines(column))
            column.clear()
        lines.extend(_row_lines(wide))
        wide = []

    for row in _rows(pieces):
        crossing = any(piece.left < x < piece.right for piece in row for x in gutters)
        if crossing:
            if any(columns):
                flush()
            wide += row
            continue
        if wide:
            flush()
        for piece in row:
            columns[sum(piece.left > x for x in gutters)].append(piece)
    flush()
    return lines


def _gutters(pieces: Sequence[_Piece]) -> list[float]:
    """Where the white space between columns of running text is, from left to right."""
    if len(pieces) < 10:
        return []
    spans = [(piece.left, piece.right) for piece in pieces]
    size = median(piece.size for piece in pieces)
    low, high = min(left for left, _ in spans), max(right for _, right in spans)
    found: list[float] = []
    start: float | None = None
    x = low
    while x < high:
        crossing = sum(left < x < right for left, right in spans)
        if crossing <= 0.2 * len(spans):
            start = x if start is None else start
        elif start is not None:
            if x - start >= 0.7 * size:
                found.append((start + x) / 2)
            start = None
        x += 1.0
    return [x for x in found if _parts_columns(x, found, pieces)]


def _parts_columns(x: float, all_gaps: Sequence[float], pieces: Sequence[_Piece]) -> bool:
    """Whether both sides of a gap are running text: long lines that fill their column."""
    before = max((gap for gap in all_gaps if gap < x), default=float("-inf"))
    after = min((gap for gap in all_gaps if gap > x), default=float("inf"))
    for low, high in ((before, x), (x, after)):
        side = [piece for piece in pieces if piece.left >= low and piece.right <= high]
        if len(side) < 4:
            return False
        width = max(piece.right for piece in side) - min(piece.left for piece in side)
        filled = median(piece.right - piece.left for piece in side) / width
        if filled < 0.55 or median(len(piece.chars) for piece in side) < 14:
            return False
    return True


def _row_lines(pieces: list[_Piece]) -> list[Line]:
    rows = [sorted(row, key=lambda piece: piece.left) for row in _rows(pieces)]
    gaps = [_gaps(row) for row in rows]
    lines = []
    for place, row in enumerate(rows):
        beside = [gaps[near] for near in (place - 1, place + 1) if 0 <= near < len(rows)]
        texts = [_text(piece) for piece in row]
        text = texts[0]
        for number, following in enumerate(texts[1:]):
            low, high = gaps[place][number]
            aligned = any(low < right and left < high for near in beside for left, right in near)
            is_label = number == 0 and _LABEL.fullmatch(texts[0]) is not None
            text += (" | " if aligned and not is_label else " ") + following
        lines.append(Line(text, row[0].base, row[0].size))
    return lines


def _gaps(row: Sequence[_Piece]) -> list[tuple[float, float]]:
    return [(one.right, two.left) for one, two in pairwise(row)]


def _text(piece: _Piece) -> str:
    """The text of a piece, raised and lowered parts written out."""
    size = Counter(round(char.size, 1) for char in piece.chars).most_common(1)[0][0]
    base = median(char.base for char in piece.chars)
    shifted = {id(char) for char in piece.shifted}
    written = ""
    open_mark = ""
    before: Char | None = None
    for char in sorted(piece.chars + piece.shifted, key=lambda char: (char.left + char.right) / 2):
        mark = _mark(char, base, size, is_shifted=id(char) in shifted)
        distance = 0.0 if before is None else char.left - before.right
        # A raised part hangs on what it follows, wherever it is in the file.
        spaced = char.space and not mark and distance > 0.05 * size
        gap = spaced or distance > (0.25 if mark else _WORD_GAP) * size
        if mark != open_mark:
            written += (END if open_mark else "") + (" " if gap else "") + mark
        elif gap:
            written += " "
        written += without_marks(char.text)
        open_mark, before = mark, char
    return write_out(" ".join((written + (END if open_mark else "")).split()))


def _mark(char: Char, base: float, size: float, *, is_shifted: bool) -> str:
    """`RAISED` or `LOWERED` for a character that is, else ""."""
    distance = (char.base - base) / size
    if is_shifted:
        return RAISED if distance > _RAISED else LOWERED if distance < _LOWERED else ""
    if char.text.isdigit() and char.size > 0:
        # Raised and lowered figures of a font sit on the baseline of the line; their ink does not.
        rise, ink = (char.bottom - base) / size, (char.top - char.bottom) / size
        if rise > 0.22 and 0 < ink < 0.55:
            return RAISED
        if rise < -0.08 and 0 < ink < 0.5:
            return LOWERED
    return ""


def _mark_blocks(lines: Sequence[Line]) -> None:
    steps = [one.base - two.base for one, two in pairwise(lines)]
    usual = median([step for step in steps if step > 0] or [0.0])
    for line, step in zip(lines[1:], steps, strict=True):
        line.starts_block = bool(usual) and step > max(1.45 * usual, 1.3 * line.size)


def _without_running_lines(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without lines that repeat at their edges, and without page numbers."""
    edges = [
        (number, line) for number, lines in enumerate(pages, 1) for line in lines if line.at_edge
    ]
    alike: dict[str, list[tuple[int, Line]]] = {}
    for number, line in edges:
        alike.setdefault(_NUMBER.sub("#", line.text.casefold()), []).append((number, line))
    running: set[int] = set()
    for found in alike.values():
        on = len({number for number, _ in found})
        repeats = len({line.text for _, line in found}) == 1 and on >= max(3, len(pages) / 4)
        if repeats or (on >= 2 and _counts_pages(found)):
            running |= {id(line) for _, line in found}
    first = _first_page_number(edges)
    running |= {id(line) for number, line in edges if _is_page_number(line.text, number, first)}
    return [[line for line in lines if id(line) not in running] for lines in pages]


def _counts_pages(found: Sequence[tuple[int, Line]]) -> bool:
    """Whether the one number that differs between lines grows with the page."""
    numbers = [[int(n) for n in re.findall(r"\d+", line.text)] for _, line in found]
    if len({len(each) for each in numbers}) != 1:
        return False
    changing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    pages = [page for page, _ in found]
    return len(changing) == 1 and len({n - p for n, p in zip(changing[0], pages, strict=True)}) == 1


def _first_page_number(edges: Sequence[tuple[int, Line]]) -> int:
    """What the first page is numbered, by most of the lone numbers at the edges; else 1."""
    lone = [
        int(line.text) - page + 1 for page, line in edges if re.fullmatch(r"\d{1,4}", line.text)
    ]
    number, times = Counter(lone).most_common(1)[0] if lone else (1, 0)
    return number if times >= 2 else 1


def _is_page_number(text: str, page: int, first: int) -> bool:
    found = re.fullmatch(
        r"(page|p\.|seite)?[\s–-]*(\d{1,4})(?:\s*(?:of|/|von)\s*\d+)?[\s–-]*", text.lower()
    )
    return found is not None and (bool(found[1]) or int(found[2]) == page + first - 1)


_SHORTEST_WRAPPED = 15
"""Characters from which a line in script without capitals is believed to go on in the next one."""
_LINE_END_HYPHEN = re.compile(r"(\w+)[-\u2010]\n(\w+)")
_SOFT_HYPHEN = re.compile("\u00ad\n?")


def _unwrapped(text: str) -> str:
    """A line end before a lower-case letter is layout, not structure; so is a hyphen before it."""
    text = _SOFT_HYPHEN.sub("", text)
    words = Counter(re.findall(r"\w+(?:[-\u2010]\w+)*", text.lower().replace("\u2010", "-")))

    def without_break(found: re.Match[str]) -> str:
        one, two = found[1], found[2]
        if not two[0].islower():
            return f"{one}-{two}"  # "COVID-\n19", "Ann-\nMarie"
        whole, apart = words[f"{one}{two}".lower()], words[f"{one}-{two}".lower()]
        keeps = apart > whole or (
            apart == whole
            and (one.lower() in _COMPOUND or one[-1].isdigit() or one.isupper() or len(one) == 1)
        )
        return f"{one}-{two}" if keeps else one + two

    first, *lines = _LINE_END_HYPHEN.sub(without_break, text).split("\n")
    joined = [first]
    for line in lines:
        last = joined[-1]
        is_prose = " | " not in last and " | " not in line
        if (
            is_prose
            and len(last) >= _SHORTEST_WRAPPED
            and has_runs(last[-1:])
            and has_runs(line[:1])
        ):
            joined[-1] = last + (" " if is_hangul(last[-1]) else "") + line
        elif is_prose and last and last[-1] not in ".:;?!-" and re.match(r"[a-z(]", line):
            joined[-1] = f"{last} {line}"
        else:
            joined.append(line)
    return "\n".join(joined)
