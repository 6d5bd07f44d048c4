"""Every family to the token, against texts and ids written down by hand and a slow, obvious reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification

from scoring import Scorer, load_scorer
from scoring.families.implicit import AGGREGATIONS
from scoring.names import BUILT_IN
from tests.scoring.golden_cases import CASES, Case, checkpoint
from tests.scoring.golden_ids import GOLDEN

Folder = Callable[[Case], Path]
Load = Callable[[Case], Scorer]
NAMES = sorted(CASES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A case's checkpoint; cases with the same tokenizer and head share one."""
    made: dict[tuple[Any, str], Path] = {}

    def find(case: Case) -> Path:
        key = case.tokenizer, case.head
        if key not in made:
            made[key] = checkpoint(tmp_path_factory.mktemp("golden"), case)
        return made[key]

    return find


@pytest.fixture(scope="module")
def load(folder: Folder) -> Load:
    """A case's scorer; loaded once for all cases that differ in the trace alone."""
    made: dict[tuple[Any, ...], Scorer] = {}

    def find(case: Case) -> Scorer:
        key = case.family, case.tokenizer, *case.options.items()
        if key not in made:
            made[key] = load_scorer(str(folder(case)), family=case.family, **case.options)
        return made[key]

    return find


def reference(case: Case, folder: Path, ids: tuple[int, ...]) -> list[float]:
    """P at every position: one sequence, one forward, every logit there is."""
    text = torch.tensor([ids])
    model: Any
    with torch.no_grad():
        if case.head == "signs":
            model = AutoModelForCausalLM.from_pretrained(folder)
            logits = model(text).logits[0].float()[:, list(case.signs)]
            return [float(p) for p in torch.softmax(logits, dim=1)[:, 0]]
        if case.head == "classes":
            model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=2)
            return [float(p) for p in torch.softmax(model(text).logits[0], dim=1)[:, 1]]
        weights = load_file(folder / "model.safetensors")
        model = AutoModel.from_pretrained(folder)
        if case.head == "three":
            matrix, added = weights["score_head.weight"], weights["score_head.bias"]
            logits = model(text).last_hidden_state[0] @ matrix.T + added
            return [1 - float(p) for p in torch.softmax(logits, dim=1)[:, 0]]
        row, bias = weights["v_head.summary.weight"][0], weights["v_head.summary.bias"]
        return [
            float(torch.sigmoid(hidden @ row + bias)) for hidden in model(text).last_hidden_state[0]
        ]


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_positions_are_those_written_down(name: str, load: Load) -> None:
    case = CASES[name]
    scorer = load(case)
    tokenizer: Any = scorer.family.tokenizer
    laid_out = scorer.family.lay_out(case.context, case.context.evidence)
    assert (laid_out.ids, laid_out.read_at) == GOLDEN[name]
    # The ids spell what the published script writes, whole and to the letter.
    assert tokenizer.decode(list(laid_out.ids), skip_special_tokens=False) == case.written
    token, before = case.reads
    for place in (place + int(before) for places in laid_out.read_at for place in places):
        spelled = str(token).replace("\n", "Ċ")
        assert tokenizer.convert_ids_to_tokens(laid_out.ids[place]) == spelled
    if case.exact:
        # Sentence-piece would put its first blank behind a `<s>` that stands in the text.
        text = case.written.removeprefix("<s> ")
        own = text != case.written
        assert list(laid_out.ids) == tokenizer(text, add_special_tokens=own)["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if "mode" not in CASES[name].options])
def test_scores_are_those_of_the_slow_reference(name: str, folder: Folder, load: Load) -> None:
    case = CASES[name]
    ids, read_at = GOLDEN[name]
    [label] = load(case).score([case.context])
    probabilities = reference(case, folder(case), ids)
    wanted = [min((probabilities[place] for place in places), default=None) for places in read_at]
    for step, value in zip(label.step_labels, wanted, strict=True):
        assert step.score == (value if value is None else pytest.approx(value, abs=1e-5))
    assert max(probabilities) - min(probabilities) > 0.05


def test_every_family_has_a_golden_case() -> None:
    # The likelihood and implicit PRMs read every token, VisualPRM images: they have tests of their own.
    assert {case.family for case in CASES.values()} >= {*BUILT_IN} - {
        "likelihood", *AGGREGATIONS, "rlhflow-mistral", "qwen-prm800k", "trl", "visualprm"
    }  # fmt: skip
