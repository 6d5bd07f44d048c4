"""A tree of HTML's elements, and its text as a reader sees it.

HTML pages, JATS articles (.nxml), Word documents and reStructuredText all become this tree, so
that a table or a power reads the same whatever file it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from retrieval.documents.raised import END, LOWERED, RAISED, without_marks, write_out


def tags(names: str) -> frozenset[str]:
    """Names in a text, as a set."""
    return frozenset(names.split())


HEADINGS = {f"h{level}": level for level in range(1, 7)}
BLOCKS = tags(
    "address article aside blockquote body caption center details div dl dialog fieldset figcaption"
    " figure footer form header hr html legend li main nav ol p pre section summary table tbody"
    " tfoot thead title tr ul"
) | set(HEADINGS)
"""Elements that start on a line of their own."""

_LINES = frozenset({"br", "dd", "dt", "option"})
_STRUCK = frozenset({"del", "s", "strike"})
_UNSEEN = tags(
    "audio canvas colgroup datalist iframe noscript object rp rt script style svg template"
    " textarea video annotation annotation-xml"
)
_CONTROLS = frozenset({"nav", "select", "button"})
_PARTS = frozenset({"article", "section", "aside", "figure", "blockquote", "table"})
_CELLS = frozenset({"td", "th"})
_NOTE_WORDS = re.compile(r"(?:^|[\s_-])(?:footnote|noteref|fnref|fn|cite|citation|endnote)")
_NOTE_MARK = re.compile(r"[\w*†‡§¶#,;–\- ]{1,12}")
_INVISIBLE_CHARACTERS = re.compile("[\u00ad\u200b\u2060\ufeff]")
_WIDEST_SPAN = 50
_LONGEST_GROUP_NAME = 60
_LONGEST_SYMBOL = 3


@dataclass(slots=True)
class Element:
    """An element and what is in it."""

    tag: str
    """Lower-case name, without namespace."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Attributes; "" for one without a value."""
    children: list[Element | str] = field(default_factory=list)
    """Elements and texts, in order."""
    closed: bool = True
    """Whether the file itself says where the element ends."""
    hidden: bool = False
    """Whether a style keeps readers from seeing it."""
    shift: str = ""
    """"super" or "sub" if a style raises or lowers it."""

    def elements(self) -> Iterator[Element]:
        """The children that are elements."""
        return (child for child in self.children if isinstance(child, Element))

    def walk(self) -> Iterator[Element]:
        """This element and all elements in it, in document order."""
        open_: list[Element] = [self]
        while open_:
            element = open_.pop()
            yield element
            open_ += reversed([child for child in element.children if isinstance(child, Element)])

    def words(self) -> str:
        """All text in it, however it is shown, as one line."""
        pieces: list[str] = []
        open_: list[Element | str] = [self]
        while open_:
            node = open_.pop()
            if isinstance(node, str):
                pieces.append(node)
            else:
                open_ += reversed(node.children)
        return squeeze("".join(pieces))


def squeeze(text: str) -> str:
    """The text with every run of white space as one space, none around it."""
    return " ".join(text.split())


def text_of(root: Element) -> str:
    """The visible text of a tree: blocks with an empty line between two.

    Headings become `#` lines, list items `- ` or numbered lines, table rows lines of
    `header: cell` pairs joined by ` | `, raised text `10^9`, note marks `[3]`. Left out is what a
    reader does not see or what is struck out, and navigation, form controls and page footers.
    """
    writer = _Writer()
    writer.children(root)
    return writer.text()


