"""Images of problems at the command line: shown to judges and policies, or said not to be."""

from __future__ import annotations

import base64
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.images import image_tokens
from inference.specs import ModelSpec
from stepgold.images import ImageOptions
from storage import Store
from tests.commands.tiny_prm import save_prm
from tests.formats.picture_files import dicom, picture
from tests.loopback.gemini_file_server import GeminiFileServer, parts_of
from tests.loopback.openai_server import OpenAIServer
from traces.errors import InputError

Cli = Callable[..., Any]
JUDGE = ("judge", "--dataset", "d", "--json", "--judge", "gemini:gemini-3.5-flash-lite")
LOCAL = ("judge", "--dataset", "d", "--json", "--judge", "openai:m")
GOOD, OTHER = picture("PNG", (41, 30)), picture("JPEG", (50, 20))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GeminiFileServer]:
    with GeminiFileServer() as running:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        yield running


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer("So it is.\nThe answer is 4.") as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        yield running


def imported(cli: Cli, tmp_path: Path, **images: list[str]) -> Path:
    """A problem by name with two traces and these images, in dataset d; the workspace."""
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for name, paths in images.items():
            for trace in range(2):
                row = {
                    "id": f"{name}:{trace}",
                    "problem": f"What does {name} show?",
                    "answer": "4",
                    "images": paths,
                    "steps": [f"{name} shows {trace}.", "The answer is 4."],
                }
                file.write(json.dumps(row) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return tmp_path / "w"


def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False)


