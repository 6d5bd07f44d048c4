"""`best-of-n`: how well a labeler's scores choose among candidates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.golds import list_unusable_golds
from stepgold.hub import input_file
from stepgold.options import BootstrapOptions, TableOptions
from stepgold.results import INCOMPLETE, OK, NamedFigures, Result
from stepgold.trials import refuse_unknown_subset
from traces import InputError, StrPath, meant, option

if TYPE_CHECKING:
    from evaluation import (
        CandidateSection,
        Pool,
        PoolCandidate,
        PublishedCandidate,
    )
    from formats import PoolRow
    from stepgold.workspace import WorkspaceFolder
    from storage import LabelArrays, Store, TraceColumns
    from traces import Labeler, TraceLabel


LISTED = 5
"""Score rows shown to a person; the JSON document lists all."""
_MOST = 10**6
"""Largest N."""
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


class BestOfNOptions(TableOptions, BootstrapOptions):
    """The candidates, and the scores that choose among them."""

    n: str | int | Collection[int] = option(
        flags=("--n", "-n"), metavar="N,N...", help="How many candidates to choose from, e.g. 8,32."
    )
    dataset: str | None = option(
        default=None, metavar="NAME", help="Dataset: the traces of a problem are its candidates."
    )
    labeler: str | None = option(
        default=None, metavar="NAME", help="With --dataset: the labeler whose step scores choose."
    )
    subset: Sequence[str] = option(
        default=(),
        metavar="NAME",
        help="With --dataset: only traces of this subset; may be repeated [default: all].",
    )
    pool: StrPath | None = option(
        default=None, metavar="FILE", help="Instead of a dataset: a file of candidates."
    )
    scores: StrPath | None = option(
        default=None, metavar="FILE", help="With --pool: a file of their step scores."
    )
    expected: bool = option(
        default=False,
        flags=("--expected",),
        help="Average over all subsets of size N, ties shared, instead of the first N.",
    )
    as_published: bool = option(
        default=False,
        flags=("--as-published",),
        help="Also repeat the accuracies of Med-PRM's scoring script: skipped candidates are never"
        " chosen, a missing answer counts as an answer.",
    )
    normalize_answers: bool = option(
        default=False,
        flags=("--normalize-answers", "--normalise-answers"),
        help="Count 5.00, $5 and 5 as one answer in the majorities.",
    )

    def check(self) -> None:
        """Refuse an N that is not a number, and a mix of dataset and files.

        Raises:
            InputError: an N is none, or neither form is complete.
        """
        super().check()
        _sizes(self.n)
        from_dataset = bool(self.dataset and self.labeler)
        from_files = bool(self.pool and self.scores)
        mixed = (self.pool or self.scores) if from_dataset else (self.dataset or self.labeler)
        if not (from_dataset or from_files) or mixed or (from_files and self.subset):
            raise InputError(
                "Best-of-N needs a dataset and a labeler, or a pool and its scores.",
                remedy="give --dataset and --labeler, or --pool and --scores",
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The N asked for, each once."""
        return tuple(_sizes(self.n))

    @property
    def source(self) -> dict[str, str]:
        """Where candidates and scores come from, as keys of the document."""
        if self.dataset is not None:
            return {"dataset": self.dataset, "labeler": str(self.labeler)}
        return {"pool": str(self.pool), "scores": str(self.scores)}


def _sizes(given: str | int | Collection[int]) -> list[int]:
    """`8,32` as numbers, each once."""
    if isinstance(given, str):
        parts = [part.strip() for part in given.split(",")]
        fine = all(part.isascii() and part.isdigit() for part in parts)
        sizes = [int(part) for part in parts] if fine else []
    else:
        sizes = [given] if isinstance(given, int) else list(given)
    if not sizes or not all(1 <= size <= _MOST for size in sizes):
        raise InputError(
            f"'{given}' is not a list of positive integers.", where="-n", remedy="write -n 8,32"
        )
    return list(dict.fromkeys(sizes))


class BestOfNFigures(NamedFigures):
    """Accuracies at one N by method, in [0, 1]; None without problems."""

    min: float | None
    product: float | None
    last: float | None
    mean: float | None
    majority: float | None
    weighted_majority: float | None
    mean_accuracy: float | None
    ci95: Mapping[str, list[float] | None]
    pools: int
    short: int
    unscored_pools: int


@dataclass(frozen=True, kw_only=True, repr=False)
class BestOfNResult(Result):
    """Best-of-N with bootstrap intervals by problem. pass@N is `n[8]["pass"]`."""

    n: Mapping[int, BestOfNFigures]
    """The figures by N, in the order asked for."""
    pools: int
    """Problems."""
    candidates: int
    """Candidates of all problems."""
    rejected: tuple[UnusedScores, ...]
    """Score rows that fit no candidate."""
    document: Mapping[str, Any]
    """All of it."""
    text: str
    """The same as a table."""

    @property
    def as_published(self) -> Mapping[str, Any] | None:
        """The accuracies of Med-PRM's script by N: `now`, and `before` a retry; None if they were
        not asked for."""
        return self.document.get("as_published")

    @property
    def exit_code(self) -> int:
        """0, or 1 if score rows could not be used."""
        return INCOMPLETE if self.rejected else OK

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        return dict(self.document)

    def words(self) -> str:
        """One line per N, and what could not be used."""
        return self.text

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """One row per N."""
        return [{"n": n, **figures.row()} for n, figures in self.n.items()]


