"""The candidates of best-of-N, from the workspace or from a pool file with its scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces import InputError

if TYPE_CHECKING:
    from evaluation.best_of_n import Candidate, Pool
    from evaluation.report.input import CandidateSection
    from evaluation.step_words import ComparedTrace
    from formats.pools import PoolRow
    from storage import Store
    from traces import Labeler, TraceLabel


_OUTCOME_FAMILIES = ("medprm-orm",)
"""PRM families that score a solution as a whole."""


@dataclass(frozen=True, slots=True)
class UnusedScores:
    """A score row that fits no candidate."""

    line: int
    """1-based line in the score file."""
    problem_id: str
    """As the row says."""
    candidate_index: int
    """As the row says."""
    reason: str
    """One sentence without its full stop."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pools, and what did not fit into them."""

    pools: tuple[Pool, ...]
    """One per problem, in order of first appearance."""
    unknown_correctness: int
    """Candidates of which nobody says whether they are right: left out."""
    rejected: tuple[UnusedScores, ...] = ()
    """Score rows that fit no candidate."""

    def as_json(self) -> dict[str, Any]:
        """The counts and the list, as keys of the document."""
        return {
            "unknown_correctness": self.unknown_correctness,
            "rejected": [
                {
                    "line": row.line,
                    "problem_id": row.problem_id,
                    "candidate_index": row.candidate_index,
                    "reason": row.reason,
                }
                for row in self.rejected
            ],
        }

    def words(self, listed: int) -> list[str]:
        """The same for a person, at most `listed` rows by name."""
        lines = []
        if self.unknown_correctness:
            lines.append(
                f"{self.unknown_correctness} candidates left out: nobody says whether they are right"
            )
        if self.rejected:
            lines.append(f"{len(self.rejected)} score rows not used:")
            lines += [
                f"  line {row.line}, {row.problem_id} candidate {row.candidate_index}: {row.reason}"
                for row in self.rejected[:listed]
            ]
            if len(self.rejected) > listed:
                lines.append(f"  and {len(self.rejected) - listed} more (--json lists all)")
        return lines


def from_workspace(
    store: Store, dataset: str, labeler: str, subsets: Collection[str] = ()
) -> Candidates:
    """A problem's traces as candidates in import order, with a labeler's step scores.

    Args:
        subsets: only traces of these; empty for all, mixed as they are.

    Raises:
        InputError: unknown dataset, labeler or subset, or no trace has a score on every step.
    """
    from evaluation.best_of_n import Candidate, Pool

    store.traces.require_dataset(dataset)
    outcome = scores_outcomes(store.labels.labeler(dataset, labeler))
    labels = store.labels.load(dataset, labeler)
    groups: dict[str, list[Candidate]] = defaultdict(list)
    unknown = 0
    known: set[str] = set()
    for context in store.traces.contexts(dataset, with_evidence=False):
        trace = context.trace
        known.add(trace.subset)
        if subsets and trace.subset not in subsets:
            continue
        scores = complete_scores(labels.get(trace.id), outcome=outcome)
        if trace.final_answer_correct is None:
            unknown += 1
            continue
        groups[context.problem.id].append(
            Candidate(trace.final_answer, trace.final_answer_correct, scores)
        )
    if strangers := sorted(set(subsets) - known):
        raise InputError(
            f"Dataset '{dataset}' has no subset '{strangers[0]}'.",
            where="--subset",
            remedy=f"its subsets: {', '.join(sorted(known))}",
        )
    if not groups:
        raise InputError(
            f"No trace of dataset '{dataset}' says whether its final answer is right.",
            remedy="import traces with final_answer_correct",
        )
    return Candidates(_scored(Pool(id, tuple(found)) for id, found in groups.items()), unknown)


def scores_outcomes(labeler: Labeler) -> bool:
    """Whether a labeler's one score of a trace stands on its last step."""
    return labeler.config.get("family") in _OUTCOME_FAMILIES


def complete_scores(label: TraceLabel | None, *, outcome: bool = False) -> tuple[float, ...] | None:
    """A label's score of every step; None if one has none.

    Args:
        label: None if the labeler has no word on the trace.
        outcome: it is an outcome model's, whose one score is that of the last step.
    """
    if label is None or not label.step_labels:
        return None
    steps = label.step_labels[-1:] if outcome else label.step_labels
    scores = [step.score for step in steps if step.score is not None]
    return tuple(scores) if len(scores) == len(steps) else None


def from_files(pool: Path, scores: Path) -> Candidates:
    """A pool file with a score file, matched by problem and candidate.

    A score row of an unknown candidate, or with another number of steps than the pool says, is
    listed and not used.

    Raises:
        InputError: a file cannot be read to its end, a row is faulty, or no row fits a candidate.
    """
    from evaluation.best_of_n import Candidate, Pool
    from formats.pools import read_pool, read_pool_scores

    known: dict[tuple[str, int], PoolRow] = {
        (row.problem_id, row.candidate_index): row for row in read_pool(pool)
    }
    used: dict[tuple[str, int], tuple[float, ...] | None] = {}
    rejected: list[UnusedScores] = []
    for row in read_pool_scores(scores):
        key = row.problem_id, row.candidate_index
        said = None if row.step_scores is None else len(row.step_scores)
        if key not in known:
            rejected.append(UnusedScores(row.line, *key, "the pool has no such candidate"))
        elif said is not None and known[key].n_steps not in (None, said):
            reason = f"{said} scores for {known[key].n_steps} steps"
            rejected.append(UnusedScores(row.line, *key, reason))
        else:
            used[key] = row.step_scores
    groups: dict[str, list[tuple[int, Candidate]]] = defaultdict(list)
    unknown = 0
    for key, candidate in known.items():
        group = groups[candidate.problem_id]
        if candidate.is_correct is None:
            unknown += 1
            continue
        one = Candidate(candidate.answer, candidate.is_correct, used.get(key))
        group.append((candidate.candidate_index, one))
    pools = (
        Pool(id, tuple(one for _, one in sorted(group, key=lambda pair: pair[0])))
        for id, group in groups.items()
    )
    if unknown == len(known):
        raise InputError(
            f"No candidate of pool '{pool}' says whether it is right.",
            where=str(pool),
            remedy="give rows with is_correct true or false",
        )
    return Candidates(_scored(pools), unknown, tuple(rejected))


def _scored(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """The pools, if at least one candidate is scored."""
    found = tuple(pools)
    if not any(one.step_scores for pool in found for one in pool.candidates):
        raise InputError(
            "No candidate has a score on every step, so that nothing can be chosen by score.",
            remedy="name a labeler that gives step scores, or the score file of this pool",
        )
    return tuple(found)


# --- Best-of-N on the report: problems with several candidates, subset by subset


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
    from evaluation.report.input import CandidateSection

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
    from evaluation.best_of_n import Candidate, Pool

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
