"""PRMs that a TOML file describes: every layout to the letter, every fault of the file named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scoring import load_scorer
from scoring.families.generic import Generic
from scoring.families.generic_layout import GenericLayout
from tests.scoring.golden_cases import trace
from tests.scoring.golden_tokenizers import llama31, mistral, qwen25
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.errors import InputError, PrmError

MEDPRM = """
name = "like-medprm"
prompt = "{documents}Question: {question}\\n\\nExplanation: "
marker = " ки"
positive = " +"
negative = " -"
system = "Judge."
"""
CONTEXT = trace("Which {documents}?", "It ки is {step}.", "So.", documents="The {question} dose.")


def family(tokenizer: Any, **changes: str) -> Generic:
    """The family on a random Llama of that tokenizer."""
    settings = {
        "name": "mine", "prompt": "{question} ", "marker": " ки", "positive": " +", "negative": " -",
    }  # fmt: skip
    size = max(tokenizer.get_vocab().values()) + 1
    model = tiny_llama(tokenizer, vocab_size=size, hidden_size=8, num_attention_heads=2)
    return Generic(tokenizer, model, GenericLayout(**settings | changes))


def spelled(tokenizer: Any, family: Generic, context: Any) -> tuple[str, list[str]]:
    """The text that the ids spell, and the tokens that are read."""
    laid_out = family.lay_out(context, context.evidence)
    tokens = tokenizer.convert_ids_to_tokens(list(laid_out.ids))
    return tokenizer.decode(list(laid_out.ids)), [tokens[place] for (place,) in laid_out.read_at]


def test_a_file_scores_as_the_family_it_describes(medprm_folder: Path, tmp_path: Path) -> None:
    from scoring.families.medprm import SYSTEM_WITH_DOCUMENTS

    path = tmp_path / "mine.toml"
    path.write_text(MEDPRM.replace("Judge.", SYSTEM_WITH_DOCUMENTS))
    described = load_scorer(str(medprm_folder), family=str(path))
    known = load_scorer(str(medprm_folder))
    assert described.family.takes_documents
    contexts = [CONTEXT, trace("Which?", "One.", "Two.", documents="A.|B.")]
    for context in contexts:
        assert described.family.lay_out(context, context.evidence) == known.family.lay_out(
            context, context.evidence
        )
    found, wanted = ({x.trace_id: x for x in s.score(contexts[:1])} for s in (described, known))
    assert found["t"].step_labels == wanted["t"].step_labels


def test_what_the_file_says_is_stored(medprm_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MEDPRM)
    one = load_scorer(str(medprm_folder), family=str(path)).config()
    path.write_text(MEDPRM.replace("Judge.", "Judge well."))
    two = load_scorer(str(medprm_folder), family=str(path)).config()
    assert one["family"] == two["family"] == "like-medprm"
    assert one != two
    again = load_scorer(str(medprm_folder), family=GenericLayout(**two["layout"]))
    assert again.config() == two


def test_texts_with_places_in_them_are_not_filled_twice() -> None:
    tokenizer = llama31(marker=" ки")
    mine = family(tokenizer, prompt="{documents}Q: {question} A: ", chat="none")
    assert spelled(tokenizer, mine, CONTEXT) == (
        "<|begin_of_text|>Document 1: The {question} dose.\n\nQ: Which {documents}? A: "
        "It ки is {step}. ки So. ки",
        [" ки", " ки"],
    )


def test_steps_in_the_assistants_turn_read_before_the_marker() -> None:
    tokenizer = qwen25(" + -", marker=" ки")
    mine = family(
        tokenizer, prompt=" {question}\n", chat="assistant", read="before", step="{number}) {step}",
        separator="\n", system="Judge.",
    )  # fmt: skip
    text, reads = spelled(tokenizer, mine, trace("Why?", " One. ", "Two"))
    assert text == (
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n Why?\n<|im_end|>\n"
        "<|im_start|>assistant\n1) One. ки\n2) Two ки<|im_end|>\n"
    )
    assert reads == [".", "o"]


def test_ids_across_the_edge_of_a_text_are_those_of_the_whole() -> None:
    """The template's line break and the prompt's own are one token; trimmed blanks are gone."""
    tokenizer = qwen25("user\n\n\n + -", marker=" ки")
    mine = family(tokenizer, prompt="\n\n{question}", chat="assistant")
    laid_out = mine.lay_out(trace("Why?", "One."), ())
    text = tokenizer.decode(list(laid_out.ids))
    assert "user\n\n\nWhy?" in text
    assert list(laid_out.ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
    trimming = llama31(marker=" ки")
    mine = family(trimming, prompt="\n\n{question} ", chat="assistant")
    assert (
        "<|end_header_id|>\n\nWhy?<|eot_id|>" in spelled(trimming, mine, trace("Why?", "One."))[0]
    )


def test_a_marker_that_would_melt_is_a_token_of_its_own() -> None:
    """Behind a full stop a line break is one token with it; the other steps stay as they are."""
    tokenizer = qwen25(" + -")
    mine = family(tokenizer, marker="\n", chat="none", separator="")
    laid_out = mine.lay_out(trace("Why?", "One.", "Two", "Three.\n", "Four"), ())
    tokens = tokenizer.convert_ids_to_tokens(list(laid_out.ids))
    assert tokenizer.decode(list(laid_out.ids)) == "Why? One.\nTwo\nThree.\nFour\n"
    assert [tokens[place] for (place,) in laid_out.read_at] == ["Ċ"] * 4
    assert tokens.count("Ċ") == 4
    assert ".Ċ" in tokenizer.convert_ids_to_tokens(tokenizer("One.\nTwo")["input_ids"])


@pytest.mark.parametrize("metaspace", [False, True])
def test_a_sentence_piece_marker_is_the_one_behind_a_word(metaspace: bool) -> None:
    tokenizer = mistral(metaspace=metaspace)
    mine = family(tokenizer, chat="none")
    laid_out = mine.lay_out(trace("Why?", "a", "b"), ())
    assert [laid_out.ids[place] for (place,) in laid_out.read_at] == [12902, 12902]
    assert list(laid_out.ids) == tokenizer("Why? a ки b ки")["input_ids"]


def test_a_marker_that_was_added_without_being_special_stays_text_in_texts() -> None:
    tokenizer = llama31()
    tokenizer.add_tokens(["<step>"])
    marker = tokenizer.convert_tokens_to_ids("<step>")
    assert marker in tokenizer("a <step> b", split_special_tokens=True)["input_ids"]
    for chat in ("user", "none"):
        mine = family(tokenizer, marker="<step>", chat=chat)
        laid_out = mine.lay_out(trace("Why <step>?", "<step><step> is", "b<step>"), ())
        assert laid_out.ids.count(marker) == 2
        assert [laid_out.ids[place] for (place,) in laid_out.read_at] == [marker, marker]
        assert "Why <step>? <step><step> is<step> b<step><step>" in tokenizer.decode(
            list(laid_out.ids)
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, 'unknown key "colour"'),
        ({"marker": None}, 'no key "marker"'),
        ({"marker": 5}, '"marker" is not a string'),
        ({"prompt": "no place"}, "{question}"),
        ({"step": "no place"}, "{step}"),
        ({"read": "behind"}, "at, before"),
        ({"chat": "system"}, "user, assistant, none"),
        ({"aggregation": "max"}, "min, product, last, mean"),
        ({"name": ""}, '"name" is empty'),
        ({"negative": "+"}, "are the same"),
        ({"name": "medprm"}, "medprm"),
    ],
)
def test_faults_of_the_file_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    settings = {
        "name": "mine", "prompt": "{question}", "marker": "m", "positive": "+", "negative": "-",
    } | changes  # fmt: skip
    path = tmp_path / "mine.toml"
    path.write_text(
        "\n".join(f"{key} = {value!r}" for key, value in settings.items() if value is not None)
    )
    with pytest.raises(InputError) as refusal:
        load_scorer("nowhere", family=str(path))
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", None])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="Cannot read"):
        load_scorer("nowhere", family=str(path))


def test_a_marker_of_several_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    folder = save(tmp_path / "m", tokenizer, tiny_llama(tokenizer))
    path = tmp_path / "mine.toml"
    path.write_text(MEDPRM.replace(" ки", "<step>"))
    with pytest.raises(PrmError, match="not one token"):
        load_scorer(str(folder), family=str(path))
