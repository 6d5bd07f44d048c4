"""HTML pages: markup and styles in, title and visible text out.

Our own reader on the standard library, because quotes are compared with this text to the letter:
trafilatura 2.3 flattens the headings of short pages, escapes `<` in its markdown ("CrCl \\<
30") and may judge a dosing table to be boilerplate.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from retrieval.documents.tree import BLOCKS, HEADINGS, Element, tags, text_of

_VOID = tags("area base br col embed hr img input link meta source track wbr")
_ENDS: dict[str, frozenset[str]] = {
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
    "td": frozenset({"td", "th"}),
    "th": frozenset({"td", "th"}),
    "tr": frozenset({"tr", "td", "th"}),
    "option": frozenset({"option"}),
    **dict.fromkeys(
        ("thead", "tbody", "tfoot"), frozenset({"thead", "tbody", "tfoot", "tr", "td", "th"})
    ),
    **dict.fromkeys(HEADINGS, frozenset(HEADINGS)),
}
"""What a start tag ends that was left open, up to the element that bounds it."""
_BOUNDS = {
    **dict.fromkeys(("li",), frozenset({"ul", "ol", "menu"})),
    **dict.fromkeys(("dt", "dd"), frozenset({"dl"})),
    **dict.fromkeys(("td", "th", "tr", "thead", "tbody", "tfoot"), frozenset({"table"})),
    **dict.fromkeys(HEADINGS, frozenset({"td", "th", "li", "div", "section", "article"})),
}
_OPEN_SCOPE = frozenset({"table", "td", "th"})
"""An end tag of anything else does not reach out of a table cell."""
_DEEPEST = 100
"""Elements below this depth are read as part of the one above them."""

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_AT_RULE = re.compile(r"@[^{};]*(?:;|\{(?:[^{}]|\{[^{}]*\})*\})")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_SELECTOR = re.compile(r"([a-zA-Z][\w-]*)?(?:\.([\w-]+)|#([\w-]+))?")


def html_to_text(page: str) -> tuple[str, str]:
    """The title ("" if there is none) and the visible text of an HTML page.

    `retrieval.documents.tree.text_of` says what the text looks like. What `hidden`, `display:none`
    or a strike-through takes from readers is left out, also where a `<style>` of the page says so
    for a tag, a class or an id.

    Raises:
        ValueError: the markup cannot be parsed at all.
    """
    root = parse_html(page)
    return title_of(root), text_of(root)


def parse_html(page: str) -> Element:
    """The tree of a page, with what its styles hide, raise and lower.

    Raises:
        ValueError: the markup cannot be parsed at all.
    """
    parser = _Parser()
    try:
        parser.feed(_without_open_ends(page))
        parser.close()
    except AssertionError as fault:  # html.parser's own way to refuse a broken declaration
        raise ValueError(f"is not readable HTML ({fault})") from fault
    _apply_styles(parser.root)
    return parser.root


def _without_open_ends(page: str) -> str:
    """The page with each `<` escaped that no `>` follows, and each `<!--` that no `-->` follows.

    html.parser would look for the end of each of them again, in quadratic time.
    """
    closed = page.rfind("-->") + 1
    page = page[:closed] + page[closed:].replace("<!--", "&lt;!--")
    closed = page.rfind(">") + 1
    return page[:closed] + page[closed:].replace("<", "&lt;")


def title_of(root: Element) -> str:
    """The page's `<title>`, else its first heading, else ""."""
    names = {
        element.tag: element.words()
        for element in reversed(list(root.walk()))
        if element.tag == "title"
    }
    if names.get("title"):
        return names["title"]
    return next((text for e in root.walk() if e.tag in HEADINGS and (text := _heading(e))), "")


def _heading(element: Element) -> str:
    return text_of(Element("div", children=[element])).lstrip("# ").strip()


