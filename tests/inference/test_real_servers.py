"""Continuation through two servers that no one here wrote: llama.cpp and transformers serve."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.dispatch import Dispatcher
from inference.openai.model import OpenAIModel
from inference.prompting import PolicyConfig, template_from_tokenizer
from inference.protocol import GenerationRequest, Message
from inference.server_policy import ServerPolicy
from storage import Store
from traces.errors import InputError, ModelRefused
from traces.evidence import Evidence, Passage
from traces.problem import Problem, Trace, TraceContinuations, TraceInContext
from traces.records import ModelReply

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LAB_POLICY = ROOT / "lab" / "models" / "policy"
PASSAGE = (
    "Zentide dose is 6 mg per kg. Zentide cap is 300 mg. Zentide is halved below eGFR 40. "
    "Zentide is contraindicated in epilepsy, substitute dose is 450 mg."
)
QUESTION = "A patient of 120 kg with eGFR 60 and gout needs Zentide. Which single dose?"
STEPS = ("Zentide dose is 6 mg per kg.", "6 x 120 = 720 mg.")
PROBLEM = Problem("p", QUESTION, answer="300 mg")
CONTEXTS = [
    TraceInContext(
        PROBLEM,
        Trace(name, "p", STEPS[:length]),
        (Evidence(Passage("c", "d", 0, 0, len(PASSAGE), PASSAGE), 1.0, 0),),
    )
    for name, length in (("long", 2), ("short", 1))
]
K = 3


@contextmanager
def running(command: list[str], *, url: str | None, log: Path, cwd: Path) -> Iterator[str]:
    """A server process and its URL, told by itself on standard output if not known before."""
    environ = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=cwd, env=environ)
    try:
        yield _answering(process, url, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answering(process: subprocess.Popen[bytes], url: str | None, log: Path) -> str:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        said = log.read_text(errors="replace")
        assert process.poll() is None, f"the server ended: {said[-2000:]}"
        found = url or next((line for line in said.splitlines() if line.startswith("http")), None)
        if found and _is_up(found):
            return found
        time.sleep(0.1)
    pytest.fail(f"the server did not come up: {log.read_text(errors='replace')[-2000:]}")


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama as a transformers folder and, beside it, as tiny.gguf."""
    pytest.importorskip("gguf")
    from tests.loopback.tiny_gguf import make_model, write_gguf

    folder = make_model(tmp_path_factory.mktemp("models") / "tiny")
    write_gguf(folder, folder.parent / "tiny.gguf")
    return folder


@pytest.fixture(scope="module")
def llama_cpp(tiny: Path) -> Iterator[str]:
    """The URL of llama.cpp serving the tiny model."""
    pytest.importorskip("xllamacpp")
    script = ROOT / "tests" / "loopback" / "llama_server.py"
    command = [sys.executable, str(script), str(tiny.parent / "tiny.gguf")]
    with running(command, url=None, log=tiny.parent / "llama.log", cwd=ROOT) as url:
        yield f"{url}/v1"


@contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    """The URL of transformers serve pinned to a folder."""
    pytest.importorskip("fastapi")
    port = _free_port()
    program = Path(sys.executable).with_name("transformers")
    # a relative path with ./ is what it loads offline; a bare name would be looked for on the hub
    command = [str(program), "serve", f"./{folder.name}", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--device", "cpu"]
    url = f"http://127.0.0.1:{port}"
    with running(command, url=url, log=log, cwd=folder.parent) as up:
        yield f"{up}/v1"


@pytest.fixture(scope="module")
def serve(tiny: Path) -> Iterator[str]:
    """The URL of transformers serve with the tiny model."""
    with transformers_serve(tiny, tiny.parent / "serve.log") as url:
        yield url


def continued(
    url: str,
    name: str,
    store: Store,
    *,
    tokenizer: Path | None,
    concurrency: int,
    k: int = K,
    stop: tuple[str, ...] = ("<|end|>",),
) -> tuple[dict[str, TraceContinuations], int]:
    """Continue all traces; the continuations by trace, and how many requests were sent."""
    template = None if tokenizer is None else template_from_tokenizer(tokenizer)
    model = OpenAIModel(name, base_url=url, template=template, concurrency=concurrency, environ={})
    with Dispatcher(model, store.replies) as dispatcher:
        policy = ServerPolicy(dispatcher, PolicyConfig(max_tokens=24, temperature=0.9, stop=stop))
        done = {each.trace_id: each for each in policy.continue_traces(CONTEXTS, k=k, seed=1)}
        return done, dispatcher.counters.sent


def check_continuations(
    url: str,
    name: str,
    database: Path,
    *,
    tokenizer: Path | None,
    concurrency: int,
    stop: tuple[str, ...] = ("<|end|>",),
) -> dict[str, TraceContinuations]:
    """What must hold through any server: all texts there, recorded, and not asked for again."""
    address = f"sqlite:///{database}"
    with Store.open(address) as store:
        done, sent = continued(
            url, name, store, tokenizer=tokenizer, concurrency=concurrency, stop=stop
        )
        assert sent == 3 * K
        assert store.replies.totals().sent == 3 * K
    assert {each: len(done[each].texts) for each in done} == {"long": 2 * K, "short": K}
    texts = [text for each in done.values() for text in each.texts]
    assert all(text.text and text.finish_reason in ("stop", "length") for text in texts)
    assert all("<|end|>" not in text.text for text in texts)
    assert all(0 < text.tokens <= 24 for text in texts)
    assert len({text.text for text in texts}) > 1, "it samples"
    with Store.open(address) as store:
        again, sent = continued(
            url, name, store, tokenizer=tokenizer, concurrency=concurrency, stop=stop
        )
        assert (again, sent) == (done, 0)
        _, sent = continued(
            url, name, store, tokenizer=tokenizer, concurrency=concurrency, k=K + 1, stop=stop
        )
        assert sent == 3, "a larger k buys only what is new"
    return done


def test_llama_cpp_by_template(llama_cpp: str, tiny: Path, tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    done = check_continuations(llama_cpp, "tiny", database, tokenizer=tiny, concurrency=4)
    again = check_continuations(llama_cpp, "tiny", tmp_path / "b.db", tokenizer=tiny, concurrency=4)
    assert again == done, "seeds hold, also under concurrency"


def test_llama_cpp_by_chat(llama_cpp: str, tmp_path: Path) -> None:
    done = check_continuations(llama_cpp, "tiny", tmp_path / "a.db", tokenizer=None, concurrency=4)
    for text in done["short"].texts:
        assert not text.text.startswith(STEPS[0]), "the prefix it gives back is taken off"


def test_transformers_serve_by_template(serve: str, tiny: Path, tmp_path: Path) -> None:
    check_continuations(serve, "./tiny", tmp_path / "a.db", tokenizer=tiny, concurrency=1)


def test_transformers_serve_does_not_continue_a_chat_turn(serve: str, tmp_path: Path) -> None:
    with (
        Store.open(f"sqlite:///{tmp_path / 'a.db'}") as store,
        pytest.raises(ModelRefused, match="tokenizer"),
    ):
        continued(serve, "./tiny", store, tokenizer=None, concurrency=1)


def greedy(url: str, name: str, template_folder: Path) -> ModelReply:
    """The most likely continuation of one prefix."""
    model = OpenAIModel(
        name, base_url=url, template=template_from_tokenizer(template_folder), environ={}
    )
    messages = (Message("user", "Which single dose?"), Message("assistant", STEPS[0] + "\n"))

    async def once() -> ModelReply:
        try:
            return await model.generate(GenerationRequest(messages, 16, temperature=0.0))
        finally:
            await model.aclose()

    return asyncio.run(once())


def test_both_servers_and_transformers_itself_write_the_same_greedy_text(
    llama_cpp: str, serve: str, tiny: Path
) -> None:
    """An independent reference: the prompt reaches each of them to the letter."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    prompt = f"<|user|>Which single dose?<|end|><|assistant|>{STEPS[0]}\n"
    given = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        whole = model.generate(**given, max_new_tokens=16, do_sample=False, temperature=None)
    expected = tokenizer.decode(whole[0][given.input_ids.shape[1] :], skip_special_tokens=True)
    by_llama, by_serve = greedy(llama_cpp, "tiny", tiny), greedy(serve, "./tiny", tiny)
    assert by_serve.text == expected
    assert by_llama.text == expected
    assert by_llama.usage.input_tokens == given.input_ids.shape[1]
    assert by_serve.usage == by_llama.usage.__class__(
        given.input_ids.shape[1], 0, by_llama.usage.output_tokens
    )


def test_a_prompt_beyond_llama_cpps_context_is_over_length(llama_cpp: str) -> None:
    model = OpenAIModel("tiny", base_url=llama_cpp, environ={})

    async def once() -> ModelReply:
        try:
            return await model.generate(GenerationRequest((Message("user", "6 x " * 2000),), 8))
        finally:
            await model.aclose()

    assert asyncio.run(once()).finish_reason == "over_length"


def test_the_template_keeps_the_separator_and_refuses_what_has_none(
    tiny: Path, tmp_path: Path
) -> None:
    render = template_from_tokenizer(tiny)
    user, prefix = Message("user", "q"), Message("assistant", "one.\n\n")
    assert render((user, prefix)) == "<|user|>q<|end|><|assistant|>one.\n\n"
    assert render((user,)) == "<|user|>q<|end|><|assistant|>"
    with pytest.raises(InputError, match="No tokenizer"):
        template_from_tokenizer(tmp_path)


@pytest.mark.skipif(not (LAB_POLICY / "config.json").is_file(), reason="no lab policy yet")
def test_transformers_serve_with_the_lab_policy(tmp_path: Path) -> None:
    """The bundled policy solves its own domain: served, it does so through this client too."""
    with transformers_serve(LAB_POLICY, tmp_path / "serve.log") as url:
        done = check_continuations(
            # No stop string: for a word-level vocabulary transformers fails to compile one (500).
            url,
            "./policy",
            tmp_path / "a.db",
            tokenizer=LAB_POLICY,
            concurrency=1,
            stop=(),
        )
    first_lines = [text.text.split("\n")[0] for text in done["long"].texts if text.step_index == 0]
    # The right next step; the policy samples, so that not every continuation need have it.
    assert STEPS[1] in first_lines
