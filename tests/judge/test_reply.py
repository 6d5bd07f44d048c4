"""What a reply becomes: verdicts with quotes, or one typed abstention; never a default."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.reply import MAX_REPLY_CHARACTERS, label_readings, read_reply
from tests.judge.sheets import PASSAGE, context
from traces.labels import AbstentionReason, TraceLabel, Verdict, first_error

STEPS = ("Zentide dose is 6 mg per kg.", "6 x 120 = 720 mg.", "720 is above 300, so 300 mg.")


def entry(step: Any, verdict: Any = "correct", **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "document": None,
        "quote": None,
        "reasoning": "r",
        "verdict": verdict,
    } | more


def parse(text: str | None, finish: str = "stop", *passages: str) -> TraceLabel:
    asked = context(STEPS, *passages)
    reading = read_reply(text, finish, range(len(STEPS)), asked.evidence)
    return label_readings("t1", [reading], grounded=bool(asked.evidence))


def reply(*entries: dict[str, Any]) -> str:
    return json.dumps({"steps": list(entries)})


GOOD = reply(entry(1), entry(2, "incorrect"), entry(3, "neutral"))
VERDICTS = [Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL]


def verdicts(label: TraceLabel) -> list[Verdict | None]:
    assert label.abstention is None, label.abstention
    return [step.verdict for step in label.step_labels]


def test_plain_reply() -> None:
    label = parse(GOOD)
    assert verdicts(label) == VERDICTS
    assert label.trace_id == "t1"
    assert [step.reasoning for step in label.step_labels] == ["r"] * 3
    assert label.meta == {
        "grounded": False,
        "quotes": {"verified": 0, "unverified": 0, "absent": 3},
    }
    assert not label.first_error_given


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Here you are:\n```\n{GOOD}\n```\nBye.",
        f"\ufeff  {GOOD}\n",
        f"Sure. {GOOD} I hope this helps.",
        json.dumps(json.loads(GOOD)["steps"]),
        GOOD.replace("}]", "},]").replace('"correct"}', '"correct",}'),
        GOOD.replace('"r"', '"two\nlines"'),
        f"<think>Perhaps {{1, 2}}? {reply(entry(1), entry(2), entry(3))}</think>\n{GOOD}",
        f"The set {{a, b}} is meant. {GOOD} That {{is}} all.",
        f"I say ```\nno\n``` and then\n```json\n{GOOD}\n```",
        f"```json\n{GOOD}\n```\nAgain:\n```json\n{GOOD}\n```",
        f"Here: {GOOD.replace('}]', '},]')} Bye.",
        reply(entry("1"), entry("Step 2", "INCORRECT"), entry(3.0, " Neutral ")),
        reply(entry(3, "neutral"), entry(1), entry(2, "incorrect")),
    ],
    ids=[
        "fenced",
        "prose+fence",
        "bom",
        "prose",
        "list",
        "commas",
        "newline",
        "thoughts",
        "braces",
        "second-fence",
        "same-twice",
        "prose+comma",
        "strings",
        "order",
    ],
)
def test_tolerated_forms(text: str) -> None:
    assert verdicts(parse(text)) == VERDICTS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "empty"),
        ("", "empty"),
        (" \n", "empty"),
        ("I cannot say.", "not JSON"),
        ("{", "not JSON"),
        (GOOD[:-30], "not JSON"),
        ("{}", "no list"),
        ('{"steps": {"1": "correct"}}', "no list"),
        ('{"verdicts": [1, 1, 0]}', "no list"),
        ("[1, 2, 3]", "no list"),
        ("null", "no list"),
        (reply(entry(1), entry(2)), "2 of 3"),
        (reply(), "0 of 3"),
        (reply(entry(1), entry(2), entry(2)), "step 2 twice"),
        (reply(entry(1), entry(2), entry(3), entry(4)), "step '4'"),
        (reply(entry(0), entry(1), entry(2)), "step '0'"),
        (reply(entry(1), entry(2), entry(None)), "step 'None'"),
        (reply(entry(True), entry(2), entry(3)), "step 'True'"),
        (reply(entry(1), entry(2.5), entry(3)), "step '2.5'"),
        (reply(entry(1), entry(2, "wrong"), entry(3)), "verdict 'wrong'"),
        (reply(entry(1), entry(2, None), entry(3)), "verdict 'None'"),
        (reply(entry(1), entry(2, 1), entry(3)), "verdict '1'"),
        (reply(entry(1), entry(2, ""), entry(3)), "verdict ''"),
        (GOOD.replace('"step": 1', '"step": NaN'), "NaN"),
        (GOOD.replace('"step": 1', '"step": 1e999'), "step 'inf'"),
        (
            GOOD.replace('"verdict": "correct"', '"verdict": "correct", "verdict": "incorrect"'),
            "twice",
        ),
        ("[" * 100_000, "nested|not JSON"),
        ('{"steps": ' + "[" * 100_000, "nested|not JSON"),
        (f"{GOOD} or rather {reply(entry(1), entry(2), entry(3))}", "two different answers"),
        (f"```\n{GOOD}\n```\n```\n{reply(entry(1), entry(2), entry(3))}\n```", "two different"),
        (GOOD.replace('"', "'"), "not JSON"),  # repair stops where it would be a guess
        (GOOD.replace("correct", "correct|incorrect"), "verdict"),
        ("x" * (MAX_REPLY_CHARACTERS + 1), "characters"),
    ],
)
def test_unreadable_replies(text: str | None, said: str) -> None:
    label = parse(text)
    assert label.abstention is not None
    assert label.abstention.reason is AbstentionReason.UNREADABLE
    assert any(part in label.abstention.detail for part in said.split("|"))
    assert label.step_labels == ()
    assert label.abstention.retryable


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("blocked", AbstentionReason.BLOCKED),
        ("length", AbstentionReason.TRUNCATED),
        ("over_length", AbstentionReason.OVER_LENGTH),
        ("solar_flare", AbstentionReason.UNREADABLE),
        ("empty", AbstentionReason.UNREADABLE),
    ],
)
@pytest.mark.parametrize("text", [None, GOOD])
def test_finish_reason_comes_before_the_text(
    finish: str, reason: AbstentionReason, text: str | None
) -> None:
    label = parse(text, finish)
    assert label.abstention is not None
    assert label.abstention.reason is reason


@given(st.text(max_size=60), st.sampled_from(["stop", "length", "blocked", "other"]))
def test_no_text_becomes_a_verdict_by_accident(text: str, finish: str) -> None:
    assert parse(text, finish).abstention is not None


@given(st.integers(0, 2**32))
def test_damaged_replies_are_whole_or_nothing(seed: int) -> None:
    chance = random.Random(seed)
    start = chance.randrange(len(GOOD))
    label = parse(GOOD[:start] + GOOD[start + chance.randrange(1, 30) :])
    assert label.abstention is not None or len(label.step_labels) == len(STEPS)


def test_repair_leaves_commas_inside_strings_alone() -> None:
    text = GOOD.replace('"r"', '"(a, ] b, } c"').replace("}]", "},]")
    label = parse(text)
    assert [step.reasoning for step in label.step_labels] == ["(a, ] b, } c"] * 3


def test_no_evidence_is_an_answer_and_no_verdict() -> None:
    label = parse(reply(entry(1), entry(2, " No_Evidence "), entry(3)), "stop", PASSAGE)
    step = label.step_labels[1]
    assert step.verdict is None
    assert step.abstention is not None
    assert step.abstention.reason is AbstentionReason.NO_EVIDENCE
    assert step.reasoning == "r"
    assert first_error(label).missing, "nobody knows whether step 2 is the first error"
    behind = parse(reply(entry(1, "incorrect"), entry(2, "no_evidence"), entry(3)))
    assert first_error(behind).index == 0


# Quotes ------------------------------------------------------------------------------------------


def quoted(quote: Any, document: Any, *passages: str) -> TraceLabel:
    return parse(
        reply(entry(1, quote=quote, document=document), entry(2), entry(3)), "stop", *passages
    )


def test_quote_is_found_in_the_cited_document_with_its_span() -> None:
    label = quoted("cap is 300 mg", 2, "Other text.", PASSAGE)
    quote = label.step_labels[0].quote
    assert quote is not None
    assert quote.verified
    assert quote.document == 2
    assert quote.method == "exact"
    assert PASSAGE[quote.start : quote.end] == "cap is 300 mg"
    assert label.meta["grounded"] is True
    assert label.meta["quotes"] == {"verified": 1, "unverified": 0, "absent": 2}


@pytest.mark.parametrize(
    ("quote", "document"),
    [
        ("cap is 300 mg", 1),  # stands in the other one
        ("cap is 300 mg", 3),  # no such document
        ("cap is 300 mg", 0),
        ("cap is 300 mg", None),
        ("cap is 300 mg", "the second"),
        ("cap is 300 mg", 10**30),
        ("cap is 400 mg", 2),
    ],
)
def test_quote_that_is_not_in_the_cited_document_stays_unverified(
    quote: str, document: Any
) -> None:
    label = quoted(quote, document, "Other text.", PASSAGE)
    kept = label.step_labels[0].quote
    assert kept is not None
    assert kept.text == quote
    assert not kept.verified
    assert kept.start is None
    assert kept.method is None
    assert label.step_labels[0].verdict is Verdict.CORRECT
    assert label.meta["quotes"]["unverified"] == 1


@pytest.mark.parametrize("quote", [None, "", "  ", "null", "None", 5])
def test_no_quote_is_absent(quote: Any) -> None:
    label = quoted(quote, 1, PASSAGE)
    assert label.step_labels[0].quote is None
    assert label.meta["quotes"]["absent"] == 3


@pytest.mark.parametrize(
    ("quote", "verdict", "kept"),
    [
        ("cap is 300 mg", "incorrect", True),
        ("cap is 400 mg", "incorrect", False),
        (None, "incorrect", False),
        ("cap is 400 mg", "correct", True),
        (None, "neutral", True),
    ],
)
def test_required_quotes_take_out_incorrect_verdicts_without_them(
    quote: str | None, verdict: str, kept: bool
) -> None:
    text = reply(entry(1, verdict, quote=quote, document=quote and 1), entry(2), entry(3))
    asked = context(STEPS, PASSAGE)
    for required in (False, True):
        steps = read_reply(text, "stop", range(3), asked.evidence, require_quotes=required)
        assert isinstance(steps, tuple)
        if kept or not required:
            assert steps[0].verdict == Verdict(verdict)
            continue
        assert steps[0].verdict is None
        assert steps[0].abstention is not None
        assert steps[0].abstention.reason is AbstentionReason.NO_EVIDENCE
        assert (steps[0].quote is None) == (quote is None), "what it wrote is kept"


def test_only_the_steps_that_were_asked_for_are_taken() -> None:
    asked = context(STEPS)
    for text, readable in ((reply(entry(2)), True), (GOOD, False), (reply(entry(1)), False)):
        steps = read_reply(text, "stop", [1], asked.evidence)
        assert isinstance(steps, tuple) is readable


def test_ungrounded_quote_is_never_verified() -> None:
    label = quoted("Zentide dose is 6 mg per kg", 1)
    assert label.step_labels[0].quote is not None
    assert not label.step_labels[0].quote.verified
    assert label.meta["grounded"] is False


def test_quote_of_an_escaped_marker_is_found() -> None:
    passage = "Give 5 mg </step> if weight is low."
    quote = quoted("5 mg &lt;/step> if weight", "Document 1", passage).step_labels[0].quote
    assert quote is not None
    assert quote.verified
    assert quote.document == 1


def test_what_no_database_stores_is_replaced() -> None:
    text = reply(
        entry(1, reasoning="a\x00b\ud800", quote="q\udfff"), entry(2), entry(3, reasoning=7)
    )
    label = parse(text)
    assert label.step_labels[0].reasoning == "a\ufffdb\ufffd"
    assert label.step_labels[0].quote is not None
    assert label.step_labels[0].quote.text.encode("utf-8")
    assert label.step_labels[2].reasoning is None
