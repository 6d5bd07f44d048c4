"""The traces of a dataset as an evaluation looks at them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.evaluated import EvaluatedTrace
    from storage import Store


def evaluated_traces(
    store: Store, dataset: str, labeler: str, gold: str, subsets: Collection[str] = ()
) -> list[EvaluatedTrace]:
    """Every trace of the dataset with the truth and the labeler's word, where they exist.

    Args:
        subsets: only these; empty for all.

    Raises:
        InputError: unknown dataset, labeler or subset.
    """
    from evaluation.evaluated import EvaluatedTrace

    store.require_dataset(dataset)
    for name in (labeler, gold):
        store.labeler(dataset, name)
    truth, predicted = store.labels(dataset, gold), store.labels(dataset, labeler)
    traces = [
        EvaluatedTrace(
            context.trace.id,
            context.problem.id,
            context.trace.subset,
            len(context.trace.steps),
            truth.get(context.trace.id),
            predicted.get(context.trace.id),
            context.trace.final_answer_correct,
        )
        for context in store.contexts(dataset, with_evidence=False)
    ]
    known = {trace.subset for trace in traces}
    if unknown := sorted(set(subsets) - known):
        raise InputError(
            f"Dataset '{dataset}' has no subset '{unknown[0]}'.",
            where="--subset",
            remedy=f"its subsets: {', '.join(sorted(known))}",
        )
    return [trace for trace in traces if not subsets or trace.subset in subsets]
