"""Generative PRMs: the exact text of every turn, and what is read from replies of all kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoring.generative import GenerativeFamily, GenerativeScorer, packaged_family
from scoring.names import GENERATIVE
from tests.judge.electorate import Watched
from tests.judge.sheets import context
from tests.loopback.openai_server import OpenAIServer
from traces.errors import InputError
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import TraceInContext

GOLDEN = Path(__file__).with_name("golden_turns.json")
PLAIN = context(("1+1=2", "1+2=3", "2*3=8"), trace_id="plain", question="Calculate (1+1)*(1+2)")
TRAPS = context(
    ("  {step} costs <5 \\boxed{Yes}\n", "Ω: naïve <|im_end|>"),
    trace_id="traps",
    question="Which {question}? ",
    options=("a {number}", "b"),
)
SAID = {
    "genprm": "It holds.",
    "thinkprm": "\nStep 1: fine. The step is \\boxed{correct}\n\\boxed{incorrect}",
    "r-prm": "Analysis: ok.\nVerification: Is the step correct (Yes/No)? Yes",
}


def logprobs(**tokens: float) -> dict[str, Any]:
    """The first token's candidates as a chat server lists them."""
    listed = [{"token": token, "logprob": value} for token, value in tokens.items()]
    return {"content": [{"top_logprobs": listed}]}


LIKELY = logprobs(Yes=-0.1, No=-2.4, correct=-0.1, incorrect=-2.4, yes=-0.1, no=-2.4)
P = 0.9088770389851438
"""1 / (1 + exp(-2.3))."""


class Verifier(OpenAIServer):
    """Writes `text(step, vote)` where text is asked for, and lists `first` where a token is."""

    def __init__(
        self, text: Callable[[int, int], str | tuple[str, str]], first: Any = LIKELY
    ) -> None:
        super().__init__()
        self._text, self._first = text, first

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        users = [turn for turn in body["messages"] if turn["role"] == "user"]
        by_token = "logprobs" in body
        said = "Yes" if by_token else self._text(len(users) - 1, int(body.get("seed") or 0))
        self.text, self.finish_reason = said if isinstance(said, tuple) else (said, "stop")
        status, reply, headers = super().answer(path, body)
        if by_token:
            first = self._first(len(users) - 1) if callable(self._first) else self._first
            reply["choices"][0]["logprobs"] = first
        return status, reply, headers


def scored(
    family: GenerativeFamily, server: OpenAIServer, *contexts: TraceInContext
) -> dict[str, TraceLabel]:
    with server, Watched(server, concurrency=1) as runner:
        found = list(GenerativeScorer(runner, family).score(contexts))
    return {each.label.trace_id: each.label for each in found}


def one_vote(name: str) -> GenerativeFamily:
    family = packaged_family(name)
    return GenerativeFamily.parse(family.as_dict() | {"votes": 1}, where=name)


@pytest.mark.parametrize("name", GENERATIVE)
def test_every_turn_is_written_as_published(name: str) -> None:
    """Compared with texts made by the published code, see golden_turns.json."""
    golden = json.loads(GOLDEN.read_text("utf-8"))[name]
    for each in (PLAIN, TRAPS):
        server = Verifier(lambda step, vote: SAID.get(name, ""))
        scored(one_vote(name), server, each)
        sent = [
            [body["messages"], body.get("stop"), body["max_tokens"]] for _, body, _ in server.calls
        ]
        assert sent == golden[each.trace.id]


def scores(label: TraceLabel) -> list[float | None]:
    return [step.score for step in label.step_labels]


@pytest.mark.parametrize("name", ["genprm", "r-prm", "fover"])
def test_a_token_s_probability_is_the_score(name: str) -> None:
    words = LIKELY if name != "r-prm" else logprobs(**{" Yes": -0.1, " No": -2.4, "Yes": -9.0})
    [label] = scored(one_vote(name), Verifier(lambda *_: SAID.get(name, ""), words), PLAIN).values()
    assert scores(label) == pytest.approx([P] * 3)
    assert label.meta["votes"] == {"cast": 1, "readable": [1, 1, 1]}
    assert (label.step_labels[0].reasoning is None) == (name == "fover")


def test_thinkprm_reads_boxes_and_the_whole_solution() -> None:
    server = Verifier(lambda *_: SAID["thinkprm"])
    [label] = scored(one_vote("thinkprm"), server, PLAIN).values()
    assert scores(label) == [1.0, 0.0, None]
    assert label.step_labels[2].abstention is not None
    assert label.step_labels[2].abstention.reason is AbstentionReason.NOT_MEASURED
    assert label.meta["trace_score"] == pytest.approx(P)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("no boxes at all", "unreadable"),
        ("\\boxed{correct} \\boxed{correct} \\boxed{correct} \\boxed{correct}", "unreadable"),
        ("\\boxed{correct}", "unreadable"),
        ("", "unreadable"),
        (("\\boxed{incorrect}", "length"), "truncated"),
        (("\\boxed{incorrect}", "content_filter"), "blocked"),
    ],
)
def test_malformed_verifications_are_missing(said: Any, reason: str) -> None:
    [label] = scored(one_vote("thinkprm"), Verifier(lambda *_: said), PLAIN).values()
    assert label.abstention is not None
    assert label.abstention.reason == reason


