"""Traces that leave the correct solution at a known step, as a careless reader would."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from lab import names
from lab.domain import DrugFacts, Question, draw_facts
from lab.solution import Slips, check, solution_steps


@dataclass(frozen=True)
class CorruptedTrace:
    """Steps with their exact first error (None: the trace is correct)."""

    steps: tuple[str, ...]
    first_error_index: int | None


def draw_trace(
    rng: random.Random,
    facts: DrugFacts,
    question: Question,
    *,
    error_share: float = 0.65,
    later_error: float = 0.08,
    other: DrugFacts | None = None,
) -> CorruptedTrace:
    """Draw a trace: correct with probability 1 - `error_share`, else wrong from a uniform step on.

    Wrong quotes use the values of the drug `other`, or of a drawn one.
    """
    truth = solution_steps(facts, question)
    if rng.random() >= error_share:
        return CorruptedTrace(tuple(truth), None)
    lender = other if other is not None else draw_facts(rng)
    for _ in range(50):
        slips = _slip_at(rng, facts, question, lender, index=rng.randrange(len(truth)))
        if rng.random() < later_error:
            extra = _slip_at(rng, facts, question, lender, index=rng.randrange(len(truth)))
            slips = _merged(slips, extra)
        steps = solution_steps(facts, question, slips)
        first_error = check(steps, facts, question)
        if first_error is not None:
            return CorruptedTrace(tuple(steps), first_error)
    return CorruptedTrace((*truth[:-1], "The answer is 1 mg."), len(truth) - 1)


def _merged(first: Slips, second: Slips) -> Slips:
    return replace(
        first,
        values={**second.values, **first.values},
        omitted=first.omitted | second.omitted,
        flipped=first.flipped | second.flipped,
    )


def _slip_at(
    rng: random.Random, facts: DrugFacts, question: Question, lender: DrugFacts, *, index: int
) -> Slips:
    """Return a slip that shows at step `index` of the correct solution."""
    step = solution_steps(facts, question)[index]
    truth_numbers = [
        int(word) for word in step.replace(",", "").replace(".", "").split() if word.isdigit()
    ]
    words = step.split()
    if "contraindicated" in words:
        return _contraindication_slip(rng, facts, question)
    if step.startswith("The answer"):
        return Slips(values={"answer": _slipped(rng, truth_numbers[-1])})
    if "substitute" in words:
        return Slips(
            values={
                "substitute": _wrong(
                    rng, facts.substitute_mg, lender.substitute_mg, names.SUBSTITUTES_MG
                )
            }
        )
    if " dose is " in step:
        if facts.contraindication is not None and rng.random() < 0.1:
            return Slips(omitted=frozenset({"contraindication"}))
        return Slips(
            values={
                "dose": _wrong(
                    rng, facts.dose_mg_per_kg, lender.dose_mg_per_kg, names.DOSES_MG_PER_KG
                )
            }
        )
    if " cap is " in step:
        if rng.random() < 0.25:
            return Slips(omitted=frozenset({"cap"}))
        return Slips(values={"cap": _wrong(rng, facts.cap_mg, lender.cap_mg, names.CAPS_MG)})
    if "halved" in words:
        if rng.random() < 0.25:
            return Slips(omitted=frozenset({"renal"}))
        return Slips(
            values={
                "renal_limit": _wrong(
                    rng, facts.renal_limit, lender.renal_limit, names.RENAL_LIMITS
                )
            }
        )
    if "count" in words:
        if rng.random() < 0.25:
            return Slips(omitted=frozenset({"count"}))
        return Slips(
            values={"count": _wrong(rng, facts.daily_count, lender.daily_count, names.DAILY_COUNTS)}
        )
    return _calculation_slip(rng, facts, question, step, numbers=truth_numbers)


def _calculation_slip(
    rng: random.Random, facts: DrugFacts, question: Question, step: str, *, numbers: list[int]
) -> Slips:
    value = numbers[-1]
    if " above " in step:
        if rng.random() < 0.6:
            return Slips(flipped=frozenset({"cap"}))
        return Slips(values={"capped": _slipped(rng, value)})
    if " below " in step:
        if rng.random() < 0.6:
            return Slips(flipped=frozenset({"renal"}))
        return Slips(values={"halved": _slipped(rng, value)})
    if numbers[:2] == [facts.dose_mg_per_kg, question.weight_kg]:
        if rng.random() < 0.4:
            weight = _wrong(rng, question.weight_kg, None, names.WEIGHTS_KG)
            return Slips(values={"weight": weight})
        return Slips(values={"product": _slipped(rng, value)})
    return Slips(values={"total": _slipped(rng, value)})


def _contraindication_slip(rng: random.Random, facts: DrugFacts, question: Question) -> Slips:
    if rng.random() < 0.6:
        return Slips(flipped=frozenset({"contraindication"}))
    wrong = facts.contraindication
    if question.condition == wrong or rng.random() < 0.5:
        wrong = rng.choice([c for c in names.CONDITIONS if c != question.condition])
    return Slips(condition=wrong)


def _wrong(rng: random.Random, truth: int | None, lent: int | None, pool: tuple[int, ...]) -> int:
    if lent is not None and lent != truth and rng.random() < 0.4:
        return lent
    return rng.choice([value for value in pool if value != truth])


def _slipped(rng: random.Random, value: int) -> int:
    """Return a nearby wrong number: one digit off, off by ten or a hundred, or a digit dropped."""
    kind = rng.randrange(4)
    if kind == 0:
        digits = list(str(value))
        place = rng.randrange(len(digits))
        low = 1 if place == 0 else 0
        digits[place] = str(rng.choice([d for d in range(low, 10) if str(d) != digits[place]]))
        return int("".join(digits))
    if kind == 1:
        return value + rng.choice((10, -10)) if value > 10 else value + 10
    if kind == 2:
        return value + rng.choice((100, -100)) if value > 100 else value + 100
    return value // 10 if value >= 100 else value * 10
