"""Word, PubMed Central and reStructuredText documents as a reader sees them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from retrieval.documents import DocumentProblem, read_documents
from traces import StoredDocument, watch_defects

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
DOCUMENTS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
KINDS = "application/vnd.openxmlformats-officedocument.wordprocessingml"


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*runs: str, style: str = "") -> str:
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}{''.join(runs)}</w:p>"


def write_docx(path: Path, body: str) -> None:
    """Write the least that is a Word document, with one footnote and two styles."""
    parts = {
        "[Content_Types].xml": f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="{KINDS}.document.main+xml"/><Override PartName="/word/footnotes.xml" ContentType="{KINDS}.footnotes+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="{DOCUMENTS}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="{DOCUMENTS}/footnotes" Target="footnotes.xml"/><Relationship Id="r2" Type="{DOCUMENTS}/styles" Target="styles.xml"/></Relationships>',
        "word/styles.xml": f'<w:styles xmlns:w="{WORD}"><w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/></w:style></w:styles>',
        "word/footnotes.xml": f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2">{paragraph(run("By weight."), run("SECRET", "<w:vanish/>"))}</w:footnote></w:footnotes>',
        "word/document.xml": f'<w:document xmlns:w="{WORD}" xmlns:m="{MATH}"><w:body>{body}</w:body></w:document>',
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content)


def read(path: Path) -> tuple[StoredDocument, list[DocumentProblem]]:
    entries = list(read_documents([path]))
    [document] = [entry for entry in entries if isinstance(entry, StoredDocument)]
    return document, [entry for entry in entries if isinstance(entry, DocumentProblem)]


def test_a_word_document_as_a_reader_sees_it(tmp_path: Path) -> None:
    up, note = '<w:vertAlign w:val="superscript"/>', '<w:r><w:footnoteReference w:id="2"/></w:r>'
    power = (
        "<m:oMath><m:sSup><m:e><m:r><m:t>10</m:t></m:r></m:e><m:sup><m:r><m:t>9</m:t></m:r></m:sup>"
        "</m:sSup></m:oMath>"
    )
    half = "<m:oMath><m:f><m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f></m:oMath>"
    cell = "<w:tc>{}</w:tc>"
    table = "<w:tbl>{}{}</w:tbl>".format(
        "<w:tr><w:trPr><w:tblHeader/></w:trPr>"
        + "".join(cell.format(paragraph(run(text))) for text in ("eGFR", "Dose"))
        + "</w:tr>",
        "<w:tr>" + "".join(cell.format(paragraph(run(t))) for t in ("&lt; 30", "5 mg")) + "</w:tr>",
    )
    write_docx(
        tmp_path / "a.docx",
        paragraph(run("Platelets"), style="H1")
        + paragraph(run("Below 10 × 10"), run("9", up), run("/L or "), power, run("/L. Give 5"), note, run(" mg."))
        + paragraph(run("Raised 10"), run("6", '<w:position w:val="6"/>'), run(", dose 1"), half, run(" tablets."))
        + paragraph(
            run("Stop "),
            run("never ", "<w:strike/>"),
            run("seldom ", "<w:dstrike/>"),
            run("hidden ", "<w:vanish/>"),
            f'<w:del w:id="1">{run("deleted ")}</w:del><w:ins w:id="2">{run("at once.")}</w:ins>',
        )
        + table,
    )  # fmt: skip
    document, problems = read(tmp_path / "a.docx")
    assert document.title == "Platelets"
    assert document.text == (
        "# Platelets\n\nBelow 10 × 10^9/L or 10^9/L. Give 5[1] mg.\n\n"
        "Raised 10^6, dose 1 1/2 tablets.\n\nStop at once.\n\n"
        "eGFR | Dose\neGFR: < 30 | Dose: 5 mg\n\n1. By weight."
    )
    assert not problems


def test_what_a_word_document_holds_and_is_not_read_is_named(tmp_path: Path) -> None:
    write_docx(tmp_path / "a.docx", paragraph(run("Read.")) + "<w:altChunk/>")
    document, problems = read(tmp_path / "a.docx")
    assert document.text == "Read."
    assert [problem.partial for problem in problems] == [True]
    assert "altChunk" in problems[0].reason


def test_a_word_document_that_unpacks_to_very_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("word/document.xml", b" " * 30_000_000)
    [problem] = read_documents([tmp_path / "a.docx"], max_bytes=1_000_000)
    assert isinstance(problem, DocumentProblem)
    assert "unpacks to 30,000,000 bytes" in problem.reason


ARTICLE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS v1.2//EN" "JATS-archivearticle1.dtd">
<article xmlns:mml="http://www.w3.org/1998/Math/MathML"><front><journal-meta><journal-title>J Made Up
</journal-title></journal-meta><article-meta><title-group><article-title>Zolimuzine &amp; platelets
</article-title></title-group><abstract><p>It works.</p></abstract></article-meta></front>
<body><sec><title>Results</title><p>Below 10&#160;&times; 10<sup>9</sup>/L<sup><xref ref-type="bibr"
rid="b1">3</xref></sup> in CO<sub>2</sub>, 5<xref ref-type="fn" rid="f1">a</xref> mg.</p>
<sec><title>Doses</title><list list-type="order"><list-item><label>1</label><p>Start.</p></list-item>
<list-item><p>Stop.</p></list-item></list><table-wrap><label>Table 1</label><caption><p>By age</p>
</caption><table><thead><tr><th>Age</th><th>Dose</th></tr></thead><tbody><tr><td>12</td><td>5 mg</td>
</tr></tbody></table><table-wrap-foot><fn id="f1"><label>a</label><p>By weight.</p></fn></table-wrap-foot>
</table-wrap><p>Formula <inline-formula><alternatives><tex-math>x^{2}</tex-math><mml:math><mml:msup>
<mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup></mml:math></alternatives></inline-formula>.</p></sec>
</sec></body><back><ack><title>Thanks</title><p>To all.</p></ack><ref-list><ref><mixed-citation>Old
paper.</mixed-citation></ref></ref-list></back></article>"""


