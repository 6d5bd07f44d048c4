"""For every kind of tokenizer the assistant turn is really continued: token by token, nothing between."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from inference.local.shared_attention import common_tokens
from inference.local.token_choice import StopStrings
from inference.prompting import ContinuationPrompt, continuation_messages, conversation_ids
from tests.policies import local_policy
from tests.tiny_models import save, tiny_llama
from tests.tokenizer_rules import RULES, Rule
from traces.problem import Problem, Trace, TraceInContext

STEPS = (
    "Step 1: the dose is 6 mg per kg.",
    "6 x 30 =  180 mg,\n  so é 180 mg.",
    "No mo",
    "re dose.",
)
QUESTION = "Which single dose?"
SEPARATORS = ["\n", "\n\n", " ", ""]


@pytest.fixture(scope="module", params=list(RULES))
def rule(request: pytest.FixtureRequest) -> Rule:
    return RULES[request.param]()


def texts_of(rule: Rule, separator: str) -> list[str]:
    """What stands before each step's continuations, written out by hand."""
    head = rule.head.replace("{user}", f"Question: {QUESTION}")
    return [
        head + "".join(f"{one}{separator}" for one in STEPS[: step + 1])
        for step in range(len(STEPS))
    ]


def ids_of(rule: Rule, separator: str) -> list[tuple[int, ...]]:
    problem = Problem("p", QUESTION)
    return conversation_ids(
        rule.tokenizer,
        [
            continuation_messages(problem, (), STEPS[: step + 1], system=None, separator=separator)
            for step in range(len(STEPS))
        ],
    )


@pytest.mark.parametrize("separator", SEPARATORS)
def test_ids_are_those_of_the_text_in_one_piece(rule: Rule, separator: str) -> None:
    core = rule.tokenizer.backend_tokenizer
    wanted = [
        tuple(core.encode(text, add_special_tokens=False).ids) for text in texts_of(rule, separator)
    ]
    got = ids_of(rule, separator)
    assert got == wanted
    if rule.tokenizer.bos_token_id is not None:
        assert all(ids.count(rule.tokenizer.bos_token_id) == 1 for ids in got)
    ends = {rule.tokenizer.eos_token_id} - {None}
    open_turns = [ids[len(got[0]) - 1 :] for ids in got]
    assert all(ends.isdisjoint(ids) for ids in open_turns), "no turn is closed behind a prefix"


@pytest.mark.parametrize("separator", SEPARATORS)
def test_nothing_stands_between_prefix_and_continuation(rule: Rule, separator: str) -> None:
    """The ids end with the prefix; what the decoder does to white space is all that may differ."""
    for step, ids in enumerate(ids_of(rule, separator)):
        written = "".join(f"{one}{separator}" for one in STEPS[: step + 1])
        decoded = str(rule.tokenizer.decode(list(ids), skip_special_tokens=True))
        if rule.exact:
            assert decoded.endswith(written)
        known = "".join(written.replace("é", "").split())  # not every vocabulary has this letter
        assert "".join(decoded.replace("é", "").split()).endswith(known)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_new_text_and_prefix_make_up_the_whole(rule: Rule, separator: str) -> None:
    """Blanks at the seam are neither lost nor made up: the parts decode to what the whole decodes to."""
    tokenizer: Any = rule.tokenizer
    reader = StopStrings((), tokenizer)
    draw = torch.Generator().manual_seed(0)
    marks = set(tokenizer.all_special_ids)
    for ids in ids_of(rule, separator):
        for _ in range(8):
            drawn = torch.randint(len(tokenizer), (5,), generator=draw).tolist()
            new = [token for token in drawn if token not in marks]
            before, whole = (
                tokenizer.decode(list(part), skip_special_tokens=True)
                for part in (ids, [*ids, *new])
            )
            if whole.startswith(before):  # not where new bytes complete a character
                assert before + reader.text(ids[-1], new)[0] == whole


@pytest.mark.slow
@pytest.mark.parametrize("separator", ["\n", ""])
def test_greedy_text_is_what_generate_writes_behind_the_text(
    rule: Rule, separator: str, tmp_path: Path
) -> None:
    tokenizer: Any = rule.tokenizer
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer))
    prompt = ContinuationPrompt(separator=separator)
    policy = local_policy(folder, prompt=prompt, max_tokens=8, temperature=0.0)
    context = TraceInContext(Problem("p", QUESTION), Trace("t", "p", STEPS))
    [done] = policy.continue_traces([context], k=1, seed=0)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    core = tokenizer.backend_tokenizer
    for text, rendered in zip(done.texts, texts_of(rule, separator), strict=True):
        ids = torch.tensor([core.encode(rendered, add_special_tokens=False).ids])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        assert text.tokens == output.shape[1] - ids.shape[1]
        before, whole = (
            tokenizer.decode(part[0].tolist(), skip_special_tokens=True) for part in (ids, output)
        )
        assert before + text.text == whole


def test_most_of_a_prefix_is_shared(rule: Rule) -> None:
    """Where steps end at a boundary of tokens each prefix is a cut of the next one."""
    rows = ids_of(rule, "\n")
    for shorter, longer in pairwise(rows[:3]):
        assert common_tokens(shorter, longer) >= len(shorter) - 1
