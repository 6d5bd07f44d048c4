"""One prompt, one parser, the same abstentions: whatever server or local model answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from inference.dispatch import Dispatcher
from inference.openai.model import OpenAIModel
from inference.protocol import TextModel
from judge.config import JudgeConfig
from judge.prompt import render_vote
from judge.prompt_file import REPLY_SCHEMA, JudgePrompt
from judge.rag_judge import RagJudge
from tests.judge.sheets import PASSAGE, context
from tests.loopback.openai_server import OpenAIServer
from traces.labels import AbstentionReason, TraceLabel, Verdict

ROOT = Path(__file__).parents[2]
OWN = "--- system ---\nJudge.\n--- user ---\n{documents}\n{question}\n{steps}\n--- no documents ---\nNo."
ASKED = context(
    ("Zentide dose is 6 mg per kg.", "6 x 120 = 700 mg."), PASSAGE, question="Which single dose?"
)
REPLY = json.dumps(
    {
        "steps": [
            {
                "step": 1,
                "document": 1,
                "quote": "Zentide dose is 6 mg per kg",
                "reasoning": "As stated.",
                "verdict": "correct",
            },
            {
                "step": 2,
                "document": None,
                "quote": None,
                "reasoning": "It is 720.",
                "verdict": "incorrect",
            },
        ]
    }
)


def config(max_tokens: int = 220) -> JudgeConfig:
    return JudgeConfig(prompt=JudgePrompt.parse(OWN, where="own.txt"), max_tokens=max_tokens)


def judge(model: TextModel, *, max_tokens: int = 220, votes: int = 1) -> TraceLabel:
    asked = config(max_tokens)
    if votes > 1:
        asked = JudgeConfig(
            prompt=asked.template, max_tokens=max_tokens, votes=votes, temperature=0.7
        )
    with Dispatcher(model, None) as runner:
        [label] = [one.label for one in RagJudge(runner, asked).judge([ASKED])]
    return label


def is_the_learnt_word(label: TraceLabel) -> bool:
    assert label.abstention is None, label.abstention
    words = [step.verdict for step in label.step_labels]
    quote = label.step_labels[0].quote
    return words == [Verdict.CORRECT, Verdict.INCORRECT] and bool(quote and quote.verified)


# Any OpenAI-compatible server --------------------------------------------------------------------


@pytest.mark.parametrize("takes_schemas", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [REPLY, f"```json\n{REPLY}\n```", f"Here it is: {REPLY.replace('}]', '},]')} Good luck!"],
    ids=["bare", "fenced", "prose"],
)
def test_a_server_with_or_without_schemas(wrapped: str, takes_schemas: bool) -> None:
    with OpenAIServer(wrapped) as server:
        server.refuses_response_format = not takes_schemas
        model = OpenAIModel("m", base_url=server.url, concurrency=1, environ={})
        with Dispatcher(model, None) as runner:
            asked = [ASKED, context(ASKED.trace.steps, PASSAGE, trace_id="t2", question="Other?")]
            labels = [one.label for one in RagJudge(runner, config()).judge(asked)]
        formats = [body.get("response_format") for _, body, _ in server.calls]
    assert all(map(is_the_learnt_word, labels))
    if takes_schemas:
        schemas = [wanted and wanted["json_schema"]["schema"] for wanted in formats]
        assert schemas == [REPLY_SCHEMA] * 2
    else:  # refused once, remembered
        assert [wanted is not None for wanted in formats] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        (REPLY[:80], "length", AbstentionReason.TRUNCATED),
        (REPLY[:80], "stop", AbstentionReason.UNREADABLE),
        ("I would rather not.", "stop", AbstentionReason.UNREADABLE),
        ("", "content_filter", AbstentionReason.BLOCKED),
    ],
)
def test_abstentions_are_those_of_every_judge(
    text: str, finish: str, reason: AbstentionReason
) -> None:
    with OpenAIServer(text) as server:
        server.finish_reason = finish
        label = judge(OpenAIModel("m", base_url=server.url, environ={}))
    assert label.abstention is not None
    assert label.abstention.reason is reason


# A local model, and the same weights behind llama.cpp --------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model, and one that has learnt the one reply by heart (a second of training)."""
    pytest.importorskip("gguf")
    from tests.loopback.tiny_gguf import make_model, write_gguf

    root = tmp_path_factory.mktemp("judges")
    random, learnt = make_model(root / "random"), make_model(root / "learnt")
    _teach(learnt)
    write_gguf(learnt, root / "learnt.gguf")
    return {"random": random, "learnt": learnt, "gguf": root / "learnt.gguf"}


def _teach(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from inference.prompting import conversation_ids

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    prompt = conversation_ids(tokenizer, [render_vote(ASKED, config())[0].request.messages])[0]
    answer = tokenizer(REPLY, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ids = torch.tensor([[*prompt, *answer]])
    wanted = ids.clone()
    wanted[:, : len(prompt)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        model(input_ids=ids, labels=wanted).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def local(folder: Path) -> TextModel:
    from inference.local.engines import LocalTextModel

    return LocalTextModel(str(folder), spec=f"hf:{folder.name}")


@pytest.mark.slow
def test_a_local_model_judges(folders: dict[str, Path]) -> None:
    label = judge(local(folders["learnt"]))
    assert is_the_learnt_word(label)
    assert label.meta["resolved_model"].startswith("sha256:")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "max_tokens", "reason"),
    [
        ("random", 60, AbstentionReason.TRUNCATED),
        ("learnt", 100, AbstentionReason.TRUNCATED),
    ],
)
def test_a_local_model_abstains_like_any_other(
    which: str, max_tokens: int, reason: AbstentionReason, folders: dict[str, Path]
) -> None:
    label = judge(local(folders[which]), max_tokens=max_tokens)
    assert label.abstention is not None
    assert label.abstention.reason is reason
    assert label.step_labels == ()


@pytest.mark.slow
def test_the_packaged_prompt_does_not_fit_into_a_tiny_window(folders: dict[str, Path]) -> None:
    with Dispatcher(local(folders["learnt"]), None) as runner:
        [label] = [one.label for one in RagJudge(runner).judge([ASKED])]
    assert label.abstention is not None
    assert label.abstention.reason is AbstentionReason.OVER_LENGTH


@pytest.mark.slow
def test_llama_cpp_follows_the_schema_and_votes(folders: dict[str, Path]) -> None:
    pytest.importorskip("xllamacpp")
    from tests.inference.test_real_servers import running

    script = ROOT / "tests" / "loopback" / "llama_server.py"
    command = [sys.executable, str(script), str(folders["gguf"])]
    log = folders["gguf"].parent / "llama.log"
    with running(command, url=None, log=log, cwd=ROOT) as url:
        assert is_the_learnt_word(judge(served(url)))
        voted = judge(served(url), votes=3)
        cut = judge(served(url), max_tokens=40)
    assert is_the_learnt_word(voted)
    assert voted.meta["votes"]["share"] == 1.0
    assert cut.abstention is not None
    assert cut.abstention.reason is AbstentionReason.TRUNCATED


def served(url: str) -> OpenAIModel:
    return OpenAIModel("learnt", base_url=f"{url}/v1", environ={})