@pytest.mark.parametrize("name", ["a.nxml", "a.xml"])
def test_an_article_of_pubmed_central(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(ARTICLE, encoding="utf-8")
    document, problems = read(tmp_path / name)
    assert document.title == "Zolimuzine & platelets"
    assert document.text == (
        "# Zolimuzine & platelets\n\nIt works.\n\n## Results\n\n"
        "Below 10 × 10^9/L[3] in CO2, 5[a] mg.\n\n### Doses\n\n1. Start.\n2. Stop.\n\n"
        "Table 1\n\nBy age\n\nAge | Dose\nAge: 12 | Dose: 5 mg\n\na\n\nBy weight.\n\n"
        "Formula x^2 .\n\n## Thanks\n\nTo all."
    )
    assert not problems


def test_an_article_in_its_own_encoding(tmp_path: Path) -> None:
    page = '<?xml version="1.0" encoding="ISO-8859-1"?><article><body><p>5 µg</p></body></article>'
    (tmp_path / "a.nxml").write_bytes(page.encode("latin-1"))
    assert read(tmp_path / "a.nxml")[0].text == "5 µg"


def test_an_article_nested_without_end_is_named(tmp_path: Path) -> None:
    deep = "<sec>" * 3000 + "<p>x</p>" + "</sec>" * 3000
    (tmp_path / "a.nxml").write_text(f"<article><body>{deep}</body></article>")
    [problem] = read_documents([tmp_path / "a.nxml"])
    assert isinstance(problem, DocumentProblem)
    assert "nested too deeply" in problem.reason


RST = """
Zolimuzine
==========

.. a comment nobody sees

Below 10 × 10\\ :sup:`9`/L give *5* mg [1]_.

Renal
-----

#. Stop.
#. Wait.

====  =====
Age   Dose
====  =====
12    5 mg
====  =====

.. tip2:: Unknown.

   Not read.

.. [1] By weight.
"""


def test_restructured_text(tmp_path: Path) -> None:
    (tmp_path / "notes.rst").write_text(RST, encoding="utf-8")
    document, problems = read(tmp_path / "notes.rst")
    assert document.title == "Zolimuzine"
    assert document.text == (
        "# Zolimuzine\n\nBelow 10 × 10^9/L give 5 mg [1].\n\n## Renal\n\n1. Stop.\n2. Wait.\n\n"
        "Age | Dose\nAge: 12 | Dose: 5 mg\n\n[1]\n\nBy weight."
    )
    assert [problem.partial for problem in problems] == [True]
    assert "directive 'tip2'" in problems[0].reason


def test_xhtml_elements_may_close_themselves(tmp_path: Path) -> None:
    page = '<html xmlns="x"><body><p hidden=""/><p>Give <a id="n"/><b/>5 mg<br/>daily.</p></body></html>'
    (tmp_path / "a.xhtml").write_text(page)
    assert read(tmp_path / "a.xhtml")[0].text == "Give 5 mg\ndaily."


@pytest.mark.parametrize("content", [b"no xml", b"", b"\xff\xfe<", b"<a>" * 3000])
@pytest.mark.parametrize(
    "part", ["word/document.xml", "word/_rels/document.xml.rels", "_rels/.rels", "word/styles.xml"]
)
def test_a_damaged_part_is_no_defect(tmp_path: Path, part: str, content: bytes) -> None:
    sound, path = tmp_path / "sound.docx", tmp_path / "damaged.docx"
    write_docx(sound, paragraph(run("Dose 5 mg")))
    with zipfile.ZipFile(sound) as whole, zipfile.ZipFile(path, "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, content if name == part else whole.read(name))
    with watch_defects() as met:
        (entry,) = read_documents([path])
    assert not met
    assert isinstance(entry, DocumentProblem)
    assert "is not a readable Word document" in entry.reason


def test_a_packed_part_that_breaks_off_is_no_defect(tmp_path: Path) -> None:
    path = tmp_path / "cut.docx"
    write_docx(path, paragraph(run("Dose 5 mg")))
    whole = path.read_bytes()
    for size in (b"\xff\xff\x00\x00", b"\xff\xff\xff\x7f"):
        entry = whole.index(b"PK\x01\x02")
        path.write_bytes(whole[: entry + 20] + size * 2 + whole[entry + 28 :])
        with watch_defects() as met:
            (found,) = read_documents([path])
        assert not met
        assert isinstance(found, DocumentProblem)
