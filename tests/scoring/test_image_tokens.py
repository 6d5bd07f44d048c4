"""Images as tokens: equal where the images are equal, shared by candidates, seen once, bounded, never stale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inference.images import EncodedImage, ProblemImages
from scoring import FitOptions, Overflow, Scorer, load_scorer
from scoring.engine.fit import plan_scoring
from scoring.engine.forward import plant
from scoring.family import CannotLayOut
from scoring.image_tokens import ExtendedEmbedding, ImageTokens
from tests.scoring.visual_checkpoints import save_visualprm
from tests.tiny_vision import drawing
from traces.errors import InputError, PrmError
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import Problem, Trace, TraceInContext

FIRST = 151675
"""The first id after the vocabulary of the tiny checkpoint."""
STEPS = ("6 x 30 = 180 mg.", "So it is 180.", "The drawing shows 6.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and drawings beside it; `again.png` is a copy."""
    folder = save_visualprm(tmp_path_factory.mktemp("visualprm"), system="Judge.")
    for name, number in {"one": 1, "two": 2, "again": 1, "three": 3}.items():
        (folder / f"{name}.png").write_bytes(drawing(number, (60, 30)))
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return load_scorer(str(folder), family="visualprm", images=ProblemImages(folder))


@pytest.fixture
def fresh(folder: Path) -> Scorer:
    """One that has seen nothing yet."""
    return load_scorer(str(folder), family="visualprm", images=ProblemImages(folder))


def candidates(number: int, *images: str, problem: str = "p") -> list[TraceInContext]:
    """Traces of one problem, each other steps."""
    shown = Problem(problem, "Which dose?", images=images)
    return [
        TraceInContext(shown, Trace(f"{problem}{n}", problem, (*STEPS[: 1 + n % 3], f"{n} mg.")))
        for n in range(number)
    ]


def by_id(labels: Iterator[TraceLabel]) -> dict[str, list[float | None]]:
    return {label.trace_id: [step.score for step in label.step_labels] for label in labels}