class _Writer:
    """Collects the visible text of a tree, block by block."""

    def __init__(self, depth: int = 0) -> None:
        self._blocks: list[str] = []
        self._lines: list[str] = []
        self._line: list[str] = []
        self._prefix = ""
        self._indent = ""
        self._verbatim = False
        self._tight = False
        self._parts = 0
        self._in_cell = False
        self._depth = depth

    def text(self) -> str:
        self._end_block(force=True)
        return "\n\n".join(self._blocks)

    def children(self, element: Element) -> None:
        self._depth += 1
        for child in element.children:
            if isinstance(child, str):
                self._text(child)
            elif not self._is_unseen(child):
                self._element(child)
        self._depth -= 1

    def _is_unseen(self, element: Element) -> bool:
        tag = element.tag
        if tag in _UNSEEN or tag in _STRUCK or element.hidden or "hidden" in element.attributes:
            return True
        if tag == "dialog" and "open" not in element.attributes:
            return True
        # An unclosed <nav> would swallow the rest of the page: better some navigation too much.
        if tag in _CONTROLS:
            return element.closed
        return tag == "footer" and element.closed and not self._parts

    def _element(self, element: Element) -> None:
        tag = element.tag
        if tag in {"sup", "sub"} or element.shift:
            self._shifted(
                element, RAISED if (element.shift or tag) in {"sup", "super"} else LOWERED
            )
        elif tag in HEADINGS:
            self._end_block()
            if not self._tight and not self._in_cell:
                self._prefix = "#" * HEADINGS[tag] + " "
            self.children(element)
            self._end_block()
        elif tag == "pre":
            self._pre(element)
        elif tag in {"ul", "ol", "menu"}:
            self._list(element)
        elif tag == "table":
            self._table(element)
        elif tag in _LINES:
            self._end_line()
            self.children(element)
            if tag != "br":
                self._end_line()
        elif tag == "title":
            return
        elif tag in BLOCKS:
            self._parts += tag in _PARTS
            self._end_block()
            self.children(element)
            self._end_block()
            self._parts -= tag in _PARTS
        else:
            self._inline(element)

    def _inline(self, element: Element) -> None:
        tag = element.tag
        if tag == "a" and _is_note_link(element):
            self._line.append(_in_brackets(element.words()))
        elif tag == "q":
            self._line.append("“")
            self.children(element)
            self._line.append("”")
        elif tag == "img":
            alternative = element.attributes.get("alt", "").strip()
            if len(alternative) <= _LONGEST_SYMBOL:  # a sign such as ≥ set as a picture
                self._line.append(alternative)
        elif tag in {"msup", "msub", "mfrac", "msubsup", "msqrt"}:
            self._formula(element)
        elif tag == "math":
            self._line.append(" ")
            self.children(element)
            self._line.append(" ")
        elif tag in {"td", "th"}:  # a cell outside of any table
            self._line.append(" | " if "".join(self._line).strip() else "")
            self.children(element)
        else:
            self.children(element)

    def _text(self, text: str) -> None:
        text = _INVISIBLE_CHARACTERS.sub("", without_marks(text))
        if not self._verbatim:
            self._line.append(text)
            return
        *whole, rest = text.split("\n")
        for line in whole:
            self._line.append(line)
            self._end_line()
        self._line.append(rest)

    def _shifted(self, element: Element, mark: str) -> None:
        words = element.words()
        links = [each for each in element.walk() if each.tag == "a"]
        in_links = "".join("".join(each.words() for each in links).split())
        bare = re.sub(r"[\s,;–-]", "", words)
        only_links = mark == RAISED and re.sub(r"[\s,;–-]", "", in_links) == bare
        if only_links and any(_leads_to_note(each) for each in links):
            self._line.append(_in_brackets(words))
            return
        self._line.append(mark)
        self.children(element)
        self._line.append(END)

    def _formula(self, element: Element) -> None:
        parts = list(element.elements())
        marks = {
            "msup": ("", RAISED),
            "msub": ("", LOWERED),
            "msubsup": ("", LOWERED, RAISED),
        }.get(element.tag)
        if element.tag == "mfrac" and len(parts) == 2:
            above, below = (_term(squeeze(write_out(self._inside(part)))) for part in parts)
            before = "".join(self._line)[-1:]
            self._line.append((" " if before.isdigit() else "") + f"{above}/{below}")
        elif element.tag == "msqrt":
            self._line.append("√" + _term(squeeze(write_out(self._inside(element)))))
        elif marks is None or len(parts) != len(marks):
            self.children(element)
        else:
            for part, mark in zip(parts, marks, strict=True):
                self._line.append(mark + self._inside(part) + (END if mark else ""))

    def _inside(self, element: Element) -> str:
        """The line that an element's inner text makes, marks kept."""
        kept, self._line = self._line, []
        if isinstance(element, Element) and not self._is_unseen(element):
            self._element(element) if element.tag in _FORMULA else self.children(element)
        inner, self._line = "".join(self._line), kept
        return inner

    def _pre(self, element: Element) -> None:
        self._end_block()
        self._verbatim = True
        self.children(element)
        self._end_block()
        self._verbatim = False

    def _list(self, element: Element) -> None:
        outer = (self._tight, self._indent)
        nested = self._tight
        if nested:
            self._end_line()
        else:
            self._end_block()
        items = [each for each in element.elements() if each.tag == "li"]
        number = _whole(element.attributes.get("start"), default=1)
        step = -1 if "reversed" in element.attributes else 1
        if step < 0 and "start" not in element.attributes:
            number = len(items)
        self._tight = True
        for child in element.children:
            if isinstance(child, str):
                self._text(child)
                continue
            if self._is_unseen(child):
                continue
            self._end_line()
            if child.tag == "li":
                number = _whole(child.attributes.get("value"), default=number)
                if not self._in_cell or element.tag == "ol":
                    self._prefix = self._indent + _bullet(element, number)
                number += step
            inner, self._indent = self._indent, self._indent + "  "
            self.children(child) if child.tag == "li" else self._element(child)
            self._end_line()
            self._indent, self._prefix = inner, ""
        self._tight, self._indent = outer
        if not nested:
            self._end_block()

    def _table(self, element: Element) -> None:
        self._end_block()
        for caption in element.elements():
            if caption.tag == "caption" and not self._is_unseen(caption):
                self.children(caption)
                self._end_block()
        rows = list(_rows(element))
        if _is_layout(element, rows):
            for _, row in rows:
                for cell in row.elements():
                    if not self._is_unseen(cell):
                        self.children(cell)
                        self._end_block()
        else:
            cells = [
                (
                    is_head,
                    [
                        (cell, self._cell(cell))
                        for cell in row.elements()
                        if cell.tag in _CELLS and not self._is_unseen(cell)
                    ],
                )
                for is_head, row in rows
                if not self._is_unseen(row)
            ]
            self._lines += table_lines(cells)
        self._end_block()

    def _cell(self, cell: Element) -> str:
        writer = _Writer(self._depth)
        writer._parts = 1
        writer._in_cell = True
        writer.children(cell)
        lines = [squeeze(line) for line in writer.text().split("\n") if line.strip()]
        return "".join(
            line + ("" if last else " " if line[-1] in ".:;,!?" else "; ")
            for line, last in zip(lines, [False] * (len(lines) - 1) + [True], strict=True)
        )

    def _end_line(self) -> None:
        raw = "".join(self._line)
        line = write_out(raw.rstrip() if self._verbatim else squeeze(raw))
        if line.strip():
            self._lines.append((self._prefix or self._indent) + line)
            self._prefix = ""
        self._line.clear()

    def _end_block(self, *, force: bool = False) -> None:
        self._end_line()
        if self._tight and not force:
            return  # the blocks of a list item are its lines: in <li><p> the bullet is of the <p>
        self._prefix = ""
        if self._lines:
            self._blocks.append("\n".join(self._lines))
            self._lines.clear()


