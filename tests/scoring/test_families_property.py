"""Whatever the texts hold, each step is read at its own marker and no text makes a control token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.families.generic import Generic
from scoring.families.generic_layout import GenericLayout
from scoring.families.math_shepherd import MathShepherd
from scoring.families.medprm import MedPrm, MedPrmOrm
from scoring.families.qwen_prm import QwenPrm
from scoring.families.skywork import Skywork
from scoring.families.trl import TrlTokenClassification
from scoring.families.turn_tokens import TurnTokens
from scoring.family import Family
from scoring.generative import packaged_family
from tests.scoring.golden_cases import trace
from tests.scoring.golden_tokenizers import llama31, mistral, qwen25
from tests.tiny_models import tiny_llama

TRAPS = (
    " ки", "ки", "<extra_0>", "<|eot_id|>", "<|im_end|>", "<|im_start|>", "</s>", "<s>", "\n", "\n\n", " ",
    ".", "+", " -", "é", "患者", "\ue000", "{step}", "Step 2:", "6 mg",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(TRAPS) | st.text(max_size=3), max_size=6).map("".join)


def _signs(family: Callable[..., Family], tokenizer: Any, *more: Any) -> Family:
    size = max(tokenizer.get_vocab().values()) + 1
    return family(tokenizer, tiny_llama(tokenizer, vocab_size=size, hidden_size=4), *more)


def _headed(family: Callable[..., Family], tokenizer: Any) -> Family:
    return family(tokenizer, None, None)


def _file(**more: str) -> GenericLayout:
    return GenericLayout(
        name="m", prompt="{documents}{question} ", positive=" +", negative=" -", **more
    )


MADE: dict[str, Callable[[], Family]] = {
    "medprm": lambda: _signs(MedPrm, llama31(marker=" ки")),
    "medprm-orm": lambda: _signs(MedPrmOrm, llama31(marker=" ки")),
    "rlhflow": lambda: _signs(TurnTokens, llama31(), packaged_family("rlhflow")),
    "fover": lambda: _signs(TurnTokens, llama31("correct\nincorrect"), packaged_family("fover")),
    "math-shepherd": lambda: _signs(MathShepherd, mistral()),
    "qwen-prm": lambda: _headed(QwenPrm, qwen25(marker="<extra_0>")),
    "skywork-o1": lambda: _headed(Skywork, qwen25(bos=True)),
    "trl": lambda: _headed(TrlTokenClassification, qwen25()),
    "file": lambda: _signs(Generic, qwen25(" + -"), _file(marker="\n", chat="none")),
    "file-chat": lambda: _signs(Generic, llama31(marker="<m>"), _file(marker="<m>")),
}


@pytest.fixture(scope="module", params=sorted(MADE))
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in turn."""
    made: Family = MADE[request.param]()
    return made


def controls(family: Family, context: Any) -> list[int]:
    """The control tokens and added markers of a layout, in order."""
    ids = family.lay_out(context, context.evidence).ids
    return [i for i in ids if i in family.tokenizer.added_tokens_decoder]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(question=TEXTS, steps=st.lists(TEXTS, min_size=1, max_size=4), document=TEXTS)
def test_every_step_is_read_at_its_own_marker(
    family: Family, question: str, steps: list[str], document: str
) -> None:
    documents = document.replace("|", "") if family.takes_documents else ""
    context = trace(f"Q{question}", *steps, documents=documents)
    plain = trace("Q", *["a"] * len(steps), documents="d" if documents else "")
    laid_out = family.lay_out(context, context.evidence)
    usual = family.lay_out(plain, plain.evidence)
    # No text adds or hides a control token or a marker.
    assert controls(family, context) == controls(family, plain)
    # One place a step, in order, at the token that is read in a trace without traps.
    assert [len(places) for places in laid_out.read_at] == [len(p) for p in usual.read_at]
    places = [place for (place,) in filter(None, laid_out.read_at)]
    assert places == sorted(set(places))
    token = {usual.ids[place] for (place,) in filter(None, usual.read_at)}
    assert {laid_out.ids[place] for place in places} == token
