"""PDF to text: digits, columns, tables and page edges as a reader sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, NumberObject

from retrieval.documents import DocumentProblem, read_documents
from retrieval.documents.pdf import PdfText, pdf_to_text

Placed = tuple[float, float, float, str]
"""x and y in points from the lower left, font size, and a text in Helvetica."""

PROSE = [
    "Warfarin is started at five milligrams",
    "once daily in adults with atrial",
    "fibrillation unless the patient is frail",
    "or has liver disease in which case a",
    "lower dose of two milligrams is given",
    "and the INR is measured on day three",
]
OTHER = [
    "Apixaban needs no routine monitoring",
    "but renal function is checked once a",
    "year and twice a year in older people",
    "whose creatinine clearance is low and",
    "who take drugs that raise its level",
    "in the blood such as some antifungals",
]


def write_pdf(path: Path, pages: Sequence[str], *, rotate: int = 0) -> None:
    """Write a PDF whose pages have these content streams, with Helvetica as /F1."""
    writer = PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    names = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    for stream in pages:
        page = writer.add_blank_page(600, 800)
        content = DecodedStreamObject()
        content.set_data(stream.encode("latin-1"))
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(names)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        page[NameObject("/Contents")] = writer._add_object(content)
        if rotate:
            page[NameObject("/Rotate")] = NumberObject(rotate)
    writer.write(path)


def shown(placed: Sequence[Placed]) -> str:
    """A content stream that shows each text at its place."""
    return "\n".join(f"BT /F1 {size} Tf {x} {y} Td ({text}) Tj ET" for x, y, size, text in placed)


def read(path: Path, *pages: Sequence[Placed] | str, rotate: int = 0) -> PdfText:
    streams = [page if isinstance(page, str) else shown(page) for page in pages]
    write_pdf(path, streams, rotate=rotate)
    return pdf_to_text(path)


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    return tmp_path / "a.pdf"


def test_raised_and_lowered_digits_by_rise(pdf: Path) -> None:
    stream = (
        "BT /F1 12 Tf 50 700 Td (below 10 x 10) Tj 7 Tf 5 Ts (9) Tj 12 Tf 0 Ts (/L, 30 mg/m) Tj"
        " 7 Tf 5 Ts (2) Tj 12 Tf 0 Ts ( and CO) Tj 8 Tf -2 Ts (2) Tj 12 Tf 0 Ts ( low) Tj ET"
    )
    assert read(pdf, stream).text == "below 10 x 10^9/L, 30 mg/m^2 and CO2 low"


def test_raised_digits_by_place_whatever_their_order_in_the_file(pdf: Path) -> None:
    # Helvetica: "10 x 10" is 40.0 points wide at size 12.
    placed = [(50, 700, 12, "10 x 10"), (94.5, 700, 12, "/L"), (90.2, 704.5, 7, "9")]
    assert read(pdf, placed).text == "10 x 10^9/L"
    assert read(pdf, placed[::-1]).text == "10 x 10^9/L"


def test_raised_digits_of_the_same_size(pdf: Path) -> None:
    stream = "BT /F1 12 Tf 50 700 Td (Count of 10) Tj 4 Ts (9) Tj 0 Ts (/L) Tj ET"
    assert read(pdf, stream).text == "Count of 10^9/L"


def test_a_matrix_may_give_the_size(pdf: Path) -> None:
    stream = (
        "BT /F1 1 Tf 12 0 0 12 50 700 Tm (Give 5) Tj 7 0 0 7 83.4 705 Tm (3) Tj"
        " 12 0 0 12 90 700 Tm (mg daily) Tj ET"
    )
    assert read(pdf, stream).text == "Give 5[3] mg daily"


def test_fractions_and_ordinals(pdf: Path) -> None:
    stream = (
        "BT /F1 12 Tf 50 700 Td (1) Tj 7 Tf 5 Ts (1) Tj 12 Tf 0 Ts (/) Tj 7 Tf -1.5 Ts (2) Tj"
        " 12 Tf 0 Ts ( tablets as 1) Tj 7 Tf 5 Ts (st) Tj 12 Tf 0 Ts ( dose) Tj ET"
    )
    assert read(pdf, stream).text == "1 1/2 tablets as 1st dose"


def test_small_capitals_and_smaller_lines_are_not_raised(pdf: Path) -> None:
    stream = "BT /F1 12 Tf 50 700 Td (N) Tj 9 Tf (OTE) Tj 12 Tf ( 5 mg) Tj ET"
    placed = [(50, 680, 12, "Give 10"), (50, 668, 8, "9 tablets in a box")]
    assert read(pdf, stream + "\n" + shown(placed)).text == "NOTE 5 mg\nGive 10\n9 tablets in a box"


def test_two_columns_are_read_one_after_the_other(pdf: Path) -> None:
    rows: list[Placed] = [(50, 740, 16, "Anticoagulants in adults: a guide for general practice")]
    for number, (left, right) in enumerate(zip(PROSE, OTHER, strict=True)):
        rows.append((50, 700 - 14 * number, 11, left))
        rows.append((320, 700 - 14 * number, 11, right))
    text = read(pdf, rows).text
    assert " ".join(text.split()) == " ".join(
        ["Anticoagulants in adults: a guide for general practice", *PROSE, *OTHER]
    )


def test_columns_whose_lines_are_at_other_heights(pdf: Path) -> None:
    rows: list[Placed] = []
    for number, (left, right) in enumerate(zip(PROSE, OTHER, strict=True)):
        rows.append((50, 700 - 14 * number, 11, left))
        rows.append((320, 694 - 14 * number, 11, right))
    assert " ".join(read(pdf, rows).text.split()) == " ".join([*PROSE, *OTHER])


def test_rows_of_a_table_stay_rows(pdf: Path) -> None:
    cells = [("eGFR", "Dose"), ("below 30", "5 mg"), ("30 to 60", "10 mg"), ("above 60", "20 mg")]
    placed = [
        (x, 700 - 16 * row, 11, text)
        for row, (one, two) in enumerate(cells)
        for x, text in ((50, one), (250, two))
    ]
    assert read(pdf, placed).text.split("\n") == [" | ".join(row) for row in cells]
    by_column = sorted(placed, key=lambda each: each[0])
    assert read(pdf, by_column).text.split("\n") == [" | ".join(row) for row in cells]


def test_labels_of_a_list_are_no_cells(pdf: Path) -> None:
    placed = [
        (x, 700 - 16 * row, 11, text)
        for row, pair in enumerate([("1.", "Stop it."), ("2.", "Call us."), ("3.", "Wait.")])
        for x, text in zip((50, 90), pair, strict=True)
    ]
    assert read(pdf, placed).text == "1. Stop it.\n2. Call us.\n3. Wait."


def test_running_heads_feet_and_page_numbers_are_left_out(pdf: Path) -> None:
    bodies = ["The dose is", "five mg daily. Stop", "at once if bleeding occurs.", "Ask first."]
    pages = [
        [
            (50.0, 770.0, 9.0, "Guideline 12"),
            (50.0, 600.0, 11.0, body),
            (50.0, 400.0, 11.0, "10 mg is the most"),
            (50.0, 40.0, 9.0, f"Page {number} of 4"),
            (500.0, 40.0, 9.0, "All rights reserved"),
        ]
        for number, body in enumerate(bodies, start=1)
    ]
    text = read(pdf, *pages).text
    assert "Guideline 12" not in text
    assert "Page" not in text
    assert "rights" not in text
    assert text.count("10 mg is the most") == 4, "what repeats within the page is text"


def test_lone_page_numbers_are_left_out_and_lone_doses_are_not(pdf: Path) -> None:
    pages = [
        [(50.0, 500.0, 11.0, "Text."), (50.0, 60.0, 11.0, "500"), (300.0, 30.0, 9.0, str(number))]
        for number in (17, 18, 19, 20)
    ]
    pages[2].pop(1)
    assert read(pdf, *pages).text.split() == [
        "Text.",
        "500",
        "Text.",
        "500",
        "Text.",
        "Text.",
        "500",
    ]


def test_a_sentence_goes_on_across_pages(pdf: Path) -> None:
    pages = [[(50.0, 500.0, 11.0, "Stop the drug")], [(50.0, 700.0, 11.0, "at once.")]]
    assert read(pdf, *pages).text == "Stop the drug at once."


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["Start anticoagu-", "lation now."], "Start anticoagulation now."),
        (["Give a beta-", "blocker now."], "Give a beta-blocker now."),
        (["A low-dose drug or a low-", "dose patch."], "A low-dose drug or a low-dose patch."),
        (
            ["Drug-related harm is a drug-", "related event."],
            "Drug-related harm is a drug-related event.",
        ),
        (["Vaccinate against COVID-", "19 yearly."], "Vaccinate against COVID-19 yearly."),
        (["Give vitamin B-", "rich food."], "Give vitamin B-rich food."),
    ],
)
def test_hyphens_at_line_ends(pdf: Path, lines: list[str], text: str) -> None:
    placed = [(50.0, 700.0 - 14 * row, 11.0, line) for row, line in enumerate(lines)]
    assert read(pdf, placed).text == text


def test_a_turned_page_and_text_along_its_margin(pdf: Path) -> None:
    turned = "\n".join(
        f"BT /F1 11 Tf 0 1 -1 0 {100 + 14 * row} 100 Tm ({line}) Tj ET"
        for row, line in enumerate(["Take 10 mg", "each morning."])
    )
    assert read(pdf, turned, rotate=90).text == "Take 10 mg each morning."
    margin = "BT /F1 9 Tf 0 1 -1 0 580 100 Tm (Draft) Tj ET"
    body = shown([(50, 700, 11, "Take 10 mg"), (50, 686, 11, "Each morning.")])
    assert read(pdf, body + "\n" + margin).text == "Take 10 mg\nEach morning.\n\nDraft"


def test_the_text_layer_of_a_scan_is_named(pdf: Path) -> None:
    stream = "BT 3 Tr /F1 12 Tf 50 700 Td (below 10 x 109/L) Tj ET"
    assert read(pdf, stream, shown([(50, 700, 12, "Typed.")])).scanned_pages == (1,)
    problems = [each for each in read_documents([pdf]) if isinstance(each, DocumentProblem)]
    assert [problem.partial for problem in problems] == [True]
    assert "pages 1: raised digits may be lost" in problems[0].reason
