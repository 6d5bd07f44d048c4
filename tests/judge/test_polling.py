"""Votes and single steps through the real client and dispatcher: what is sent, when, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest

from inference.dispatch import Outcome
from inference.openai.model import OpenAIModel
from inference.protocol import GenerationRequest
from judge import RagJudge
from judge.config import JudgeConfig
from judge.prompt import render_vote
from tests.judge.electorate import Ballot, Electorate, Responses, Watched
from tests.judge.sheets import PASSAGE, context
from traces.labels import AbstentionReason, FirstError, Verdict, first_error
from traces.problem import TraceInContext
from traces.records import LabeledTrace

THREE = JudgeConfig(votes=3, temperature=0.7)
STEPS = JudgeConfig(granularity="step")


def named(name: str, steps: int = 3) -> TraceInContext:
    return context((name, *(f"{name} {n}" for n in range(1, steps))), PASSAGE, trace_id=name)


def judge_all(
    runner: Watched, config: JudgeConfig, contexts: list[TraceInContext], **more: object
) -> dict[str, LabeledTrace]:
    judge = RagJudge(runner, config, **more)  # type: ignore[arg-type]
    judged = list(judge.judge(contexts))
    assert len({one.label.trace_id for one in judged}) == len(judged) == len(contexts)
    return {one.label.trace_id: one for one in judged}


def by_name(name: str, vote: int) -> Ballot:
    """`agree` agrees at once, `third` on its third vote, `split` never, `mute` writes no JSON."""
    return {
        "agree": 1,
        "third": (0, 1, 1)[vote % 100],
        "split": (0, 1, None)[vote % 100],
        "mute": "no verdict from me",
        "half": "nothing" if vote % 100 == 0 else 1,
    }[name.split()[0]]


NAMES = ("agree", "third", "split", "mute", "half")


@pytest.mark.parametrize("gathers", [False, True], ids=["window", "rounds"])
def test_votes_are_bought_as_far_as_they_are_needed(gathers: bool) -> None:
    with Electorate(by_name) as server, Watched(server, gathers=gathers) as runner:
        judged = judge_all(runner, THREE, [named(name) for name in NAMES], in_rounds=gathers)
        calls = {name: server.count(name) for name in NAMES}
        # "half": a vote that cannot be read does not count, and so needs two more
        assert calls == {"agree": 2, "third": 3, "split": 3, "mute": 3, "half": 3}
        assert sorted(server.asked) == sorted(set(server.asked)), "every vote once"
        assert len(runner.rounds) <= 3
    errors = {name: first_error(judged[name].label) for name in NAMES}
    found = FirstError(False, 1)
    assert (errors["agree"], errors["third"], errors["half"]) == (found, found, found)
    for name, reason in (
        ("split", AbstentionReason.UNCERTAIN),
        ("mute", AbstentionReason.UNREADABLE),
    ):
        abstention = judged[name].label.abstention
        assert abstention is not None
        assert abstention.reason is reason
    votes = judged["third"].votes
    assert [vote.index for vote in votes] == [0, 1, 2]
    assert [vote.first_error.index for vote in votes] == [0, 1, 1]
    assert judged["third"].label.meta["votes"]["share"] == pytest.approx(2 / 3)
    assert {vote.model for vote in votes} == {"openai:m"}
    assert {vote.resolved_model for vote in votes} == {"stub-2026"}
    assert judged["mute"].votes[0].abstention is not None


def test_a_vote_s_request_keys_are_those_of_the_ledger() -> None:
    responses = Responses()
    with Electorate(by_name) as server, Watched(server, responses) as runner:
        judged = judge_all(runner, THREE, [named(name) for name in NAMES])
    keys = [key for one in judged.values() for vote in one.votes for key in vote.request_keys]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(responses.calls)


def test_further_votes_travel_while_new_traces_are_asked() -> None:
    traces = [named(f"agree {n}") for n in range(14)]
    with Electorate(by_name) as server, Watched(server, concurrency=4) as runner:
        judge_all(runner, THREE, traces)
        order = {asked: place for place, asked in enumerate(server.asked)}
        assert len(order) == 28
        assert runner.rounds[0] >= 18, "only the last window's second votes need another round"
        assert order["agree 0", 1] < order["agree 12", 0], "the second vote does not wait"


def test_a_second_run_asks_nothing_again_and_says_the_same() -> None:
    responses = Responses()
    traces = [named(name) for name in NAMES]
    with Electorate(by_name) as server:
        with Watched(server, responses) as runner:
            first = judge_all(runner, THREE, traces)
        bought = len(server.asked)
        with Watched(server, responses) as runner:
            again = judge_all(runner, THREE, traces)
        assert len(server.asked) == bought
        with Watched(server, responses) as runner:
            judge_all(runner, THREE, traces, first_sample=100)
        assert len(server.asked) > bought, "a first sample above 0 asks anew"
    assert again == first


def test_an_interrupted_vote_is_finished_from_what_was_bought() -> None:
    responses = Responses()
    traces = [named(f"third {n}") for n in range(6)]
    with Electorate(by_name) as server:
        with Watched(server, responses, concurrency=2) as runner:
            stream = RagJudge(runner, THREE).judge(iter(traces))
            next(stream)
            stream.close()  # type: ignore[attr-defined]
        with Watched(server, responses, concurrency=2) as runner:
            judge_all(runner, THREE, traces)
        assert sorted(server.asked) == sorted(set(server.asked)), "no vote was bought twice"
        assert len(server.asked) == 18


class Forgetful(Watched):
    """A runner that loses a reply."""

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        replies = super().run(requests)
        next(replies)
        yield from replies


def test_a_lost_reply_is_a_defect_and_no_missing_trace() -> None:
    traces = [named("agree"), named("third")]
    with (
        Electorate(by_name) as server,
        Forgetful(server) as runner,
        pytest.raises(RuntimeError, match="1 traces"),
    ):
        list(RagJudge(runner).judge(traces))


# Escalation --------------------------------------------------------------------------------------


def escalating(big: Callable[[str, int], Ballot], **meta: object) -> tuple[LabeledTrace, int]:
    config = JudgeConfig(votes=3, temperature=0.7, escalate="openai:big")
    split = context(("split", "b", "c"), PASSAGE, trace_id="split", meta=meta)
    with Electorate(by_name) as server, Electorate(big) as other:
        with Watched(server) as first, Watched(other, name="big") as second:
            judged = judge_all(first, config, [named("agree"), split], escalation=lambda: second)
        assert other.count("agree") == 0, "only splits are put to it"
        return judged["split"], len(other.asked)


def test_a_split_is_put_to_the_other_model_once() -> None:
    judged, calls = escalating(lambda _name, _vote: 2)
    assert calls == 1
    assert first_error(judged.label) == FirstError(False, 2)
    assert [(vote.model, vote.escalated) for vote in judged.votes[-2:]] == [
        ("openai:m", False), ("openai:big", True),
    ]  # fmt: skip
    assert judged.label.meta["votes"]["escalated"] == "openai:big"
    assert judged.label.meta["votes"]["share"] == 0.25


def test_a_split_that_the_other_model_cannot_read_stays_uncertain() -> None:
    judged, _ = escalating(lambda _name, _vote: "I do not know")
    assert judged.label.abstention is not None
    assert judged.label.abstention.reason is AbstentionReason.UNCERTAIN
    assert "unreadable" in judged.label.abstention.detail
    assert len(judged.votes) == 4


class HostedModel(OpenAIModel):
    """A model whose server counts as somebody else's."""

    @property
    def hosted(self) -> bool:
        return True