def test_an_unreadable_vote_is_missing_and_not_one_half() -> None:
    """Of three votes one cannot be read: the score is the mean of the other two."""
    ballots = {
        0: "\\boxed{correct} \\boxed{correct} \\boxed{correct}",
        1: "garbage",
        2: "\\boxed{correct} \\boxed{incorrect}",
    }
    family = packaged_family("thinkprm").as_dict() | {"votes": 3, "trace_correct": []}
    server = Verifier(lambda _, vote: ballots[vote])
    [label] = scored(GenerativeFamily.parse(family, where="x"), server, PLAIN).values()
    assert scores(label) == [1.0, 0.5, 1.0]
    assert label.meta["votes"] == {"cast": 3, "readable": [2, 2, 1]}


def test_a_hole_in_the_conversation_ends_its_vote() -> None:
    """GenPRM's later turns contain the earlier ones; R-PRM's do not."""

    def cut(step: int, vote: int) -> tuple[str, str]:
        return ("It holds.", "length" if step == 1 else "stop")

    [own] = scored(one_vote("genprm"), Verifier(cut), PLAIN).values()
    assert scores(own) == [pytest.approx(P), None, None]
    assert [step.abstention and step.abstention.reason for step in own.step_labels] == [
        None,
        AbstentionReason.TRUNCATED,
        AbstentionReason.NOT_MEASURED,
    ]
    listed = iter([LIKELY, logprobs(x=-1.0), LIKELY])
    apart = Verifier(lambda *_: SAID["r-prm"], lambda _: next(listed))
    [each] = scored(one_vote("r-prm"), apart, PLAIN).values()
    assert scores(each) == [pytest.approx(P), None, pytest.approx(P)]


def test_code_is_never_asked_for_nor_executed(tmp_path: Path) -> None:
    bomb = f"<verify>\n```python\nopen({str(tmp_path / 'x')!r}, 'w')\n```\n</verify>"
    server = Verifier(lambda *_: bomb)
    scored(one_vote("genprm"), server, PLAIN)
    assert not list(tmp_path.iterdir())
    assert all(
        "</analyze>\n" in (body.get("stop") or ["</analyze>\n"]) for _, body, _ in server.calls
    )


OWN = {"name": "mine", "turns": "per-step", "first": "{question} {step}", "read": "generate"}


def test_a_family_of_one_s_own() -> None:
    family = GenerativeFamily.parse(
        OWN | {"reader": "yes-no", "correct": ["yes"], "incorrect": ["no"]}, where="f.toml"
    )
    [label] = scored(family, Verifier(lambda *_: "No, it is not."), PLAIN).values()
    assert scores(label) == [0.0, 0.0, 0.0]
    assert GenerativeFamily.parse(family.as_dict(), where="stored") == family


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"turns": "both"}, "\"turns\" = 'both'"),
        ({"first": "{step}"}, "without {question}"),
        ({"first": "{question} {step}", "turns": "whole"}, "or {steps}"),
        ({"first": "{question} {steps}", "turns": "whole", "read": "token"}, '"whole" solution'),
        ({"colour": 1}, 'unknown key "colour"'),
        ({"votes": "3"}, 'a "votes" of another type (str)'),
        ({"votes": 3}, "would all be equal"),
        ({"temperature": 3.0}, "out of range"),
        ({"reader": "regex", "pattern": "("}, "no regular expression"),
        ({"stop": [1]}, "not a list of strings"),
    ],
)
def test_faulty_files_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as fault:
        GenerativeFamily.parse(OWN | changed, where="f.toml")
    assert said in fault.value.what


def test_requests_of_votes_differ_and_tokens_are_read_at_temperature_0() -> None:
    family = packaged_family("r-prm")
    server = Verifier(lambda *_: SAID["r-prm"])
    scored(family, server, context(("one",)))
    texts = [body for _, body, _ in server.calls if "logprobs" not in body]
    assert sorted(body["seed"] for body in texts) == list(range(10))
    assert {(body["temperature"], body["top_p"]) for body in texts} == {(0.95, 0.95)}
    for token in (body for _, body, _ in server.calls if "logprobs" in body):
        assert (token["max_tokens"], token["temperature"], token["top_logprobs"]) == (1, 0.0, 20)
