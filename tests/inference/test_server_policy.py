"""A served policy: every prefix k times, found again, and honest about what it could not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from inference.prompting import ContinuationPrompt, PolicyConfig
from inference.protocol import GenerationRequest, Message
from inference.server_policy import ServerPolicy, continuation_seed
from labeling.stages import Policy
from tests.inference.scripted import MemoryResponses, ScriptedModel
from tests.loopback.gemini_server import GeminiServer
from traces.errors import ModelUnavailable, QuotaExhausted
from traces.evidence import Evidence, Passage
from traces.labels import AbstentionReason
from traces.problem import Problem, Trace, TraceContinuations, TraceInContext
from traces.records import ModelReply, Usage

EVIDENCE = (Evidence(Passage("c", "d", 0, 0, 2, "P1"), 0.9, 0),)


def context(trace_id: str, *steps: str, options: tuple[str, ...] = ()) -> TraceInContext:
    problem = Problem(f"problem of {trace_id}", "Q?", options=options, answer="4")
    return TraceInContext(problem, Trace(trace_id, problem.id, steps), EVIDENCE)


def answer(asked: GenerationRequest) -> ModelReply:
    """The seed as text, so that a test can see which request was answered."""
    return ModelReply(f"t{asked.seed}", "stop", "openai:m", "m-1", Usage(5, 0, 7), 0.0)


OPEN: list[Dispatcher] = []


@pytest.fixture(autouse=True)
def closed_dispatchers() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def policy(model: ScriptedModel, store: MemoryResponses | None = None) -> ServerPolicy:
    dispatcher = Dispatcher(model, store)
    OPEN.append(dispatcher)
    return ServerPolicy(dispatcher, PolicyConfig(max_tokens=64, stop=("\n\n",)))


def local(answer_: object = answer) -> ScriptedModel:
    return ScriptedModel(answer_, spec="openai:m", hosted=False)  # type: ignore[arg-type]


def run(subject: Policy, *contexts: TraceInContext, k: int = 2) -> dict[str, TraceContinuations]:
    return {each.trace_id: each for each in subject.continue_traces(contexts, k=k, seed=3)}


def test_every_prefix_is_continued_k_times_in_order() -> None:
    done = run(policy(local()), context("x", "a", "b", "c"), context("y", "a"), k=3)
    assert [(text.step_index, text.index) for text in done["x"].texts] == [
        (step, index) for step in range(3) for index in range(3)
    ]
    assert len(done["y"].texts) == 3
    assert done["x"].abstention is None
    assert done["x"].resolved_model == "m-1"
    first = done["x"].texts[0]
    assert first.text == f"t{continuation_seed(3, 'x', 0, 0)}"
    assert (first.finish_reason, first.tokens) == ("stop", 7)


def test_what_a_policy_reads() -> None:
    seen: list[GenerationRequest] = []

    def keep(asked: GenerationRequest) -> ModelReply:
        seen.append(asked)
        return answer(asked)

    run(policy(local(keep)), context("x", "a", "b"), k=1)
    assert [asked.messages for asked in seen] == [
        (Message("user", "Document 1: P1\n\nQuestion: Q?"), Message("assistant", prefix))
        for prefix in ("a\n", "a\nb\n")
    ]
    assert {(asked.max_tokens, asked.stop, asked.temperature) for asked in seen} == {
        (64, ("\n\n",), 0.7)
    }


def test_evidence_can_be_left_out() -> None:
    seen: list[str] = []

    def keep(asked: GenerationRequest) -> ModelReply:
        seen.append(asked.messages[0].text)
        return answer(asked)

    with Dispatcher(local(keep), None) as dispatcher:
        bare = ServerPolicy(dispatcher, PolicyConfig(max_tokens=9, with_evidence=False))
        run(bare, context("x", "a"), k=1)
    assert seen == ["Question: Q?"]


def test_a_second_run_sends_nothing_and_a_larger_k_only_what_is_new() -> None:
    store, model = MemoryResponses(), local()
    traces = [context("x", "a", "b"), context("y", "a")]
    first = run(policy(model, store), *traces, k=2)
    assert len(model.calls) == 6
    assert run(policy(model, store), *traces, k=2) == first
    assert len(model.calls) == 6
    run(policy(model, store), *traces, k=3)
    assert len(model.calls) == 9


def test_a_run_that_breaks_off_is_taken_up_where_it_stopped() -> None:
    store = MemoryResponses()
    left = 5

    def until_the_quota(asked: GenerationRequest) -> ModelReply:
        nonlocal left
        left -= 1
        if left < 0:
            raise QuotaExhausted("used up")
        return answer(asked)

    traces = [context("x", "a", "b"), context("y", "a", "b")]
    with pytest.raises(QuotaExhausted):
        run(policy(local(until_the_quota), store), *traces)
    assert len(store.kept) == 5
    again = local()
    whole = run(policy(again, store), *traces)
    assert len(again.calls) == 3
    assert whole == run(policy(local()), *traces), "the same as if it had never stopped"


def test_a_trace_with_a_lost_continuation_abstains_and_the_others_do_not() -> None:
    store = MemoryResponses()
    lost = continuation_seed(3, "x", 1, 0)

    def answer_or_fail(asked: GenerationRequest) -> ModelReply:
        if asked.seed == lost:
            raise ModelUnavailable("down")
        return answer(asked)

    done = run(policy(local(answer_or_fail), store), context("x", "a", "b"), context("y", "a"))
    abstention = done["x"].abstention
    assert abstention is not None
    assert (abstention.reason, abstention.detail) == (AbstentionReason.MODEL_ERROR, "down")
    assert done["x"].texts == ()
    assert len(done["y"].texts) == 2
    again = local()
    assert len(run(policy(again, store), context("x", "a", "b"))["x"].texts) == 4
    assert len(again.calls) == 1, "only the lost one is asked again"


def test_a_prefix_beyond_the_window_is_over_length() -> None:
    def too_long(asked: GenerationRequest) -> ModelReply:
        return ModelReply(None, "over_length", "openai:m", None, raw="context full")

    abstention = run(policy(local(too_long)), context("x", "a"))["x"].abstention
    assert abstention is not None
    assert (abstention.reason, abstention.detail) == (
        AbstentionReason.OVER_LENGTH,
        "context full",
    )


@pytest.mark.parametrize(
    ("hosted", "allow", "sent"), [(True, False, 1), (True, True, 2), (False, False, 2)]
)
def test_protected_health_information_goes_to_no_hosted_policy(
    hosted: bool, allow: bool, sent: int
) -> None:
    marked = context("marked", "a")
    marked = replace(marked, problem=replace(marked.problem, meta={"phi_removed": False}))
    model = ScriptedModel(answer, spec="openai:m", hosted=hosted)
    with Dispatcher(model, None) as dispatcher:
        subject = ServerPolicy(dispatcher, PolicyConfig(max_tokens=9), allow_phi=allow)
        done = run(subject, context("x", "a"), marked, k=1)
    assert set(done) == {"x", "marked"}
    assert len(model.calls) == sent
    refused = done["marked"].abstention
    assert (refused is None) is (sent == 2)
    assert refused is None or refused.reason is AbstentionReason.FILTERED


def test_a_blocked_continuation_is_one_without_text() -> None:
    def blocked(asked: GenerationRequest) -> ModelReply:
        return ModelReply(None, "blocked", "openai:m", None)

    texts = run(policy(local(blocked)), context("x", "a"))["x"].texts
    assert [(text.text, text.finish_reason) for text in texts] == [("", "blocked")] * 2


def test_traces_are_yielded_as_they_are_done_and_drawn_lazily() -> None:
    drawn: list[str] = []

    def traces() -> Iterator[TraceInContext]:
        for number in range(50):
            drawn.append(str(number))
            yield context(str(number), "a")

    done = policy(local()).continue_traces(traces(), k=1, seed=0)
    next(done)
    assert len(drawn) < 10


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=3), st.integers(0, 5)), max_size=20))
def test_seeds_are_stable_in_range_and_differ(names: list[tuple[int, str, int]]) -> None:
    seeds = {name: continuation_seed(0, name[1], name[0], name[2]) for name in names}
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert len(set(seeds.values())) == len(seeds)


def test_a_seed_does_not_change_between_releases() -> None:
    assert continuation_seed(0, "t", 1, 2) == SEED_OF_2026


SEED_OF_2026 = 1601818450


def test_gemini_reads_the_prefix_in_a_user_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the loopback server, which refuses a model turn at the end as Gemini 3 does."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    store = MemoryResponses()
    trace = context("x", "a {prefix}", "b", options=("yes", "no"))
    with GeminiServer() as server:
        for _ in range(2):
            model = GeminiModel("gemini-3.5-flash-lite", base_url=server.url)
            with Dispatcher(model, store) as dispatcher:
                config = PolicyConfig(prompt=ContinuationPrompt("Solve."), max_tokens=99)
                gemini = ServerPolicy(dispatcher, config)
                done = run(gemini, trace)["x"]
        bodies = server.bodies
    assert len(bodies) == 4, "the second run sends nothing"
    assert all(text.text.startswith("So the rest") for text in done.texts)
    assert done.resolved_model == "gemini-3.5-flash-lite"
    assert Counter(body["contents"][0]["role"] for body in bodies) == {"user": 4}
    asked = max((body["contents"][0]["parts"][0]["text"] for body in bodies), key=len)
    assert asked.startswith("Document 1: P1\n\nQuestion: Q?\n(A) yes\n(B) no\n\n")
    assert asked.endswith("<solution>\na {prefix}\nb\n</solution>")
    assert "Continue it exactly where it ends" in asked
    assert "X is the letter of the option" in asked
    assert {body["systemInstruction"]["parts"][0]["text"] for body in bodies} == {"Solve."}
