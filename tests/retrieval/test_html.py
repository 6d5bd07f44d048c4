"""HTML to text: nothing invisible, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval.documents.html import html_to_text


def read(markup: str) -> str:
    """The text of a fragment."""
    return html_to_text(markup)[1]


PAGE = """<!DOCTYPE html><html><head><title>Warfarin &amp; you</title>
<script>var secret = "<p>not text</p>";</script><style>p { color: red }</style></head>
<body><nav><a href="/">Home</a><nav>inner</nav>menu</nav>
<header><h1>Warfarin <em>dosing</em></h1></header>
<p>Start at 5&nbsp;mg daily<br>unless CrCl &lt; 30
mL/min.</p><!-- a comment -->
<h2>Renal</h2><ul><li><p>INR 2-3</p></li><li>Stop if <b>bleed</b>ing</li></ul>
<table><tr><th>Age</th><th>Dose</th></tr><tr><td>&lt; 50</td><td>10 mg</td></tr></table>
<pre>  a   b
    c</pre><script>alert(1)</script>
<aside>Ask a specialist.</aside><footer>Copyright</footer></body></html>"""


def test_a_page_reads_as_a_person_sees_it() -> None:
    title, text = html_to_text(PAGE)
    assert title == "Warfarin & you"
    assert text == (
        "# Warfarin dosing\n\nStart at 5 mg daily\nunless CrCl < 30 mL/min.\n\n## Renal\n\n"
        "- INR 2-3\n- Stop if bleeding\n\nAge | Dose\nAge: < 50 | Dose: 10 mg\n\n  a   b\n    c\n\n"
        "Ask a specialist."
    )


def test_scripts_and_styles_leave_nothing_behind() -> None:
    _, text = html_to_text(PAGE)
    for hidden in ("secret", "not text", "alert", "color", "comment", "Home", "inner", "menu"):
        assert hidden not in text


def test_without_a_title_the_first_heading_serves() -> None:
    assert html_to_text("<h2>Renal dose</h2><h1>Later</h1>")[0] == "Renal dose"
    assert html_to_text("<p>text</p>") == ("", "text")


def test_an_unclosed_navigation_does_not_swallow_the_page() -> None:
    _, text = html_to_text("<nav>Home<p>The dose is 5 mg.</p>")
    assert "The dose is 5 mg." in text


words = st.text(alphabet="abcXYZ019 äß漢<&>-", min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["p", "div", "li", "td", "h2", "b"]), words)))
def test_every_visible_word_survives(parts: list[tuple[str, str]]) -> None:
    def escaped(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    page = "".join(f"<{tag}>{escaped(text)}</{tag}>" for tag, text in parts)
    _, text = html_to_text(page)

    def bare(words: str) -> str:
        return "".join(words.split())

    kept = bare(text)
    for _, word in parts:
        assert bare(word) in kept


@example("<p>text<![nonsense[ x")
@given(st.text(alphabet="<>/!-[]&;='\" apscrinv\n", max_size=80))
def test_broken_markup_gives_text_or_a_value_error(page: str) -> None:
    try:
        title, text = html_to_text(page)
    except ValueError:
        return
    assert isinstance(title, str)
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("below 10 × 10<sup>9</sup>/L", "below 10 × 10^9/L"),
        ("30 mg/m<sup>2</sup> weekly", "30 mg/m^2 weekly"),
        ("10<sup>-3</sup> mol and e<sup>x+1</sup>", "10^-3 mol and e^(x+1)"),
        ("2<sup>3</sup>4", "2^3 4"),
        ("the 1<sup>st</sup>, 2<sup>nd</sup> and 5<sup>th</sup> dose", "the 1st, 2nd and 5th dose"),
        ("1<sup>1</sup>/<sub>2</sub> tablets", "1 1/2 tablets"),
        ("1<sup>1</sup>&frasl;<sub>2</sub> tablets", "1 1/2 tablets"),
        ("<sup>3</sup>&frasl;4 of it", "3/4 of it"),
        ("1&frac12; tablets", "1½ tablets"),
        ("H<sub>2</sub>O, CO<sub>2</sub>, C<sub>max</sub>", "H2O, CO2, Cmax"),
        ("log<sub>10</sub>5 and 101<sub>2</sub>", "log10 5 and 101_2"),
        ("Ca<sup>2+</sup>, HCO<sub>3</sub><sup>-</sup>, <sup>18</sup>F-FDG", "Ca^2+, HCO3^-, 18F-FDG"),
        ("Brand<sup>TM</sup> at 37<sup>o</sup>C", "Brand™ at 37°C"),
        ("Give 5<sup>3</sup> mg", "Give 5[3] mg"),
        ("Give 5<sup>3</sup> times, 2<sup>1</sup>%", "Give 5[3] times, 2[1]%"),
        ("within 24<sup>1,2</sup> h", "within 24[1,2] h"),
        ("daily.<sup>3</sup> Stop", "daily.[3] Stop"),
        ("2<sup>3</sup> factorial, 10<sup>3</sup> mL", "2^3 factorial, 10^3 mL"),
        ("10<sup>3-5</sup> CFU", "10^(3-5) CFU"),
        ("Give 5<sup>*</sup> mg", "Give 5* mg"),
        ("10<sup>−</sup><sup>3</sup> and x<sup>2</sup><sub>i</sub>", "10^−3 and x^2_i"),
        ("Step<sup>[a]</sup> <sup>†</sup>note", "Step[a] †note"),
        ('Give 5<sup><a href="#fn3">3</a></sup> mg', "Give 5[3] mg"),
        ('daily.<sup><a href="#r1">1</a>,<a href="#r2">2</a></sup> Stop', "daily.[1,2] Stop"),
        ('Give 5<a role="doc-noteref" href="#n">3</a> mg', "Give 5[3] mg"),
        ('10<span style="vertical-align: super; font-size: 70%">9</span>/L', "10^9/L"),
        ("<style>.up {vertical-align: super}</style>10<i class=up>9</i>/L", "10^9/L"),
        ("<math><msup><mn>10</mn><mn>9</mn></msup></math>/L", "10^9 /L"),
        ("dose <math><mfrac><mn>1</mn><mi>w</mi></mfrac></math>", "dose 1/w"),
        ("<sup>a</sup>For adults", "a For adults"),
    ],
)  # fmt: skip
def test_raised_and_lowered_text_cannot_be_misread(markup: str, text: str) -> None:
    assert read(f"<p>{markup}</p>") == text


@pytest.mark.parametrize(
    "markup",
    [
        "<del>GONE</del>",
        "<s>GONE</s>",
        "<strike>GONE</strike>",
        "<div hidden>GONE</div>",
        '<div hidden="until-found"><p>GONE</p></div>',
        '<span style="color: red; display : none">GONE</span>',
        '<span style="VISIBILITY:hidden !important">GONE</span>',
        '<span style="text-decoration: line-through">GONE</span>',
        "<style>p.x, .gone { display: none }</style><div class='a gone'>GONE</div>",
        "<style>#out{display:none}</style><div id=out>GONE</div>",
        "<template>GONE</template>",
        "<dialog>GONE</dialog>",
        "<!-- GONE -->",
        "<!--[if IE]><p>GONE</p><![endif]-->",
        "<table><tr hidden><td>GONE</td><td>1</td></tr><tr><td>2</td><td>3</td></tr></table>",
        "<ul><li style='display:none'>GONE</li></ul>",
    ],
)
def test_what_a_reader_does_not_see_is_left_out(markup: str) -> None:
    text = read(f"<p>Before.</p>{markup}<p>After.</p>")
    assert "GONE" not in text
    assert text.startswith("Before.")
    assert text.endswith("After.")


def test_a_rule_for_print_hides_nothing() -> None:
    sheet = "<style>@media print { .screen { display: none } } .other{color:red}</style>"
    assert read(sheet + "<p class=screen>Stays.</p>") == "Stays."


def test_inserted_text_and_open_dialogs_are_read() -> None:
    assert read("<p>Give <del>5</del> <ins>10</ins> mg.</p><dialog open>Yes.</dialog>") == (
        "Give 10 mg.\n\nYes."
    )


def test_rows_of_a_table_carry_their_headers() -> None:
    page = """<table><caption>Renal doses</caption>
    <thead><tr><th rowspan=2>eGFR</th><th colspan=2>Dose</th></tr>
    <tr><th>Adults</th><th>Children</th></tr></thead>
    <tbody><tr><th scope=row>&lt; 30</th><td>5 mg</td><td>avoid</td></tr>
    <tr><td rowspan=2>30-60</td><td>10 mg<br>once daily</td><td>2 mg</td></tr>
    <tr><td colspan=2>ask</td></tr></tbody></table>"""
    assert read(page) == (
        "Renal doses\n\neGFR | Dose\neGFR | Adults | Children\n"
        "eGFR: < 30 | Dose, Adults: 5 mg | Dose, Children: avoid\n"
        "eGFR: 30-60 | Dose, Adults: 10 mg; once daily | Dose, Children: 2 mg\n"
        "eGFR: 30-60 | Dose, Adults, Children: ask"
    )


def test_a_list_in_a_cell_is_one_line() -> None:
    cell = "<td><ul><li>5 mg</li><li>stop</li></ul></td>"
    assert read(f"<table><tr><th>A<th>B</tr><tr><td>- 1</td>{cell}</tr></table>") == (
        "A | B\nA: - 1 | B: 5 mg; stop"
    )


def test_a_row_across_the_table_opens_the_rows_below_it() -> None:
    page = """<table><tr><th>Drug</th><th>Dose</th></tr><tr><td colspan=2>Children</td></tr>
    <tr><td>A</td><td>5 mg</td></tr><tr><td colspan=2>Doses are by weight.</td></tr>
    <tr><td>B</td><td>6 mg</td></tr></table>"""
    assert read(page).splitlines() == [
        "Drug | Dose",
        "Children",
        "Children | Drug: A | Dose: 5 mg",
        "Doses are by weight.",
        "Drug: B | Dose: 6 mg",
    ]


def test_a_bold_first_row_is_a_header_and_a_plain_one_is_not() -> None:
    rows = "<tr><td>A</td><td>5 mg</td></tr>"
    bold = "<tr><td><b>Drug</b></td><td><strong>Dose</strong></td></tr>"
    assert read(f"<table>{bold}{rows}</table>") == "Drug | Dose\nDrug: A | Dose: 5 mg"
    assert read(f"<table>{rows}{rows}</table>") == "A | 5 mg\nA | 5 mg"


def test_a_table_that_only_arranges_the_page_is_read_cell_by_cell() -> None:
    page = "<table><tr><td><h2>Left</h2><p>One.</p></td><td><p>Two.</p></td></tr></table>"
    assert read(page) == "## Left\n\nOne.\n\nTwo."


def test_lists_keep_their_numbers_and_levels() -> None:
    page = """<ol start=3><li>Stop<ul><li>at once<li>for good</ul><li><p>Call</p><p>Wait</p></ol>
    <ol type=a><li>x</li><li>y</li></ol><dl><dt>INR</dt><dd>2-3</dd></dl>"""
    assert read(page) == (
        "3. Stop\n  - at once\n  - for good\n4. Call\n  Wait\n\na. x\nb. y\n\nINR\n2-3"
    )


def test_soft_hyphens_and_ruby_readings_are_not_text() -> None:
    assert read("<p>anti&shy;coagu&#8203;lation <ruby>発疹<rt>ほっしん</rt></ruby></p>") == (
        "anticoagulation 発疹"
    )


def test_a_page_nested_ten_thousand_deep_is_read() -> None:
    assert read("<div>" * 10_000 + "5 mg" + "</div>" * 10_000) == "5 mg"
