"""A check of gold answers before anything is spent: each must equal itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stepgold.console import note

if TYPE_CHECKING:
    from traces import Problem

LISTED = 10
"""Gold answers shown to a person; the JSON document lists all."""


def list_unusable_golds(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """List gold answers that cannot be compared with any answer, as in the JSON document.

    The first ones are noted on standard error. Their problems abstain (`no_answer`).
    """
    from labeling import check_golds

    found = check_golds(problems)
    if found:
        plural = "answers" if len(found) > 1 else "answer"
        note(f"{len(found)} gold {plural} cannot be compared; these problems get no MC label:")
        for one in found[:LISTED]:
            note(f"  {one.problem_id}: {one.reason}")
        if len(found) > LISTED:
            note(f"  and {len(found) - LISTED} more")
    return [{"id": one.problem_id, "answer": one.answer, "reason": one.reason} for one in found]
