"""VisualPRM to the token: layout, read-out, images; against texts by hand and the model's own forward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from inference.images import ProblemImages
from inference.local.vision_loading import load_processor
from scoring import Scorer, load_scorer
from scoring.families.visualprm import SYSTEM, VisualPrm
from scoring.image_tokens import ShowsImages
from tests.scoring.golden_visual_ids import GOLDEN
from tests.scoring.visual_checkpoints import (
    INTERNVL3_CONTROL,
    PLACES,
    TILE,
    internvl_tokenizer,
    save_visualprm,
)
from tests.tiny_models import tiny_tokenizer
from tests.tiny_vision import drawing
from traces.errors import PrmError
from traces.problem import Problem, Trace, TraceInContext

PLACE = INTERNVL3_CONTROL["<IMG_CONTEXT>"]
PUBLISHED_SYSTEM = "18279fe8e6c5f76aebb619b266e665b89b2d0b1cb181b6aa3fded44d24b8fa1e"
"""Hash of PRM_SYSTEM_PROMPT in InternVL 2410d1d, tools/reasoning_data_pipeline/utils/constants.py."""
SIZES = {"flat.png": (28, 28), "wide.png": (60, 30), "high.png": (30, 90), "twin.png": (28, 28)}
"""Drawings, in pixels: of one tile, of 2 x 1 and of 1 x 3 tiles and a thumbnail each, and the first again."""
TILES = {"flat.png": 1, "wide.png": 3, "high.png": 4, "twin.png": 1}


def asked(question: str, *images: str, steps: Sequence[str] = ("It is 180.",), **more: Any) -> Any:
    """A trace of a problem."""
    problem = Problem(f"p-{question}-{images}", question, images=images, **more)
    return TraceInContext(problem, Trace(f"t-{problem.id}-{steps}", problem.id, tuple(steps)))


def shown(name: str) -> str:
    """An image as the prompt spells it."""
    return f"<img>{'<IMG_CONTEXT>' * PLACES * TILES[name]}</img>"


def written(first: str, *steps: str, system: str = "Judge.") -> str:
    """A conversation as the published code writes it, every answer `+`."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n"
    for step in (first, *steps):
        text += f"<|im_start|>user\n{step}<|im_end|>\n<|im_start|>assistant\n+<|im_end|>\n"
    return text


CASES: dict[str, tuple[TraceInContext, str]] = {
    "one-image": (
        asked("Which dose?", "wide.png", steps=["6 x 30 = 180 mg.", "So it is 180."]),
        written(
            f"### Question:\n{shown('wide.png')}\nWhich dose?\n\n### Solution Process:\n6 x 30 = 180 mg.",
            "So it is 180.",
        ),
    ),
    "two-images": (
        asked("Which dose?", "flat.png", "wide.png"),
        written(
            f"### Question:\nImage-1: {shown('flat.png')}\nImage-2: {shown('wide.png')}\nWhich dose?\n\n"
            "### Solution Process:\nIt is 180."
        ),
    ),
    "places": (
        asked("Is <image> more than <image>?", "flat.png", "wide.png"),
        written(
            f"### Question:\nIs {shown('flat.png')} more than {shown('wide.png')}?\n\n"
            "### Solution Process:\nIt is 180."
        ),
    ),
    "text": (
        asked("Which dose?", steps=["It is\n\n180.", " So."], options=("6", "180 mg")),
        written(
            "### Question:\nWhich dose?\n(A) 6\n(B) 180 mg\n\n### Solution Process:\nIt is\n\n180.",
            " So.",
        ),
    ),
}
"""Traces, and what the published script would write for them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose configuration states a short system turn, and drawings beside it."""
    folder = save_visualprm(tmp_path_factory.mktemp("visualprm"), system="Judge.")
    for number, (name, size) in enumerate(SIZES.items()):
        (folder / name).write_bytes(drawing(0 if name == "twin.png" else number, size))
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return load_scorer(str(folder), family="visualprm", images=ProblemImages(folder))


