"""Drug facts and patient questions, and their fixed wording.

Facts are drawn for every example, so that a model can only answer by reading the passage.

>>> facts = DrugFacts(
...     "Zentide",
...     dose_mg_per_kg=6,
...     cap_mg=300,
...     renal_limit=40,
...     contraindication=None,
...     substitute_mg=None,
...     daily_count=3,
... )
>>> print(decisive_passage(facts).replace(". Z", ".\\nZ"))
Zentide dose is 6 mg per kg.
Zentide cap is 300 mg.
Zentide is halved below eGFR 40.
Zentide daily count is 3.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from lab import names


@dataclass(frozen=True)
class DrugFacts:
    """The guideline's rules for one drug; an absent rule is None."""

    drug: str
    dose_mg_per_kg: int
    cap_mg: int | None
    renal_limit: int | None
    """eGFR below which the dose is halved."""
    contraindication: str | None
    substitute_mg: int | None
    """Present if and only if there is a contraindication."""
    daily_count: int | None


@dataclass(frozen=True)
class Question:
    """One patient who needs one drug."""

    drug: str
    weight_kg: int
    egfr: int
    condition: str
    daily: bool
    """True asks for the daily dose, False for the single dose."""

    @property
    def text(self) -> str:
        """Return the question as the models read it."""
        kind = "daily" if self.daily else "single"
        return (
            f"A patient of {self.weight_kg} kg with eGFR {self.egfr} and {self.condition} "
            f"needs {self.drug}. Which {kind} dose?"
        )


def draw_facts(rng: random.Random, drug: str | None = None) -> DrugFacts:
    """Draw facts for `drug`, or for a drug drawn from the pool."""
    dose = rng.choice(names.DOSES_MG_PER_KG)
    cap = renal_limit = condition = substitute = count = None
    if rng.random() < 0.8:
        near = dose * rng.choice(names.WEIGHTS_KG)
        cap = min(max(round(near / 100) * 100, names.CAPS_MG[0]), names.CAPS_MG[-1])
    if rng.random() < 0.75:
        renal_limit = rng.choice(names.RENAL_LIMITS)
    if rng.random() < 0.6:
        condition = rng.choice(names.CONDITIONS)
        substitute = rng.choice(names.SUBSTITUTES_MG)
    if rng.random() < 0.6:
        count = rng.choice(names.DAILY_COUNTS)
    name = drug if drug is not None else rng.choice(names.DRUG_NAMES)
    return DrugFacts(
        name,
        dose_mg_per_kg=dose,
        cap_mg=cap,
        renal_limit=renal_limit,
        contraindication=condition,
        substitute_mg=substitute,
        daily_count=count,
    )


def draw_question(rng: random.Random, facts: DrugFacts) -> Question:
    """Draw a patient for whom the rules of `facts` matter."""
    condition = rng.choice(names.CONDITIONS)
    if facts.contraindication is not None and rng.random() < 0.2:
        condition = facts.contraindication
    egfr = rng.choice(names.EGFRS)
    if facts.renal_limit is not None and rng.random() < 0.5:
        egfr = facts.renal_limit + 5 * rng.randint(-3, 3)
    daily = facts.daily_count is not None and rng.random() < 0.6
    weight = rng.choice(names.WEIGHTS_KG)
    return Question(facts.drug, weight, egfr, condition=condition, daily=daily)


def decisive_passage(facts: DrugFacts) -> str:
    """Return the sentences that decide the dose, in fixed wording and order."""
    sentences = [f"{facts.drug} dose is {facts.dose_mg_per_kg} mg per kg."]
    if facts.cap_mg is not None:
        sentences.append(f"{facts.drug} cap is {facts.cap_mg} mg.")
    if facts.renal_limit is not None:
        sentences.append(f"{facts.drug} is halved below eGFR {facts.renal_limit}.")
    if facts.contraindication is not None:
        sentences.append(
            f"{facts.drug} is contraindicated in {facts.contraindication}, "
            f"substitute dose is {facts.substitute_mg} mg."
        )
    if facts.daily_count is not None:
        sentences.append(f"{facts.drug} daily count is {facts.daily_count}.")
    return " ".join(sentences)