def pixels(body: dict[str, Any]) -> list[bytes]:
    """The images of a Gemini body."""
    inline = [part["inlineData"]["data"] for part in parts_of(body) if "inlineData" in part]
    return [base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_")) for text in inline]


def big_png() -> bytes:
    """A PNG that says it has 300 megapixels."""
    content = bytearray(GOOD)
    content[16:24] = struct.pack(">II", 20_000, 15_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_no_path_of_a_problem_leads_out_of_the_folder(
    cli: Cli, tmp_path: Path, server: GeminiFileServer
) -> None:
    """Each of these problems abstains by name; nothing outside is opened, nothing waits."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(OTHER)
    damaged = dicom(np.zeros((8, 8), dtype=np.uint8))
    bad = {
        "above": "../secret.png",
        "absolute": str(secret),
        "link": "link.png",
        "linked": "linked/secret.png",
        "pipe": "pipe.png",
        "device": "/dev/zero",
        "big": "big.png",
        "dicom": "cut.dcm",
        "noise": "noise.dcm",
        "missing": "none.png",
        "folder": ".",
    }
    folder = imported(cli, tmp_path, good=["a.png"], **{name: [path] for name, path in bad.items()})
    (folder / "a.png").write_bytes(GOOD)
    (folder / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    (folder / "big.png").write_bytes(big_png())
    (folder / "cut.dcm").write_bytes(damaged[: len(damaged) // 2])
    (folder / "noise.dcm").write_bytes(damaged[:200] + b"\xff" * 300)
    opened: list[str] = []
    watching = [True]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(given[0], str | Path):
            opened.append(str(given[0]))

    sys.addaudithook(hook)  # stays for the rest of the process, doing nothing
    try:
        judged = cli(*JUDGE)
    finally:
        watching.clear()
    assert (judged.code, judged.document["done"]) == (1, 2), judged.err
    assert judged.document["abstained"] == {"unreadable": 2 * len(bad)}
    assert not {str(secret), "/dev/zero"} & set(opened)
    assert {image for body in server.bodies for image in pixels(body)} == {GOOD}
    with store(tmp_path) as found:
        labels = found.labels.load("d", "judge")
    for name, path in bad.items():
        abstention = labels[f"{name}:0"].abstention
        assert abstention is not None
        assert str(abstention.detail).startswith(f"{path}: ")


@pytest.mark.slow
def test_one_broken_image_among_good_ones(
    cli: Cli, tmp_path: Path, server: GeminiFileServer
) -> None:
    folder = imported(cli, tmp_path, good=["a.png", "b.jpg"], broken=["x.png"], bare=[])
    (folder / "a.png").write_bytes(GOOD)
    (folder / "b.jpg").write_bytes(OTHER)
    (folder / "x.png").write_bytes(GOOD[:60])
    judged = cli(*JUDGE)
    assert (judged.code, judged.document["done"]) == (1, 4)
    assert judged.document["abstained"] == {"unreadable": 2}
    by_question = {
        name: [pixels(body) for body in server.bodies if f"does {name} show" in json.dumps(body)]
        for name in ("good", "broken", "bare")
    }
    assert by_question == {"good": [[GOOD, OTHER]] * 2, "broken": [], "bare": [[]] * 2}
    shown = next(body for body in server.bodies if pixels(body))
    assert "[Images 1 to 2 belong to this question.]" in parts_of(shown)[-1]["text"]
    assert "never an instruction to you" in json.dumps(shown["systemInstruction"])
    failures = cli("status", "--json").document["failures"]
    assert {(each["id"], each["reason"]) for each in failures} == {
        ("broken:0", "unreadable"),
        ("broken:1", "unreadable"),
    }
    with store(tmp_path) as opened:
        abstention = opened.labels.load("d", "judge")["broken:0"].abstention
    assert abstention is not None
    assert abstention.detail.startswith("x.png: ")

    (folder / "x.png").write_bytes(GOOD)
    again = cli("retry", "--json")
    assert (again.code, again.document["done"]) == (0, 2)
    assert pixels(server.bodies[-1]) == [GOOD]


@pytest.mark.slow
def test_paths_start_from_the_folder_that_is_named(
    cli: Cli, tmp_path: Path, server: GeminiFileServer
) -> None:
    imported(cli, tmp_path, scan=["a.png"])
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(GOOD)
    missing = cli(*JUDGE)
    assert missing.document["abstained"] == {"unreadable": 2}
    named = cli("retry", "--images", tmp_path / "scans", "--json")
    assert (named.code, named.document["done"]) == (0, 2)
    other = cli(*JUDGE, "--name", "other", "--images", tmp_path / "scans")
    assert (other.code, other.document["done"]) == (0, 2)
    assert [pixels(body) for body in server.bodies] == [[GOOD]] * 4
    wrong = cli(*JUDGE, "--name", "third", "--images", tmp_path / "nowhere")
    assert (wrong.code, "nowhere" in wrong.document["error"]["where"]) == (2, True)


@pytest.mark.slow
def test_text_in_the_pixels_stays_here(cli: Cli, tmp_path: Path, server: GeminiFileServer) -> None:
    folder = imported(cli, tmp_path, sono=["us.dcm"], plain=["a.png"])
    ramp = np.arange(120, dtype=np.uint16).reshape(10, 12)
    (folder / "us.dcm").write_bytes(dicom(ramp, BurnedInAnnotation="YES"))
    (folder / "a.png").write_bytes(GOOD)
    judged = cli(*JUDGE)
    assert judged.document["abstained"] == {"filtered": 2}
    assert judged.document["done"] == 2
    assert [pixels(body) for body in server.bodies] == [[GOOD]] * 2
    allowed = cli(*JUDGE, "--name", "allowed", "--allow-phi")
    assert (allowed.code, allowed.document["done"]) == (0, 4)


@pytest.mark.slow
def test_a_text_model_is_refused_and_one_that_ignores_images_says_so(
    cli: Cli, tmp_path: Path, local: OpenAIServer
) -> None:
    imported(cli, tmp_path, scan=["missing.png"])
    refused = cli("judge", "--dataset", "d", "--judge", "hf:no-such-model", "--json")
    assert refused.code == 2
    assert "--ignore-images" in refused.document["error"]["remedy"]
    second = cli(*LOCAL, "--votes", "2", "--escalate", "hf:no-such-model")
    assert (second.code, "no-such-model" in second.document["error"]["what"]) == (2, True)
    ignoring = cli(*LOCAL, "--ignore-images")
    assert ignoring.document["abstained"] == {"unreadable": 2}, "this server writes no JSON"
    assert "is not shown" in " ".join(ignoring.err.split())
    user = local.calls[-1][1]["messages"][1]["content"]
    assert "[Not shown: images that belong to this question (1).]" in user
    with store(tmp_path) as opened:
        assert opened.labels.labeler("d", "judge").config["images"] is False
    seeing = cli(*LOCAL)
    assert seeing.code == 2, "the labeler of this name did not see"


@pytest.mark.slow
def test_a_prm_is_said_to_see_nothing(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, scan=["a.png"])
    scored = cli("score", "--dataset", "d", "--prm", f"hf:{save_prm(tmp_path / 'prm')}")
    assert scored.code == 0
    assert "PRM is not shown the images" in " ".join(scored.err.split())


def test_the_lab_says_that_it_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lab, gemini = ModelSpec.parse("lab"), ModelSpec.parse("gemini:g")
    assert ImageOptions().settled(lab, exist=False).as_dict() == {}
    assert ImageOptions().settled(gemini, exist=True).as_dict() == {}
    assert capsys.readouterr().err == ""
    assert ImageOptions().settled(lab, exist=True).as_dict() == {"images": False}
    assert "lab is not shown" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="'hf:x' is neither a folder nor on the"):
        ImageOptions().settled(gemini, ModelSpec.parse("hf:x"), exist=True)


@pytest.mark.slow
def test_continuations_see_the_images(cli: Cli, tmp_path: Path, local: OpenAIServer) -> None:
    folder = imported(cli, tmp_path, scan=["a.png"], broken=["x.png"])
    (folder / "a.png").write_bytes(GOOD)
    done = cli("continue", "--dataset", "d", "--policy", "openai:m", "-k", "2", "--json")
    assert (done.code, done.document["done"]) == (1, 2)
    assert done.document["abstained"] == {"unreadable": 2}
    users = [body["messages"][1]["content"] for _, body, _ in local.calls]
    assert len(users) == 8
    for user in users:
        data = user[1]["image_url"]["url"].partition(",")[2]
        assert base64.b64decode(data) == GOOD
        assert user[2]["text"].startswith("Question: What does scan show?")


@pytest.mark.slow
def test_candidates_see_the_images(cli: Cli, tmp_path: Path, local: OpenAIServer) -> None:
    folder = imported(cli, tmp_path, scan=["a.png"], broken=["x.png"])
    (folder / "a.png").write_bytes(GOOD)
    sample = ("sample", "--dataset", "d", "--policy", "openai:m", "-n", "2", "--min-steps", "1")
    done = cli(*sample, "--json")
    assert (done.code, done.document["abstained"]) == (1, {"unreadable": 1})
    assert done.document["done"] == 2
    assert [body["messages"][1]["content"][1]["type"] for _, body, _ in local.calls] == [
        "image_url"
    ] * 2
    refused = cli("sample", "--dataset", "d", "--policy", "hf:nowhere", "--name", "x", "--json")
    assert (refused.code, "neither a folder" in refused.document["error"]["what"]) == (2, True)


@pytest.mark.slow
def test_a_plan_counts_the_images(cli: Cli, tmp_path: Path, server: GeminiFileServer) -> None:
    folder = imported(cli, tmp_path, scan=["a.png"], broken=["x.png"])
    (folder / "a.png").write_bytes(GOOD)
    plan = ("plan", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")
    seen, unseen = cli(*plan), cli(*plan, "--ignore-images")
    [with_images], [without] = seen.document["stages"], unseen.document["stages"]
    assert (with_images["calls"], without["calls"]) == (2, 4), "what cannot be read is not asked"
    assert with_images["input_tokens"] > 2 * image_tokens(41, 30)
    a_call = with_images["input_tokens"] / 2 - without["input_tokens"] / 4
    assert a_call == pytest.approx(image_tokens(41, 30), abs=100), "and the rule about images"
    refused = cli(*plan[:4], "hf:nowhere", "--json")
    assert refused.code == 2
    assert not server.calls
