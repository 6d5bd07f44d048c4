"""Images of a request: what counts of them, what is stored, how many tokens they are, where they come from."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.files.images import EncodedImage, ImageError
from inference.budget import input_bound
from inference.images import ProblemImages, image_tokens, message_parts
from inference.protocol import GenerationRequest, Message, Role, request_key, request_text
from tests.formats.picture_files import dicom, picture
from tests.inference.pictures import encoded, showing
from traces.labels import Abstention, AbstentionReason
from traces.problem import Problem


def key(request: GenerationRequest) -> str:
    return request_key("gemini:g", request)


def test_an_image_counts_by_its_content() -> None:
    one, two = encoded(1), encoded(2)
    asked = key(showing(one))
    assert asked == key(showing(replace(one, path="elsewhere.png", notes=("turned",))))
    others = [showing(), showing(two), showing(one, two), showing(two, one), showing(one, one)]
    assert len({asked, *map(key, others)}) == 6
    elsewhere = (Message("user", "Judge.", (one,)), Message("user", "Step 1: a"))
    here = (Message("user", "Judge."), Message("user", "Step 1: a", (one,)))
    assert key(GenerationRequest(elsewhere, 200)) != key(GenerationRequest(here, 200))
    as_jpeg = replace(one, mime="image/jpeg")
    assert key(showing(as_jpeg)) != asked


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_a_user_turn_shows_images(role: Role) -> None:
    """Gemini has no place for them elsewhere: they would be lost without a word."""
    with pytest.raises(ValueError, match=role):
        Message(role, "Look.", (encoded(),))


def test_keys_do_not_change_between_releases() -> None:
    """Else every paid reply in every database would be bought again."""
    shown = EncodedImage("image/png", "ab" * 32, 3, 4, "a.png", b"x")
    assert key(showing()) == BARE_KEY_OF_2026
    assert key(showing(shown)) == KEY_OF_2026


BARE_KEY_OF_2026 = "0b1d0ebfe7233801a87a724b38927255344d7ca0fb63a04b192d303623832cc0"
"""As it was before messages could have images."""
KEY_OF_2026 = "d6ebbd0dafdbb61003a324707f2237b64c1a68a8f3b379e434038228682f3166"


def test_the_ledger_names_an_image_and_never_holds_it() -> None:
    shown = encoded(size=5_000)
    text = request_text(showing(shown))
    assert json.loads(text)["messages"][1] == [
        "user",
        "Step 1: a",
        [{"mime": "image/png", "sha256": shown.sha256, "path": "scan0.png"}],
    ]
    assert len(text) < 500
    assert base64.b64encode(shown.data).decode()[:40] not in text
    assert "data" not in repr(showing(shown))


def test_each_image_stands_under_its_number() -> None:
    one, two = encoded(1), encoded(2)
    assert list(message_parts(Message("user", "q", (one, two)))) == [
        "Image 1:",
        one,
        "Image 2:",
        two,
        "q",
    ]


@given(st.integers(1, 3072), st.integers(1, 3072))
def test_tokens_of_an_image_are_above_both_rules_of_the_service(width: int, height: int) -> None:
    """Gemini 2.x: 258 up to 384 x 384, else 258 a tile of at most 768; Gemini 3: at most 1,120."""
    tile = min(768.0, max(256.0, min(width, height) / 1.5))
    tiles = 1 if max(width, height) <= 384 else math.ceil(width / tile) * math.ceil(height / tile)
    assert image_tokens(width, height) >= max(258 * tiles, 1120)
    assert (
        image_tokens(width, height)
        <= 258 * (math.ceil(width / 256) * math.ceil(height / 256)) + 1200
    )


def test_a_budget_holds_the_images_back_too() -> None:
    shown = encoded(1)
    with_image, without = input_bound(showing(shown)), input_bound(showing())
    assert with_image - without == image_tokens(shown.width, shown.height)
    assert input_bound(showing(shown, shown)) - without == 2 * image_tokens(41, 30)


# Where they come from ---------------------------------------------------------------------------


def problem(*paths: str) -> Problem:
    return Problem("p", "Which?", images=paths)


def test_paths_start_from_the_folder_and_what_was_read_last_is_kept(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(picture("PNG"))
    images = ProblemImages(tmp_path)
    [first] = images.of(problem("scans/a.png"))
    assert first.data == picture("PNG")
    assert images.of(problem("scans/a.png"))[0] is first
    assert images.of(problem()) == ()
    [absolute] = images.of(problem(str(tmp_path / "scans" / "a.png")))
    assert absolute == first


def test_what_is_kept_stays_within_its_bound(tmp_path: Path) -> None:
    content = picture("PNG")
    for name in "abc":
        (tmp_path / name).write_bytes(content)
    images = ProblemImages(tmp_path, kept_bytes=2 * len(content))
    first = {name: images.of(problem(name))[0] for name in "ab"}
    assert images.of(problem("a"))[0] is first["a"]
    images.of(problem("c"))  # b was used longest ago
    assert images.of(problem("a"))[0] is first["a"]
    assert images.of(problem("b"))[0] is not first["b"]
    bare = ProblemImages(tmp_path, kept_bytes=0)
    assert bare.of(problem("a"))[0] is not bare.of(problem("a"))[0]


def test_a_broken_image_is_unreadable_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    (tmp_path / "cut.png").write_bytes(picture("PNG")[:60])
    images = ProblemImages(tmp_path)
    for path in ("cut.png", "missing.png"):
        why = images.sendable(problem("good.png", path), hosted=False, allow_phi=False)
        assert isinstance(why, Abstention)
        assert why.reason is AbstentionReason.UNREADABLE
        assert why.retryable
        assert why.detail.startswith(f"{path}: ")
    with pytest.raises(ImageError):
        images.of(problem("missing.png"))


@pytest.mark.parametrize(
    ("hosted", "allow", "sent"),
    [(True, False, False), (True, True, True), (False, False, True)],
)
def test_text_in_the_pixels_keeps_an_image_from_hosted_models(
    tmp_path: Path, hosted: bool, allow: bool, sent: bool
) -> None:
    pixels = np.arange(120, dtype=np.uint16).reshape(10, 12)
    (tmp_path / "us.dcm").write_bytes(dicom(pixels, BurnedInAnnotation="YES"))
    found = ProblemImages(tmp_path).sendable(problem("us.dcm"), hosted=hosted, allow_phi=allow)
    assert isinstance(found, tuple) is sent
    if isinstance(found, Abstention):
        assert found.reason is AbstentionReason.FILTERED
        assert "us.dcm" in found.detail
        assert "--allow-phi" in found.detail


def test_who_is_shown_no_images_does_not_read_any(tmp_path: Path) -> None:
    blind = ProblemImages(tmp_path, shown=False)
    assert blind.sendable(problem("missing.png"), hosted=True, allow_phi=False) == ()
