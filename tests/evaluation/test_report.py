"""The page: figures, intervals, words of every labeler, nothing from outside and nothing unescaped."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluation.best_of_n import Pool, PoolCandidate, evaluate_best_of_n
from evaluation.comparison import Comparison, compare_labelers
from evaluation.diagnostics import diagnose
from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces
from evaluation.label_table import ComparedTrace, first_error_confusion
from evaluation.measures import Estimate
from evaluation.paired import compare_by_measure
from evaluation.protocols.macro_f1 import evaluate_macro_f1
from evaluation.protocols.processbench import evaluate_processbench
from evaluation.report.input import (
    CandidateSection,
    ExampleTrace,
    Grounding,
    LabelerSection,
    LeaderTest,
    ModelCalls,
    ModelSpending,
    ReportInput,
    sentences,
)
from evaluation.report.layout import (
    MAX_CHARACTERS,
    MAX_STEPS,
    clipped,
    example_cells,
)
from evaluation.report.render import (
    bar_geometry,
    render_csv,
    render_markdown,
    render_report,
    report_json,
)
from evaluation.thresholds import FittedThreshold, threshold_sweep
from evaluation.wording import figure
from tests.evaluation.builders import errors, first, scores, trace, verdicts
from traces.evidence import Evidence, Passage, Quote
from traces.labels import (
    Abstention,
    AbstentionReason,
    Labeler,
    LabelerKind,
    StepLabel,
    TraceLabel,
    Verdict,
    abstained,
)
from traces.problem import Problem, Trace, TraceInContext

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "rect", "br", "line", "path", "circle", "polygon"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def section(name: str, kind: LabelerKind = LabelerKind.PRM) -> LabelerSection:
    gold = [first(at % 4 - 1) for at in range(12)]
    traces = [
        trace(
            truth,
            scores([0.9, 0.2 if at % 4 == 2 else 0.7, 0.6, 0.4 if at % 4 == 3 else 0.8]),
            id=f"t{at}",
            subset=f"a{EVIL}" if at < 6 else "b",
        )
        for at, truth in enumerate(gold)
    ]
    source = f"fit:d/s{EVIL}"
    return LabelerSection(
        Labeler(name, kind, {"prompt": f"p {EVIL}", "votes": 3}, f"gemini:{EVIL}", f"v1 {EVIL}"),
        12,
        48,
        {"blocked": 1},
        threshold=0.5,
        threshold_source=source,
        threshold_fit=FittedThreshold(0.5, "d", f"s{EVIL}", "processbench_f1", 0.75, 9, ("b",)),
        first_errors=evaluate_processbench(traces, resamples=50, threshold_source=source),
        step_measures=evaluate_macro_f1(traces, resamples=50),
        diagnostics=diagnose(traces, resamples=50),
        confusion=first_error_confusion(
            name,
            "gold",
            EvaluatedTraces.of(traces).found_errors(0.5),
            EvaluatedTraces.of(traces).gold_errors(0.5),
        ),
        sweep=threshold_sweep(traces, "processbench_f1"),
        grounding=Grounding(3, 1, 2, {"exact": 2, f"near{EVIL}": 1}),
        note=f"likelihood, no quotes {EVIL}",
    )


def comparison(names: tuple[str, ...]) -> Comparison:
    rows = [
        ComparedTrace(f"t{at}", f"p{at}", "a", 3, {name: verdicts([1, -1 if (at + n) % 3 else 1, 1]) for n, name in enumerate(names)})
        for at in range(6)
    ]  # fmt: skip
    return compare_labelers(rows, names, dict.fromkeys(names, 0.5), resamples=50)


def candidates() -> CandidateSection:
    pools = [
        Pool(f"p{at}", tuple(PoolCandidate(str(n), n == at, (0.5 + 0.1 * n,)) for n in range(3)))
        for at in range(4)
    ]
    report = evaluate_best_of_n(pools, [1, 2, 3], over_subsets=True, resamples=50)
    return CandidateSection(f"prm{EVIL}", f"sampled{EVIL}", report, 2)


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


NAMES = ("gold", "judge", f"prm{EVIL}")


def full() -> ReportInput:
    return ReportInput(
        f"lab {EVIL}", 12, 345, 6789, {f"a{EVIL}": 4, "b": 2},
        (LabelerSection(Labeler("gold", LabelerKind.GOLD), 6, 40, is_gold=True), section("judge", LabelerKind.JUDGE), section(f"prm{EVIL}")),
        (example(),),
        (7, 11),
        comparison(NAMES),
        None,
        (candidates(),),
        ModelSpending(1234, 55, 0.5, 3, (ModelCalls(f"gemini:{EVIL}", f"judge{EVIL}", f"v{EVIL}", 1234, 55, 99, 77, 0.5, 3),)),
        made_at="2026-11-21 23:00", version="0.1.0", notes=(f"The judge is local {EVIL}.",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(full())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_is_one_well_formed_document(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("html") == page.tags.count("body") == page.tags.count("main") == 1
    assert len(page.ids) == len(set(page.ids))
    targets = {value[1:] for name, value in page.attributes if name == "href" and value}
    named = {value for name, value in page.attributes if name in ("aria-labelledby",) and value}
    assert targets <= set(page.ids)
    assert {one for names in named for one in names.split()} <= set(page.ids)


def test_nothing_comes_from_outside(html: str, page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)  # fmt: skip
    assert not {"src", "srcset", "action"} & {name for name, _ in page.attributes}
    assert all((value or "").startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"https?:|url\(|@import|//", html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_every_text_of_the_data_is_escaped(html: str, page: Page) -> None:
    assert "<script" not in html
    # Once for each place the data was planted in, title included.
    assert html.count("&lt;script&gt;") >= 40
    for planted in (
        "Dose is 6 mg",
        "as cited",
        "6 mg/kg",
        "Zentide",
        "safety",
        "Which dose?",
        "why",
        "The judge is local",
        "likelihood, no quotes",
    ):
        assert f"{planted} {EVIL}" in page.text


def test_no_handler_can_come_in_by_an_attribute(page: Page) -> None:
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all("<" not in (value or "") or EVIL in (value or "") for _, value in page.attributes)


def test_markdown_and_csv_carry_no_markup_and_no_formula() -> None:
    hostile = replace(full(), dataset="=cmd()|x")
    told = render_markdown(hostile)
    assert "<script" not in told
    assert "=cmd()\\|x" in told
    assert all(line.count("|") >= 3 for line in told.splitlines() if line.startswith("|"))
    rows = list(csv.reader(io.StringIO(render_csv(hostile))))
    assert len({len(row) for row in rows}) == 1
    assert {row[0] for row in rows[1:]} == {"'=cmd()|x"}
    found = section("judge").first_errors
    assert found is not None
    (value,) = [row[7] for row in rows if row[2:7] == ["judge", "", "b", "processbench", "error_accuracy"]]  # fmt: skip
    assert float(value) == found.subsets["b"].error_accuracy.value


def test_the_json_form_has_the_documents_of_evaluate() -> None:
    document = json.loads(json.dumps(report_json(full()), allow_nan=False))
    judge = document["labelers"][1]
    found = section("judge").first_errors
    assert found is not None
    names = {"dataset": f"lab {EVIL}", "labeler": "judge", "gold": "gold"}
    assert judge["processbench"] == json.loads(json.dumps(found.as_json(**names)))
    assert judge["threshold_fit"]["in_sample"]
    assert document["warnings"]
    assert document["comparison"]["pairs"][0]["a"] == "gold"


def test_the_figures_of_every_labeler_are_there(page: Page) -> None:
    found = section("judge").first_errors
    assert found is not None
    values = {value for name, value in page.attributes if name == "value"}
    for report in (found.average, *found.subsets.values()):
        for estimate in (
            report.error_accuracy,
            report.correct_accuracy,
            report.processbench_f1,
            report.kept.share,
            report.kept.first_error_precision,
        ):
            assert figure(estimate.value) in page.text
            assert str(estimate.value) in values
            assert estimate.ci95 is not None
            assert {str(end) for end in estimate.ci95} <= values


def test_what_was_run_is_there(page: Page) -> None:
    for words in (
        "12",
        "345",
        "6,789",
        "1,234",
        "55",
        "$0.5000",
        "3 calls of unknown price",
        "blocked: 1",
        '"votes": 3',
        "0.812",
        "Labelers and their models",
        "fitted on d/s",
    ):
        assert words in page.text or words in {value for _, value in page.attributes}


def test_an_unverified_quote_says_so(page: Page) -> None:
    assert "not found in the passage" in page.text
    assert "found in the passage (exact)" in page.text
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
    assert [bool(cell.detail) for cell in odd] == [True, False, False]


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


def test_long_texts_and_traces_end_with_what_is_left_out() -> None:
    assert clipped("x" * (MAX_CHARACTERS + 7)).endswith("… [7 more characters]")
    problem = Problem("q", "Q" * 10_000)
    long = Trace("t1", "q", tuple(f"step {at}" for at in range(MAX_STEPS + 5)))
    shown = ExampleTrace(TraceInContext(problem, long), {"gold": first(2)})
    html = render_report(replace(full(), examples=(shown,)))
    assert "5 further steps are not shown" in html
    assert "[7,000 more characters]" in html
    assert f"step {MAX_STEPS}<" not in html


def test_undefined_figures_are_a_dash() -> None:
    assert bar_geometry(Estimate(None, None)) is None
    empty = replace(
        section("j"), first_errors=evaluate_processbench([]), step_measures=evaluate_macro_f1([]), diagnostics=diagnose([]), sweep=None, confusion=first_error_confusion("j", "gold", errors(), errors())
    )  # fmt: skip
    page = Page(
        render_report(
            replace(full(), labelers=(empty,), examples=(), spending=ModelSpending(1, 0, None))
        )
    )
    assert [value for name, value in page.attributes if name == "value"].count("") >= 6
    assert "unknown" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_the_bar_stands_where_the_figure_is() -> None:
    assert bar_geometry(Estimate(0.5, (0.25, 0.75))) == {"low": 25.0, "width": 50.0, "mark": 49.1}
    assert bar_geometry(Estimate(1.0, None)) == {"low": 100.0, "width": 0.0, "mark": 98.2}
    assert bar_geometry(Estimate(-0.2, (-0.5, 0.1))) == {"low": 0.0, "width": 10.0, "mark": 0}


def test_a_page_without_labelers_or_gold_says_so() -> None:
    page = Page(render_report(ReportInput("d", 0, 0, 0, {}, (), gold=None)))
    assert "No labeler can be compared with gold" in page.text
    assert "without gold" in page.text
    assert "svg" not in page.tags
    lone = LabelerSection(Labeler("judge", LabelerKind.JUDGE), 3, 9)
    assert "judge" in Page(render_report(ReportInput("d", 0, 3, 9, {}, (lone,), gold=None))).text


def test_equal_input_gives_equal_pages(html: str) -> None:
    assert render_report(full()) == html


def test_verdicts_of_another_length_are_a_defect() -> None:
    with pytest.raises(ValueError, match="step labels"):
        render_report(replace(full(), examples=(replace(example(), labels={"j": verdicts([1])}),)))


def test_the_lead_is_told_with_its_test_and_a_tie_as_a_tie() -> None:
    traces = [trace(first(at % 3 - 1), first(at % 3 - 1), id=f"t{at}") for at in range(12)]
    poorer = [trace(first(at % 3 - 1), first(-1), id=f"t{at}") for at in range(12)]

    def told(second: list[EvaluatedTrace]) -> str:
        sections = tuple(
            LabelerSection(
                Labeler(name, LabelerKind.JUDGE),
                12,
                12,
                first_errors=evaluate_processbench(seen, resamples=50),
                step_measures=evaluate_macro_f1(seen, resamples=50),
            )
            for name, seen in (("one", traces), ("two", second))
        )
        test = compare_by_measure(traces, second, "processbench_f1", averaged=True, resamples=200)
        report = ReportInput("d", 12, 12, 120, {}, sections, leaders=LeaderTest("one", "two", test))
        return " ".join(sentences(report))

    assert "one finds first errors best: processbench_f1 1.000" in told(poorer)
    assert "Its lead over two is 1.000 [1.000, 1.000], p = 0.01" in told(poorer)
    assert "significant at 5%" in told(poorer)
    assert "one, two share the highest processbench_f1, 1.000." in told(traces)
    assert "Its lead" not in told(traces)
