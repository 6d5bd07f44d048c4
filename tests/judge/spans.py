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


def pubmedqa_passages(folder: Path) -> list[str]:
    """Abstracts of PubMedQA."""
    rows = json.loads((folder / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    texts = [" ".join(row["CONTEXTS"]) for row in rows.values()]
    return [text for text in texts if len(text.split()) > 3 * SPAN_WORDS]


def lab_passages(seed: int) -> list[str]:
    """Guideline documents of the bundled lab."""
    from lab.build import build_workspace

    made = build_workspace(seed, 40, traces_per_problem=1, n_distractors=40)
    return [document.text for document in made.documents]


def draw_span(passages: list[str], chance: random.Random, holds: str = "") -> tuple[str, list[str]]:
    """A passage and the words of a span of it that holds a match of the pattern `holds`."""
    while True:
        passage = chance.choice(passages)
        words = passage.split()
        start = chance.randrange(len(words) - SPAN_WORDS)
        span = words[start : start + SPAN_WORDS]
        if re.search(holds, " ".join(span)):
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


DENIAL = (
    r"\b(?:not|no|never|without|nor|neither|none|cannot|nothing|except|unless|\w+ than|below|above"
    r"|over|under|exceeds?|at (?:least|most)|up to|contraindicated|avoid|stop|rarely|unlikely)\b"
)


def elided_harmlessly(span: list[str], chance: random.Random) -> str:
    """Three words replaced by an ellipsis, none of which denies, forbids or compares."""
    places = [
        at
        for at in range(2, SPAN_WORDS - 5)
        if not re.search(DENIAL, " ".join(span[at : at + 3]), re.IGNORECASE)
    ]
    at = chance.choice(places or [2])
    return " ".join(span[:at]) + " ... " + " ".join(span[at + 3 :])


def elided_negation(span: list[str], chance: random.Random) -> str:
    """A negation in the middle of a sentence replaced by an ellipsis."""
    text = " ".join(span)
    found = chance.choice(list(re.finditer(_INNER_NEGATION, text)))
    return text[: found.start(1)] + "..." + text[found.end(1) :]


def elided_denial(span: list[str], chance: random.Random) -> str:
    """A word that forbids, excepts or compares left out in the middle of a sentence."""
    text = " ".join(span)
    found = chance.choice(list(re.finditer(_INNER_DENIAL, text)))
    return f"{text[: found.start(1)]}...{text[found.end(1) :]}"


_INNER_DENIAL = (
    r"[a-z]{2,} (contraindicated in|(?:to|should) (?:avoid|stop)|except|unless|(?:is|are) unlikely"
    r"|rarely|(?:less|more|younger|older|greater) than|(?:below|above|exceed|at least)(?= \d)"
    r"|halved below(?= \w+ \d)) \w"
)
_INNER_NEGATION = r"[a-z]{2,} (not|cannot|without) [a-z]{2,}"


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


UNIT = r"\b\d[\d.]* ?(mg|kg|g|ml|mL|mm|cm|%)(?![\w/%])"
_UNITS = ("mg", "kg", "g", "ml", "mm", "cm", "%")
COMPARATOR = r"(?<![\w-])(below|above|less than|more than|at least|at most|greater than|[<>])(?!\w)"
_OPPOSITES = {
    "below": "above", "above": "below", "less than": "more than", "more than": "less than",
    "at least": "at most", "at most": "at least", "greater than": "less than", "<": ">", ">": "<",
}  # fmt: skip


def changed_unit(span: list[str], chance: random.Random) -> str:
    """The unit of one number replaced by another."""
    text = " ".join(span)
    found = chance.choice(list(re.finditer(UNIT, text)))
    other = chance.choice([unit for unit in _UNITS if unit.lower() != found[1].lower()])
    return text[: found.start(1)] + other + text[found.end(1) :]


def changed_comparator(span: list[str], chance: random.Random) -> str:
    """One comparator replaced by its opposite."""
    text = " ".join(span)
    found = chance.choice(list(re.finditer(COMPARATOR, text)))
    return text[: found.start(1)] + _OPPOSITES[found[1]] + text[found.end(1) :]


TRUE: tuple[Tampering, ...] = (verbatim, recased, one_typo, elided, elided_harmlessly)
"""What an honest judge's quote may look like."""
FALSE: tuple[tuple[Tampering, str], ...] = (
    (changed_number, r"\d"),
    (changed_unit, UNIT),
    (changed_comparator, COMPARATOR),
    (added_negation, ""),
    (elided_negation, _INNER_NEGATION),
    (elided_denial, _INNER_DENIAL),
)
"""What no quote may be, with the pattern that a span must hold for it."""
Verifier = Callable[[str, str], object]
"""Quote and passage in; None or False if the quote does not stand there."""


def accepted(
    passages: list[str],
    tamper: Tampering,
    verify: Verifier,
    seed: int,
    *,
    holds: str = "",
    n: int = 300,
) -> list[str]:
    """Of `n` quotes made from spans, those that are accepted, with the span as it stands behind.

    Left out are tampered ones that happen to stand in the passage as they are.
    """
    chance = random.Random(seed)
    taken: list[str] = []
    for _ in range(n):
        passage, span = draw_span(passages, chance, holds)
        quote = tamper(span, chance)
        plain = " ".join(passage.lower().split())
        if holds and " ".join(quote.lower().split()) in plain:
            continue
        if verify(quote, passage):
            taken.append(f"{quote} | {' '.join(span)}")
    return taken


def accepted_elsewhere(passages: list[str], verify: Verifier, seed: int, n: int = 300) -> list[str]:
    """Of `n` spans, those accepted in a passage that they were not taken from and do not share."""
    chance = random.Random(seed)
    taken: list[str] = []
    for _ in range(n):
        (_, span), (other, _) = draw_span(passages, chance), draw_span(passages, chance)
        shared = " ".join(span[1:-1]).lower() in " ".join(other.lower().split())
        if not shared and verify(" ".join(span), other):
            taken.append(" ".join(span))
    return taken
