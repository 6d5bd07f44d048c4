"""The head of a prompt file: how steps are shown, and what each reader makes of a reply."""

from __future__ import annotations

import json
from typing import Any

import pytest

from judge.config import JudgeConfig
from judge.prompt import render_vote
from judge.prompt_file import JudgePrompt
from judge.protocol import PromptProtocol, UnreadableReply, first_token_probability
from judge.reply import read_reply, said_in
from tests.judge.sheets import context
from traces.errors import InputError
from traces.labels import Abstention, AbstentionReason, Verdict

GOOD, BAD, OPEN = Verdict.CORRECT, Verdict.INCORRECT, None
INDEX = PromptProtocol(reader="boxed-index", first=0)
BOXES = PromptProtocol(reader="boxed-verdict")
YES_NO = PromptProtocol(reader="yes-no")
TOKEN = PromptProtocol(reader="yes-no", read="token", correct=("Yes",), incorrect=("No",))
NUMBERED = PromptProtocol(reader="regex", pattern=r"(?P<step>\d+)\W+(?P<verdict>\w+)")
BARE = PromptProtocol(reader="regex", pattern=r"=> (?P<verdict>\w+)")


@pytest.mark.parametrize(
    ("protocol", "text", "steps", "wanted"),
    [
        (INDEX, r"\boxed{0} no: \boxed{ 1 }", 3, [GOOD, BAD, OPEN]),
        (INDEX, r"\boxed{-1}", 2, [GOOD, GOOD]),
        (PromptProtocol(reader="boxed-index"), r"\boxed{1}", 2, [BAD, OPEN]),
        (INDEX, r"\boxed{3}", 3, "names step 3"),
        (INDEX, r"\boxed{step 1}", 3, "not a number"),
        (INDEX, r"\boxed{}", 3, "not a number"),
        (INDEX, r"\boxed{1", 3, "no \\boxed"),
        (INDEX, r"\boxed{" + "9" * 5000 + "}", 3, "not a number"),
        (BOXES, r"1: \boxed{correct} 2: \boxed{\text{Incorrect}}", 3, [GOOD, BAD, OPEN]),
        (BOXES, r"a \boxed{4} b \boxed{correct} \boxed{**correct**}.", 2, [GOOD, GOOD]),
        (BOXES, r"\boxed{correct}", 2, "1 verdicts on 2 steps"),
        (BOXES, r"\boxed{correct} \boxed{correct} \boxed{incorrect}", 2, "3 verdicts on 2"),
        (BOXES, r"first \boxed{correct}, then \boxed{incorrect}", 1, [BAD]),
        (BOXES, "no boxes", 1, "no verdict"),
        (YES_NO, "Yes. There is no error.", 1, [GOOD]),
        (YES_NO, "It adds up.\nVerification: Is the step correct (Yes/No)? No", 1, [BAD]),
        (YES_NO, "The step is wrong because 2 < 1.\n**no**", 1, [BAD]),
        (YES_NO, "I would say yes here", 1, [GOOD]),
        (YES_NO, "Is the step correct (Yes/No)?", 1, "neither yes nor no"),
        (YES_NO, "maybe yes, maybe no, who knows", 1, "both"),
        (YES_NO, "yes", 2, "several steps"),
        (NUMBERED, "2: incorrect\n1: correct", 3, [GOOD, BAD, OPEN]),
        (NUMBERED, "1: correct 1: incorrect", 1, "judges step '1'"),
        (NUMBERED, "7: correct", 3, "judges step '7'"),
        (NUMBERED, "1: maybe", 1, "'maybe' is no verdict"),
        (NUMBERED, "nothing", 1, "nothing in the reply"),
        (BARE, "=> neutral => correct", 2, [Verdict.NEUTRAL, GOOD]),
        (BARE, "=> correct", 2, "1 verdicts on 2 steps"),
    ],
)  # fmt: skip
def test_readers(
    protocol: PromptProtocol, text: str, steps: int, wanted: list[Verdict | None] | str
) -> None:
    if isinstance(wanted, list):
        assert protocol.verdicts(text, steps) == wanted
        return
    with pytest.raises(UnreadableReply) as fault:
        protocol.verdicts(text, steps)
    assert wanted in str(fault.value)
    read = read_reply(text, "stop", range(steps), [], protocol=protocol)
    assert isinstance(read, Abstention)
    assert read.reason is AbstentionReason.UNREADABLE


def test_a_cut_reply_is_truncated_and_thoughts_do_not_count() -> None:
    thought = r"<think>\boxed{0}</think> \boxed{1}"
    read = read_reply(thought, "stop", range(2), [], protocol=INDEX)
    assert [step.verdict for step in read] == [GOOD, BAD]  # type: ignore[union-attr]
    cut = read_reply(r"\boxed{1}", "length", range(2), [], protocol=INDEX)
    assert isinstance(cut, Abstention)
    assert cut.reason is AbstentionReason.TRUNCATED


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"No: \boxed{0}? Rather the next.</think> \boxed{1}", [GOOD, BAD]),
        (r"<think>a <think> \boxed{0}</THINK> \boxed{1}", [GOOD, BAD]),
        (r"<think>It may be \boxed{0}", None),
        (r"It may be \boxed{0}</think>", None),
    ],
)
def test_a_thought_is_never_a_verdict(text: str, wanted: list[Verdict] | None) -> None:
    read = read_reply(text, "stop", range(2), [], protocol=INDEX)
    if wanted is None:
        assert isinstance(read, Abstention)
        assert said_in(text, INDEX) is None
    else:
        assert [step.verdict for step in read] == wanted  # type: ignore[union-attr]
        assert said_in(text, INDEX) == "1"