_FORMULA = frozenset({"msup", "msub", "msubsup", "mfrac", "msqrt"})

Cells = list[tuple[Element, str]]
"""The cells of a row with their texts."""


def table_lines(rows: list[tuple[bool, Cells]]) -> list[str]:
    """The rows of a table as lines, every cell with the headers of its column.

    Args:
        rows: each with whether it is in the table's head. A cell that spans rows or columns
            counts in all of them.

    Returns:
        First the header rows as they are; then for each row `header: cell` pairs joined by ` | `.
        A row of a single cell across the table is a line of its own and opens the rows below it.
    """
    grid = _grid([cells for _, cells in rows])
    headers = 0
    for (is_head, cells), line in zip(rows, grid, strict=True):
        filled = [cell for cell, text in cells if text]
        spans_all = len({id(cell) for cell, _ in line.values()}) < 2 and len(line) > 1
        if not filled or spans_all or not (is_head or _is_header_row(cells)):
            break
        headers += 1
    if headers == len(rows):
        headers = 0
    names: dict[int, str] = {}
    for line in grid[:headers]:
        for column, (_, text) in line.items():
            if text and text not in names.get(column, "").split(", "):
                names[column] = ", ".join(filter(None, [names.get(column), text]))
    found = [" | ".join(text for text in _once(line) if text) for line in grid[:headers]]
    group = ""
    width = max((len(line) for line in grid), default=0)
    for line in grid[headers:]:
        texts = list(_once(line))
        if width > 1 and len(texts) == 1 and len(line) == width:
            found.append(texts[0])
            short = len(texts[0]) <= _LONGEST_GROUP_NAME and not texts[0].endswith((".", ";"))
            group = texts[0] if short else ""
            continue
        pairs = list(_pairs(line, names))
        if pairs:
            found.append(" | ".join([group, *pairs] if group else pairs))
    return [line for line in found if line]


