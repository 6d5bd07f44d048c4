"""HTML to text: nothing invisible, nothing lost."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from retrieval.documents.html import html_to_text

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
        "- INR 2-3\n\n- Stop if bleeding\n\nAge | Dose\n< 50 | 10 mg\n\n  a   b\n    c\n\n"
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