class _Parser(HTMLParser):
    """Builds the tree; end tags that are missing or too many are made up for as browsers do."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("html")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _ENDS:
            self._end(_ENDS[tag], _BOUNDS.get(tag, frozenset()))
        if tag in BLOCKS:
            self._end(frozenset({"p"}), _OPEN_SCOPE | {"li", "div", "section", "blockquote"})
        element = Element(tag, {key: value or "" for key, value in attrs}, closed=False)
        self._open[-1].children.append(element)
        if tag in _VOID:
            element.closed = True
        elif len(self._open) < _DEEPEST:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID and self._open[-1].tag == tag and tag in {"mspace", "path", "use"}:
            self._open.pop().closed = True

    def handle_endtag(self, tag: str) -> None:
        for depth in range(len(self._open) - 1, 0, -1):
            if self._open[depth].tag == tag:
                self._open[depth].closed = True
                del self._open[depth:]
                return
            if self._open[depth].tag in _OPEN_SCOPE and tag not in _TABLE_PARTS:
                return

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def unknown_decl(self, data: str) -> None:
        if data.startswith("CDATA["):
            self.handle_data(data.removeprefix("CDATA["))

    def _end(self, tags: frozenset[str], bounds: frozenset[str]) -> None:
        """Close the outermost open element of these tags that no bound keeps apart."""
        place = None
        for depth in range(len(self._open) - 1, 0, -1):
            if self._open[depth].tag in bounds and self._open[depth].tag not in tags:
                break
            if self._open[depth].tag in tags:
                place = depth
        if place is not None:
            self._open[place].closed = True
            del self._open[place:]


_TABLE_PARTS = frozenset({"table", "thead", "tbody", "tfoot", "tr", "td", "th"})


def _apply_styles(root: Element) -> None:
    """Mark elements as hidden, raised or lowered by their own style and by the page's rules."""
    rules: dict[tuple[str, str], list[tuple[str, set[str]]]] = {}
    for style in root.walk():
        if style.tag == "style":
            for selector, effects in _style_rules(
                "".join(c for c in style.children if isinstance(c, str))
            ):
                rules.setdefault(selector[1:], []).append((selector[0], effects))
    for element in root.walk():
        attributes = element.attributes
        effects = _effects(attributes.get("style", ""))
        keys = [("", ""), ("", attributes.get("id", ""))]
        keys += [(name, "") for name in attributes.get("class", "").split()]
        for key in keys if rules else ():
            for tag, found in rules.get(key, ()):
                if tag in {"", element.tag}:
                    effects |= found
        names = set(attributes.get("class", "").lower().split())
        shown_twice = "katex-html" in names  # KaTeX: its MathML is read
        element.hidden = "hidden" in effects or shown_twice
        if "super" in effects or names & {"sup", "superscript"}:
            element.shift = "super"
        elif "sub" in effects or names & {"sub", "subscript"}:
            element.shift = "sub"


def _style_rules(sheet: str) -> list[tuple[tuple[str, str, str], set[str]]]:
    """(tag, class, id) and effects of each simple selector; rules for other media are left out."""
    found = []
    for selectors, declarations in _RULE.findall(_AT_RULE.sub("", _COMMENT.sub("", sheet))):
        effects = _effects(declarations)
        if not effects:
            continue
        for selector in selectors.split(","):
            simple = _SELECTOR.fullmatch(selector.strip())
            if simple and any(simple.groups()):
                tag, name, own_id = (part or "" for part in simple.groups())
                found.append(((tag.lower(), name, own_id), effects))
    return found


def _effects(declarations: str) -> set[str]:
    """What style declarations do to the text: "hidden", "super", "sub"."""
    effects: set[str] = set()
    for declaration in declarations.lower().split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip(), value.replace("!important", "").strip()
        if (
            (name, value) in {("display", "none"), ("visibility", "hidden"), ("opacity", "0")}
            or (name == "font-size" and re.fullmatch(r"0(?:px|pt|em|rem|%)?", value))
            or (name.startswith("text-decoration") and "line-through" in value)
        ):
            effects.add("hidden")
        elif name == "vertical-align" and value in {"super", "sub"}:
            effects.add(value)
    return effects