def _pairs(line: dict[int, tuple[Element, str]], names: dict[int, str]) -> Iterator[str]:
    seen: set[int] = set()
    for cell, text in line.values():
        if id(cell) in seen or not text:
            continue
        seen.add(id(cell))
        spanned = [names.get(place, "") for place, (each, _) in line.items() if each is cell]
        parts = [part for name in spanned for part in name.split(", ") if part]
        name = ", ".join(dict.fromkeys(parts))
        yield f"{name.rstrip(':')}: {text}" if name and name != text else text


def _once(line: dict[int, tuple[Element, str]]) -> Iterator[str]:
    """The texts of a row, each cell once."""
    yield from {id(cell): text for cell, text in line.values()}.values()


def _grid(rows: list[Cells]) -> list[dict[int, tuple[Element, str]]]:
    """The cells of each row by column; a cell that spans is in all of its places."""
    grid: list[dict[int, tuple[Element, str]]] = [{} for _ in rows]
    for number, cells in enumerate(rows):
        column = 0
        for cell, text in cells:
            while column in grid[number]:
                column += 1
            wide = min(max(_whole(cell.attributes.get("colspan"), default=1), 1), _WIDEST_SPAN)
            high = _whole(cell.attributes.get("rowspan"), default=1)
            high = len(rows) if high < 1 else high
            for below in range(number, min(number + high, len(rows))):
                for place in range(column, column + wide):
                    grid[below].setdefault(place, (cell, text))
            column += wide
    return [dict(sorted(line.items())) for line in grid]


def _is_header_row(cells: Cells) -> bool:
    filled = [cell for cell, text in cells if text]
    return bool(filled) and all(cell.tag == "th" or _is_all_bold(cell) for cell in filled)


def _is_all_bold(cell: Element) -> bool:
    bold = "".join(each.words() for each in cell.walk() if each.tag in {"b", "strong"})
    return "".join(bold.split()) == "".join(cell.words().split())


def _rows(table: Element) -> Iterator[tuple[bool, Element]]:
    """The rows of a table, each with whether it is in the head; the foot's come last."""
    late: list[tuple[bool, Element]] = []
    for child in table.elements():
        if child.tag == "tr":
            yield False, child
        elif child.tag in {"thead", "tbody"}:
            yield from ((child.tag == "thead", row) for row in child.elements() if row.tag == "tr")
        elif child.tag == "tfoot":
            late += [(False, row) for row in child.elements() if row.tag == "tr"]
    yield from late


def _is_layout(table: Element, rows: list[tuple[bool, Element]]) -> bool:
    """Whether a table only arranges the page: its cells hold headings, tables or nothing beside."""
    if table.attributes.get("role") in {"presentation", "none"}:
        return True
    cells = [cell for _, row in rows for cell in row.elements() if cell.tag in _CELLS]
    if len(cells) < 2:
        return True
    return any(
        each.tag == "table" or each.tag in HEADINGS
        for cell in cells
        for each in cell.walk()
        if each is not cell
    )


def _bullet(element: Element, number: int) -> str:
    if element.tag != "ol":
        return "- "
    kind = element.attributes.get("type", "1")
    if kind in {"a", "A"} and 1 <= number <= 26:
        return f"{chr(ord(kind) + number - 1)}. "
    if kind in {"i", "I"} and 1 <= number <= 100:
        roman = _roman(number)
        return f"{roman.upper() if kind == 'I' else roman}. "
    return f"{number}. "


def _roman(number: int) -> str:
    text = ""
    numerals = [
        "100",
        "c",
        "90",
        "xc",
        "50",
        "l",
        "40",
        "xl",
        "10",
        "x",
        "9",
        "ix",
        "5",
        "v",
        "4",
        "iv",
        "1",
        "i",
    ]
    for value, letters in zip(map(int, numerals[::2]), numerals[1::2], strict=True):
        text += letters * (number // value)
        number %= value
    return text


def _whole(text: str | None, *, default: int) -> int:
    found = re.fullmatch(r"\s*(-?\d{1,6})\s*", text or "")
    return int(found[1]) if found else default


def _is_note_link(link: Element) -> bool:
    """Whether a link that is not raised marks a note by its role or class."""
    said = " ".join(link.attributes.get(key, "") for key in ("role", "epub:type", "class", "rel"))
    return bool(_NOTE_WORDS.search(said.lower())) and bool(_NOTE_MARK.fullmatch(link.words()))


def _leads_to_note(link: Element) -> bool:
    place = link.attributes.get("href", "")
    return "#" in place or _is_note_link(link)


def _in_brackets(text: str) -> str:
    return text if not text or text[0] in "[(" else f"[{text}]"


def _term(text: str) -> str:
    return text if re.fullmatch(r"[\w.,]*", text) else f"({text})"