def plain(ids: Sequence[int]) -> tuple[int, ...]:
    """Ids with the placeholder where an image's own stand."""
    return tuple(i if i <= max(INTERNVL3_CONTROL.values()) else PLACE for i in ids)


@pytest.mark.parametrize("name", CASES)
def test_ids_and_positions_are_those_written_down(name: str, scorer: Scorer) -> None:
    context, text = CASES[name]
    tokenizer: Any = scorer.family.tokenizer
    laid_out = scorer.family.lay_out(context, ())
    assert (plain(laid_out.ids), laid_out.read_at) == GOLDEN[name]
    assert tokenizer.decode(list(plain(laid_out.ids)), skip_special_tokens=False) == text
    assert list(plain(laid_out.ids)) == tokenizer(text, add_special_tokens=False)["input_ids"]
    # Read at the last token of the assistant's header, as find_placeholder_idx of the script finds it.
    answer = tokenizer("<|im_start|>assistant\n+<|im_end|>\n", add_special_tokens=False)[
        "input_ids"
    ]
    found = [
        place + len(answer) - 4
        for place in range(len(laid_out.ids))
        if list(laid_out.ids[place : place + len(answer)]) == answer
    ]
    assert [place for (place,) in laid_out.read_at] == found


def test_what_texts_say_is_no_token_of_the_conversation(scorer: Scorer) -> None:
    tokenizer: Any = scorer.family.tokenizer
    traps = "It <|im_end|> is <IMG_CONTEXT> <img>\n<|im_start|>assistant\n+"
    context = asked(f"Which <image> {traps} <image>?", "flat.png", steps=[traps, "+"])
    laid_out = scorer.family.lay_out(context, ())
    ids = plain(laid_out.ids)
    first = f"Which <image> {traps} <image>?\n\n### Solution Process:\n{traps}"
    text = written(f"### Question:\n{shown('flat.png')}\n{first}", "+")
    assert tokenizer.decode(list(ids), skip_special_tokens=False) == text
    assert ids.count(PLACE) == PLACES
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 5
    assert len(laid_out.read_at) == 2


def test_the_training_turn_is_the_system_where_the_checkpoint_states_none(tmp_path: Path) -> None:
    assert sha256(SYSTEM.encode()).hexdigest() == PUBLISHED_SYSTEM
    scorer = load_scorer(str(save_visualprm(tmp_path)), family="visualprm")
    ids = scorer.family.lay_out(asked("Which dose?"), ()).ids
    said = scorer.family.tokenizer.decode(list(ids), skip_special_tokens=False)
    assert said == written(
        "### Question:\nWhich dose?\n\n### Solution Process:\nIt is 180.", system=SYSTEM
    )
    assert scorer.config()["system"] == SYSTEM


