"""`stepgold view` over HTTP: filters, pages, languages, what is protected, what is text."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from PIL import Image

from review.texts import LANGUAGES, TEXTS
from storage import Store
from tests.commands.labelled_workspace import make_workspace
from tests.review.conftest import Serve, Visitor
from tests.review.hostile_workspace import EVIL, SCRIPT, make_hostile_workspace
from traces import (
    Abstention,
    AbstentionReason,
    Continuation,
    ExpertAnswer,
    FirstError,
    Labeler,
    LabelerKind,
    ModelReply,
    Quote,
    StepLabel,
    StoredCall,
    TraceLabel,
    Verdict,
    Vote,
)


def ids(page: str) -> list[str]:
    """The ids of the listed traces."""
    rows = re.findall(r'<tr data-href="[^"]*"><th scope="row"><a [^>]*><bdi>(.*?)</bdi>', page)
    return [html.unescape(each) for each in rows]


def link(page: str, rel: str) -> str | None:
    """Where the link to the next or previous page leads."""
    found = re.search(rf'rel="{rel}"[^>]*href="([^"]+)"', page)
    return None if found is None else html.unescape(found[1])


def test_the_first_page_has_every_labeler_with_its_figures(visitor: Visitor) -> None:
    page = visitor.get("/").text
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", page, re.DOTALL)
    assert [re.findall(r"<bdi>(.*?)</bdi>", row)[0] for row in rows] == ["gold", "prm", "judge", "blank"]  # fmt: skip
    assert re.findall(r'class="num[^"]*">([\d.–]+)', rows[2])[-3:] == ["0.833", "0.000", "0.000"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [f"t{n}" for n in range(12)]),
        ({"subset": "test"}, [f"t{n}" for n in range(6, 12)]),
        ({"labeler": "judge", "outcome": "exact"}, ["t2", "t4", "t6", "t8", "t10"]),
        ({"labeler": "judge", "outcome": "missing"}, ["t0", "t1", "t3", "t5", "t7", "t9", "t11"]),
        ({"labeler": "prm", "outcome": "missed"}, ["t0", "t2", "t4", "t6", "t8", "t10"]),
        ({"labeler": "prm", "most": "0.7", "subset": "dev"}, ["t0", "t2", "t4"]),
        ({"labeler": "prm", "least": "0,7", "subset": "dev"}, ["t1", "t3", "t5"]),
        ({"labeler": "blank", "reason": "not_measured", "subset": "dev"}, [f"t{n}" for n in range(6)]),
        ({"labeler": "prm", "reason": "not_measured"}, []),
        ({"text": "two <7>"}, ["t7"]),
        ({"text": "QUESTION 3"}, ["t6", "t7"]),
        ({"text": "100%_"}, []),
        ({"disputed": "1", "subset": "test"}, ["t6", "t8", "t10"]),
        ({"labeler": "prm", "sort": "low", "subset": "dev"}, ["t0", "t2", "t4", "t1", "t3", "t5"]),
        ({"labeler": "prm", "sort": "high", "subset": "dev"}, ["t1", "t3", "t5", "t0", "t2", "t4"]),
    ],
)  # fmt: skip
def test_a_filter_is_in_the_address(
    visitor: Visitor, query: dict[str, str], expected: list[str]
) -> None:
    answer = visitor.get(f"/traces?{urlencode({'dataset': 'd', **query})}")
    assert answer.status == 200
    assert ids(answer.text) == expected


def test_every_link_of_the_table_leads_to_its_trace(visitor: Visitor) -> None:
    page = visitor.get("/traces?dataset=d&labeler=prm&sort=low").text
    href = html.unescape(re.findall(r'data-href="([^"]+)"', page)[6])
    trace = visitor.get(href)
    assert trace.status == 200
    assert "<h1><bdi>t1</bdi></h1>" in trace.text
    # Its neighbors are those of the table it was opened from.
    assert "id=t10&" in (link(trace.text, "prev") or "")
    assert "id=t3&" in (link(trace.text, "next") or "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/traces", 404),
        ("/traces?dataset=nope", 404),
        ("/traces?dataset=d&labeler=nope", 404),
        ("/traces?dataset=d&subset=nope", 404),
        ("/traces?dataset=d&outcome=nope", 404),
        ("/traces?dataset=d&least=nan", 404),
        ("/traces?dataset=d&after=1:999999999999999999999", 404),
        ("/traces?dataset=d&after=x", 404),
        ("/trace?dataset=d&id=nope", 404),
        ("/trace?dataset=d&id=t1&work=nope", 404),
        ("/trace?dataset=d", 422),
        ("/nope", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
    ],
)
def test_what_is_not_there_is_not_found(visitor: Visitor, path: str, status: int) -> None:
    answer = visitor.get(path)
    assert answer.status == status
    assert "Traceback" not in answer.text
    assert "content-security-policy" in answer.headers


def test_the_pages_change_nothing(visitor: Visitor, workspace: Path) -> None:
    for path in ("/", "/traces?dataset=d", "/trace?dataset=d&id=t1", "/costs"):
        assert visitor.post(path, {}).status in (403, 405)


def test_a_visitor_chooses_language_and_appearance(visitor: Visitor) -> None:
    assert '<html lang="en"' in visitor.get("/").text
    token = visitor.get("/settings").token
    form = {"lang": "ko", "theme": "dark", "size": "large", "next": "/", "form_token": token}
    assert visitor.post("/settings", form).status == 303
    page = visitor.get("/").text
    assert '<html lang="ko" data-theme="dark" data-size="large">' in page
    assert "작업 공간" in page


def test_the_server_may_begin_in_korean(serve: Serve, workspace: Path) -> None:
    visitor = Visitor(serve(workspace, lang="ko").port)
    assert '<html lang="ko"' in visitor.get("/").text
    assert visitor.get("/", Host="evil.example").text.strip() == TEXTS["refused.host"][1]


def test_every_text_is_there_in_every_language() -> None:
    for key, texts in TEXTS.items():
        assert len(texts) == len(LANGUAGES), key
        places = [set(re.findall(r"\{(\w+)\}", each)) for each in texts]
        assert places[0] == places[1], key
        assert re.search("[가-힣]", texts[1]) or texts[1] == texts[0], key


def test_every_text_is_used() -> None:
    folder = Path(__file__).parents[2] / "review"
    files = [*folder.rglob("*.py"), *folder.rglob("*.j2")]
    used = "".join(each.read_text("utf-8") for each in files if each.name != "texts.py")
    prefixes = (
        *("outcome.", "reason.", "verdict.", "sort.", "settings."),
        *("review.nav.", "review.figures.drift."),
    )
    used += "".join(f'"review.{answer}"' for answer in ExpertAnswer)
    lost = [key for key in TEXTS if f'"{key}"' not in used and f"'{key}'" not in used]
    assert [key for key in lost if not key.startswith(prefixes)] == []


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    workspace = make_hostile_workspace(tmp_path)
    picture = Image.new("RGB", (8, 8), "red")
    picture.save(tmp_path / "outside.png")
    picture.save(workspace / "inside.png")
    (workspace / "link.png").symlink_to(tmp_path / "outside.png")
    return workspace


def image_at(dataset: str, problem: str, number: int) -> str:
    return f"/image?{urlencode({'dataset': dataset, 'problem': problem, 'number': number})}"


def problem_of(page: str) -> str:
    """The id of the problem whose images the page shows."""
    found = re.search(r"problem=([^&\"]+)", page)
    assert found is not None
    return found[1]


def test_an_image_comes_from_the_workspace_and_by_number(serve: Serve, hostile: Path) -> None:
    visitor, dataset = Visitor(serve(hostile).port), f"set {SCRIPT}"
    page = visitor.get(f"/trace?{urlencode({'dataset': dataset, 'id': 'outside'})}")
    problem = problem_of(page.text)
    statuses = [visitor.get(image_at(dataset, problem, n)).status for n in (-1, 0, 1, 2, 3, 4)]
    assert statuses == [404, 404, 404, 404, 200, 404]
    shown = visitor.get(image_at(dataset, problem, 3))
    assert shown.headers["content-type"] == "image/png"
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_a_protected_problem_is_shown_on_demand_only(serve: Serve, hostile: Path) -> None:
    dataset = f"set {SCRIPT}"
    table = f"/traces?{urlencode({'dataset': dataset})}"
    search = f"/traces?{urlencode({'dataset': dataset, 'text': 'Mr. Smith'})}"
    trace = f"/trace?{urlencode({'dataset': dataset, 'id': 'patient'})}"
    visitor = Visitor(serve(hostile).port)
    assert "Smith" not in visitor.get(table).text
    assert ids(visitor.get(search).text) == []
    answer = visitor.get(trace)
    assert answer.status == 403
    assert "Smith" not in answer.text
    allowed = Visitor(serve(hostile, allow_phi=True).port)
    assert "Smith" in allowed.get(trace).text
    assert ids(allowed.get(search).text) == ["patient"]


def test_hostile_texts_are_text_everywhere(serve: Serve, hostile: Path) -> None:
    visitor, dataset = Visitor(serve(hostile).port), f"set {SCRIPT}"
    trace = {"dataset": dataset, "id": f"id {EVIL}", "work": f"judge {SCRIPT}"}
    pages = ["/", "/costs", f"/traces?{urlencode({'dataset': dataset, 'text': EVIL})}"]
    for path in [*pages, f"/trace?{urlencode(trace)}"]:
        page = visitor.get(path)
        assert page.status == 200
        assert page.text.count("<script") == 1
        assert "<img src=x" not in page.text
        assert "\u202e" not in re.sub(r'(value|data-href|href)="[^"]*"', "", page.text)
    assert "\\frac{1}{2}" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "U+202E" in page.text


def test_a_megabyte_is_shown_whole_on_demand(serve: Serve, hostile: Path) -> None:
    visitor, dataset = Visitor(serve(hostile).port), f"set {SCRIPT}"
    path = f"/trace?{urlencode({'dataset': dataset, 'id': 'long'})}"
    page = visitor.get(path)
    assert len(page.body) < 400_000
    assert "the end of a megabyte" not in page.text
    whole = visitor.get(f"{path}&whole=1")
    assert whole.text.count("the end of a megabyte") == 5


def recorded(workspace: Path) -> None:
    """Store a judge with a quote and a call, and an MC labeler with continuations, on trace t4."""
    quote = Quote("passage 2", document=1, verified=True, start=0, end=9, method="exact")
    found = "passage 2 says <b>so</b>"
    steps = (
        StepLabel(Verdict.CORRECT, reasoning=found, quote=quote),
        StepLabel(Verdict.INCORRECT),
        StepLabel(abstention=Abstention(AbstentionReason.NO_EVIDENCE, "no <i>document</i>")),
    )
    request = json.dumps({"messages": [["user", f"Judge {SCRIPT}"]], "temperature": 0})
    reply = ModelReply("{}", "stop", "m", "m-1", usd=0.00125, raw='{"steps": "<raw>"}')
    words = (Verdict.CORRECT, Verdict.INCORRECT, AbstentionReason.NO_EVIDENCE)
    vote = Vote("t4", 0, "m", "m-1", words, FirstError(False, 1), ("key",))
    partial = (StepLabel(Verdict.CORRECT, score=0.5, successes=1, continuations=2),) * 3
    endings = [
        Continuation("t4", 0, number, f"continued {number} <u>", "stop", str(4 + number), bool(number))
        for number in (0, 1)
    ]  # fmt: skip
    with Store.open(f"sqlite:///{workspace / 'stepgold.db'}") as store:
        store.replies.put(StoredCall("key", request, reply, {"purpose": "judge"}))
        store.labels.declare("d", Labeler("quoting", LabelerKind.JUDGE))
        store.labels.put("d", "quoting", [TraceLabel("t4", step_labels=steps)])
        store.labels.votes.put("d", "quoting", [vote])
        store.labels.declare("d", Labeler("mc", LabelerKind.MC))
        label = TraceLabel("t4", step_labels=partial)
        store.labels.put("d", "mc", [label], continuations=endings)


def test_the_work_of_a_labeler_is_shown(serve: Serve, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    recorded(workspace)
    visitor = Visitor(serve(workspace).port)
    page = visitor.get("/trace?dataset=d&id=t4&work=quoting").text
    assert "<mark><bdi>passage 2</bdi></mark>" in page
    assert "passage 2 says &lt;b&gt;so&lt;/b&gt;" in page
    assert "no &lt;i&gt;document&lt;/i&gt;" in page
    assert "Judge &lt;script&gt;" in page
    assert "{&#34;steps&#34;: &#34;&lt;raw&gt;&#34;}" in page
    assert "0.00125 USD" in page
    assert TEXTS["trace.nothing"][0] not in page
    page = visitor.get("/trace?dataset=d&id=t4&work=mc").text
    assert "After step 1: 1 of 2 continuations reach the gold answer" in page
    assert "continued 1 &lt;u&gt;" in page
    assert "1 of 2 reach gold" in page
    assert "Judge &lt;script&gt;" not in page
    assert TEXTS["trace.nothing"][0] in visitor.get("/trace?dataset=d&id=t4&work=gold").text
    costs = visitor.get("/costs").text
    assert "0.0013 USD" in costs or "0.0012 USD" in costs
    assert "no evidence</a> 1" in costs