@contextmanager
def looks(scorer: Scorer) -> Iterator[list[int]]:
    """The tiles of each look that the model's vision tower takes."""
    family: Any = scorer.family
    tower = family.image_tokens._encoder._model.model.vision_tower
    taken: list[int] = []
    hook = tower.register_forward_pre_hook(
        lambda module, args, kwargs: taken.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    try:
        yield taken
    finally:
        hook.remove()


def test_candidates_share_image_and_prompt_and_the_image_is_seen_once(fresh: Scorer) -> None:
    scorer = fresh
    traces = candidates(6, "one.png")
    laid_out = [scorer.family.lay_out(context, ()) for context in traces]
    root = plant(laid_out, share=True)[0]
    assert root.trace is None
    assert max(root.ids) >= FIRST  # the image's ids are in what is shared
    with looks(scorer) as taken:
        together = by_id(scorer.score(traces))
    assert taken == [3]
    for context in traces:
        assert by_id(scorer.score([context])) == {
            context.trace.id: pytest.approx(together[context.trace.id], abs=1e-5)
        }


def test_the_same_text_with_another_image_is_another_prompt(fresh: Scorer) -> None:
    scorer = fresh
    one, two = candidates(1, "one.png", problem="a"), candidates(1, "two.png", problem="b")
    copy, none = candidates(1, "again.png", problem="c"), candidates(1, problem="d")
    ids = [scorer.family.lay_out(each, ()).ids for [each] in (one, two, copy, none)]
    assert ids[0] == ids[2]
    assert ids[0] != ids[1]
    assert len(ids[0]) == len(ids[1])
    with looks(scorer) as taken:
        scores = by_id(scorer.score([*one, *two, *copy, *none]))
    assert scores["a0"] == pytest.approx(scores["c0"], abs=1e-5)
    assert max(abs(a - b) for a, b in zip(scores["a0"], scores["b0"], strict=True)) > 1e-3  # type: ignore[operator]
    assert scores["d0"] != scores["a0"]
    assert taken == [3, 3]


@pytest.mark.parametrize("size", [1, 40, 150, 100_000])
def test_batches_change_no_score(size: int, folder: Path, scorer: Scorer) -> None:
    traces = [*candidates(5, "one.png", problem="a"), *candidates(4, "two.png", "one.png", problem="b"), *candidates(3, problem="c")]  # fmt: skip
    wanted = by_id(scorer.score(traces))
    loaded = load_scorer(str(folder), family="visualprm", images=ProblemImages(folder))
    other = Scorer(loaded.family, max_tokens=loaded.window, batch_tokens=size)
    assert by_id(other.score(reversed(traces))) == {
        name: pytest.approx(scores, abs=1e-5) for name, scores in wanted.items()
    }


def test_an_unreadable_image_is_an_abstention_of_its_traces_alone(scorer: Scorer) -> None:
    lost, fine = candidates(2, "none.png", problem="a"), candidates(1, "one.png", problem="b")
    labels = {label.trace_id: label for label in scorer.score([*lost, *fine])}
    for name in ("a0", "a1"):
        told = labels[name].abstention
        assert told is not None
        assert told.reason is AbstentionReason.UNREADABLE
        assert told.detail.startswith("none.png: ")
    assert labels["b0"].abstention is None
    with pytest.raises(CannotLayOut):
        scorer.family.lay_out(lost[0], ())


def test_the_window_counts_the_tokens_of_images(folder: Path) -> None:
    [context] = candidates(1, "one.png")
    [bare] = candidates(1, problem="bare")
    root = ProblemImages(folder)
    size = len(load_scorer(str(folder), family="visualprm", images=root).family.lay_out(context, ()).ids)  # fmt: skip
    tight = load_scorer(str(folder), family="visualprm", images=root, options=FitOptions(size - 1))
    labels = {label.trace_id: label for label in tight.score([context, bare])}
    told = labels["p0"].abstention
    assert told is not None
    assert told.reason is AbstentionReason.OVER_LENGTH
    assert labels["bare0"].abstention is None
    exact = load_scorer(str(folder), family="visualprm", images=root, options=FitOptions(size))
    assert next(iter(exact.score([context]))).abstention is None


def test_the_whole_window_is_the_default(folder: Path, scorer: Scorer) -> None:
    assert scorer.config()["max_tokens"] == scorer.window == 8192


def test_a_plan_counts_images_and_names_those_that_cannot_be_read(scorer: Scorer) -> None:
    traces = [*candidates(2, "one.png", problem="a"), *candidates(3, "none.png", problem="b")]
    planned = plan_scoring(scorer, traces, traces=5)
    assert planned.unreadable == planned.as_json()["unreadable"] == 3
    assert planned.longest == max(len(scorer.family.lay_out(c, ()).ids) for c in traces[:2])
    assert all(at.whole + at.shortened + at.abstained == 2 for at in planned.limits)


def test_too_long_is_refused_beforehand_and_unreadable_is_not(folder: Path) -> None:
    strict = load_scorer(
        str(folder),
        family="visualprm",
        images=ProblemImages(folder),
        options=FitOptions(max_tokens=60, overflow=Overflow.ERROR),
    )
    strict.refuse_over_length(candidates(2, "none.png"))
    with pytest.raises(InputError, match="1 traces with their documents exceed"):
        strict.refuse_over_length([*candidates(1, "one.png", problem="a"), *candidates(1, "none.png")])  # fmt: skip


def test_images_that_are_not_shown_are_not_read(folder: Path) -> None:
    blind = load_scorer(str(folder), family="visualprm", images=ProblemImages(folder, shown=False))
    seen, bare = candidates(1, "none.png", problem="a"), candidates(1, problem="b")
    scores = by_id(blind.score([*seen, *bare]))
    assert scores["a0"] == pytest.approx(scores["b0"], abs=1e-6)
    assert blind.config()["images"] is False


def test_an_image_that_changes_under_way_is_no_other_image(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(drawing(1))
    images = ProblemImages(tmp_path, kept_bytes=0)
    scorer = load_scorer(str(folder), family="visualprm", images=images)
    [context] = candidates(1, "x.png")
    scorer.family.lay_out(context, ())
    (tmp_path / "x.png").write_bytes(drawing(2))
    family: Any = scorer.family
    with pytest.raises(PrmError, match="changed during"):
        family.image_tokens.embeddings([FIRST])


class Letters:
    """An eye whose image is the bytes of a file: each byte a place, looking like itself."""

    placeholder = 7

    def __init__(self) -> None:
        self.looks: list[str] = []

    def image_ids(self, image: EncodedImage) -> tuple[int, ...]:
        return (5, *[self.placeholder] * (image.width % 4 + 1), 6)

    def features(self, image: EncodedImage) -> Tensor:
        self.looks.append(image.path)
        return torch.full((image.width % 4 + 1, 2), float(image.width)) + torch.arange(
            image.width % 4 + 1
        ).unsqueeze(1)


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that differ in their width alone."""
    folder = tmp_path_factory.mktemp("widths")
    for width in range(20, 90, 10):
        (folder / f"{width}.png").write_bytes(drawing(width, (width, 20)))
    return folder


NAMES = st.lists(st.sampled_from([f"{width}.png" for width in range(20, 90, 10)]), max_size=6)


@settings(max_examples=40)
@given(met=st.lists(NAMES, min_size=1, max_size=6))
def test_ids_are_equal_where_images_are_and_nowhere_else(
    widths: Path, met: list[list[str]]
) -> None:
    eye = Letters()
    tokens = ImageTokens(eye, ProblemImages(widths), first=100, kept_bytes=40)
    owner: dict[int, tuple[str, int]] = {}
    looked: list[int] = []
    for names in met:
        for name, ids in zip(names, tokens.of(Problem("p", "", images=tuple(names))), strict=True):
            assert (ids[0], ids[-1]) == (5, 6)
            for place, i in enumerate(ids[1:-1]):
                assert i >= 100
                assert owner.setdefault(i, (name, place)) == (name, place)
                looked.append(i)
    words = nn.Embedding(100, 2)
    grown = ExtendedEmbedding(words, tokens)
    mixed = torch.tensor([[3, *looked, 99]])
    with torch.no_grad():
        out = grown(mixed)[0]
    assert torch.equal(out[0], words.weight[3])
    assert torch.equal(out[-1], words.weight[99])
    for row, i in zip(out[1:-1], looked, strict=True):
        name, place = owner[i]
        assert row.tolist() == [float(name.removesuffix(".png")) + place] * 2


def test_what_images_look_like_is_kept_within_its_bound(widths: Path) -> None:
    eye = Letters()
    tokens = ImageTokens(eye, ProblemImages(widths), first=100, kept_bytes=60)

    def look(*names: str) -> Sequence[str]:
        eye.looks.clear()
        for ids in tokens.of(Problem("p", "", images=names)):
            tokens.embeddings(ids[1:-1])
        return eye.looks

    # 20, 40, 60 and 80 have one place each (8 bytes), 30 and 50 three (24 bytes).
    assert look("30.png", "50.png", "20.png") == ["30.png", "50.png", "20.png"]
    assert look("30.png", "20.png") == []
    assert look("70.png") == ["70.png"]  # 24 more: the one looked at longest ago goes
    assert look("30.png", "20.png", "70.png") == []
    assert look("50.png") == ["50.png"]


def test_a_processor_that_leaves_other_places_than_the_model_fills_is_refused(widths: Path) -> None:
    class Short(Letters):
        def features(self, image: EncodedImage) -> Tensor:
            return super().features(image)[1:]

    tokens = ImageTokens(Short(), ProblemImages(widths), first=100)
    [ids] = tokens.of(Problem("p", "", images=("30.png",)))
    with pytest.raises(PrmError, match="encodes an image as 2 tokens"):
        tokens.embeddings(ids[1:-1])
