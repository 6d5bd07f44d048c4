"""What error statuses mean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from inference.retries import (
    HttpFault,
    RequestTooLong,
    Subject,
    TransientFault,
    exception_for,
    retry_after_seconds,
    retry_info_seconds,
)
from traces.errors import ModelRefused, QuotaExhausted

SUBJECT = Subject("gemini:g", "GEMINI_API_KEY", "s3cret-key")
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def meaning(status: int, message: str = "no", body: Any = None, **headers: str) -> Exception:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return exception_for(HttpFault(status, message, named, body), SUBJECT, now=NOW)


def rpc(*details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": 429, "message": "m", "details": list(details)}}


def quota(quota_id: str) -> dict[str, Any]:
    kind = "type.googleapis.com/google.rpc.QuotaFailure"
    return {"@type": kind, "violations": [{"quotaMetric": "m", "quotaId": quota_id}]}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_overload_and_time_outs_may_pass(status: int) -> None:
    assert isinstance(meaning(status), TransientFault)


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (400, "API key not valid. Please pass a valid API key.", "check the key in GEMINI_API_KEY"),
        (401, "Incorrect API key provided", "check the key in GEMINI_API_KEY"),
        (403, "denied", "permissions of the key in GEMINI_API_KEY"),
        (404, "models/g is not found", 'check the model name in "gemini:g"'),
        (400, "bad schema", "the request was not accepted"),
        (418, "teapot", "the request was not accepted"),
    ],
)
def test_refusals_name_the_remedy(status: int, message: str, remedy: str) -> None:
    refusal = meaning(status, message)
    assert isinstance(refusal, ModelRefused)
    assert remedy in str(refusal)
    assert "gemini:g" in str(refusal)


def test_the_key_is_taken_out_of_what_the_service_says() -> None:
    assert "s3cret-key" not in str(meaning(401, "Incorrect API key provided: s3cret-key"))
    assert "s3cret-key" not in str(meaning(503, "proxy: s3cret-key"))
    assert "s3cret-key" not in repr(SUBJECT)


def test_an_endless_message_is_cut_to_one_line() -> None:
    assert len(str(meaning(404, "<html>\n" * 9999)).splitlines()) == 2


@pytest.mark.parametrize(
    "body",
    [
        rpc(quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")),
        rpc(quota("GenerateRequestsPerMinute"), quota("requests_per_day")),
        {"code": "insufficient_quota", "message": "check your plan"},
        {"error": {"type": "insufficient_quota"}},
    ],
)
def test_a_used_up_day_or_account_ends_the_run(body: Any) -> None:
    assert isinstance(meaning(429, body=body), QuotaExhausted)


@pytest.mark.parametrize("body", [rpc(quota("GenerateRequestsPerMinutePerProject")), None, "text"])
def test_a_quota_per_minute_passes(body: Any) -> None:
    assert isinstance(meaning(429, body=body), TransientFault)


@pytest.mark.parametrize(
    "message",
    [
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        "This model's maximum context length is 8192 tokens.",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_a_prompt_beyond_the_window_concerns_one_request_only(message: str) -> None:
    assert isinstance(meaning(400, message), RequestTooLong)


def test_a_code_in_the_body_is_enough_to_know_a_prompt_that_is_too_long() -> None:
    body = {"error": {"type": "exceed_context_size_error"}}
    assert isinstance(meaning(400, "bad request", body), RequestTooLong)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:59:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=NOW) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("7s", 7.0), ("0.25s", 0.25), ("7", None)])
def test_retry_info_names_seconds(text: str, seconds: float | None) -> None:
    kind = "type.googleapis.com/google.rpc.RetryInfo"
    assert retry_info_seconds(rpc({"@type": kind, "retryDelay": text})) == seconds


def test_the_header_goes_before_the_body() -> None:
    kind = "type.googleapis.com/google.rpc.RetryInfo"
    body = rpc({"@type": kind, "retryDelay": "9s"})
    with_header = meaning(429, body=body, retry_after="2")
    without = meaning(429, body=body)
    assert isinstance(with_header, TransientFault)
    assert isinstance(without, TransientFault)
    assert (with_header.delay_s, without.delay_s) == (2.0, 9.0)


def zero_quota(**violation: Any) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaMetric": "m", "quotaId": "PerMinute", **violation}],
    }


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ("quota exceeded", rpc(zero_quota(quotaValue="0"))),
        ("Quota exceeded for metric: m, limit: 0, model: g. Please retry in 1.5s.", None),
        ("Quota exceeded for metric: m, limit: 0.", None),
    ],
)
def test_a_quota_of_zero_is_not_waited_for(message: str, body: Any) -> None:
    refusal = meaning(429, message, body)
    assert isinstance(refusal, ModelRefused)
    assert "is 0" in refusal.what
    assert "waiting does not help" in str(refusal.remedy)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ("Quota exceeded, limit: 0, model: g", rpc(zero_quota(quotaValue="15"))),
        ("Quota exceeded for metric: m, limit: 0.5 per s", None),
        ("Quota exceeded for metric: m, limit: 10", None),
    ],
)
def test_a_quota_above_zero_is_renewed(message: str, body: Any) -> None:
    assert isinstance(meaning(429, message, body), TransientFault)


def test_a_disabled_api_is_named_with_the_command_that_enables_it() -> None:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "metadata": {"service": "aiplatform.googleapis.com", "consumer": "projects/p"},
    }
    refusal = meaning(403, "Vertex AI API has not been used in project p", rpc(info))
    assert isinstance(refusal, ModelRefused)
    assert "gcloud services enable aiplatform.googleapis.com" in str(refusal.remedy)


def test_a_short_key_is_not_searched_for_in_messages() -> None:
    """Servers without keys get placeholders such as "none", which messages contain."""
    said = exception_for(HttpFault(400, "none of the tools"), Subject("openai:m", "K", "none"))
    assert "none of the tools" in str(said)
