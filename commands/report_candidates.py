"""Best-of-N on the report: problems with several candidates, subset by subset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from commands.candidates import complete_scores
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.pools import Candidate, Pool
    from evaluation.report_input import CandidateSection
    from evaluation.step_words import ComparedTrace


def candidate_sections(
    traces: Sequence[ComparedTrace],
    labelers: Sequence[str],
    subsets: Sequence[str],
    seed: int,
    resamples: int,
    *,
    outcome: Collection[str] = (),
) -> Iterator[CandidateSection]:
    """Best-of-N over all subsets of N candidates, for each labeler that gives scores.

    Traces of different subsets are never mixed in a pool: one may hold what a policy wrote, another
    what was made wrong on purpose.

    Args:
        subsets: whose traces are candidates; empty for those where most problems have two or more.
        outcome: those of the labelers that score a trace as a whole.

    Raises:
        InputError: a subset is unknown.
    """
    from evaluation.best_of_n import evaluate_best_of_n
    from evaluation.report_input import CandidateSection

    known = list(dict.fromkeys(trace.subset for trace in traces))
    if unknown := sorted(set(subsets) - set(known)):
        raise InputError(
            f"There is no subset '{unknown[0]}'.",
            where="--candidates",
            remedy=f"its subsets: {', '.join(known)}",
        )
    for subset in subsets or known:
        members = [trace for trace in traces if trace.subset == subset]
        for labeler in labelers:
            pools, unknown_correctness = _pools(members, labeler, outcome=labeler in outcome)
            ns = curve(sorted(len(pool.candidates) for pool in pools))
            scored = any(one.step_scores for pool in pools for one in pool.candidates)
            if not ns or not scored:
                continue
            report = evaluate_best_of_n(
                pools, ns, over_subsets=True, seed=seed, resamples=resamples
            )
            yield CandidateSection(labeler, subset, report, unknown_correctness)


def curve(sizes: Sequence[int]) -> list[int]:
    """The N of a curve for pools of these ascending sizes: powers of 2, and the last N that half of them reach.

    >>> curve([1, 6, 6, 9]), curve([1, 1, 9]), curve([])
    ([1, 2, 4, 6], [], [])
    """
    most = sizes[len(sizes) // 2] if sizes else 1
    if most < 2:
        return []
    powers = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*powers, most]


def _pools(
    traces: Sequence[ComparedTrace], labeler: str, *, outcome: bool
) -> tuple[list[Pool], int]:
    """A problem's traces as candidates in import order, and how many nobody calls right or wrong."""
    from evaluation.pools import Candidate, Pool

    groups: dict[str, list[Candidate]] = defaultdict(list)
    unknown = 0
    for trace in traces:
        if trace.final_answer_correct is None:
            unknown += 1
            continue
        scores = complete_scores(trace.labels.get(labeler), outcome=outcome)
        groups[trace.problem_id].append(
            Candidate(trace.final_answer, trace.final_answer_correct, scores)
        )
    return [Pool(id_, tuple(found)) for id_, found in groups.items()], unknown
