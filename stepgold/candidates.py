"""Candidates with step scores, from a workspace or from files, for `best-of-n` and `report`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.options import BootstrapOptions
from stepgold.trials import refuse_unknown_subset
from traces import InputError, meant

if TYPE_CHECKING:
    from evaluation import (
        CandidateSection,
        Pool,
        PoolCandidate,
        PublishedCandidate,
    )
    from formats import PoolRow
    from storage import LabelArrays, Store, TraceColumns
    from traces import Labeler


_OUTCOME_FAMILIES = ("medprm-orm",)
"""PRM families that score a solution as a whole."""


@dataclass(frozen=True, slots=True)
class UnusedScores:
    """A score row that matches no candidate."""

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
    """Pools of candidates, and the rows that could not be used."""

    pools: tuple[Pool, ...]
    """One per problem, in order of first appearance."""
    unknown_correctness: int
    """Candidates left out because the data does not say whether they are right."""
    rejected: tuple[UnusedScores, ...] = ()
    """Score rows that match no candidate."""
    published: Mapping[str, Sequence[Sequence[PublishedCandidate]]] = field(default_factory=dict)
    """What Med-PRM's script sees, per problem: `now`, and `before` the retry if there was one."""

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
        """The counts and at most `listed` rows, for a person."""
        lines = []
        if self.unknown_correctness:
            lines.append(f"{self.unknown_correctness} candidates left out: correctness unknown")
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
        store: the workspace's database.
        dataset: name of the dataset.
        labeler: whose scores choose.
        subsets: only traces of these; empty for all, mixed as they are.

    Raises:
        InputError: unknown dataset, labeler or subset, or no trace has a score on every step.
    """
    outcome = scores_outcomes(store.labels.labeler(dataset, labeler))
    pools, unknown = _pools(store, dataset, labeler, outcome=outcome, subsets=subsets)
    if not pools:
        raise InputError(
            f"No trace of dataset '{dataset}' has a known correctness of its final answer.",
            remedy="import traces with final_answer_correct",
        )
    return Candidates(_scored(pools), unknown)


def trace_pages(
    store: Store, dataset: str, subsets: Collection[str] = ()
) -> Iterator[tuple[TraceColumns, list[bool]]]:
    """The traces of a dataset, some at a time, and which of them are in these subsets.

    Raises:
        InputError: a subset that the dataset does not have.
    """
    found, only = False, next(iter(subsets)) if len(subsets) == 1 else None
    for page in store.traces.columns(dataset, subset=only):
        found = True
        yield page, [not subsets or subset in subsets for subset in page.subsets]
    if subsets and not (found and only):
        known = {subset for page in store.traces.columns(dataset) for subset in page.subsets}
        refuse_unknown_subset(dataset, subsets, known)


def scores_outcomes(labeler: Labeler) -> bool:
    """Whether a labeler has one score per trace, which is that of its last step."""
    return labeler.config.get("family") in _OUTCOME_FAMILIES


def complete_scores(labels: LabelArrays, *, outcome: bool = False) -> dict[int, tuple[float, ...]]:
    """By key of the trace the scores of all its steps, without traces where one has none.

    Args:
        labels: a labeler's labels.
        outcome: it is an outcome model's, whose one score is that of the last step.
    """
    scored, scores, found = labels.scored, labels.scores, {}
    if not scored.any():
        return {}
    for key, start, end in zip(
        labels.keys.tolist(), labels.offsets[:-1].tolist(), labels.offsets[1:].tolist(), strict=True
    ):
        steps = slice(max(start, end - 1) if outcome else start, end)
        if start < end and scored[steps].all():
            found[key] = tuple(scores[steps].tolist())
    return found


def from_files(pool: Path, scores: Path) -> Candidates:
    """A pool file with a score file, matched by problem and candidate.

    A score row of an unknown candidate, or with another number of steps than the pool says, is
    listed and not used.

    Raises:
        InputError: a file cannot be read to its end, a row is faulty, or no row fits a candidate.
    """
    from evaluation import Pool, PoolCandidate
    from formats import read_pool, read_pool_scores

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
    groups: dict[str, list[tuple[int, PoolCandidate]]] = defaultdict(list)
    unknown = 0
    for key, candidate in known.items():
        group = groups[candidate.problem_id]
        if candidate.is_correct is None:
            unknown += 1
            continue
        one = PoolCandidate(candidate.answer, candidate.is_correct, used.get(key))
        group.append((candidate.candidate_index, one))
    pools = (
        Pool(id, tuple(one for _, one in sorted(group, key=lambda pair: pair[0])))
        for id, group in groups.items()
    )
    if unknown == len(known):
        raise InputError(
            f"No candidate of pool '{pool}' has a known correctness.",
            where=str(pool),
            remedy="give rows with is_correct true or false",
        )
    return Candidates(
        _scored(pools), unknown, tuple(rejected), {"now": _published_rows(known, used)}
    )


def _published_rows(
    known: Mapping[tuple[str, int], PoolRow],
    used: Mapping[tuple[str, int], tuple[float, ...] | None],
) -> list[list[PublishedCandidate]]:
    """The candidates of a pool file as Med-PRM's script sees them."""
    from evaluation import PublishedCandidate

    groups: dict[str, list[tuple[int, PublishedCandidate]]] = defaultdict(list)
    for key, row in known.items():
        scores = used.get(key)
        one = PublishedCandidate(
            row.answer, row.is_correct is True, min(scores) if scores else None
        )
        groups[row.problem_id].append((row.candidate_index, one))
    return [[one for _, one in sorted(group, key=lambda p: p[0])] for group in groups.values()]


