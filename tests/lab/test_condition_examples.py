"""Examples that dwell on contraindications: balanced, right, and weighted where it matters."""

from __future__ import annotations

import random

import pytest

from lab.training.examples import DECISION_WEIGHT, decision_ids, draw_line, draw_solution
from lab.training.tokens import build_tokenizer, decode

TOKENIZER = build_tokenizer()


def test_a_line_is_right_and_only_its_decision_counts() -> None:
    rng = random.Random(1)
    avoided = 0
    for _ in range(400):
        example = draw_line(rng, TOKENIZER)
        words = (
            decode(TOKENIZER, example.ids)
            .removesuffix(", so use it.")
            .removesuffix(", so avoid it.")
        )
        drug_side, patient_side = words.split(" and the patient has ")
        match = drug_side.endswith(f" in {patient_side}")
        (decision,) = [t for t, w in zip(example.ids, example.weights, strict=True) if w > 0]
        assert decision == decision_ids(TOKENIZER)[1 if match else 0]
        avoided += match
    assert 180 < avoided < 270


@pytest.mark.slow
def test_a_solution_weighs_its_decision_more() -> None:
    rng = random.Random(2)
    seen = set()
    for _ in range(60):
        example = draw_solution(rng, TOKENIZER, marked=0.5)
        for token, weight in zip(example.ids, example.weights, strict=True):
            if token in decision_ids(TOKENIZER) and weight > 1:
                assert weight == DECISION_WEIGHT
                seen.add(token)
        assert len(example.ids) == len(example.weights)
    assert seen == set(decision_ids(TOKENIZER))
