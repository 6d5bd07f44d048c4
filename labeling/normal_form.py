"""One spelling for equal answers, so that candidates can vote for them."""

from __future__ import annotations

from labeling.choices import plain
from labeling.quantities import whole_quantity

CONVERTED = frozenset({"mass", "volume", "amount", "length", "time"})
"""Dimensions whose units are converted; any other unit ($, %, tablets) is dropped."""


def normal_answer(answer: str) -> str:
    r"""An answer in the form in which equal answers are equal strings.

    Numbers are compared exactly and as numbers, with a unit in the base unit of its dimension; all
    else by its letters: one case, single spaces, no edge punctuation, brackets or LaTeX text. Unlike
    `answers.AnswerChecker` it needs no gold answer, and knows no algebra.

    >>> normal_answer("5.00") == normal_answer("\\$5") == normal_answer("5")
    True
    >>> normal_answer("0.9 g") == normal_answer("900 mg"), normal_answer("(B)")
    (True, 'b')
    """
    quantity = whole_quantity(answer)
    if quantity is None:
        return plain(answer.strip().strip("()[]"))
    unit = quantity.unit
    if unit is None or not set(unit.dimensions) <= CONVERTED:
        return str(quantity.value)
    return f"{quantity.value * unit.factor} {'/'.join(unit.dimensions)}"