def test_a_tag_that_an_answer_quotes_ends_no_thought() -> None:
    entry = {"step": 1, "document": None, "quote": None, "reasoning": "a </think> b",
             "verdict": "correct"}  # fmt: skip
    read = read_reply(json.dumps({"steps": [entry]}), "stop", [0], [])
    assert [step.verdict for step in read] == [GOOD]  # type: ignore[union-attr]


def chat_body(**tokens: float) -> str:
    listed = [{"token": token, "logprob": value} for token, value in tokens.items()]
    return json.dumps({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})


def test_token_probabilities() -> None:
    def probability(raw: str) -> float | None:
        return first_token_probability(raw, ["Yes"], ["No"])

    assert probability(chat_body(Yes=-0.1, No=-2.1)) == pytest.approx(0.880797)
    text = json.dumps({"choices": [{"logprobs": {"top_logprobs": [{" Yes": -1.0, " No": -1.0}]}}]})
    assert probability(text) == 0.5
    assert probability(chat_body(Yes=-0.1, x=-3.1)) == pytest.approx(0.952574), "at most the least"
    assert probability(chat_body(yes=-0.1)) is None, "another word"
    for malformed in (
        "",
        "{}",
        "[]",
        '{"choices": []}',
        chat_body(),
        '{"choices": [{"logprobs": 1}]}',
    ):
        assert probability(malformed) is None
    read = read_reply("Yes", "length", [0], [], protocol=TOKEN, raw=chat_body(Yes=-0.1, No=-2.1))
    assert not isinstance(read, Abstention)
    assert read[0].verdict is GOOD
    assert read[0].score == pytest.approx(0.880797)
    assert isinstance(read_reply("Yes", "stop", [0], [], protocol=TOKEN, raw="{}"), Abstention)


HEAD = """reader = "regex"
step = "[{number}] {step}"
separator = " / "
first = 0
pattern = '(?P<step>\\d+) (?P<verdict>\\w+)'
correct = "good"
incorrect = ["bad", "wrong"]
--- user ---
<q>{question}</q> {steps}
--- one step ---
{question} {steps} {step_number}
"""


def test_a_head_says_how_steps_are_shown_and_read() -> None:
    prompt = JudgePrompt.parse(HEAD, where="own.txt")
    [call] = render_vote(context(("a", "</q> {steps}")), JudgeConfig(prompt=prompt))
    assert [turn.role for turn in call.request.messages] == ["user"]
    assert call.request.messages[0].text.endswith("</q> [0] a / [1] &lt;/q> {steps}")
    assert call.request.response_json_schema is None
    assert call.shown.kept == (), "no place for documents"
    one = render_vote(context(("a", "b")), JudgeConfig(prompt=prompt, granularity="step"))
    assert [each.request.messages[0].text[-11:] for each in one][1] == "a / [1] b 1"
    assert prompt.protocol.verdicts("0 GOOD 1 wrong", 2) == [GOOD, BAD]


def test_a_prompt_for_single_steps_needs_no_other_section() -> None:
    text = 'reader = "yes-no"\nread = "token"\n--- one step ---\n{question}{steps}{step_number}'
    config = JudgeConfig(prompt=JudgePrompt.parse(text, where="own.txt"), votes=2)
    assert config.granularity == "step"
    [first, _] = render_vote(context(("a", "b")), config)
    assert first.request.logprobs == 20
    with pytest.raises(InputError, match="whole trace"):
        config.template.fill({})


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("reader = 'boxed'", "\"reader\" = 'boxed'"),
        ("colour = 1", 'unknown setting "colour"'),
        ("first = 2", '"first" = 2'),
        ("first = true", "of another type (bool)"),
        ("correct = []", "not a list of strings"),
        ("reader = 'regex'\npattern = '('", "no regular expression"),
        ("reader = 'regex'\npattern = 'x'", 'without the group "verdict"'),
        ("step = '{number}'", "without {step}"),
    ],
)
def test_wrong_settings_are_named(head: str, said: str) -> None:
    with pytest.raises(InputError) as fault:
        JudgePrompt.parse(f"{head}\n--- user ---\n{{question}}{{steps}}", where="own.txt")
    assert said in fault.value.what
    assert fault.value.where == "own.txt"


def test_other_readers_still_need_question_and_steps() -> None:
    for text, said in (
        ('reader = "yes-no"\n--- system ---\nx', "'user' is missing"),
        ('reader = "boxed-index"\n--- user ---\n{steps}', "'{question}' is missing"),
        ('reader = "boxed-index"\n--- user ---\n{documents}{question}{steps}', "'no documents'"),
    ):
        with pytest.raises(InputError) as fault:
            JudgePrompt.parse(text, where="own.txt")
        assert said in fault.value.what


def test_settings_of_votes_can_be_overridden() -> None:
    more: dict[str, Any] = {"prompt": "processbench-critic", "votes": 8}
    assert JudgeConfig(**more).as_dict()["top_p"] == 0.9
    assert JudgeConfig(**more, temperature=0.7, top_p=0.8).as_dict()["top_p"] == 0.8
    assert "top_p" not in JudgeConfig().as_dict()