class Elsewhere(Watched):
    """A runner of such a model."""

    model_class = HostedModel


def test_marked_problems_are_not_escalated_to_a_hosted_model() -> None:
    """The first judge runs here and may read them; the second does not."""
    config = JudgeConfig(votes=3, temperature=0.7, escalate="openai:big")
    marked = context(("split", "b"), PASSAGE, trace_id="s", meta={"phi_removed": False})
    with Electorate(by_name) as server, Electorate(lambda _n, _v: 0) as other:
        with Watched(server) as first, Elsewhere(other, name="big") as second:
            judged = judge_all(first, config, [marked], escalation=lambda: second)["s"]
        assert other.asked == []
    assert judged.label.abstention is not None
    assert "--allow-phi" in judged.label.abstention.detail


# One step a call ---------------------------------------------------------------------------------


def test_calls_for_steps_share_their_prefix_and_show_no_later_step() -> None:
    calls = render_vote(named("agree", 4), STEPS)
    texts = [call.request.messages[1].text for call in calls]
    assert [call.asked for call in calls] == [(0,), (1,), (2,), (3,)]
    for t, (text, further) in enumerate(pairwise(texts)):
        shown = text[: text.index("</step>", text.index(f'<step number="{t + 1}">')) + 7]
        assert further.startswith(shown), "the longer one begins with all that the shorter shows"
        assert f'<step number="{t + 2}">' not in text
        assert f"Judge step {t + 1} now" in text
    assert len({call.request.messages[0].text for call in calls}) == 1


@pytest.mark.parametrize("gathers", [False, True], ids=["window", "rounds"])
def test_every_step_gets_the_verdict_of_its_own_call(gathers: bool) -> None:
    with Electorate(by_name) as server, Watched(server, gathers=gathers) as runner:
        judged = judge_all(runner, STEPS, [named("agree", 4)], in_rounds=gathers)["agree"]
        assert len(runner.rounds) == (1 if gathers else 2), "the first call warms the cache"
        assert len(server.asked) == 4
    words = [step.verdict for step in judged.label.step_labels]
    assert words == [Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL, Verdict.NEUTRAL]
    assert [step.reasoning for step in judged.label.step_labels] == [
        f"step {n}" for n in range(1, 5)
    ]
    assert len(judged.votes[0].request_keys) == 4


def test_a_step_whose_call_fails_is_alone_without_a_word() -> None:
    with Electorate(by_name) as server, Watched(server, concurrency=1) as runner:
        server.script = [
            (200, {"choices": [{"message": {"content": "?"}, "finish_reason": "stop"}]}, {})
        ]
        judged = judge_all(runner, STEPS, [named("agree", 3)])["agree"]
    assert judged.label.abstention is None
    first, second, third = judged.label.step_labels
    assert first.abstention is not None
    assert first.abstention.reason is AbstentionReason.UNREADABLE
    assert (second.verdict, third.verdict) == (Verdict.INCORRECT, Verdict.NEUTRAL)
    assert first_error(judged.label).missing, "an open step before it leaves the first error open"


def test_a_trace_without_any_step_s_word_abstains_as_a_whole() -> None:
    with Electorate(lambda _n, _v: "nothing") as server, Watched(server) as runner:
        judged = judge_all(runner, STEPS, [named("x", 2)])["x"]
    assert judged.label.abstention is not None
    assert judged.label.abstention.reason is AbstentionReason.UNREADABLE
    assert judged.votes[0].words == ()


def test_single_steps_can_be_voted_on() -> None:
    config = JudgeConfig(granularity="step", votes=3, temperature=0.7)
    with Electorate(by_name) as server, Watched(server) as runner:
        judged = judge_all(runner, config, [named("third", 2), named("agree", 2)])
        assert (server.count("third"), server.count("agree")) == (6, 4)
    assert first_error(judged["third"].label) == FirstError(False, 1)
