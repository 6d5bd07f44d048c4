"""The pages of the review over HTTP, and the files of its answers."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="pip install 'stepgold[review]'")

import stepgold
from review.review_server import ReviewOptions, reviewing
from stepgold.workspace import WorkspaceFolder
from storage import Store
from tests.review.conftest import Answer, Visitor
from tests.review.reviewed_workspace import QUOTE, make_reviewed, reviewed_row
from traces import ExpertAnswer, InputError, ReviewAnswer, SourceFile

Visit = Callable[..., Visitor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_reviewed(tmp_path / "ws", traces=4, steps=3)


@pytest.fixture
def visit(folder: Path) -> Iterator[Visit]:
    """Starts a server over the workspace; returns a browser of an expert who entered a code."""
    with ExitStack() as stack:
        ports: list[int] = []

        def start(code: str = "E1", **options: Any) -> Visitor:
            if not ports:
                plain: dict[str, Any] = {
                    "audit": 0.0,
                    "double": 0.0,
                    "repeat": 0.0,
                    "mode": "every-step",
                }
                chosen = ReviewOptions(dataset="ward", port=0, **plain | options)
                running, _ = stack.enter_context(reviewing(WorkspaceFolder(folder), chosen))
                stack.enter_context(running)
                ports.append(running.port)
            visitor = Visitor(ports[0])
            page = visitor.get("/review")
            assert 'name="code"' in page.text
            entered = visitor.post("/review/expert", {"code": code, "form_token": page.token})
            assert entered.status == 303
            return visitor

        yield start


def fields(page: Answer) -> dict[str, str]:
    """The hidden fields of the form for the answer."""
    form = page.text[page.text.index('<form class="answers"') :]
    form = form[: form.index("</form>")]
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))


def say(visitor: Visitor, answer: str, path: str = "/review", **more: str) -> dict[str, str]:
    """Answer the question on a page; the form that was sent."""
    form = fields(visitor.get(path)) | {"answer": answer, "note": ""} | more
    sent = visitor.post("/review/answer", form)
    assert sent.status == 303, sent.text
    return form


def undo(visitor: Visitor) -> dict[str, str]:
    """Take the last answer back; the form that was sent."""
    page = visitor.get("/review").text
    form = page[page.index('action="/review/undo"') :]
    sent = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[:600]))
    assert visitor.post("/review/undo", sent).status == 303
    return sent


def log(folder: Path) -> list[ReviewAnswer]:
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        return store.reviews.log("ward")


def test_a_question_shows_the_quote_and_hides_the_verdict(visit: Visit) -> None:
    page = visit().get("/review")
    assert page.status == 200
    assert f"<mark><bdi>{QUOTE}</bdi></mark>" in page.text
    assert 'aria-current="step"' in page.text
    assert "As the guideline says." not in page.text
    assert "This is below the daily maximum" in page.text


@pytest.mark.parametrize(("when", "first", "second"), [("before", True, True), ("after", False, True), ("never", False, False)])  # fmt: skip
def test_opinions_are_shown_when_the_options_say_so(
    visit: Visit, folder: Path, when: str, first: bool, second: bool
) -> None:
    expert = visit(show_opinions=when)
    assert ("As the guideline says." in expert.get("/review").text) is first
    say(expert, "correct")
    assert ("As the guideline says." in expert.get("/review").text) is second
    assert log(folder)[0].opinions == when


def test_answers_are_stored_with_note_and_time(visit: Visit, folder: Path) -> None:
    expert = visit()
    say(expert, "incorrect", note="  Wrong dose.  ")
    say(expert, "cannot_tell")
    one, two = log(folder)
    assert (one.expert, one.trace_id, one.step_index, one.answer) == ("E1", "t03", 0, ExpertAnswer.INCORRECT)  # fmt: skip
    assert one.note == "Wrong dose."
    assert one.seconds is not None
    assert one.seconds >= 0
    assert (two.step_index, two.note) == (1, None)
    assert "Is step 3 of 3 correct?" in expert.get("/review").text


def test_a_form_that_is_sent_again_counts_once(visit: Visit, folder: Path) -> None:
    expert = visit()
    form = say(expert, "correct")
    assert expert.post("/review/answer", form).status == 409
    # As the script does after a restart: another form token, the same answer.
    fresh = fields(expert.get("/review"))["form_token"]
    assert expert.post("/review/answer", form | {"form_token": fresh}).status == 303
    assert len(log(folder)) == 1


@pytest.mark.slow
def test_undo_go_back_and_flag(visit: Visit, folder: Path) -> None:
    expert = visit()
    say(expert, "correct")
    say(expert, "correct")
    undo(expert)
    assert "Is step 2 of 3 correct?" in expert.get("/review").text
    earlier = "/review/step?trace=t03&step=0"
    assert "your answer was “Correct”" in expert.get(earlier).text
    say(expert, "incorrect", earlier)
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        label = store.labels.load("ward", "expert:E1")["t03"]
    assert [step.verdict and step.verdict.value for step in label.step_labels] == ["incorrect", None, None]  # fmt: skip
    say(expert, "flag", note="Two options are the same.")
    assert fields(expert.get("/review"))["trace"] == "t02"
    assert "Two options are the same." in expert.get("/review/figures").text
    undo(expert)
    assert fields(expert.get("/review"))["trace"] == "t03"
    assert [one.answer.value for one in log(folder)][-2:] == ["flag", "unflag"]


@pytest.mark.slow
def test_experts_who_differ_are_adjudicated(visit: Visit, folder: Path) -> None:
    one = visit("E1", double=1.0)
    two, third = visit("E2"), visit("E3")
    say(one, "correct")
    say(two, "incorrect", note="See the maximum.")
    page = third.get("/review/adjudicate")
    assert "See the maximum." in page.text
    assert "E1" in page.text
    say(third, "incorrect", "/review/adjudicate")
    assert "Experts differ on no step." in third.get("/review/adjudicate").text
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        together = store.labels.load("ward", "experts")["t03"].step_labels[0]
        own = store.labels.load("ward", "expert:E1")["t03"].step_labels[0]
    assert together.verdict is not None
    assert (together.verdict.value, own.verdict and own.verdict.value) == ("incorrect", "correct")


@pytest.mark.slow
def test_a_split_with_too_many_errors_is_returned(visit: Visit) -> None:
    expert, checker = visit("E1", split_size=2, check_share=0.5), visit("E2")
    for _ in range(12):
        say(expert, "correct")
    assert "Nothing is left for you." in expert.get("/review").text
    for _ in range(3):
        say(checker, "incorrect", "/review/splits")
    page = checker.get("/review/splits")
    assert "Return split 1" in page.text
    token = page.text[page.text.index('action="/review/return"') :]
    found = re.search(r'name="form_token" value="([^"]+)"', token)
    assert found is not None
    assert checker.post("/review/return", {"form_token": found[1], "split": "1"}).status == 303
    assert fields(expert.get("/review"))["trace"] in ("t00", "t01")
    again = checker.get("/review/splits").token
    assert checker.post("/review/return", {"form_token": again, "split": "2"}).status == 400


def test_the_page_is_korean_and_leads_to_the_whole_passage(visit: Visit) -> None:
    expert = visit(lang="ko")
    page = expert.get("/review").text
    assert "3단계 중 1단계가 맞습니까?" in page
    whole = expert.get("/review/evidence?trace=t03&step=0&number=1")
    assert whole.text.count("Reduce the dose in renal failure.") == 6
    assert f"<mark><bdi>{QUOTE}</bdi></mark>" in whole.text
    assert expert.get("/review/evidence?trace=t03&step=0&number=7").status == 404
    assert expert.get("/review/evidence?trace=nope&step=0&number=1").status == 404


@pytest.mark.slow
def test_bad_forms_are_refused(visit: Visit, folder: Path) -> None:
    expert = visit()
    for wrong in ({"answer": "maybe"}, {"answer": "undo"}, {"trace": "nope"}, {"step": "x"}):
        form = fields(expert.get("/review")) | {"answer": "correct"} | wrong
        assert expert.post("/review/answer", form).status == 400
    stranger = Visitor(expert.port)
    token = stranger.get("/review").token
    form = fields(expert.get("/review")) | {"answer": "correct", "form_token": token}
    assert stranger.post("/review/answer", form).status == 403
    assert "cannot be used" in stranger.post("/review/expert", {"form_token": stranger.get("/review").token, "code": "Dr. Who"}).text  # fmt: skip
    assert log(folder) == []


@pytest.mark.slow
def test_other_machines_need_codes_and_get_links(folder: Path) -> None:
    with pytest.raises(InputError, match="need a link each"):
        ReviewOptions(dataset="ward", host="0.0.0.0", public_url="https://review.example.org")
    options = ReviewOptions(dataset="ward", port=0, host="0.0.0.0", public_url="https://review.example.org", expert=["E1"])  # fmt: skip
    with reviewing(WorkspaceFolder(folder), options) as (running, links), running:
        token = links["E1"].partition("token=")[2]
        visitor = Visitor(running.port)
        assert visitor.get("/review", Host="review.example.org").status == 401
        visitor.get(f"/login?token={token}", Host="review.example.org")
        assert "Expert E1" in visitor.get("/review", Host="review.example.org").text
    stored = (folder / "review-logins.json").read_text(encoding="utf-8")
    assert token not in stored
    same = dataclasses.replace(options, port=visitor.port)
    with reviewing(WorkspaceFolder(folder), same) as (running, links), running:
        assert links == {}
        assert visitor.get("/review", Host="review.example.org").status == 200


@pytest.mark.slow
def test_status_export_and_import(folder: Path, visit: Visit, tmp_path: Path) -> None:
    expert = visit()
    say(expert, "correct", note="As written.")
    say(expert, "incorrect")
    ws = stepgold.Workspace(folder, progress=False)
    found = ws.status().as_json()["reviews"][0]
    assert (found["dataset"], found["answers"]) == ("ward", 2)
    assert "expert E1: 2 steps" in ws.status().words()
    out = tmp_path / "answers.csv"
    assert ws.review_export(out, dataset="ward").done == 2
    other = stepgold.Workspace(make_reviewed(tmp_path / "other", traces=4, steps=3), progress=False)
    assert other.status().as_json()["reviews"] == []
    first = other.review_import([out], dataset="ward")
    assert (first.done, first.experts, first.exit_code) == (2, {"E1": 2}, 0)
    assert other.review_import([out], dataset="ward").unchanged == 2
    labels = {one.trace_id: one for one in other.labels(dataset="ward", labeler="experts")}
    assert labels["t03"].step_labels[0].reasoning == "As written."
    lines = [{"trace_id": "nope", "step_index": 0, "expert": "A", "answer": "skip"}, {"trace_id": "t01", "step_index": 9, "expert": "A", "answer": "skip"}]  # fmt: skip
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
    refused = other.review_import([bad], dataset="ward")
    assert (refused.done, refused.exit_code, len(refused.rejected)) == (0, 1, 2)
    assert "no step 10" in refused.words()
    assert ws.review_export(tmp_path / "interface.xml", dataset="ward").done == 0
    assert "<Repeater" in (tmp_path / "interface.xml").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="does not end in"):
        ws.review_export(tmp_path / "a.txt", dataset="ward")


def test_an_expert_gets_no_page_that_shows_what_others_say(visit: Visit) -> None:
    expert = visit()
    assert expert.get("/").headers["location"] == "/review"
    for path in ("/traces?dataset=ward", "/trace?dataset=ward&id=t03", "/costs"):
        assert expert.get(path).status == 404
    page = expert.get("/review").text
    assert 'href="/costs"' not in page


def test_an_undo_that_is_sent_again_takes_nothing_else_back(visit: Visit, folder: Path) -> None:
    expert = visit()
    say(expert, "correct")
    say(expert, "neutral")
    sent = undo(expert)
    # As the script does after a restart: another form token, the same undo.
    again = sent | {"form_token": expert.get("/review").token}
    assert expert.post("/review/undo", again).status == 303
    assert [one.answer.value for one in log(folder)] == ["correct", "neutral", "undo"]


def test_an_answer_that_is_sent_again_after_its_undo_stays_undone(
    visit: Visit, folder: Path
) -> None:
    expert = visit()
    form = say(expert, "correct")
    undo(expert)
    late = form | {"form_token": fields(expert.get("/review"))["form_token"]}
    assert expert.post("/review/answer", late).status == 303
    assert "Is step 1 of 3 correct?" in expert.get("/review").text
    assert len(log(folder)) == 2


def test_a_lost_reply_gets_a_fresh_form_token(visit: Visit, folder: Path) -> None:
    expert = visit()
    form = say(expert, "correct")
    refused = expert.post("/review/answer", form)
    assert refused.status == 409
    fresh = form | {"form_token": refused.headers["x-form-token"]}
    assert expert.post("/review/answer", fresh).status == 303
    # The key that was pressed last counts, also if the first one was stored.
    other = form | {"form_token": fields(expert.get("/review"))["form_token"], "answer": "neutral"}
    assert expert.post("/review/answer", other).status == 303
    assert [one.answer.value for one in log(folder)] == ["correct", "neutral"]


def test_who_answers_again_has_seen_the_opinions(visit: Visit, folder: Path) -> None:
    expert = visit()
    say(expert, "correct")
    say(expert, "incorrect", "/review/step?trace=t03&step=0")
    assert [one.opinions for one in log(folder)] == ["after", "before"]


def test_an_answer_on_a_trace_that_has_changed_is_not_stored(
    visit: Visit, folder: Path, tmp_path: Path
) -> None:
    expert = visit()
    form = fields(expert.get("/review")) | {"answer": "correct"}
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        rows = [reviewed_row(number, 3) for number in range(4)]
        changed = dataclasses.replace(rows[3].trace, steps=("Another text.", "b", "c", "d"))
        rows[3] = dataclasses.replace(rows[3], trace=changed)
        file = SourceFile("a.jsonl", "other", "traces")
        store.traces.import_file("ward", file, rows, replace=True)
    assert expert.post("/review/answer", form).status == 303
    assert log(folder) == []


def test_a_code_of_another_review_is_asked_for_again(visit: Visit) -> None:
    expert = visit(expert=["E1"])
    expert.cookies["stepgold-expert"] = "E9"
    assert 'name="code"' in expert.get("/review").text
    assert expert.get("/review/adjudicate").status == 403


def test_a_protected_problem_is_on_no_screen(visit: Visit, folder: Path) -> None:
    expert = visit(double=1.0, allow_phi=False)
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        rows = [reviewed_row(number, 3) for number in range(4)]
        hidden = dataclasses.replace(rows[0].problem, meta={"metadata": {"phi_removed": False}})
        file = SourceFile("b.jsonl", "sha", "traces")
        trace = dataclasses.replace(rows[0].trace, id="x00", problem_id="x00")
        row = dataclasses.replace(
            rows[0], problem=dataclasses.replace(hidden, id="x00"), trace=trace
        )
        store.traces.import_file("ward", file, [row])
        answers = [
            ReviewAnswer(trace_id="x00", step_index=0, expert=code, answer=said, token=code)
            for code, said in (("A", ExpertAnswer.CORRECT), ("B", ExpertAnswer.INCORRECT))
        ]
        store.reviews.add("ward", answers)
    page = expert.get("/review/adjudicate").text
    assert "10 kg" not in page
    assert "Experts differ on no step." in page
    assert expert.get("/review/evidence?trace=x00&step=0&number=1").status == 404


@pytest.mark.parametrize("shown_at", ["nan", "-inf", "soon"])
def test_a_time_that_is_none_is_refused(visit: Visit, folder: Path, shown_at: str) -> None:
    expert = visit()
    form = fields(expert.get("/review")) | {"answer": "correct", "shown_at": shown_at}
    assert expert.post("/review/answer", form).status == 400
    assert log(folder) == []
