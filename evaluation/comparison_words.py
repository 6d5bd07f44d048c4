"""A comparison as a person at a terminal reads it."""

from __future__ import annotations

from evaluation.comparison import Comparison
from evaluation.first_error_confusion import KINDS
from evaluation.wording import figure, plain_table, with_interval


def comparison_words(found: Comparison) -> list[str]:
    """Tables of the pairs, of their first errors, and the tests against gold."""
    head = ("pair", "steps", "agreement", "kappa", "Pearson", "traces", "first-error agreement")
    rows = [
        (
            f"{pair.a} / {pair.b}",
            str(pair.n_steps),
            with_interval(pair.agreement),
            with_interval(pair.cohen_kappa),
            figure(pair.pearson),
            str(pair.n_first_errors),
            with_interval(pair.first_error_agreement),
        )
        for pair in found.pairs
    ]
    lines = [
        f"{len(found.table.traces)} traces, {len(found.table.trace_of_step)} steps, "
        "95% intervals by problem",
        plain_table(head, rows),
        f"Krippendorff's alpha of all: {with_interval(found.krippendorff_alpha)} "
        f"on {found.n_alpha} steps with two words or more",
        "",
        plain_table(
            ("first errors of", "against", *(kind.replace("_", " ") for kind in KINDS), "left out"),
            [
                (
                    pair.first_errors.of,
                    pair.first_errors.against,
                    *(str(pair.first_errors.counts[kind]) for kind in KINDS),
                    str(pair.first_errors.reference_missing),
                )
                for pair in found.pairs
            ],
        ),
    ]
    lines += [
        report.line(pair.a, pair.b)
        for pair in found.pairs
        if pair.paired is not None
        for report in pair.paired.values()
    ]
    return lines
