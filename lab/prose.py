"""Guideline documents around the decisive passage: headings, background, storage and monitoring
notes.

A document is a list of paragraphs; the decisive sentences are one of them, word for word.
`draw_window` returns the decisive paragraph with neighbors, as a chunker would, so that models are
trained on the passages that a retriever returns.
"""

from __future__ import annotations

import random
from typing import Final

from lab.domain import DrugFacts, decisive_passage

TITLES: Final = (
    "{drug}: dosing guideline", "Guideline for the use of {drug}", "{drug} in hospital practice",
    "Local protocol: {drug}", "{drug}",
)  # fmt: skip
DECISIVE_HEADINGS: Final = ("Dosing", "Dose rules", "Dose and limits", "How much to give")
SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Background": (
        "{drug} is given to adults on the ward and in the clinic.",
        "This page replaces the older protocol and was agreed by the pharmacy committee.",
        "{drug} acts slowly and most patients feel better after a few days.",
        "The evidence comes from three small trials and from long experience.",
        "Doctors and nurses should read the whole page before they prescribe.",
        "The committee reviews this text every year.",
        "{drug} is not a first choice for children.",
    ),
    "Storage": (
        "Store {drug} in the original box and away from light.",
        "Do not freeze the tablets.",
        "Keep opened bottles in the fridge and write the date on the label.",
        "Damaged boxes go back to the pharmacy.",
        "The ward stock is counted by the pharmacy every week.",
    ),
    "Monitoring": (
        "Check blood pressure and weight before the first dose.",
        "Measure kidney function again after one week of {drug}.",
        "Ask the patient about sleep, appetite and pain at every visit.",
        "Stop {drug} and call the doctor if a rash appears.",
        "Blood tests are repeated each month while treatment goes on.",
    ),
    "Side effects": (
        "Nausea and headache are common and usually pass without treatment.",
        "A dry mouth is often reported with {drug}.",
        "Severe reactions are rare and must be reported to the safety office.",
        "Tell the patient not to drive when tired or dizzy.",
    ),
    "Administration": (
        "Give {drug} with food and a full glass of water.",
        "Tablets may be crushed when the patient cannot swallow.",
        "A missed dose is left out and not made up for later.",
        "The infusion runs slowly through a clean line.",
        "Two nurses check the calculation before {drug} is given.",
    ),
    "Contact": (
        "Questions go to the clinical pharmacist on call.",
        "Errors in this page should be sent to the guideline office.",
        "Printed copies are not controlled and may be out of date.",
    ),
}  # fmt: skip


def document_paragraphs(rng: random.Random, facts: DrugFacts) -> tuple[list[str], int]:
    """Draw the paragraphs of one guideline document and the index of the decisive one."""
    names = list(SECTIONS)
    rng.shuffle(names)
    chosen = names[: rng.randint(3, 5)]
    place = rng.randint(1, len(chosen)) if rng.random() < 0.7 else 0
    paragraphs = ["# " + rng.choice(TITLES).format(drug=facts.drug)]
    decisive = 0
    for position in range(len(chosen) + 1):
        if position == place:
            paragraphs.append("## " + rng.choice(DECISIVE_HEADINGS))
            decisive = len(paragraphs)
            paragraphs.append(decisive_passage(facts))
        if position < len(chosen):
            paragraphs.extend(_section(rng, chosen[position], facts.drug))
    return paragraphs, decisive


def _section(rng: random.Random, name: str, drug: str) -> list[str]:
    sentences = list(SECTIONS[name])
    rng.shuffle(sentences)
    body = " ".join(sentences[: rng.randint(2, 4)]).format(drug=drug)
    return ["## " + name, body]


def draw_document(rng: random.Random, facts: DrugFacts) -> str:
    """Draw one guideline document as markdown."""
    paragraphs, _ = document_paragraphs(rng, facts)
    return "\n\n".join(paragraphs) + "\n"


def draw_window(rng: random.Random, facts: DrugFacts, max_extra_words: int = 100) -> str:
    """Draw a passage as a chunker cuts it: the decisive paragraph and some neighbors."""
    paragraphs, decisive = document_paragraphs(rng, facts)
    first = last = decisive
    budget = rng.randint(0, max_extra_words)
    while True:
        ways = [w for w in (-1, 1) if 0 <= (first if w < 0 else last) + w < len(paragraphs)]
        if not ways:
            break
        way = rng.choice(ways)
        words = len(paragraphs[(first if way < 0 else last) + way].split())
        if words > budget:
            break
        budget -= words
        first, last = (first - 1, last) if way < 0 else (first, last + 1)
    separator = "\n\n" if rng.random() < 0.8 else rng.choice((" ", "\n"))
    return separator.join(paragraphs[first : last + 1])
