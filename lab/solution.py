"""The unique correct solution of a question, and the exact checker that compares any trace with it.

A slip can be planted at chosen stages; the rest follows from it consistently, which is how
`lab.corruption` makes traces that are wrong from a known step on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.domain import DrugFacts, Question


@dataclass(frozen=True)
class Slips:
    """Deviations from the correct solution; none by default."""

    values: Mapping[str, int] = field(default_factory=dict)
    """Replaced numbers, by stage: dose, weight, product, cap, capped, renal_limit, halved, count,
    total, substitute, answer."""
    omitted: frozenset[str] = frozenset()
    """Rules left out: cap, renal, count or contraindication."""
    flipped: frozenset[str] = frozenset()
    """Comparisons decided the wrong way: cap, renal, contraindication."""
    condition: str | None = None
    """A misread condition of the patient."""


def solution_steps(facts: DrugFacts, question: Question, slips: Slips | None = None) -> list[str]:
    """Return the steps of the correct solution, or of one that deviates by `slips`."""
    slips = slips or Slips()
    steps: list[str] = []
    if facts.contraindication is not None and "contraindication" not in slips.omitted:
        condition = slips.condition or question.condition
        avoid = condition == facts.contraindication
        if "contraindication" in slips.flipped:
            avoid = not avoid
        steps.append(
            f"{facts.drug} is contraindicated in {facts.contraindication} and the patient has "
            f"{condition}, so {'avoid' if avoid else 'use'} it."
        )
        if avoid:
            substitute = slips.values.get("substitute", facts.substitute_mg)
            steps.append(f"{facts.drug} substitute dose is {substitute} mg.")
            return [*steps, f"The answer is {slips.values.get('answer', substitute)} mg."]
    amount = _weight_stage(facts, question, slips, steps)
    amount = _cap_stage(facts, slips, steps, amount)
    amount = _renal_stage(facts, question, slips, steps, amount=amount)
    amount = _daily_stage(facts, question, slips, steps, amount=amount)
    return [*steps, f"The answer is {slips.values.get('answer', amount)} mg."]


def _weight_stage(facts: DrugFacts, question: Question, slips: Slips, steps: list[str]) -> int:
    dose = slips.values.get("dose", facts.dose_mg_per_kg)
    weight = slips.values.get("weight", question.weight_kg)
    product = slips.values.get("product", dose * weight)
    steps.append(f"{facts.drug} dose is {dose} mg per kg.")
    steps.append(f"{dose} x {weight} = {product} mg.")
    return product


def _cap_stage(facts: DrugFacts, slips: Slips, steps: list[str], amount: int) -> int:
    if facts.cap_mg is None or "cap" in slips.omitted:
        return amount
    cap = slips.values.get("cap", facts.cap_mg)
    above = (amount > cap) != ("cap" in slips.flipped)
    capped = slips.values.get("capped", cap if above else amount)
    steps.append(f"{facts.drug} cap is {cap} mg.")
    steps.append(f"{amount} is {'above' if above else 'not above'} {cap}, so {capped} mg.")
    return capped


def _renal_stage(
    facts: DrugFacts, question: Question, slips: Slips, steps: list[str], *, amount: int
) -> int:
    if facts.renal_limit is None or "renal" in slips.omitted:
        return amount
    limit = slips.values.get("renal_limit", facts.renal_limit)
    below = (question.egfr < limit) != ("renal" in slips.flipped)
    halved = slips.values.get("halved", amount // 2 if below else amount)
    steps.append(f"{facts.drug} is halved below eGFR {limit}.")
    relation = "below" if below else "not below"
    steps.append(f"{question.egfr} is {relation} {limit}, so {halved} mg.")
    return halved


def _daily_stage(
    facts: DrugFacts, question: Question, slips: Slips, steps: list[str], *, amount: int
) -> int:
    if not question.daily or facts.daily_count is None or "count" in slips.omitted:
        return amount
    count = slips.values.get("count", facts.daily_count)
    total = slips.values.get("total", count * amount)
    steps.append(f"{facts.drug} daily count is {count}.")
    steps.append(f"{count} x {amount} = {total} mg.")
    return total


def gold_answer(facts: DrugFacts, question: Question) -> str:
    """Return the correct answer, for example `900 mg`."""
    return final_answer(solution_steps(facts, question)) or ""


def final_answer(steps: Sequence[str]) -> str | None:
    """Return the answer named in the last step, None if there is none.

    >>> final_answer(["The answer is 900 mg."])
    '900 mg'
    """
    head, tail = "The answer is ", "."
    if not steps or not steps[-1].startswith(head) or not steps[-1].endswith(tail):
        return None
    return steps[-1][len(head) : -len(tail)]


def check(steps: Sequence[str], facts: DrugFacts, question: Question) -> int | None:
    """Return the index of the first step that leaves the correct solution, None if no step does.

    Any list of strings can be checked. A trace that stops early has no wrong step; one that
    continues after the answer is wrong from its first superfluous step.
    """
    truth = solution_steps(facts, question)
    for index, step in enumerate(steps):
        if index >= len(truth) or step != truth[index]:
            return index
    return None
