"""The text of an HTML page, headings kept as `#` lines.

Own code on the standard library, because quotes are checked against this text to the letter:
trafilatura 2.3 flattens the headings of short pages, escapes `<` in its markdown ("CrCl \\<
30") and may judge a dosing table to be boilerplate.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_INVISIBLE = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "canvas"})
_LAYOUT = frozenset({"nav", "footer", "select", "button"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset({"td", "th"})
_SECTIONING = {"address", "article", "aside", "blockquote", "body", "div", "header", "html", "main"}
_GROUPING = {"center", "details", "fieldset", "figure", "form", "legend", "section", "summary"}
_LISTING = {"caption", "dd", "dl", "dt", "figcaption", "ol", "table", "tbody", "tfoot", "thead"}
_BLOCKS = frozenset(_SECTIONING | _GROUPING | _LISTING | {"hr", "p", "pre", "title", "ul"})
_LINES = frozenset({"br", "li", "tr"})


def html_to_text(page: str) -> tuple[str, str]:
    """The title ("" if there is none) and the visible text of an HTML page.

    Scripts, styles, navigation, footers and form controls are left out; every other text is
    kept. Headings become `#` lines, list items `- ` lines, table rows lines of cells joined by
    ` | `.

    Raises:
        ValueError: the markup cannot be parsed at all.
    """
    reader = _read(page, _INVISIBLE | _LAYOUT)
    if reader.inside_unclosed(_LAYOUT):
        # An unclosed <nav> would swallow the rest of the page: better some navigation too much.
        reader = _read(page, _INVISIBLE)
    return reader.title(), reader.text()


def _read(page: str, skipped: frozenset[str]) -> _Reader:
    reader = _Reader(skipped)
    try:
        reader.feed(page)
        reader.close()
    except AssertionError as fault:  # html.parser's own way to refuse a broken declaration
        raise ValueError(f"is not readable HTML ({fault})") from fault
    return reader


class _Reader(HTMLParser):
    """Collects the visible text of a page, block by block."""

    def __init__(self, skipped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._skipped = skipped
        self._skipping: list[str] = []
        self._blocks: list[str] = []
        self._lines: list[str] = []
        self._line: list[str] = []
        self._title: list[str] = []
        self._in_title = False
        self._verbatim = 0
        self._first_heading = ""
        self._prefix = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.append(tag)
        elif tag in self._skipped:
            self._skipping.append(tag)
        elif tag in _HEADINGS:
            self._end_block()
            self._prefix = "#" * _HEADINGS[tag] + " "
        elif tag in _LINES:
            self._end_line()
            self._prefix = "- " if tag == "li" else ""
        elif tag in _CELLS:
            if "".join(self._line).strip():
                self._line.append(" | ")
        elif tag in _BLOCKS:
            self._start_block(tag)

    def _start_block(self, tag: str) -> None:
        if self._prefix == "- " and not "".join(self._line).strip():
            return  # <li><p>: the bullet belongs to the paragraph
        self._end_block()
        self._verbatim += tag == "pre"
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.pop()
        elif tag in _HEADINGS:
            text = _squeeze("".join(self._line))
            self._first_heading = self._first_heading or text
            self._end_block()
        elif tag in _LINES:
            self._end_line()
        elif tag in _BLOCKS:
            self._end_block()
            self._verbatim -= tag == "pre" and self._verbatim > 0
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._skipping:
            return
        if self._in_title:
            self._title.append(data)
        elif self._verbatim:
            *whole, rest = data.split("\n")
            for line in whole:
                self._line.append(line)
                self._end_line(verbatim=True)
            self._line.append(rest)
        else:
            self._line.append(data)

    def _end_line(self, *, verbatim: bool = False) -> None:
        raw = "".join(self._line)
        line = raw.rstrip() if verbatim else _squeeze(raw)
        if line:
            self._lines.append(self._prefix + line)
            self._prefix = ""
        self._line.clear()

    def _end_block(self) -> None:
        self._end_line(verbatim=self._verbatim > 0)
        self._prefix = ""
        if self._lines:
            self._blocks.append("\n".join(self._lines))
            self._lines.clear()

    def inside_unclosed(self, tags: frozenset[str]) -> bool:
        """Whether the page ended inside a skipped element of these."""
        return bool(self._skipping) and self._skipping[0] in tags

    def title(self) -> str:
        """The page's `<title>`, else its first heading, else ""."""
        return _squeeze("".join(self._title)) or self._first_heading

    def text(self) -> str:
        """The blocks read so far, an empty line between two."""
        self._end_block()
        return "\n\n".join(self._blocks)


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