def _scored(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """The pools, if at least one candidate is scored."""
    found = tuple(pools)
    if not any(one.step_scores for pool in found for one in pool.candidates):
        raise InputError(
            "No candidate has a score for every step.",
            remedy="name a labeler that gives step scores, or the score file of this pool",
        )
    return tuple(found)


def candidate_sections(
    store: Store,
    dataset: str,
    labelers: Mapping[str, bool],
    *,
    subsets: Sequence[str],
    known: Sequence[str],
    options: BootstrapOptions,
) -> Iterator[CandidateSection]:
    """Best-of-N over all subsets of N candidates, for each labeler that gives scores.

    Traces of different subsets are never mixed in a pool: one may hold what a policy wrote, another
    what was made wrong on purpose.

    Args:
        store: the workspace's database.
        dataset: name of the dataset.
        labelers: by name, whether one scores a trace as a whole.
        subsets: whose traces are candidates; empty for those where most problems have two or more.
        known: the subsets of the dataset, in order.
        options: how intervals are drawn.

    Raises:
        InputError: a subset is unknown.
    """
    from evaluation import CandidateSection, evaluate_best_of_n

    if unknown := sorted(set(subsets) - set(known)):
        raise InputError(
            f"There is no subset '{unknown[0]}'.",
            where="--candidates",
            remedy=meant(unknown[0], known, f"its subsets: {', '.join(known)}"),
        )
    for subset in subsets or known:
        for labeler, outcome in labelers.items():
            pools, unknown_correctness = _pools(
                store, dataset, labeler, outcome=outcome, subsets=(subset,)
            )
            ns = curve(sorted(len(pool.candidates) for pool in pools))
            scored = any(one.step_scores for pool in pools for one in pool.candidates)
            if not ns or not scored:
                continue
            report = evaluate_best_of_n(
                pools, ns, over_subsets=True, seed=options.seed, resamples=options.resamples
            )
            yield CandidateSection(labeler, subset, report, unknown_correctness)


def curve(sizes: Sequence[int]) -> list[int]:
    """The N of a curve: powers of 2, and the last N that half of the pools reach.

    Args:
        sizes: of the pools, ascending.

    >>> curve([1, 6, 6, 9]), curve([1, 1, 9]), curve([])
    ([1, 2, 4, 6], [], [])
    """
    most = sizes[len(sizes) // 2] if sizes else 1
    if most < 2:
        return []
    powers = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*powers, most]


def _pools(
    store: Store, dataset: str, labeler: str, *, outcome: bool, subsets: Collection[str]
) -> tuple[list[Pool], int]:
    """Traces of a problem as candidates in import order, and how many are not known to be right."""
    from evaluation import Pool, PoolCandidate

    groups: dict[str, list[PoolCandidate]] = defaultdict(list)
    unknown = 0
    for page, kept in trace_pages(store, dataset, subsets):
        scores = complete_scores(store.labels.columns_of(dataset, labeler, page), outcome=outcome)
        rows = zip(
            kept,
            page.keys.tolist(),
            page.problem_ids,
            page.final_answers,
            page.final_answers_correct,
            strict=True,
        )
        for _, key, problem, answer, correct in (row for row in rows if row[0]):
            if correct is None:
                unknown += 1
            else:
                groups[problem].append(PoolCandidate(answer, correct, scores.get(key)))
    return [Pool(id_, tuple(found)) for id_, found in groups.items()], unknown
