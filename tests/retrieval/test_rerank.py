"""A real cross-encoder, tiny and random: order, windows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.search.rerank import load_reranker
from traces.errors import InputError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dose", "of", "warfarin", "liver", "five"]
pytestmark = pytest.mark.slow


def cross_encoder(folder: Path, *, labels: int = 1, window: int = 32) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=window)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=window,
        initializer_range=1.0,
    )
    config.num_labels = labels
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_scores_do_not_depend_on_the_company(tmp_path: Path) -> None:
    reranker = load_reranker(str(cross_encoder(tmp_path / "tiny")))
    assert reranker.name.startswith("tiny@")
    pairs = [("dose of warfarin", text) for text in ("five", "liver of warfarin dose", "dose " * 9)]
    together = reranker.relevance(pairs)
    alone = [float(reranker.relevance([pair])[0]) for pair in pairs]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert len(set(np.round(together, 6).tolist())) == 3
    assert reranker.relevance([]).shape == (0,)


def test_a_long_passage_counts_by_its_best_piece(tmp_path: Path) -> None:
    reranker = load_reranker(str(cross_encoder(tmp_path / "tiny")))
    query, room = "dose of warfarin", 32 - 3 - 3
    pieces = ["five. " * (room // 2), "liver. " * (room // 2), "warfarin. " * (room // 2)]
    whole = reranker.relevance([(query, "".join(pieces))])[0]
    parts = reranker.relevance([(query, piece.strip()) for piece in pieces])
    assert whole == pytest.approx(float(parts.max()), abs=1e-5)
    with pytest.raises(InputError, match="no room"):
        reranker.relevance([("dose " * 20, "five")])


def test_what_is_no_reranker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 scores per pair"):
        load_reranker(str(cross_encoder(tmp_path / "classes", labels=2)))
    with pytest.raises(InputError, match="Cannot load"):
        load_reranker(str(tmp_path / "nowhere"))