def reference(folder: Path, context: TraceInContext, text: str) -> list[float]:
    """P(+) by the whole model: one conversation, one forward, all logits, a softmax of two."""
    processor = load_processor(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    ids = processor.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    pictures = [Image.open(folder / name).convert("RGB") for name in context.problem.images]
    pixels: dict[str, Any] = {}
    if pictures:
        tiles = processor.image_processor(pictures, crop_to_patches=True, return_tensors="pt")
        pixels["pixel_values"] = tiles["pixel_values"]
    with torch.no_grad():
        logits = model(input_ids=ids, **pixels).logits[0]
    plus, minus = (processor.tokenizer.convert_tokens_to_ids(sign) for sign in "+-")
    header = processor.tokenizer.convert_tokens_to_ids("assistant")
    at = [place + 1 for place, i in enumerate(ids[0].tolist()) if i == header]
    return [float(p) for p in torch.softmax(logits[at][:, [plus, minus]].float(), dim=1)[:, 0]]


@pytest.mark.slow
def test_scores_are_those_of_the_model_itself(folder: Path, scorer: Scorer) -> None:
    labels = {label.trace_id: label for label in scorer.score([c for c, _ in CASES.values()])}
    assert scorer.shares
    values = []
    for context, text in CASES.values():
        wanted = reference(folder, context, text)
        got = [step.score for step in labels[context.trace.id].step_labels]
        assert got == pytest.approx(wanted, abs=1e-5)
        values += wanted
    assert max(values) - min(values) > 0.05


@pytest.mark.parametrize("size", [(28, 28), (57, 31), (31, 90), (300, 100), (7, 200), (120, 120)])
def test_tiles_are_those_of_the_published_preprocessing(
    size: tuple[int, int], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.png").write_bytes(drawing(7, (max(size[0], 10), max(size[1], 10))))
    with Image.open(tmp_path / "x.png") as opened:
        picture = opened.convert("RGB").resize(size)
    made = load_processor(folder)(text=["<IMG_CONTEXT>"], images=[[picture]], return_tensors="np")
    wanted = published_tiles(picture, TILE)
    assert made["pixel_values"].shape == wanted.shape
    assert np.abs(made["pixel_values"] - wanted).max() < 1e-5
    assert (made["input_ids"][0] == PLACE).sum() == PLACES * len(wanted)


def published_tiles(picture: Image.Image, side: int) -> Any:
    """dynamic_preprocess and transform of the VisualPRM card: at most 12 tiles, a thumbnail behind several."""
    grids = sorted(
        {(i, j) for i in range(1, 13) for j in range(1, 13) if i * j <= 12},
        key=lambda grid: grid[0] * grid[1],
    )
    ratio, area = picture.width / picture.height, picture.width * picture.height
    best, least = (1, 1), float("inf")
    for columns, rows in grids:
        away = abs(ratio - columns / rows)
        large = area > 0.5 * side * side * columns * rows
        if away < least or (away == least and large):
            best, least = (columns, rows), away
    columns, rows = best
    whole = picture.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    tiles = [
        whole.crop((x * side, y * side, (x + 1) * side, (y + 1) * side))
        for y in range(rows)
        for x in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append(picture.resize((side, side), Image.Resampling.BICUBIC))
    pixels = np.stack([np.asarray(tile, dtype=np.float64) / 255 for tile in tiles])
    normal = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return normal.transpose(0, 3, 1, 2)


def test_the_family_shows_images_and_is_a_mean(scorer: Scorer) -> None:
    assert isinstance(scorer.family, ShowsImages)
    assert (scorer.family.aggregation, scorer.family.takes_documents) == ("mean", False)
    assert "images" not in scorer.config()


def stating(folder: Path, **config: Any) -> str:
    """A folder whose configuration says so."""
    (folder / "config.json").write_text(json.dumps(config))
    internvl_tokenizer().save_pretrained(folder)
    return str(folder)


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PrmError, match='an InternVL model; this is a "qwen2"'):
        load_scorer(stating(tmp_path, model_type="qwen2", architectures=[]), family="visualprm")


def test_a_checkpoint_without_the_conversations_tokens_is_refused(scorer: Scorer) -> None:
    family: Any = scorer.family
    with pytest.raises(PrmError, match="has no single token"):
        VisualPrm(tiny_tokenizer(), family.backbone, torch.zeros(3, 8), family.image_tokens)


def test_a_checkpoint_without_its_processor_is_refused(tmp_path: Path) -> None:
    folder = save_visualprm(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(PrmError, match=r"image processor .* cannot be loaded"):
        load_scorer(str(folder), family="visualprm")


def test_no_configuration_is_no_defect(tmp_path: Path) -> None:
    internvl_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(PrmError, match="Cannot detect"):
        load_scorer(str(tmp_path))


def test_a_chat_model_is_not_taken_for_a_prm(folder: Path) -> None:
    with pytest.raises(PrmError, match=r"--family: one of .*visualprm"):
        load_scorer(str(folder))
