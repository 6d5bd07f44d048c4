"""Guideline passages made from a seed, and quotes from them: true ones and tampered ones."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

SPAN_WORDS = 15
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DRUGS = ("Zentide", "Morvaxin", "Caldipine", "Ostrelin", "Pravimab", "Tolquinone")
_SENTENCES = (
    "{drug} should be started at {n} mg per kg once the diagnosis has been confirmed by a specialist.",
    "The total dose must stay below {n} mg in patients whose renal function is impaired.",
    "Monitor serum potassium every {n} days while treatment with {drug} continues.",
    "In adults over {n} years the infusion is given slowly (at least {n} minutes).",
    "Common reactions include headache, dizziness, and mild abdominal discomfort.",
    "{drug} is not recommended during the first {n} weeks after major surgery.",
    "Treatment is withdrawn when liver enzymes exceed {n} U/L on repeated measurement.",
    "Store the vials at {n} °C — protected from light — until they are needed.",
    "Children under {n} kg receive a reduced maintenance dose of {n}.5 mg daily.",
    "Combination with other sedative agents requires careful observation of breathing.",
    "The tablets are taken with plenty of water, preferably in the morning after breakfast.",
    "Elderly patients often respond to lower doses and need closer supervision at home.",
    "Blood pressure, body weight and kidney function are checked at every visit.",
    "Symptoms usually improve within the first {n} days and then remain stable for months.",
)


def generated_passages(seed: int, count: int = 200) -> list[str]:
    """Passages of dosing prose with many numbers."""
    chance = random.Random(seed)
    return [
        " ".join(
            re.sub(r"\{n\}", lambda _: str(chance.randrange(2, 900)), sentence).replace(
                "{drug}", chance.choice(_DRUGS)
            )
            for sentence in chance.sample(_SENTENCES, 6)
        )
        for _ in range(count)
    ]


def medquad_passages(folder: Path) -> list[str]:
    """Answers of MedQuAD, at most 2,500 characters each."""
    texts = []
    for name in ("nih", "rare_diseases"):
        with gzip.open(folder / "medquad" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as rows:
            texts += [json.loads(row)["content"][:2500] for row in rows]
    return [text for text in texts if len(text.split()) > 3 * SPAN_WORDS]


def draw_span(
    passages: list[str], chance: random.Random, *, with_number: bool = False
) -> tuple[str, list[str]]:
    """A passage and the words of a span of it."""
    while True:
        passage = chance.choice(passages)
        words = passage.split()
        start = chance.randrange(len(words) - SPAN_WORDS)
        span = words[start : start + SPAN_WORDS]
        if not with_number or re.search(r"\d", " ".join(span)):
            return passage, span


Tampering = Callable[[list[str], random.Random], str]


def verbatim(span: list[str], _: random.Random) -> str:
    """As it stands."""
    return " ".join(span)


def recased(span: list[str], chance: random.Random) -> str:
    """In other case, with other white space and quotation marks round it."""
    words = [chance.choice((word.upper(), word.lower(), word.title())) for word in span]
    return f"“{chance.choice((' ', '  ', chr(10))).join(words)}”"


def one_typo(span: list[str], chance: random.Random) -> str:
    """One letter of one ordinary word changed, dropped or doubled."""
    words = list(span)
    places = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 4]
    place = chance.choice(places or [0])
    word, at = words[place], chance.randrange(len(words[place]))
    letter = chance.choice(_LETTERS)
    words[place] = chance.choice(
        (
            word[:at] + letter + word[at + 1 :],
            word[:at] + word[at + 1 :],
            word[:at] + letter + word[at:],
        )
    )
    return " ".join(words)


def elided(span: list[str], chance: random.Random) -> str:
    """Three words replaced by an ellipsis."""
    at = chance.randrange(2, SPAN_WORDS - 5)
    dots = chance.choice((" ... ", "…", " [...] ", " … "))
    return " ".join(span[:at]) + dots + " ".join(span[at + 3 :])


def changed_number(span: list[str], chance: random.Random) -> str:
    """One digit replaced by another, with all else as it stands."""
    text = " ".join(span)
    at = chance.choice([i for i, character in enumerate(text) if character.isdigit()])
    other = chance.choice([digit for digit in "123456789" if digit != text[at]])
    return text[:at] + other + text[at + 1 :]


def added_negation(span: list[str], chance: random.Random) -> str:
    """A negation between two words."""
    at = chance.randrange(1, len(span))
    return " ".join([*span[:at], chance.choice(("not", "no", "never", "without")), *span[at:]])