def best_of_n(workspace: WorkspaceFolder, options: BestOfNOptions) -> BestOfNResult:
    """Choose among N candidates by min, product, last and mean score, and by majority.

    Raises:
        InputError: unknown dataset, labeler or subset, faulty files, or nothing to choose by.
    """
    if options.dataset is not None and options.labeler is not None:
        name = options.labeler
        with workspace.open_store() as store:
            found = from_workspace(store, options.dataset, name, options.subset)
            if options.as_published:
                found = replace(found, published=_published(store, options))
            if options.normalize_answers:
                list_unusable_golds(store.traces.golds(options.dataset))
    else:
        pool, scores = Path(str(options.pool)), Path(str(options.scores))
        name, found = scores.name, from_files(input_file(pool), input_file(scores))
    from evaluation import evaluate_best_of_n, formatted
    from labeling import normal_answer

    report = evaluate_best_of_n(
        found.pools,
        options.sizes,
        over_subsets=options.expected,
        normalize=normal_answer if options.normalize_answers else None,
        seed=options.seed,
        resamples=options.resamples,
    )
    document = options.source | report.as_json() | found.as_json()
    document["normalised"] = options.normalize_answers
    lines = [report.table(name), *found.words(LISTED)]
    if options.as_published:
        document["as_published"] = as_published(found, options.sizes)
        lines += _published_words(document)
    result = BestOfNResult(
        n={
            int(n): BestOfNFigures(figures, of=f"Best-of-{n}")
            for n, figures in document["n"].items()
        },
        pools=report.pools,
        candidates=report.candidates,
        rejected=found.rejected,
        document=document,
        text="\n".join(lines),
    )
    tables, rows = [report.figures_table(name, intervals=True)], result.rows()
    text = formatted(options.format, tables=tables, rows=rows, text=result.text)
    return replace(result, text=text)


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


def _pages(
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


def _published(store: Store, options: BestOfNOptions) -> dict[str, list[list[PublishedCandidate]]]:
    """What Med-PRM's script sees: `now`, and `before` the retry if there was one."""
    from evaluation import PublishedCandidate

    dataset, labeler = str(options.dataset), str(options.labeler)
    now: dict[str, list[PublishedCandidate]] = defaultdict(list)
    before: dict[str, list[PublishedCandidate]] = defaultdict(list)
    retried = False
    for page, kept in _pages(store, dataset, options.subset):
        labels = store.labels.load(dataset, labeler, list(page.ids))
        rows = zip(
            kept,
            page.problem_ids,
            page.final_answers,
            page.final_answers_correct,
            map(labels.get, page.ids),
            strict=True,
        )
        for _, problem, answer, correct, label in (row for row in rows if row[0]):
            skipped = label is not None and bool(label.meta.get("retries"))
            retried = retried or skipped
            one = PublishedCandidate(answer, correct is True, _least(label))
            now[problem].append(one)
            before[problem].append(replace(one, least=None) if skipped else one)
    found = {"now": list(now.values())}
    return found | ({"before": list(before.values())} if retried else {})


def _least(label: TraceLabel | None) -> float | None:
    """`PRM_min_score`: the file's own where it is stored, else the lowest step score."""
    if label is None:
        return None
    stated = label.meta.get("PRM_min_score")
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    scores = [step.score for step in label.step_labels if step.score is not None]
    return min(scores) if scores and len(scores) == len(label.step_labels) else None


def as_published(found: Candidates, sizes: Sequence[int]) -> dict[str, Any]:
    """The key `as_published` of `stepgold best-of-n --as-published`."""
    from evaluation import PUBLISHED_BEST_OF_N, published_best_of_n

    return {
        "source": PUBLISHED_BEST_OF_N,
        **{
            when: {str(n): published_best_of_n(pools, n) for n in sizes}
            for when, pools in found.published.items()
        },
    }


def _published_words(document: Mapping[str, Any]) -> list[str]:
    """Med-PRM's accuracies beside ours, before a retry and now."""
    published = document["as_published"]
    lines = [f"as published ({published['source']})"]
    for n, ours in document["n"].items():
        for when in ("before", "now"):
            found = published.get(when, {}).get(n)
            if found is None:
                continue
            label = "before the retry" if when == "before" else "now"
            lines.append(
                f"  N={n}, {label}: best-of-N {_three(found['best_of_n'])}, majority"
                f" {_three(found['majority'])}; {found['skipped']} solutions without a score"
            )
        lines.append(
            f"  N={n}, strict: best-of-N by min {_three(ours['min'])}, majority"
            f" {_three(ours['majority'])} (a missing answer does not vote)"
        )
    return lines


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


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
    for page, kept in _pages(store, dataset, subsets):
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
