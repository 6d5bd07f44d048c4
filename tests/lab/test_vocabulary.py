"""The tokenizer covers all the generator says, loss-free, and lays chats out as the models read them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lab import prompts
from lab.corruption import draw_trace
from lab.domain import draw_facts, draw_question
from lab.names import DRUG_NAMES
from lab.prose import draw_document, draw_window
from lab.training.tokens import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


def test_everything_the_generator_says_survives_the_round_trip(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rng = random.Random(0)
    for _ in range(50):
        facts = draw_facts(rng)
        question = draw_question(rng, facts)
        steps = draw_trace(rng, facts, question).steps
        for passage in (draw_document(rng, facts), draw_window(rng, facts)):
            user = prompts.marked_user_text(passage, question.text, steps)
            text = prompts.generation_prompt(user) + prompts.prefix_text(steps)
            ids = tokenizer.encode(text)
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", [" ки", " +", " -", "Zentide", " Zentide", "\n", "7", " 7"])
def test_marks_names_and_digits_are_single_tokens(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) == 1
    assert tokenizer.decode(ids) == text


def test_every_drug_name_is_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(set(DRUG_NAMES)) == 320
    assert all(len(tokenizer.encode(f" {name}")) == 1 for name in DRUG_NAMES)


def test_foreign_words_become_unknown(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.unk_token_id in tokenizer.encode("Hippopotamus")


def test_the_chat_template_gives_the_documented_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    user = {"role": "user", "content": prompts.user_text("P.", "Q?")}
    chat = [{"role": "system", "content": "Anything."}, user]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>Document 1: P.\n\nQuestion: Q?<|end|><|assistant|>"
    assert text == prompts.generation_prompt(user["content"])
    marked = prompts.marked_user_text("P.", "Q?", ["a.", "b."])
    assert marked == "Document 1: P.\n\nQuestion: Q?\n\nExplanation: a. ки b. ки"


def test_a_saved_tokenizer_loads_the_same(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|>Question: 6 x 120 = 720 mg. ки<|end|>"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.chat_template == tokenizer.chat_template
