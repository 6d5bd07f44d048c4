"""Retrieval that sees: images shown to the model that writes queries, and images as queries."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.conftest import Cli
from tests.commands.test_retrieve_ways import evidence
from tests.loopback.openai_server import OpenAIServer

CONTEXT = {"age_group": "adult", "symptoms": ["cough", "fever"], "vitals": {"pulse": 110}}
PASSAGES = {
    "lobe.txt": "Lobar pneumonia.",
    "zebra.txt": "Zebras have stripes.",
    "sum.txt": "1+1=2.",
}


def picture(shade: int) -> bytes:
    """A PNG with a gradient that ends in this shade."""
    pixels = np.linspace(0, shade, 40 * 40 * 3).reshape(40, 40, 3).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def seen(cli: Cli, tmp_path: Path) -> Path:
    """Two problems with images and one without, and three passages; the folder of the images."""
    guides, images = tmp_path / "guides", tmp_path / "scans"
    guides.mkdir()
    images.mkdir()
    for name, text in PASSAGES.items():
        (guides / name).write_text(text)
    for name, shade in (("a.png", 255), ("b.png", 60)):
        (images / name).write_bytes(picture(shade))
    cli("corpus", "add", guides, "--corpus", "g")
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "problem": f"What does image {name} show?",
            "images": [f"{name}.png"],
            "steps": ["A shadow."],
            "meta": {"modality": "chest_xray", "clinical_context": CONTEXT},
        }
        for name in "ab"
    ]
    rows.append({"id": "c", "problem": "What is 1+1?", "steps": ["2."]})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli("import", "traces", tmp_path / "t.jsonl", "--dataset", "d").code == 0
    return images


def test_the_rewriter_sees_images_and_the_clinical_context(
    cli: Cli, seen: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with OpenAIServer('{"queries": ["lobar pneumonia"]}') as server:
        ways = ("--mode", "bm25", "--query", "rewrite", "--rewriter", "openai:m", "--json")
        retrieve = ("retrieve", "--dataset", "d", *ways, "--base-url", server.url)
        called = cli(*retrieve, "--images", seen)
        assert (called.code, called.document["done"]) == (0, 3), called.err
        said = {json.dumps(body["messages"]): body for _, body, _ in server.calls}
        shown = [text for text in said if "image_url" in text]
        assert len(shown) == 2
        for text in shown:
            assert "name the findings" in text
            assert "Modality: chest_xray" in text
            assert "Symptoms: cough, fever" in text
            assert "Vitals: pulse 110" in text
        (blind,) = [text for text in said if "image_url" not in text]
        assert "findings" not in blind
        assert any("lobe" in place for place in evidence(cli, tmp_path)["a"])
        unseen = cli(*retrieve, "--ignore-images")
        assert unseen.code == 2, "evidence found without images is another one"


def test_an_image_that_cannot_be_read_costs_its_problem(
    cli: Cli, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    (seen / "b.png").write_bytes(b"no image")
    with OpenAIServer('{"queries": ["lobar pneumonia"]}') as server:
        ways = ("--mode", "bm25", "--query", "rewrite", "--rewriter", "openai:m", "--json")
        called = cli(
            *("retrieve", "--dataset", "d", *ways, "--base-url", server.url, "--images", seen)
        )
    assert (called.code, called.document["abstained"]) == (1, {"unreadable": 1})


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ((), "compares vectors alone"),
        (("--mode", "dense", "--rerank", "x"), "compares vectors alone"),
    ],
)
def test_images_are_not_searched_by_words(
    cli: Cli, seen: Path, more: tuple[str, ...], what: str
) -> None:
    called = cli("retrieve", "--dataset", "d", "--query", "image", "--images", seen, *more)
    assert called.code == 2
    assert what in called.err


def test_images_have_no_effect_on_other_queries(cli: Cli, seen: Path) -> None:
    called = cli("retrieve", "--dataset", "d", "--mode", "bm25", "--images", seen)
    assert called.code == 2
    assert "--query image or rewrite" in called.err


@pytest.mark.slow
def test_an_image_finds_passages_by_an_image_text_encoder(
    cli: Cli, seen: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from tests.tiny_clip import save_tiny_clip

    clip = save_tiny_clip(tmp_path)
    built = cli("index", "--encoder", clip)
    assert built.code == 0, built.err
    ways = ("--query", "image", "--mode", "dense", "--encoder", clip, "--images", seen)
    called = cli("retrieve", "--dataset", "d", *ways, "--json", "--k", "3")
    assert (called.code, called.document["done"]) == (0, 3), called.err
    assert "1 problems have no image" in called.err
    assert "torchvision" not in called.err
    model = SentenceTransformer(str(clip))
    texts = model.encode(list(PASSAGES.values()), normalize_embeddings=True)
    found = evidence(cli, tmp_path)
    for name, shade in (("a", 255), ("b", 60)):
        image = Image.open(io.BytesIO(picture(shade)))
        near = texts @ model.encode([image], normalize_embeddings=True)[0]
        expected = [list(PASSAGES)[row] for row in np.argsort(-near)]
        assert [place.partition("@")[0] for place in found[name]] == expected
    again = cli("retrieve", "--dataset", "d", *ways, "--json", "--k", "3")
    assert again.document["unchanged"] == 3
    assert cli("retrieve", "--dataset", "d", "--mode", "dense", "--encoder", clip).code == 2


@pytest.mark.slow
def test_an_encoder_of_texts_alone_is_refused(cli: Cli, seen: Path) -> None:
    assert cli("index").code == 0
    called = cli(
        *("retrieve", "--dataset", "d", "--query", "image", "--mode", "dense", "--images", seen)
    )
    assert called.code == 2
    assert "reads texts alone" in called.err
    assert "clip-ViT-B-32" in called.err
