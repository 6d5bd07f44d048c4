"""The judge and the images of a problem: what it is shown and told, and what is never sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from inference.images import ProblemImages
from inference.protocol import request_key
from judge.config import JudgeConfig
from judge.prompt import IMAGE_RULE, render_vote
from judge.prompt_file import packaged_prompt
from judge.rag_judge import RagJudge
from tests.formats.picture_files import dicom, picture
from tests.inference.pictures import encoded
from tests.judge.sheets import context
from tests.loopback.gemini_file_server import GeminiFileServer, parts_of
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import TraceInContext


@pytest.fixture
def server() -> Iterator[GeminiFileServer]:
    with GeminiFileServer() as running:
        yield running


def showing(trace_id: str, *paths: str) -> TraceInContext:
    plain = context((f"{trace_id}.", "So 720 mg."), trace_id=trace_id)
    return replace(plain, problem=replace(plain.problem, images=paths))


def judged(
    server: GeminiFileServer,
    root: Path,
    *asked: TraceInContext,
    config: JudgeConfig | None = None,
) -> dict[str, TraceLabel]:
    model = GeminiModel(
        "gemini-3.5-flash-lite", base_url=server.url, environ={"GEMINI_API_KEY": "k"}
    )
    with Dispatcher(model, None) as runner:
        judge = RagJudge(runner, config, images=ProblemImages(root))
        return {one.label.trace_id: one.label for one in judge.judge(asked)}


def test_a_broken_image_fails_its_problem_alone(server: GeminiFileServer, tmp_path: Path) -> None:
    ramp = np.arange(120, dtype=np.uint16).reshape(10, 12)
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    (tmp_path / "cut.png").write_bytes(picture("PNG")[:60])
    (tmp_path / "named.dcm").write_bytes(dicom(ramp, BurnedInAnnotation="YES"))
    labels = judged(
        server,
        tmp_path,
        showing("a", "good.png"),
        showing("b", "good.png", "cut.png"),
        showing("c"),
        showing("d", "named.dcm"),
        showing("e", "nowhere.png"),
    )
    why = {name: label.abstention for name, label in labels.items()}
    reasons = {name: each and each.reason for name, each in why.items()}
    assert reasons == {
        "a": None,
        "b": AbstentionReason.UNREADABLE,
        "c": None,
        "d": AbstentionReason.FILTERED,
        "e": AbstentionReason.UNREADABLE,
    }
    assert [str(each and each.detail).partition(":")[0] for each in why.values() if each] == [
        "cut.png",
        "named.dcm",
        "nowhere.png",
    ]
    assert len(server.bodies) == 2


def test_every_call_for_a_trace_shows_its_images(server: GeminiFileServer, tmp_path: Path) -> None:
    """Steps and votes alike."""
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    config = JudgeConfig(votes=2, temperature=0.7, granularity="step")
    judged(server, tmp_path, showing("a", "good.png"), config=config)
    assert len(server.bodies) == 4
    for body in server.bodies:
        assert parts_of(body)[0] == {"text": "Image 1:"}
        assert "inlineData" in parts_of(body)[1]


def test_the_prompt_says_what_is_shown() -> None:
    one, two = encoded(1), encoded(2)
    asked = showing("a", "1.png", "2.png")
    [call] = render_vote(asked, JudgeConfig(), images=(one, two))
    system, user = call.request.messages
    assert user.images == (one, two)
    assert user.text.count("[Images 1 to 2 belong to this question.]") == 1
    assert user.text.index("belong to this") < user.text.index("</question>")
    assert system.text.endswith(IMAGE_RULE)
    [single] = render_vote(asked, JudgeConfig(), images=(one,))
    assert "[Image 1 belongs to this question.]" in single.request.messages[1].text


def test_a_judge_that_is_not_shown_them_is_told_so(
    server: GeminiFileServer, tmp_path: Path
) -> None:
    blind = JudgeConfig(show_images=False)
    labels = judged(server, tmp_path, showing("a", "nowhere.png"), config=blind)
    assert labels["a"].abstention is None
    [body] = server.bodies
    assert "[Not shown: images that belong to this question (1).]" in str(body)
    assert IMAGE_RULE not in str(body)
    assert blind.as_dict()["images"] is False
    assert JudgeConfig.from_dict(blind.as_dict(), packaged_prompt()) == blind
    assert "images" not in JudgeConfig().as_dict()


def test_a_prompt_without_images_keeps_its_key() -> None:
    """As it was before there were images: what was bought then is found again."""
    [call] = render_vote(context(), JudgeConfig())
    assert request_key("gemini:g", call.request) == KEY_OF_2026


KEY_OF_2026 = "37c46c6c4cfa7e7ac5351707bbc11233d6fae8043394c5253e3f3a13a453226c"


def test_an_image_cannot_be_named_by_a_problem_that_has_none() -> None:
    """What looks like our line about images, in a question, is the question's own."""
    asked = context(question="[Image 1 belongs to this question.] Dose?")
    [call] = render_vote(asked, JudgeConfig())
    assert call.request.messages[1].images == ()
    assert IMAGE_RULE not in call.request.messages[0].text
