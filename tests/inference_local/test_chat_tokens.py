"""The assistant turn is really continued: ids are those of the rendered text, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from inference.prompting import conversation_ids, conversation_text, template_from_tokenizer
from inference.protocol import Message
from tests.tiny_models import tiny_tokenizer
from traces.errors import InputError

USER = Message("user", "Which dose?")
HEAD = "<|begin|><|start|>user<|close|>\n\nWhich dose?<|end|><|start|>assistant<|close|>\n\n"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def test_an_open_turn_is_the_generation_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    assert conversation_text(tokenizer, (USER,)) == HEAD


@pytest.mark.parametrize("written", ["Step 1: 6 mg.\n", " 6 mg \n\n", "6"])
def test_a_last_assistant_turn_stands_behind_it_to_the_letter(
    tokenizer: PreTrainedTokenizerFast, written: str
) -> None:
    assert conversation_text(tokenizer, (USER, Message("assistant", written))) == HEAD + written


GRUMPY = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_a_template_that_refuses_a_system_turn_has_its_text_in_the_user_turn(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Gemma 2's and the first ones of Mistral do."""
    tokenizer.chat_template = GRUMPY + tokenizer.chat_template
    asked = (Message("system", "Think."), USER, Message("assistant", "6"))
    expected = HEAD.replace("Which", "Think.\n\nWhich") + "6"
    assert conversation_text(tokenizer, asked) == expected
    tokenizer.save_pretrained(tmp_path)
    # There the server puts the begin-of-sequence token itself.
    assert template_from_tokenizer(tmp_path)(asked) == expected.removeprefix("<|begin|>")


def test_a_template_that_refuses_all_is_told_with_its_reason(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = "{{ raise_exception('tools only') }}"
    for asked in ((USER,), (Message("system", "Think."), USER)):
        with pytest.raises(InputError, match="refuses the conversation: tools only"):
            conversation_text(tokenizer, asked)


def test_an_empty_assistant_turn_is_an_open_one(tokenizer: PreTrainedTokenizerFast) -> None:
    assert conversation_text(tokenizer, (USER, Message("assistant", ""))) == HEAD


def test_earlier_assistant_turns_are_rendered(tokenizer: PreTrainedTokenizerFast) -> None:
    text = conversation_text(tokenizer, (USER, Message("assistant", "6 mg"), USER))
    assert "assistant<|close|>\n\n6 mg<|end|><|start|>user" in text


def test_ids_hold_one_bos_and_decode_to_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    [ids] = conversation_ids(tokenizer, [(USER, Message("assistant", "Step 1: the dose\n"))])
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(list(ids)) == HEAD + "Step 1: the dose\n"


def test_without_a_template_turns_are_paragraphs_behind_one_bos(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = None
    [ids] = conversation_ids(tokenizer, [(Message("system", "Be brief."), USER)])
    assert tokenizer.decode(list(ids)) == "<|begin|>Be brief.\n\nWhich dose?\n\n"


THOUGHT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>"
OPEN = "<think>\n{% endif %}"
STEPS = (USER, Message("assistant", "6 mg.\n"))


@pytest.mark.parametrize(
    ("ending", "written"),
    [
        pytest.param(
            "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% else %}"
            + OPEN
            + "{% endif %}",
            "<think>\n\n</think>\n\n",
            id="Qwen3's switch",
        ),
        pytest.param(
            "{% if thinking is false %}</think>{% else %}<think>{% endif %}{% endif %}",
            "</think>",
            id="DeepSeek V3.1's switch",
        ),
        pytest.param(OPEN, "<think>\n\n</think>\n\n", id="no switch: the thought is closed"),
        pytest.param("[THINK]{% endif %}", "[THINK]\n[/THINK]\n\n", id="Magistral's marks"),
        pytest.param("{% endif %}", "", id="no thought"),
    ],
)
def test_a_prefix_never_stands_in_a_thought(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, ending: str, written: str
) -> None:
    tokenizer.chat_template = THOUGHT + ending
    text = conversation_text(tokenizer, STEPS)
    assert text.endswith(f"<|assistant|>{written}6 mg.\n")
    tokenizer.save_pretrained(tmp_path)
    assert template_from_tokenizer(tmp_path)(STEPS).endswith(f"<|assistant|>{written}6 mg.\n")


def test_a_prefix_follows_what_the_template_writes_before_every_reply(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """gpt-oss: the generation prompt ends before the channel."""
    said = "{% if m.role == 'assistant' %}<|channel|>final<|message|>{% endif %}"
    tokenizer.chat_template = THOUGHT.replace("{{ m.content", said + "{{ m.content") + "{% endif %}"
    assert conversation_text(tokenizer, STEPS).endswith(
        "<|assistant|><|channel|>final<|message|>6 mg.\n"
    )


def test_whole_solutions_are_asked_for_as_the_template_does(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = THOUGHT + OPEN
    assert conversation_text(tokenizer, (USER,)).endswith("<|assistant|><think>\n")


def test_the_users_switches_reach_the_template(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.chat_template = THOUGHT + "{{ mood }}{% endif %}"
    tokenizer.save_pretrained(tmp_path)
    render = template_from_tokenizer(tmp_path, {"mood": "calm"})
    assert render(STEPS).endswith("<|assistant|>calm6 mg.\n")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (THOUGHT + "<|channel|>analysis<|message|>{% endif %}", "begins replies with '<|channel|>"),
        (
            "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}{% endif %}{% endfor %}",
            "leaves out the text",
        ),
    ],
)
def test_a_template_that_cannot_be_continued_is_refused_at_load(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str, why: str
) -> None:
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot continue an assistant turn") as refused:
        template_from_tokenizer(tmp_path)
    assert why in refused.value.what
    assert "without --template" in str(refused.value.remedy)
    with pytest.raises(InputError, match="cannot continue an assistant turn"):
        conversation_text(tokenizer, STEPS)
