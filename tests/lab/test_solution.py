"""The exact checker: what it flags is exactly what was planted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.corruption import draw_trace
from lab.domain import DrugFacts, Question, decisive_passage, draw_facts, draw_question
from lab.solution import Slips, check, final_answer, gold_answer, solution_steps

FACTS = DrugFacts("Zentide", 6, 300, 40, "epilepsy", 450, 3)


def patient(**changes: object) -> Question:
    fields: dict[str, object] = {
        "drug": "Zentide", "weight_kg": 120, "egfr": 40, "condition": "gout", "daily": True,
    }  # fmt: skip
    return Question(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_solution_applies_every_rule_in_order() -> None:
    assert solution_steps(FACTS, patient()) == [
        "Zentide is contraindicated in epilepsy and the patient has gout, so use it.",
        "Zentide dose is 6 mg per kg.",
        "6 x 120 = 720 mg.",
        "Zentide cap is 300 mg.",
        "720 is above 300, so 300 mg.",
        "Zentide is halved below eGFR 40.",
        "40 is not below 40, so 300 mg.",
        "Zentide daily count is 3.",
        "3 x 300 = 900 mg.",
        "The answer is 900 mg.",
    ]


def test_a_contraindication_leads_to_the_substitute() -> None:
    assert solution_steps(FACTS, patient(condition="epilepsy")) == [
        "Zentide is contraindicated in epilepsy and the patient has epilepsy, so avoid it.",
        "Zentide substitute dose is 450 mg.",
        "The answer is 450 mg.",
    ]


def test_question_and_passage_have_one_wording() -> None:
    assert patient().text == (
        "A patient of 120 kg with eGFR 40 and gout needs Zentide. Which daily dose?"
    )
    assert decisive_passage(FACTS) == (
        "Zentide dose is 6 mg per kg. Zentide cap is 300 mg. Zentide is halved below eGFR 40. "
        "Zentide is contraindicated in epilepsy, substitute dose is 450 mg. "
        "Zentide daily count is 3."
    )


@pytest.mark.parametrize(
    ("slips", "first_error"),
    [
        (Slips(), None),
        (Slips(flipped=frozenset({"contraindication"})), 0),
        (Slips(condition="asthma"), 0),
        (Slips(values={"dose": 7}), 1),
        (Slips(values={"product": 710}), 2),
        (Slips(values={"cap": 400}), 3),
        (Slips(omitted=frozenset({"cap"})), 3),
        (Slips(flipped=frozenset({"cap"})), 4),
        (Slips(omitted=frozenset({"renal"})), 5),
        (Slips(flipped=frozenset({"renal"})), 6),
        (Slips(omitted=frozenset({"count"})), 7),
        (Slips(values={"total": 800}), 8),
        (Slips(values={"answer": 300}), 9),
    ],
)
def test_each_slip_is_flagged_where_it_shows(slips: Slips, first_error: int | None) -> None:
    question = patient()
    assert check(solution_steps(FACTS, question, slips), FACTS, question) == first_error


def test_malformed_traces_are_checked_too() -> None:
    question = patient()
    truth = solution_steps(FACTS, question)
    assert check([], FACTS, question) is None
    assert check([""], FACTS, question) == 0
    assert check(truth[:4], FACTS, question) is None
    assert check([*truth, "Done."], FACTS, question) == len(truth)
    assert check([truth[0] + " "], FACTS, question) == 0


@given(st.integers(), st.data())
def test_replacing_a_step_is_flagged_at_that_step(seed: int, data: st.DataObject) -> None:
    rng = random.Random(seed)
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    steps = solution_steps(facts, question)
    assert check(steps, facts, question) is None
    index = data.draw(st.integers(0, len(steps) - 1))
    replacement = data.draw(st.text().filter(lambda text: text != steps[index]))
    assert check([*steps[:index], replacement, *steps[index + 1 :]], facts, question) == index


@given(st.integers())
def test_a_drawn_trace_knows_its_first_error(seed: int) -> None:
    rng = random.Random(seed)
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    trace = draw_trace(rng, facts, question, error_share=1.0)
    assert trace.first_error_index is not None
    assert check(trace.steps, facts, question) == trace.first_error_index
    assert (
        list(trace.steps[: trace.first_error_index])
        == (solution_steps(facts, question)[: trace.first_error_index])
    )
    right = draw_trace(rng, facts, question, error_share=0.0)
    assert right.first_error_index is None
    assert final_answer(right.steps) == gold_answer(facts, question)


def test_some_wrong_traces_still_end_in_the_right_answer() -> None:
    rng = random.Random(0)
    lucky = 0
    for _ in range(1000):
        facts = draw_facts(rng)
        question = draw_question(rng, facts)
        trace = draw_trace(rng, facts, question, error_share=1.0)
        lucky += final_answer(trace.steps) == gold_answer(facts, question)
    assert 100 < lucky < 250


def test_the_final_answer_is_none_where_no_step_names_it() -> None:
    assert final_answer(["The answer is 900 mg."]) == "900 mg"
    assert final_answer(["The answer is 900 mg.", "Done."]) is None
    assert final_answer([]) is None
