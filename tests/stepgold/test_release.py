"""Releases: splits, card, checksums, and what verify finds."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from huggingface_hub import metadata_load

import stepgold
from formats import case_schema
from stepgold.releasing import shares_of, split_of, splits_of
from stepgold.verifying import VerifyResult
from tests.formats.test_case import CASE
from tests.loopback.gemini_file_server import GeminiFileServer
from tests.loopback.hub_server import Hub
from traces import InputError, Problem

HERE = "the patient has had a dry cough and a high fever for exactly these many days now"


def row(number: int, **more: Any) -> dict[str, Any]:
    """A trace with gold and a judge's verdicts; two of three problems have a wrong second step."""
    verdicts = [1, -1 if number % 3 else 1]
    given = {
        "id": f"t{number}",
        "problem": f"Case {number * 7919}: {' '.join([str(number * 31)] * 14)} what is it?",
        "answer": "flu",
        "steps": [f"step {number}", "so flu"],
        "labels": {
            "gold": {"kind": "gold", "verdicts": verdicts},
            "theirs": {"kind": "judge", "verdicts": [1, -1]},
        },
    }
    return given | more


@pytest.fixture
def ws(tmp_path: Path) -> stepgold.Workspace:
    workspace = stepgold.Workspace(tmp_path / "ws", progress=False)
    write(tmp_path / "d.jsonl", [row(number) for number in range(40)])
    workspace.import_("traces", tmp_path / "d.jsonl", dataset="d")
    return workspace


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))


def released(ws: stepgold.Workspace, name: str = "rel", **options: Any) -> Path:
    out = ws.folder / name
    given: dict[str, Any] = {"dataset": "d", "labeler": "theirs", "release": out}
    ws.export(options.pop("format", "traces"), **(given | options))
    return out


def ids(folder: Path) -> dict[str, list[str]]:
    """Trace ids by split."""
    return {
        split: [json.loads(line)["id"] for line in path.read_text().splitlines()]
        for split in ("train", "dev", "test")
        if (path := folder / f"{split}.jsonl").exists()
    }


def kinds(result: VerifyResult) -> list[tuple[str, str]]:
    return [(one["kind"], one["file"]) for one in result.problems]


@pytest.mark.slow
def test_a_release_is_the_same_twice_and_its_rows_fit_its_schema(ws: stepgold.Workspace) -> None:
    first, second = released(ws), released(ws, "again")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert "README.md" in names
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    schema = json.loads((first / "schema.json").read_text())
    rows = [json.loads(line) for line in (first / "train.jsonl").read_text().splitlines()]
    for each in rows:
        jsonschema.validate(each, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rows[0] | {"steps": "one text"}, schema)
    assert ws.verify(first).exit_code == 0
    file = ws.folder / "d.jsonl"
    ws.export(
        "traces", file, dataset="d", labeler="theirs", release=first, license="mit"
    )  # replaces the first
    assert len(file.read_text().splitlines()) == 40
    assert ws.verify(first).exit_code == 0


