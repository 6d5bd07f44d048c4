"""Every fault of the service, met by the real client: each trace ends labelled or says why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import pytest

from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from inference.retries import RetryPolicy
from judge.rag_judge import RagJudge
from tests.loopback.gemini_failures import ENDING, FAILURES
from tests.loopback.gemini_server import GeminiServer
from traces.errors import ModelRefused, QuotaExhausted
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import Problem, Trace, TraceInContext

ATTEMPTS = 3

PASSES = (
    "429_retry_after",
    "429_retry_info",
    "429_dated",
    "500",
    "503",
    "408",
    "reset",
    "hang",
    "html",
    "cut_json",
    "empty_body",
)
"""After which the same request succeeds."""

MEANS: dict[str, AbstentionReason | None] = {
    "no_candidates": AbstentionReason.UNREADABLE,
    "safety": AbstentionReason.BLOCKED,
    "recitation": AbstentionReason.BLOCKED,
    "prohibited": AbstentionReason.BLOCKED,
    "blocked_prompt": AbstentionReason.BLOCKED,
    "max_tokens": AbstentionReason.TRUNCATED,
    "max_tokens_no_text": AbstentionReason.TRUNCATED,
    "fenced": None,
    "no_json": AbstentionReason.UNREADABLE,
    "wrong_schema": AbstentionReason.UNREADABLE,
    "too_few_steps": AbstentionReason.UNREADABLE,
    "too_many_steps": AbstentionReason.UNREADABLE,
    "out_of_order": None,
    "repeated_step": AbstentionReason.UNREADABLE,
    "unknown_finish": AbstentionReason.UNREADABLE,
}
"""What a paid reply means; None: it can be read."""


def contexts(count: int) -> list[TraceInContext]:
    """Traces of three steps."""
    return [
        TraceInContext(
            Problem(f"p{number}", f"Problem {number}?"),
            Trace(f"t{number}", f"p{number}", tuple(f"Step {n} of {number}." for n in range(3))),
        )
        for number in range(count)
    ]


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer() as running:
        yield running


def judged(
    server: GeminiServer, traces: Sequence[TraceInContext], **options: int
) -> list[TraceLabel]:
    """The labels, in the order of the traces; nobody waits between attempts."""

    async def no_wait(_: float) -> None:
        return

    model = GeminiModel(
        "gemini-3.5-flash-lite",
        base_url=server.url,
        concurrency=options.get("concurrency", 1),
        retry=RetryPolicy(attempts=ATTEMPTS, attempt_s=0.2),
        sleep=no_wait,
        environ={"GEMINI_API_KEY": "k3y"},
    )
    model.today = lambda: date(2026, 11, 15)
    with Dispatcher(model, None) as dispatcher:
        labels = {one.label.trace_id: one.label for one in RagJudge(dispatcher).judge(traces)}
    return [labels[context.trace.id] for context in traces]


def test_every_fault_is_in_one_of_the_lists() -> None:
    assert {*PASSES, *MEANS, *ENDING} == set(FAILURES)


@pytest.mark.slow
def test_every_fault_ends_in_a_label_or_its_typed_abstention(server: GeminiServer) -> None:
    script: list[str] = []
    for fault in PASSES:
        script += [fault, "ok"]
    script += [*MEANS, *["503"] * ATTEMPTS, "ok"]
    server.script[:] = script
    server.wait_s = 5.0
    expected = [*[None] * len(PASSES), *MEANS.values(), AbstentionReason.MODEL_ERROR, None]
    labels = judged(server, contexts(len(expected)))

    assert [call["outcome"] for call in server.calls] == script
    reasons = [label.abstention and label.abstention.reason for label in labels]
    assert dict(zip([*PASSES, *MEANS, "503s", "last"], reasons, strict=True)) == dict(
        zip([*PASSES, *MEANS, "503s", "last"], expected, strict=True)
    )
    for label in labels:
        if label.abstention is None:
            assert len(label.step_labels) == 3
            assert all(step.verdict or step.abstention for step in label.step_labels)
        else:
            assert not label.step_labels, "a silent case never becomes a verdict"
    assert max(server.billed.values()) == 1


def test_steps_out_of_order_are_put_where_they_belong(server: GeminiServer) -> None:
    (straight,) = judged(server, contexts(1))
    server.script[:] = ["out_of_order"]
    (turned,) = judged(server, contexts(1))
    assert [step.verdict for step in turned.step_labels] == [
        step.verdict for step in straight.step_labels
    ]


@pytest.mark.parametrize(
    ("fault", "error", "word"),
    [
        ("400_bad_key", ModelRefused, "check the key in GEMINI_API_KEY"),
        ("404", ModelRefused, "check the model name"),
        ("429_daily", QuotaExhausted, "quota"),
    ],
)
def test_what_concerns_all_calls_ends_the_run_at_once(
    server: GeminiServer, fault: str, error: type[Exception], word: str
) -> None:
    server.script[:] = ["ok", fault]
    with pytest.raises(error, match=word):
        judged(server, contexts(5))
    assert len(server.calls) == 2


def test_a_date_is_read_by_the_clock_of_the_service(server: GeminiServer) -> None:
    """Our clock is a day ahead of it: by ours, the date to wait for is long past."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    server.wait_s = 40.0
    server.script[:] = ["429_dated"]
    model = GeminiModel(
        "gemini-3.5-flash-lite",
        base_url=server.url,
        sleep=note,
        environ={"GEMINI_API_KEY": "k3y"},
    )
    with Dispatcher(model, None) as dispatcher:
        (label,) = (one.label for one in RagJudge(dispatcher).judge(contexts(1)))
    assert label.abstention is None
    assert len(waits) == 1
    assert 39.0 <= waits[0] <= 41.0
