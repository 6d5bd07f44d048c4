"""Word documents (.docx), PubMed Central articles (.nxml, JATS) and reStructuredText (.rst).

All become the tree that HTML pages become. The only file that imports mammoth and docutils.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from html.entities import html5
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

from retrieval.documents.html import parse_html, title_of
from retrieval.documents.tree import Element, squeeze, text_of

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_WORD_PARTS = re.compile(r"word/(?:document|footnotes|endnotes)\d*\.xml")
_UNPACKED = 20
"""Most bytes that a .docx may unpack to, as a multiple of the largest file."""
_WITHOUT_TEXT = re.compile(r"(?:Pr|PrEx|Mark|Start|End|Id|Ex|Info)$")
"""Elements of Word that hold settings or marks only."""
_OFF = {"0", "false", "off"}
_NAMED_ENTITY = re.compile(r"&(\w+);")
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})


@dataclass(frozen=True, slots=True)
class OfficeText:
    """What could be read from a document."""

    title: str
    """Its title; "" if it has none."""
    text: str
    """What a reader sees."""
    left_out: tuple[str, ...] = ()
    """What could not be read, each in a few words."""


def docx_to_text(path: Path, *, max_bytes: int) -> OfficeText:
    """Read a Word document: paragraphs, lists, tables, foot- and endnotes, formulas.

    Hidden and deleted text, comments, headers and footers are left out; inserted text is kept.

    Raises:
        ValueError: no Word document, damaged, or larger than `max_bytes` allows.
        OSError: the file cannot be opened.
    """
    import mammoth  # type: ignore[import-untyped]

    try:
        cleaned, title = _cleaned_docx(path, max_bytes)
        page = mammoth.convert_to_html(cleaned, style_map="p[style-name='Title'] => h1:fresh")
    except (
        zipfile.BadZipFile,
        ElementTree.ParseError,
        ExpatError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        RuntimeError,
        zlib.error,
    ) as fault:
        # what zipfile and mammoth raise on files that are no Word document
        raise ValueError(f"is not a readable Word document ({fault})") from fault
    root = parse_html(page.value)
    for element in root.walk():
        place = element.attributes.get("href", "")
        # from a note back to the place that it belongs to
        element.hidden |= place.startswith(("#footnote-ref", "#endnote-ref"))
    said = " ".join(message.message for message in page.messages)
    ignored = set(re.findall(r"unrecognised element was ignored: (\S+)", said))
    missed = {f"<{name}>" for name in ignored if not _WITHOUT_TEXT.search(name)}
    return OfficeText(title or title_of(root), text_of(root), tuple(sorted(missed)))


def _cleaned_docx(path: Path, max_bytes: int) -> tuple[io.BytesIO, str]:
    """The document without hidden text and with formulas as runs, and its title."""
    kept = io.BytesIO()
    title = ""
    with zipfile.ZipFile(path) as packed, zipfile.ZipFile(kept, "w") as cleaned:
        size = sum(part.file_size for part in packed.infolist())
        if size > max(_UNPACKED * max_bytes, 1_000_000):
            raise ValueError(f"unpacks to {size:,} bytes: split it, or raise --max-file-mb")
        for part in packed.infolist():
            content = packed.read(part)
            if part.filename.startswith("word/media/"):
                continue
            if _WORD_PARTS.fullmatch(part.filename):
                root = ElementTree.fromstring(content)
                _clean(root)
                content = ElementTree.tostring(root)
            elif part.filename == "docProps/core.xml":
                named = ElementTree.fromstring(content).find(
                    "{http://purl.org/dc/elements/1.1/}title"
                )
                title = squeeze(named.text or "") if named is not None else ""
            cleaned.writestr(part.filename, content)
    kept.seek(0)
    return kept, title


def _clean(root: ElementTree.Element) -> None:
    for parent in list(root.iter()):
        for place, child in reversed(list(enumerate(parent))):
            if child.tag in {f"{_M}oMath", f"{_M}oMathPara"}:
                runs: list[ElementTree.Element] = []
                before = "".join(parent[place - 1].itertext()) if place else ""
                starts = next((n.tag for n in child.iter() if n.tag != child.tag), "")
                if before[-1:].isdigit() and starts == f"{_M}f":  # 1 1/2
                    _add_run(runs, " ", "")
                _formula_runs(child, "", runs)
                parent[place : place + 1] = runs
            elif child.tag == f"{_W}r":
                properties = child.find(f"{_W}rPr")
                if _is_on(properties, "vanish"):
                    parent.remove(child)
                elif properties is not None:
                    _plain_properties(properties)


def _plain_properties(properties: ElementTree.Element) -> None:
    """What mammoth does not know, said as what it knows."""
    if _is_on(properties, "dstrike"):
        ElementTree.SubElement(properties, f"{_W}strike")
    position = properties.find(f"{_W}position")
    height = 0 if position is None else int(position.get(f"{_W}val") or 0)
    if height and properties.find(f"{_W}vertAlign") is None:
        _align(properties, "superscript" if height > 0 else "subscript")


def _is_on(properties: ElementTree.Element | None, name: str) -> bool:
    found = None if properties is None else properties.find(f"{_W}{name}")
    return found is not None and (found.get(f"{_W}val") or "true").lower() not in _OFF


def _align(properties: ElementTree.Element, value: str) -> None:
    ElementTree.SubElement(properties, f"{_W}vertAlign", {f"{_W}val": value})


def _formula_runs(node: ElementTree.Element, align: str, runs: list[ElementTree.Element]) -> None:
    """A formula as runs of text: powers raised, indices lowered, fractions with a slash."""
    name = node.tag.removeprefix(_M)
    if name == "t":
        _add_run(runs, node.text or "", align)
        return
    parts = {child.tag.removeprefix(_M): child for child in node}
    if name == "f" and {"num", "den"} <= set(parts):
        simple = all(
            re.fullmatch(r"[\w.,]*", "".join(parts[key].itertext()).strip())
            for key in ("num", "den")
        )
        around = ("", "/", "") if simple else ("(", ")/(", ")")
        if runs and "".join(runs[-1].itertext())[-1:].isdigit():
            _add_run(runs, " ", align)
        _add_run(runs, around[0], align)
        _formula_runs(parts["num"], align, runs)
        _add_run(runs, around[1], align)
        _formula_runs(parts["den"], align, runs)
        _add_run(runs, around[2], align)
        return
    if name == "rad":
        _add_run(runs, "√", align)
    for child in node:
        inner = {"sup": "superscript", "sub": "subscript"}.get(child.tag.removeprefix(_M), align)
        if not child.tag.endswith("Pr"):
            _formula_runs(child, inner, runs)


def _add_run(runs: list[ElementTree.Element], text: str, align: str) -> None:
    if not text:
        return
    run = ElementTree.Element(f"{_W}r")
    if align:
        _align(ElementTree.SubElement(run, f"{_W}rPr"), align)
    space = {"{http://www.w3.org/XML/1998/namespace}space": "preserve"}
    ElementTree.SubElement(run, f"{_W}t", space).text = text
    runs.append(run)


def is_jats(start: str) -> bool:
    """Whether an XML file that starts like this is a JATS article."""
    return re.search(r"<(?:\w+:)?(?:article|pmc-articleset)[\s>]", start[:8192]) is not None


def jats_to_text(markup: str) -> OfficeText:
    """Read a JATS article: title, abstracts, body, tables and notes; references are left out.

    Raises:
        ValueError: it is not XML.
    """
    root = _xml(markup)
    articles = [node for node in root.iter() if _name(node) == "article"] or [root]
    body = Element("body")
    titles = []
    for article in articles:
        named = next((node for node in article.iter() if _name(node) == "article-title"), None)
        titles.append("" if named is None else squeeze("".join(named.itertext())))
        body.children.append(Element("h1", children=[titles[-1]]))
        for node in article.iter():
            if _name(node) in {"abstract", "trans-abstract"}:
                body.children.append(_from_jats(node, 1))
        for part in article:
            if _name(part) not in {"front", "front-stub"}:
                body.children.append(_from_jats(part, 0))
    return OfficeText(titles[0], text_of(body))


def xhtml_to_text(markup: str) -> OfficeText:
    """Read an XHTML page.

    Raises:
        ValueError: neither XML nor HTML.
    """
    # In XHTML <a/> and <p/> are empty; html.parser would leave them open.
    closed = re.sub(r"<(\w+)((?:\s[^<>]*?)?)/>", r"<\1\2></\1>", markup)
    root = parse_html(closed)
    return OfficeText(title_of(root), text_of(root))


def _xml(markup: str) -> ElementTree.Element:
    def character(found: re.Match[str]) -> str:
        if found[1] in _XML_ENTITIES:
            return found[0]
        return html5.get(f"{found[1]};", found[0])

    try:
        return ElementTree.fromstring(_NAMED_ENTITY.sub(character, markup))
    except ElementTree.ParseError as fault:
        raise ValueError(f"is not readable XML ({fault})") from fault


def _name(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2].lower() if isinstance(node.tag, str) else ""


_JATS = {
    "abstract": "section", "ack": "section", "app": "section", "bold": "b", "break": "br",
    "boxed-text": "aside", "def-item": "dl", "term": "dt", "def": "dd", "disp-quote": "blockquote",
    "disp-formula": "p", "fig": "figure", "fn": "p", "italic": "i", "list-item": "li",
    "preformat": "pre", "sec": "section", "strike": "del", "table-wrap": "section",
    "table-wrap-foot": "div", "trans-abstract": "section", "verse-group": "pre",
}  # fmt: skip
_JATS_LEVELS = frozenset(
    {"body", "back", "sec", "abstract", "trans-abstract", "app", "ack", "boxed-text"}
)
_JATS_SKIPPED = frozenset({"ref-list", "object-id", "sec-meta", "permissions", "processing-meta"})


def _from_jats(node: ElementTree.Element, level: int) -> Element:
    """An element of JATS as one of HTML; `level` is that of the headings in it."""
    name = _name(node)
    if name in _JATS_SKIPPED or not name:
        return Element("template")
    attributes = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
    if name == "xref" and attributes.get("ref-type") in {"bibr", "fn", "table-fn"}:
        return Element("a", {"role": "doc-noteref"}, ["".join(node.itertext())])
    if name in {"list"}:
        ordered = attributes.get("list-type", "") in {
            "order",
            "alpha-lower",
            "alpha-upper",
            "roman-lower",
            "roman-upper",
        }
        kinds = {"alpha-lower": "a", "alpha-upper": "A", "roman-lower": "i", "roman-upper": "I"}
        kind = kinds.get(attributes.get("list-type", ""), "1")
        made = Element("ol" if ordered else "ul", {"type": kind})
    elif name == "title":
        made = Element(f"h{min(level, 6)}")
    elif name == "tex-math":
        tex = "".join(node.itertext())
        inside = re.search(r"\\begin\{document\}(.*)\\end\{document\}", tex, re.DOTALL)
        return Element("span", children=[f" {inside[1] if inside else tex} "])
    else:
        made = Element(_JATS.get(name, name), attributes)
    below = level + (name in _JATS_LEVELS)
    made.children.append(node.text or "")
    for child in _told_once(node):
        if _name(child) != "label" or name != "list-item":
            made.children.append(_from_jats(child, below))
        if _name(child) == "label" and name in {"table-wrap", "fig", "fn"}:
            made.children.append(" ")
        made.children.append(child.tail or "")
    return made


def _told_once(node: ElementTree.Element) -> list[ElementTree.Element]:
    """The children; of several versions of one thing the best."""
    children = list(node)
    if _name(node) != "alternatives":
        return children
    order = ("table", "math", "textual-form", "tex-math")
    best = [child for name in order for child in children if _name(child) == name]
    return best[:1] or children


def rst_to_text(source: str) -> OfficeText:
    """Read reStructuredText: headings, lists, tables, roles; comments are left out.

    Raises:
        ValueError: docutils cannot parse it.
    """
    from docutils.core import publish_parts
    from docutils.utils import SystemMessage

    warnings = io.StringIO()
    settings = {
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "_disable_config": True,
        "embed_stylesheet": False,
        "report_level": 2,
        "halt_level": 5,
        "warning_stream": warnings,
        "initial_header_level": 2,
        "math_output": "MathML",
        "smart_quotes": False,
    }
    try:
        parts = publish_parts(source, writer="html5", settings_overrides=settings)
    except (SystemMessage, ValueError, RecursionError) as fault:
        raise ValueError(f"is not readable reStructuredText ({fault})") from fault
    root = parse_html(str(parts["whole"]))
    for element in root.walk():
        if "system-message" in element.attributes.get("class", "").split():
            element.hidden = True
    said = re.findall(
        r"Unknown (directive type|interpreted text role) \"([^\"]+)\"", warnings.getvalue()
    )
    missed = {f"{kind.split()[0]} '{name}'" for kind, name in said}
    return OfficeText(title_of(root), text_of(root), tuple(sorted(missed)))


TEXT_FORMATS: dict[str, Callable[[str], OfficeText]] = {
    ".nxml": jats_to_text,
    ".rst": rst_to_text,
    ".xhtml": xhtml_to_text,
}
"""Readers of formats that are text, by suffix."""