@pytest.mark.slow
def test_splits_depend_on_the_problem_alone(ws: stepgold.Workspace, tmp_path: Path) -> None:
    given = ids(released(ws))
    assert sorted(one for those in given.values() for one in those) == sorted(
        f"t{number}" for number in range(40)
    )
    other = stepgold.Workspace(tmp_path / "other", progress=False)
    write(tmp_path / "d.jsonl", [row(number) for number in reversed(range(20, 40))])
    other.import_("traces", tmp_path / "d.jsonl", dataset="d")
    for split, fewer in ids(released(other)).items():
        assert set(fewer) <= set(given[split])
    shares = shares_of("80,10,10")
    many = [split_of(f"p{number}", shares) for number in range(4000)]
    assert many.count("train") / 4000 == pytest.approx(0.8, abs=0.03)
    assert many.count("test") / 4000 == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("text", ["0.8,0.2", "a,b,c", "0,0,0", "1,-1,1", "nan,1,1"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="three shares"):
        shares_of(text)


def test_near_duplicates_share_a_split(ws: stepgold.Workspace, tmp_path: Path) -> None:
    like = [row(100 + n, problem=f"{HERE}, number {n}?") for n in range(30)]
    write(tmp_path / "more.jsonl", like)
    ws.import_("traces", tmp_path / "more.jsonl", dataset="d")
    result = ws.export("traces", dataset="d", labeler="theirs", release=ws.folder / "rel")
    split = {one: name for name, those in ids(ws.folder / "rel").items() for one in those}
    assert len({split[each["id"]] for each in like}) == 1
    assert result.release is not None
    assert result.release["near_duplicates"]["moved"]


def test_problems_of_a_benchmark_are_found_in_the_release(
    ws: stepgold.Workspace, tmp_path: Path
) -> None:
    shown = [row(3, id="b1"), row(500, id="b2")]
    write(tmp_path / "b.jsonl", shown)
    ws.import_("traces", tmp_path / "b.jsonl", dataset="bench")
    result = ws.export(
        "traces", dataset="d", labeler="theirs", release=ws.folder / "rel", against=["bench"]
    )
    assert result.release is not None
    (found,) = result.release["contamination"]
    assert (found["benchmark"], found["problems"]) == ("bench", 2)
    assert found["counts"]["question_whole"] == 1
    assert "| bench | 2 | 1 |" in (ws.folder / "rel" / "README.md").read_text()
    with pytest.raises(InputError, match="nowhere"):
        released(ws, "no", against=["nowhere"])


def test_verify_finds_a_byte_a_file_and_a_count(ws: stepgold.Workspace) -> None:
    folder = released(ws)
    path = folder / "train.jsonl"
    good = path.read_bytes()
    for at in (0, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert ("changed", "train.jsonl") in kinds(stepgold.verify(folder))
    path.write_bytes(good)
    (folder / "more.txt").write_text("x")
    result = ws.verify(folder)
    assert (result.exit_code, kinds(result)) == (1, [("additional", "more.txt")])
    (folder / "more.txt").unlink()
    path.unlink()
    assert kinds(ws.verify(folder)) == [("missing", "train.jsonl"), ("counts", "train.jsonl")]
    path.write_bytes(good + good.splitlines(keepends=True)[0])
    sums = folder / "SHA256SUMS"
    released(ws, "whole")
    assert ("counts", "train.jsonl") in kinds(ws.verify(folder))
    sums.write_text(re.sub(r"(?m)^.*README.md\n", "", sums.read_text()))
    assert ("additional", "README.md") in kinds(ws.verify(folder))


def test_what_is_no_release_is_refused(ws: stepgold.Workspace) -> None:
    (ws.folder / "other").mkdir()
    (ws.folder / "other" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="no release"):
        ws.verify(ws.folder / "other")
    with pytest.raises(InputError, match=r"mine\.txt"):
        released(ws, "other")
    assert [path.name for path in (ws.folder / "other").iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="a file or a release"):
        ws.export("traces", dataset="d", labeler="theirs")
    for format in ("parquet", "medprm", "label-studio"):
        with pytest.raises(InputError, match="split by line"):
            released(ws, "table", format=format)
    assert not (ws.folder / "table").exists()


@pytest.mark.parametrize("kept", [".git/HEAD", "pictures/a.png", "mine.iso"])
def test_only_a_release_is_replaced(ws: stepgold.Workspace, kept: str) -> None:
    """Not a clone, and not a folder whose files have the checksums of another program."""
    folder = ws.folder / "rel" if kept.startswith(".") else ws.folder / "other"
    if kept.startswith("."):
        released(ws)
    file = folder / kept
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    if not kept.startswith("."):
        (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {kept}\n")
    with pytest.raises(InputError, match="not of a release"):
        released(ws, folder.name)
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_a_release_on_the_hub_is_the_same_release(ws: stepgold.Workspace, hub: Hub) -> None:
    here, address = released(ws), "hf://datasets/me/steps"
    result = ws.export("traces", dataset="d", labeler="theirs", release=address, private=True)
    repository = hub.repositories["me/steps"]
    assert repository.private
    assert result.commit == repository.head
    pushed = repository.commits[repository.head]
    assert {path.name: path.read_bytes() for path in here.iterdir()} == pushed
    assert ws.verify(address).exit_code == 0
    ws.import_("traces", address, dataset="back")
    mine = {label.trace_id: label for label in ws.labels(dataset="d", labeler="theirs")}
    back = {label.trace_id: label for label in ws.labels(dataset="back", labeler="theirs")}
    assert mine == back
    again = released(ws, "again", dataset="back")
    for split in ids(here):
        text = (here / f"{split}.jsonl").read_text()
        # The split is what the rows lack: it becomes their subset.
        expected = text.replace('"subset": "default"', f'"subset": "{split}"')
        assert (again / f"{split}.jsonl").read_text() == expected


def test_what_may_hold_phi_is_not_released_on_the_hub(
    ws: stepgold.Workspace, hub: Hub, tmp_path: Path
) -> None:
    write(tmp_path / "p.jsonl", [row(99, problem_meta={"phi_removed": False})])
    ws.import_("traces", tmp_path / "p.jsonl", dataset="d")
    with pytest.raises(InputError, match="phi_removed"):
        released(ws, release="hf://datasets/me/steps")
    assert hub.repositories == {}


def test_cases_are_released_under_their_own_schema(ws: stepgold.Workspace, tmp_path: Path) -> None:
    cases = [CASE | {"case_id": f"case-{number}", "version": number} for number in range(3)]
    write(tmp_path / "c.jsonl", cases)
    ws.import_("case", tmp_path / "c.jsonl", dataset="cases")
    folder = released(ws, format="case", dataset="cases", labeler="case")
    assert json.loads((folder / "schema.json").read_text()) == case_schema()
    (split,) = rows_of(folder)
    assert split == cases


def test_the_same_question_about_other_pictures_is_no_near_duplicate() -> None:
    asked = "What is the most likely diagnosis of the patient whose picture is shown to you here?"
    problems = [Problem(f"p{n}", asked, images=(f"{n // 2}.png",)) for n in range(400)]
    assigned, moved = splits_of(problems, shares_of("0.4,0.3,0.3"))
    assert set(assigned.values()) == {"train", "dev", "test"}
    assert moved
    assert all(assigned[f"p{n}"] == assigned[f"p{n + 1}"] for n in range(0, 400, 2))


def rows_of(folder: Path) -> list[list[dict[str, Any]]]:
    """The rows of every split that has some."""
    return [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    ]


def test_the_card_counts_what_filters_and_selection_removed(ws: stepgold.Workspace) -> None:
    folder = released(
        ws, labeler="gold", format="traces", no_error_before_right_answer=True, balance=1.0,
        select="random:7",
    )  # fmt: skip
    facts = json.loads((folder / "release.json").read_text())
    left = facts["left_out"]
    assert list(left["filtered"]) == ["balance", "select"]
    lost = left["without_label"]
    lost += sum(sum(left[kind].values()) for kind in ("abstained", "filtered", "skipped"))
    assert facts["total"]["traces"] == 7
    assert facts["total"]["traces"] + lost == facts["in_the_store"]["traces"]
    card = (folder / "README.md").read_text()
    assert f"| filtered: select | {left['filtered']['select']} |" in card
    assert "| in the release | 7 |" in card


def test_skipped_traces_count_beside_abstentions_of_the_same_reason(
    ws: stepgold.Workspace, tmp_path: Path
) -> None:
    verdicts = [[1, -1], [None, -1], [1, 1]]
    rows = [
        row(n, labels={"judge": {"kind": "judge", "verdicts": each}})
        for n, each in enumerate(verdicts)
    ]
    write(tmp_path / "e.jsonl", rows)
    ws.import_("traces", tmp_path / "e.jsonl", dataset="e")
    facts = json.loads(
        (
            released(ws, dataset="e", labeler="judge", format="processbench") / "release.json"
        ).read_text()
    )
    left = facts["left_out"]
    counted = [left[kind] for kind in ("abstained", "filtered", "skipped")]
    assert sum(sum(each.values()) for each in counted) + facts["total"]["traces"] == 3
    assert left["skipped"]


@pytest.mark.slow
def test_the_numbers_of_the_card_are_those_of_the_database(
    ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GeminiFileServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        ws.judge(dataset="d", judge="gemini:gemini-3.5-flash-lite", limit=30)
    ws.consensus(dataset="d", labelers=["judge", "theirs", "gold"], rule="majority")
    folder = released(ws, labeler="consensus", license="apache-2.0")
    card = (folder / "README.md").read_text()
    head = metadata_load(folder / "README.md")
    assert head is not None
    assert head["license"] == "apache-2.0"

    with sqlite3.connect(ws.folder / "stepgold.db") as database:

        def query(text: str) -> Any:
            return database.execute(text).fetchone()

        model, usd, calls, version = query(
            "select model, sum(usd), count(*), resolved_model from model_calls"
        )
        store = query("select count(*), count(distinct problem_pk) from traces")
        steps = query("select count(*) from steps")[0]
        digest = query("select sha256 from source_files")[0]
        prompt = query("select sha256 from prompts")[0]
    stored = list(ws.labels(dataset="d", labeler="consensus"))
    kept = [label for label in stored if label.abstention is None]
    assert len(kept) > 10
    words = [step.verdict for label in kept for step in label.step_labels if step.verdict]
    total = card.split("| total |")[1].splitlines()[0]
    figures = [int(cell) for cell in total.replace("|", " ").split()]
    errors = sum(label.first_error_index is not None for label in kept)
    assert figures == [
        len(kept), len(kept), 2 * len(kept), errors, len(kept) - errors, 0,
        words.count("correct"), words.count("incorrect"), 0,  # type: ignore[arg-type]
    ]  # fmt: skip
    splits = {one["name"]: one["num_examples"] for one in head["dataset_info"]["splits"]}
    assert splits == {name: len(those) for name, those in ids(folder).items()}
    assert f"Of {store[0]} traces ({store[1]} problems, {steps} steps):" in card
    assert f"| no label yet | {store[0] - len(stored)} |" in card
    dropped = sum(label.abstention is not None for label in stored)
    assert f"| abstained: disagreement | {dropped} |" in card
    assert f"| {model} | {version} | judge | {calls} | 0 | {usd:.4f} | 0 |" in card
    assert f"| {digest} |" in card
    assert f"| judge | judge | {model} | {version} | {prompt} | 30 |" in card
    compared = ws.compare("consensus", "gold", dataset="d").pairs[0]
    assert f"| consensus, gold | {compared.n_steps} | {compared.agreement:.3f} |" in card
    measured = ws.evaluate(dataset="d", labeler="consensus")
    assert f"| consensus | {measured.average.processbench_f1:.3f} |" in card
    for name, floor in measured.floors.items():
        assert f"| floor: {name} | {floor['processbench_f1']:.3f} |" in card
