"""The page: figures, intervals, words of every labeler, nothing from outside and nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluation.bootstrap import Estimate
from evaluation.macro_f1 import evaluate_macro_f1
from evaluation.processbench import evaluate_processbench
from evaluation.report import bar_geometry, example_cells, render_report
from evaluation.report_input import ExampleTrace, LabelerSection, ReportInput, Spending
from evaluation.wording import figure
from tests.evaluation.builders import first, first_errors, verdicts
from traces.abstention import Abstention, AbstentionReason
from traces.context import TraceInContext
from traces.evidence import Evidence, Passage, Quote
from traces.labels import Labeler, LabelerKind, StepLabel, TraceLabel, Verdict, abstained
from traces.problem import Problem, Trace

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "rect", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def section(name: str, kind: LabelerKind = LabelerKind.JUDGE) -> LabelerSection:
    traces = first_errors([0, -1, 2, -1], [0, -1, 1, None], subset="a") + first_errors(
        [1, -1], [1, -1], subset="b"
    )
    return LabelerSection(
        Labeler(name, kind, {"prompt": f"p {EVIL}", "votes": 3}, "gemini:flash", "flash-001"),
        6,
        40,
        {"blocked": 1},
        evaluate_processbench(traces),
        evaluate_macro_f1(traces),
        note="likelihood, no quotes",
    )


def example() -> ExampleTrace:
    problem = Problem("q", f"Which dose? {EVIL}", (f"6 mg {EVIL}", "7 mg"), "A")
    trace = Trace(
        "t1", "q", (f"Dose is 6 mg {EVIL}", "6 x 12 = 70", "So 70"), final_answer=f"B{EVIL}"
    )
    judged = TraceLabel(
        "t1",
        (
            StepLabel(
                Verdict.CORRECT,
                reasoning=f"as cited {EVIL}",
                quote=Quote(f"6 mg/kg {EVIL}", 1, True, 0, 7, "exact"),
            ),
            StepLabel(
                Verdict.INCORRECT, reasoning="12 x 6 = 72", quote=Quote("invented", 1, False)
            ),
            StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, f"behind {EVIL}")),
        ),
    )
    mc = TraceLabel(
        "t1",
        (
            StepLabel(Verdict.CORRECT, 0.75, None, 3, 4, 0, 0),
            StepLabel(Verdict.INCORRECT, 0.0, None, 0, 4, 0, 0),
            StepLabel(Verdict.NEUTRAL),
        ),
    )
    evidence = (
        Evidence(
            Passage("guides", f"z.md{EVIL}", 0, 0, 5, f"Zentide {EVIL}", f"T{EVIL}"), 0.8125, 0
        ),
    )
    labels = {
        "gold": first(1),
        "judge": judged,
        "mc": mc,
        f"odd{EVIL}": abstained("t1", AbstentionReason.BLOCKED, f"safety {EVIL}"),
    }
    return ExampleTrace(TraceInContext(problem, trace, evidence), labels, f"why {EVIL}")


def full() -> ReportInput:
    return ReportInput(
        f"lab {EVIL}", 12, 345, 6789, {"a": 4, "b": 2},
        (LabelerSection(Labeler("gold", LabelerKind.GOLD), 6, 40), section("judge"), section("prm", LabelerKind.PRM)),
        (example(),),
        Spending(1234, 55, 0.5, "2026-11-01"),
        made_at="2026-11-21 23:00", version="0.1.0", notes=(f"The judge is local {EVIL}.",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(full()))


def test_the_page_is_one_well_formed_document(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("html") == page.tags.count("body") == page.tags.count("main") == 1


def test_nothing_comes_from_outside(page: Page) -> None:
    html = render_report(full())
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    assert not re.search(r"https?:|url\(|@import|//", html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_every_text_of_the_data_is_escaped(page: Page) -> None:
    html = render_report(full())
    assert "<script" not in html
    # Once for each place the data was planted in, title included.
    assert html.count("&lt;script&gt;") >= 17
    for planted in (
        "Dose is 6 mg",
        "as cited",
        "6 mg/kg",
        "Zentide",
        "safety",
        "Which dose?",
        "why",
        "The judge is local",
    ):
        assert f"{planted} {EVIL}" in page.text


def test_no_handler_can_come_in_by_an_attribute(page: Page) -> None:
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_figures_of_every_labeler_are_there(page: Page) -> None:
    found = section("judge").first_errors
    assert found is not None
    for report in (found.average, *found.subsets.values()):
        for estimate in (
            report.error_accuracy,
            report.correct_accuracy,
            report.processbench_f1,
            report.kept.share,
            report.kept.first_error_precision,
        ):
            assert figure(estimate.value) in page.text
            assert estimate.ci95 is not None
            assert f"{figure(estimate.ci95[0])} – {figure(estimate.ci95[1])}" in page.text
    # Two labelers, six measures, one overall table and two subsets.
    assert page.tags.count("svg") == 2 * 6 * 3


def test_what_was_run_is_there(page: Page) -> None:
    for words in (
        "12",
        "345",
        "6789",
        "1234",
        "55",
        "$0.5000",
        "2026-11-01",
        "gemini:flash",
        "flash-001",
        "blocked: 1",
        '"votes": 3',
        "likelihood, no quotes",
        "0.812",
    ):
        assert words in page.text


def test_an_unverified_quote_says_so(page: Page) -> None:
    assert "not found in the passage" in page.text
    assert "stands in the passage (exact)" in page.text
    assert ("class", "unverified") in page.attributes


def test_cells_say_what_each_labeler_said() -> None:
    shown = example()
    gold, judge, mc, odd = (example_cells(shown, name, 0.5) for name in shown.labels)
    assert [cell.kind for cell in gold] == ["correct", "incorrect", "silent"]
    assert [cell.is_first_error for cell in judge] == [False, True, False]
    assert judge[2].text == "not_measured"
    assert [(cell.kind, cell.detail) for cell in mc] == [
        ("correct", "3/4, 0.75"),
        ("incorrect", "0/4, 0.00"),
        ("neutral", ""),
    ]
    assert {cell.text for cell in odd} == {"blocked"}


def test_a_score_is_shown_by_the_threshold() -> None:
    shown = replace(
        example(),
        labels={
            "prm": TraceLabel(
                "t1", (StepLabel(score=0.4), StepLabel(score=0.6), StepLabel(score=0.5))
            )
        },
    )
    assert [cell.kind for cell in example_cells(shown, "prm", 0.5)] == [
        "incorrect",
        "correct",
        "correct",
    ]
    assert [cell.is_first_error for cell in example_cells(shown, "prm", 0.3)] == [
        False,
        False,
        False,
    ]


def test_undefined_figures_are_a_dash() -> None:
    assert bar_geometry(Estimate(None, None)) is None
    empty = replace(section("j"), first_errors=evaluate_processbench([]), step_measures=None)
    html = render_report(
        replace(full(), labelers=(empty,), examples=(), spending=Spending(1, 0, None))
    )
    assert html.count('class="num undefined"') == 6
    assert "not known" in html
    assert "None" not in Page(html).text


def test_the_bar_stands_where_the_figure_is() -> None:
    assert bar_geometry(Estimate(0.5, (0.25, 0.75))) == {"low": 25.0, "width": 50.0, "mark": 49.1}
    assert bar_geometry(Estimate(1.0, None)) == {"low": 100.0, "width": 0.0, "mark": 98.2}


def test_a_page_without_labelers_says_so() -> None:
    page = Page(render_report(ReportInput("d", 0, 0, 0, {}, ())))
    assert "nothing to compare" in page.text
    assert "svg" not in page.tags


def test_equal_input_gives_equal_pages() -> None:
    assert render_report(full()) == render_report(full())


def test_verdicts_of_another_length_are_a_defect() -> None:
    with pytest.raises(ValueError, match="step labels"):
        render_report(replace(full(), examples=(replace(example(), labels={"j": verdicts([1])}),)))
