"""The judge end to end: real dispatcher, real google-genai client, a Gemini on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

import pytest

from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from inference.protocol import GenerationRequest
from judge import JudgeConfig, render_vote
from judge.rag_judge import RagJudge
from labeling.stages import Judge
from tests.judge.sheets import PASSAGE, context
from tests.loopback.gemini_answers import verdicts
from tests.loopback.gemini_server import GeminiServer
from traces.errors import ModelRefused
from traces.labels import AbstentionReason, TraceLabel
from traces.privacy import refuse_phi
from traces.problem import TraceInContext
from traces.records import ModelReply, StoredCall

NAME = "gemini-3.5-flash-lite"


@dataclass
class Responses:
    """A response store in memory."""

    calls: dict[str, StoredCall] = field(default_factory=dict)

    def get(self, key: str) -> ModelReply | None:
        call = self.calls.get(key)
        return call.reply if call else None

    def put(self, call: StoredCall) -> None:
        self.calls.setdefault(call.key, call)


async def no_wait(_: float) -> None:
    """Retries need not really wait here."""


def dispatcher(server: GeminiServer, responses: Responses | None = None) -> Dispatcher:
    model = GeminiModel(
        NAME,
        base_url=server.url,
        sleep=no_wait,
        environ={"GEMINI_API_KEY": "k"},
    )
    model.today = lambda: date(2026, 11, 15)
    return Dispatcher(model, responses)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer() as running:
        yield running


def contexts(count: int) -> list[TraceInContext]:
    return [
        context((f"First step {n}.", f"Second step {n}."), PASSAGE, trace_id=f"t{n}")
        for n in range(count)
    ]


def judge_all(
    server: GeminiServer,
    asked: list[TraceInContext],
    responses: Responses | None = None,
    *,
    allow_phi: bool = False,
) -> tuple[dict[str, TraceLabel], RagJudge]:
    with dispatcher(server, responses) as runner:
        judge = RagJudge(runner, allow_phi=allow_phi)
        as_stage: Judge = judge
        labels = [one.label for one in as_stage.judge(asked)]
    assert len({label.trace_id for label in labels}) == len(labels)
    return {label.trace_id: label for label in labels}, judge


def test_every_trace_gets_the_verdicts_of_its_own_reply(server: GeminiServer) -> None:
    asked = contexts(12)
    responses = Responses()
    labels, judge = judge_all(server, asked, responses)
    assert set(labels) == {one.trace.id for one in asked}
    for one in asked:
        label = labels[one.trace.id]
        prompt = render_vote(one, JudgeConfig())[0].request.messages[1].text
        expected = [entry["verdict"] for entry in verdicts(prompt)]
        assert [step.verdict and step.verdict.value for step in label.step_labels] == expected
        assert label.meta["quotes"] == {"verified": 2, "unverified": 0, "absent": 0}
        assert label.meta["resolved_model"] == NAME
    assert judge.resolved_models == {NAME}
    assert {call.meta["trace_id"] for call in responses.calls.values()} == set(labels)
    assert all("Zentide dose is 6 mg" in call.request for call in responses.calls.values())


def test_second_run_buys_nothing(server: GeminiServer) -> None:
    responses = Responses()
    first, _ = judge_all(server, contexts(5), responses)
    again, _ = judge_all(server, contexts(5), responses)
    assert again == first
    assert sum(server.billed.values()) == 5


def test_traces_with_equal_steps_are_told_apart(server: GeminiServer) -> None:
    twins = [context(("Same.",), PASSAGE, trace_id=name) for name in ("a", "b", "c")]
    labels, _ = judge_all(server, twins, Responses())
    assert set(labels) == {"a", "b", "c"}
    assert len({label.step_labels for label in labels.values()}) == 1
    assert sum(server.billed.values()) == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("safety", AbstentionReason.BLOCKED),
        ("recitation", AbstentionReason.BLOCKED),
        ("blocked_prompt", AbstentionReason.BLOCKED),
        ("max_tokens", AbstentionReason.TRUNCATED),
        ("max_tokens_no_text", AbstentionReason.TRUNCATED),
        ("no_candidates", AbstentionReason.UNREADABLE),
        ("wrong_schema", AbstentionReason.UNREADABLE),
        ("unknown_finish", AbstentionReason.UNREADABLE),
    ],
)
def test_silent_failures_of_the_service_become_abstentions(
    failure: str, reason: AbstentionReason
) -> None:
    with GeminiServer(script=[failure]) as server:
        labels, _ = judge_all(server, contexts(1))
    abstention = labels["t0"].abstention
    assert abstention is not None
    assert abstention.reason is reason
    assert abstention.detail


def test_fenced_reply_is_read() -> None:
    with GeminiServer(script=["fenced"]) as server:
        labels, _ = judge_all(server, contexts(1))
    assert labels["t0"].abstention is None


def test_outage_that_outlasts_the_retries_is_a_model_error() -> None:
    with GeminiServer(fault_rate=1.0, faults=("503",)) as server:
        labels, judge = judge_all(server, contexts(2))
    reasons = {label.abstention.reason for label in labels.values() if label.abstention}
    assert reasons == {AbstentionReason.MODEL_ERROR}
    assert len(labels) == 2
    assert judge.resolved_models == set()


def test_wrong_key_ends_the_run() -> None:
    with GeminiServer(key="other") as server, pytest.raises(ModelRefused):
        judge_all(server, contexts(3))


# Protected health information -------------------------------------------------------------------


def test_marked_problems_are_never_sent_unless_allowed(server: GeminiServer) -> None:
    secret = context(("SECRET",), PASSAGE, trace_id="s", meta={"phi_removed": False})
    clean = context(("clean",), PASSAGE, trace_id="c", meta={"phi_removed": True})
    labels, _ = judge_all(server, [secret, clean, secret_only := context(("x",), trace_id="x")])
    assert labels["s"].abstention is not None
    assert labels["s"].abstention.reason is AbstentionReason.FILTERED
    assert "--allow-phi" in labels["s"].abstention.detail
    assert labels["c"].abstention is None
    assert labels[secret_only.trace.id].meta["grounded"] is False
    assert not any("SECRET" in str(body) for body in server.bodies)
    allowed, _ = judge_all(server, [secret], allow_phi=True)
    assert allowed["s"].abstention is None


def test_only_marked_traces_are_listed_without_any_call(server: GeminiServer) -> None:
    secret = context(("SECRET",), PASSAGE, trace_id="s", meta={"phi_removed": False})
    labels, _ = judge_all(server, [secret])
    assert set(labels) == {"s"}
    assert server.calls == []


@pytest.mark.parametrize(
    ("meta", "hosted", "allow", "refused"),
    [
        ({"phi_removed": False}, True, False, True),
        ({"phi_removed": False}, True, True, False),
        ({"phi_removed": False}, False, False, False),
        ({"phi_removed": True}, True, False, False),
        ({}, True, False, False),
        ({"phi_removed": None}, True, False, False),
    ],
)
def test_refusal_rule(meta: dict[str, object], hosted: bool, allow: bool, refused: bool) -> None:
    word = refuse_phi(context(meta=meta), hosted=hosted, allow_phi=allow)
    assert (word is not None) is refused


def test_rendering_is_lazy(server: GeminiServer) -> None:
    drawn: list[str] = []

    def endless() -> Iterator[TraceInContext]:
        for number in range(10_000):
            drawn.append(str(number))
            yield context((f"Step {number}.",), PASSAGE, trace_id=f"n{number}")

    with dispatcher(server) as runner:
        labels = (one.label for one in RagJudge(runner).judge(endless()))
        next(labels)
        assert len(drawn) < 1000
        labels.close()
    assert isinstance(render_vote(contexts(1)[0], JudgeConfig())[0].request, GenerationRequest)
