"""Images on their way to Gemini: the bytes that arrive, uploads that are found again, and batch rows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from formats.files.images import EncodedImage
from inference.gemini.batch import GeminiBatches
from inference.gemini.images import ImageUploads, file_name
from inference.gemini.model import GeminiModel
from inference.protocol import GenerationRequest
from inference.retries import RetryPolicy
from storage import Store
from tests.inference.batches import answered, running
from tests.inference.pictures import encoded, showing
from tests.loopback.gemini_failures import FAILURES, Answer, error
from tests.loopback.gemini_file_server import GeminiFileServer, file_names, parts_of
from traces.errors import ModelRefused, ModelUnavailable
from traces.records import ModelReply

HOUR = 3600.0


@dataclass
class Clock:
    """Unix seconds that tests turn."""

    now: float = 1_795_305_600.0  # a midnight

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[GeminiFileServer]:
    with GeminiFileServer(clock=clock) as running_server:
        yield running_server


def model(server: GeminiFileServer, clock: Clock, inline_bytes: int = 2_000) -> GeminiModel:
    """A model that puts little into a request, so that small images go up."""

    async def no_wait(_: float) -> None:
        """Attempts need not wait."""

    one = GeminiModel(
        "gemini-3.5-flash-lite",
        base_url=server.url,
        retry=RetryPolicy(attempts=3),
        sleep=no_wait,
        environ={"GEMINI_API_KEY": "k"},
    )
    one.uploads = ImageUploads(one.client, inline_bytes=inline_bytes, clock=clock)
    return one


def ask(
    one: GeminiModel, *requests: GenerationRequest, at_once: bool = False
) -> list[ModelReply | BaseException]:
    async def all_of_them() -> list[ModelReply | BaseException]:
        try:
            if at_once:
                calls = [one.generate(request) for request in requests]
                return await asyncio.gather(*calls, return_exceptions=True)
            return [await one.generate(request) for request in requests]
        finally:
            await one.aclose()

    return asyncio.run(all_of_them())


def content(part: dict[str, Any]) -> bytes:
    """The bytes of an inline part, in either alphabet of base64."""
    text = str(part["inlineData"]["data"]).replace("-", "+").replace("_", "/")
    return base64.b64decode(text, validate=True)


def test_images_travel_in_the_request_under_their_numbers(
    server: GeminiFileServer, clock: Clock
) -> None:
    one, two = encoded(1), encoded(2)
    [reply] = ask(model(server, clock, 10_000), showing(one, two))
    assert isinstance(reply, ModelReply)
    [body] = server.bodies
    parts = parts_of(body)
    assert [part.get("text") for part in parts] == ["Image 1:", None, "Image 2:", None, "Step 1: a"]
    assert [content(parts[1]), content(parts[3])] == [one.data, two.data]
    assert parts[1]["inlineData"]["mimeType"] == "image/png"
    assert not server.requests, "nothing was uploaded or looked for"


def test_the_largest_go_up_until_the_rest_fits(server: GeminiFileServer, clock: Clock) -> None:
    small, large, larger = encoded(1), encoded(2, size=1_500), encoded(3, size=3_000)
    ask(model(server, clock), showing(large, larger, small))
    parts = parts_of(server.bodies[0])
    assert ["fileData" in part for part in parts] == [
        False,
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert parts[3]["fileData"]["mimeType"] == "image/png"
    assert [content(parts[1]), content(parts[5])] == [large.data, small.data]
    [name] = server.uploaded
    assert server.world.files[name] == larger.data
    assert name == file_name(larger.sha256, clock())
    assert len(name.removeprefix("files/")) <= 40, "the service's limit"


def test_an_upload_is_used_again_by_hash_also_in_another_process(
    server: GeminiFileServer, clock: Clock
) -> None:
    large = encoded(1, size=5_000)
    again = encoded(1, size=5_000, path="elsewhere.png")
    ask(model(server, clock), showing(large), showing(again, text="Step 1: b"))
    assert len(server.uploaded) == 1
    assert server.requests.count("file") == 1, "looked for once, before it went up"
    ask(model(server, clock), showing(large, text="Step 1: c"))
    assert len(server.uploaded) == 1
    assert server.requests.count("file") == 2
    assert [len(list(file_names(body))) for body in server.bodies] == [1, 1, 1]


@pytest.mark.parametrize("says_expiry", [True, False])
def test_a_file_that_expires_goes_up_again(
    server: GeminiFileServer, clock: Clock, says_expiry: bool
) -> None:
    server.says_expiry = says_expiry
    large = encoded(1, size=5_000)
    requests = [showing(large, text=f"Step 1: {n}") for n in range(3)]

    async def over_two_days() -> None:
        one = model(server, clock)
        await one.generate(requests[0])
        clock.now += 46.5 * HOUR
        await one.generate(requests[1])
        assert len(server.uploaded) == 1, "it lives for 48 hours"
        clock.now += 1 * HOUR
        await one.generate(requests[2])
        await one.aclose()

    asyncio.run(over_two_days())
    assert len(set(server.uploaded)) == 2
    assert list(file_names(server.bodies[-1])) == server.uploaded[1:]


def test_a_file_found_under_the_name_of_today_lives_for_another_day(
    server: GeminiFileServer, clock: Clock
) -> None:
    large = encoded(1, size=5_000)
    ask(model(server, clock), showing(large))
    clock.now += 23.9 * HOUR  # still today
    ask(model(server, clock), showing(large, text="b"))
    assert len(server.uploaded) == 1
    assert server.until[server.uploaded[0]] - clock() >= 24 * HOUR
    clock.now += 0.2 * HOUR  # tomorrow
    ask(model(server, clock), showing(large, text="c"))
    assert len(server.uploaded) == 2


def test_a_file_that_somebody_deleted_goes_up_again(server: GeminiFileServer, clock: Clock) -> None:
    large = encoded(1, size=5_000)

    async def deleted_between() -> ModelReply:
        one = model(server, clock)
        await one.generate(showing(large))
        server.until.clear()
        reply = await one.generate(showing(large, text="Step 1: b"))
        await one.aclose()
        return reply

    assert asyncio.run(deleted_between()).finish_reason == "stop"
    assert len(server.uploaded) == 2
    assert [call["outcome"] for call in server.calls] == ["ok", "no_file", "ok"]


def test_calls_at_once_wait_for_one_upload(server: GeminiFileServer, clock: Clock) -> None:
    large = encoded(1, size=5_000)
    requests = [showing(large, text=f"Step 1: {n}") for n in range(8)]
    replies = ask(model(server, clock), *requests, at_once=True)
    assert all(isinstance(reply, ModelReply) for reply in replies)
    assert len(server.uploaded) == 1


def test_an_upload_that_another_process_makes_meanwhile_is_found(
    server: GeminiFileServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = encoded(1, size=5_000)
    name, looks = file_name(large.sha256, clock()), 0
    real = server.serve

    def meanwhile(method: str, target: str, headers: Any, raw: bytes) -> Answer | None:
        nonlocal looks
        answer = real(method, target, headers, raw)
        if method == "GET":
            looks += 1
            server.world.files[name], server.until[name] = large.data, clock() + 48 * HOUR
        return answer

    monkeypatch.setattr(server, "serve", meanwhile)
    [reply] = ask(model(server, clock), showing(large))
    assert isinstance(reply, ModelReply)
    assert (server.uploaded, looks) == ([], 2)


def test_an_image_that_the_service_cannot_read_concerns_its_problem_alone(
    server: GeminiFileServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Unable to process input image. Please retry or report."
    monkeypatch.setitem(FAILURES, "bad_image", lambda *_: error(400, "INVALID_ARGUMENT", said))
    server.script[:] = ["bad_image"]
    [refused] = ask(model(server, clock), showing(encoded()), at_once=True)
    assert isinstance(refused, ModelUnavailable)
    assert "Unable to process input image" in refused.what
    assert len(server.calls) == 1


def test_a_model_without_eyes_ends_the_run(
    server: GeminiFileServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "This model does not support image input."
    monkeypatch.setitem(FAILURES, "blind", lambda *_: error(400, "INVALID_ARGUMENT", said))
    server.script[:] = ["blind"]
    [refused] = ask(model(server, clock), showing(encoded()), at_once=True)
    assert isinstance(refused, ModelRefused)


def test_a_batch_row_holds_the_images(server: GeminiFileServer, clock: Clock) -> None:
    small, large = encoded(1), encoded(2, size=5_000)
    one = model(server, clock)
    batches = GeminiBatches(one)
    request = showing(small, large)

    async def both() -> bytes:
        line = await batches.line("k1", request)
        await one.aclose()
        return line

    size = batches.size("k1", request)
    assert not server.uploaded, "a size is told without uploading"
    line = asyncio.run(both())
    assert len(line) <= size
    row = json.loads(line)
    parts = parts_of(row["request"])
    assert content(parts[1]) == small.data
    assert parts[1]["inlineData"]["data"] == base64.b64encode(small.data).decode()
    assert list(file_names(row["request"])) == server.uploaded
    assert row["key"] == "k1"


def test_a_job_names_files_that_outlive_it(server: GeminiFileServer, clock: Clock) -> None:
    request = showing(encoded(1, size=5_000))

    async def three_jobs() -> None:
        one = model(server, clock)
        batches = GeminiBatches(one)
        for hours in (0.0, 24.0, 1.0):
            clock.now += hours * HOUR
            line = json.loads(await batches.line("k", request))
            [name] = file_names(line["request"])
            assert server.until[name] - clock() >= 24 * HOUR
        await one.aclose()

    asyncio.run(three_jobs())
    assert len(server.uploaded) == 2, "the one of yesterday would not outlive the third job"


def test_images_go_through_jobs(database: Path) -> None:
    """Through the runner and the store: the bytes arrive, the ledger names them only."""
    shown: list[EncodedImage] = [encoded(n) for n in range(3)]
    asked = [
        GenerationRequest(showing(image).messages, 200, meta={"n": n})
        for n, image in enumerate(shown)
    ]
    with GeminiFileServer() as server, running(server, database) as (runner, _):
        outcomes = answered(runner, asked)
        [job] = server.world.jobs.values()
    assert all(isinstance(outcome, ModelReply) for outcome in outcomes.values())
    sent = {content(parts_of(request)[1]) for _, request in job.rows}
    assert sent == {image.data for image in shown}
    with Store.open(f"sqlite:///{database}", create=False) as store:
        stored = "".join(call.request + call.reply.raw for call in store.replies.calls())
    for image in shown:
        assert image.sha256 in stored
        assert base64.b64encode(image.data)[:60].decode() not in stored
        assert base64.b64encode(image.data)[:60] not in database.read_bytes()
