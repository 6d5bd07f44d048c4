"""Qwen PRM to the token, against a slow reference, for both kinds of checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

from scoring import load_scorer
from scoring.engine.heads import head_of
from scoring.families.qwen_prm import HEADS, SYSTEM, QwenPrm
from tests.scoring.checkpoints import save_qwen_prm
from traces.errors import PrmError
from traces.problem import Problem, Trace, TraceInContext


def reference_ids(tokenizer: Any, context: TraceInContext) -> list[int]:
    """The whole conversation rendered and tokenised at once, as on the model card."""
    question = context.problem.question
    for letter, option in zip("ABCD", context.problem.options, strict=False):
        question += f"\n({letter}) {option}"
    steps = [step.strip() for step in context.trace.steps]
    text = tokenizer.apply_chat_template(
        [
            {
                "role": "system",
                "content": "Please reason step by step, and put your final answer within \\boxed{}.",
            },
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ],
        tokenize=False,
        add_generation_prompt=False,
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def two_layer_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    """The published head by hand: linear, ReLU, linear."""
    weights = load_file(folder / "model.safetensors")
    backbone: Any = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        hidden = backbone(torch.tensor([ids])).last_hidden_state[0]
        inner = torch.relu(hidden @ weights["score.0.weight"].T + weights["score.0.bias"])
        return inner @ weights["score.2.weight"].T + weights["score.2.bias"]


def one_layer_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    """transformers' own token classification."""
    model: Any = AutoModelForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


@pytest.mark.parametrize("published", [True, False])
def test_ids_positions_and_scores_equal_the_reference(
    tmp_path: Path, contexts: list[TraceInContext], published: bool
) -> None:
    folder = save_qwen_prm(tmp_path, published=published)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    marker = tokenizer.convert_tokens_to_ids("<extra_0>")
    scorer = load_scorer(f"hf:{folder}")
    assert scorer.family.name == "qwen-prm"
    found = {label.trace_id: label for label in scorer.score(contexts)}
    for context in contexts:
        ids = reference_ids(tokenizer, context)
        places = [place for place, token in enumerate(ids) if token == marker]
        laid_out = scorer.family.lay_out(context, context.evidence)
        assert list(laid_out.ids) == ids
        assert laid_out.read_at == tuple((place,) for place in places)
        logits = (two_layer_logits if published else one_layer_logits)(folder, ids)
        wanted = torch.softmax(logits[places].float(), dim=-1)[:, 1].tolist()
        got = [step.score for step in found[context.trace.id].step_labels]
        assert got == pytest.approx(wanted, abs=1e-5)
        assert found[context.trace.id].meta == {
            "tokens": len(ids),
            "documents": 0,
            "documents_dropped": 0,
        }


def test_the_backslash_of_the_system_turn_is_one() -> None:
    assert SYSTEM.endswith("within \\boxed{}.")
    assert "\b" not in SYSTEM


def test_a_probability_of_zero_keeps_its_place(
    qwen_folder: Path, contexts: list[TraceInContext], tmp_path: Path
) -> None:
    """The card's snippet loses scores that underflow; here each step keeps its own."""
    for file in qwen_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["score.2.bias"] = torch.tensor([1e6, -1e6])
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for label in load_scorer(str(tmp_path)).score(contexts):
        assert [step.score for step in label.step_labels] == [0.0] * len(label.step_labels)
        assert len(label.step_labels) >= 1


def test_a_marker_inside_texts_stays_text(qwen_folder: Path) -> None:
    scorer = load_scorer(str(qwen_folder))
    context = TraceInContext(
        Problem("p", "What is <extra_0>?"), Trace("t", "p", ("a <extra_0> b", "c"))
    )
    laid_out = scorer.family.lay_out(context, ())
    marker = scorer.family.tokenizer.convert_tokens_to_ids("<extra_0>")
    places = tuple((place,) for place, token in enumerate(laid_out.ids) if token == marker)
    assert laid_out.read_at == places
    assert len(places) == 2


@pytest.mark.parametrize("labels", [1, 3])
def test_a_head_of_other_than_two_classes_is_refused(tmp_path: Path, labels: int) -> None:
    with pytest.raises(PrmError, match="two classes"):
        load_scorer(str(save_qwen_prm(tmp_path, published=True, labels=labels)))


def test_a_checkpoint_without_a_head_is_refused(medprm_folder: Path) -> None:
    with pytest.raises(PrmError, match="no head"):
        head_of(medprm_folder, HEADS, 2)


def test_a_tokenizer_without_the_marker_is_refused(medprm_folder: Path, qwen_folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(medprm_folder)
    backbone: Any = AutoModel.from_pretrained(qwen_folder)
    with pytest.raises(PrmError, match="extra_0"):
        QwenPrm(tokenizer, backbone, head_of(qwen_folder, HEADS, 2))
