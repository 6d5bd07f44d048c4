"""Quality filters and selection: the labeled traces that are worth keeping.

Two kinds of filters. Most look at one trace alone (`filter_reason`): they work in one pass with
bounded memory. Others compare traces with each other (near-duplicates, Med-PRM's choice per
question, correct traces per problem, class balance, selection): `TraceFilters` first sees all
traces, and keeps about 300 bytes of each; for near-duplicates about 6 kB, most of it the index.

Where traces are sampled, their order is a hash of the seed and the trace id, so that what is kept
does not depend on the order of the traces. Filters apply in the order of `FILTERS`; a trace counts
for the first one that removes it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labeling.selection import Candidate, Filtered, Removal, Selection, whole_part
from traces import (
    Config,
    Need,
    Trace,
    TraceInContext,
    TraceLabel,
    Verdict,
    first_error,
    option,
)

if TYPE_CHECKING:
    from datasketch import MinHash
    from numpy.typing import NDArray

FILTERS = (
    "min-steps", "max-steps", "min-characters", "max-characters", "drop-degenerate",
    "no-error-before-right-answer", "error-before-wrong-answer", "require-verified-quote",
    "soft", "near-duplicates", "med-prm", "max-correct-per-problem", "balance", "select",
)  # fmt: skip
"""All filters in the order in which they apply."""
MED_PRM_STEPS = (3, 9)
"""Steps of a solution that Med-PRM's sampling script keeps: more than 2, fewer than 10."""
_MED_PRM_CORRECT = 2
"""Correct solutions that Med-PRM keeps of a question at least."""


def _samples(config: Any) -> bool:
    return any(getattr(config, name, None) is not None for name in _SAMPLING)


_SAMPLING = ("near_duplicates", "max_correct_per_problem", "balance", "select")


class QualityFilters(Config):
    """Conditions for keeping a trace; the defaults keep every trace."""

    filters: str | None = option(
        default=None,
        choices=("med-prm",),
        metavar="NAME",
        help="med-prm: the published filter of Med-PRM: 3 to 9 steps; wrong answers with an error; "
        "of each problem, as many right answers as wrong ones, but at least 2.",
    )
    min_steps: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Keep traces of at least N steps (Med-PRM: 3).",
    )
    max_steps: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Keep traces of at most N steps (Med-PRM: 9).",
    )
    min_characters: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Keep traces of at least N characters, all steps together.",
    )
    max_characters: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Keep traces of at most N characters, question and steps together.",
    )
    drop_degenerate: bool = option(
        default=False,
        help="Drop traces that have an empty or a repeated step, copy the question, or name no "
        "final answer.",
    )
    require_verified_quote: bool = option(
        default=False,
        help="Keep traces whose first error (or, without one, any step) has a verified quote.",
    )
    no_error_before_right_answer: bool = option(
        default=False,
        help="Drop traces that have an error but end in the right answer (lucky or corrected).",
    )
    error_before_wrong_answer: bool = option(
        default=False,
        help="Drop traces that have no error but end in a wrong answer (an error was missed).",
    )
    near_duplicates: float | None = option(
        default=None,
        metavar="J",
        between=(0.1, 1),
        help="Of traces whose steps share at least this fraction of their word triples (MinHash "
        "estimate of the Jaccard similarity), keep one.",
    )
    max_correct_per_problem: int | None = option(
        default=None,
        metavar="N",
        between=(0, None),
        help="Keep at most N traces without an error per problem, sampled.",
    )
    balance: float | None = option(
        default=None,
        metavar="R",
        between=(1, None),
        help="Keep at most R traces of one class (with or without an error) per trace of the "
        "other, sampled.",
    )
    seed: int = option(
        default=0,
        metavar="N",
        between=(0, None),
        help="Seed of the filters that sample.",
        needs=Need("a filter that samples, e.g. --balance 1", _samples),
    )

    @property
    def compares(self) -> bool:
        """Whether a filter compares traces with each other, so that it needs to see all first."""
        sampling = any(getattr(self, name) is not None for name in _SAMPLING[:3])
        return sampling or self.filters is not None


def filter_reason(
    context: TraceInContext,
    label: TraceLabel,
    sources: Sequence[TraceLabel],
    filters: QualityFilters,
) -> Filtered | None:
    """Why a filter that looks at one trace removes it; None if it passes them all.

    Args:
        context: the trace.
        label: its label.
        sources: the labels that it was made from, for their quotes.
        filters: the conditions.
    """
    for found in (
        _length(context, filters),
        _degenerate(context) if filters.drop_degenerate else None,
        _outcome(context.trace, label, filters),
    ):
        if found is not None:
            return found
    if filters.require_verified_quote and not _is_grounded(label, sources):
        return Filtered("require-verified-quote", "no verified quote")
    wrong = not context.trace.final_answer_correct
    if filters.filters == "med-prm" and wrong and not _has_zero(label):
        return Filtered("med-prm", "the final answer is not right, and no step is incorrect")
    return None


def _length(context: TraceInContext, filters: QualityFilters) -> Filtered | None:
    steps = len(context.trace.steps)
    # Med-PRM samples solutions of this length before it labels them.
    low, high = MED_PRM_STEPS if filters.filters == "med-prm" else (None, None)
    low, high = filters.min_steps or low, filters.max_steps or high
    if low is not None and steps < low:
        return Filtered("min-steps", f"{steps} steps, fewer than {low}")
    if high is not None and steps > high:
        return Filtered("max-steps", f"{steps} steps, more than {high}")
    characters = sum(map(len, context.trace.steps))
    if filters.min_characters is not None and characters < filters.min_characters:
        detail = f"{characters} characters, fewer than {filters.min_characters}"
        return Filtered("min-characters", detail)
    characters += len(context.problem.question)
    if filters.max_characters is not None and characters > filters.max_characters:
        detail = f"{characters} characters, more than {filters.max_characters}"
        return Filtered("max-characters", detail)
    return None


def _degenerate(context: TraceInContext) -> Filtered | None:
    from labeling.answers import find_mentions

    seen: dict[str, int] = {}
    question = _plain(context.problem.question)
    for number, step in enumerate(context.trace.steps, 1):
        plain = _plain(step)
        if not plain:
            return Filtered("drop-degenerate", f"step {number} is empty")
        if plain in seen:
            return Filtered("drop-degenerate", f"step {number} repeats step {seen[plain]}")
        if plain == question:
            return Filtered("drop-degenerate", f"step {number} is a copy of the question")
        seen[plain] = number
    if context.trace.final_answer is None and not find_mentions("\n".join(context.trace.steps)):
        return Filtered("drop-degenerate", "it names no final answer")
    return None


_NUMBER = re.compile(r"^(?:step \d+\s*[:.)]|\d+[.)](?=\s))\s*")


def _plain(text: str) -> str:
    """The text in lower case with single spaces, without the number of a step."""
    return _NUMBER.sub("", " ".join(text.lower().split()))


def _outcome(trace: Trace, label: TraceLabel, filters: QualityFilters) -> Filtered | None:
    right, error = trace.final_answer_correct, first_error(label)
    if filters.no_error_before_right_answer and right is True and _names_error(label):
        detail = "an error, but the final answer is right"
        return Filtered("no-error-before-right-answer", detail)
    silent = error.missing or error.index is not None
    if filters.error_before_wrong_answer and right is False and not silent:
        detail = "no error, but the final answer is wrong"
        return Filtered("error-before-wrong-answer", detail)
    return None


def _names_error(label: TraceLabel) -> bool:
    """Whether any step is labeled incorrect, even after steps that are left open."""
    error = first_error(label)
    if not error.missing:
        return error.index is not None
    return any(step.verdict is Verdict.INCORRECT for step in label.step_labels)


def _has_zero(label: TraceLabel) -> bool:
    """Whether a step has the label 0, as Med-PRM's trainer reads it: exactly 0 in a soft label."""
    if label.first_error_given or any(step.verdict is not None for step in label.step_labels):
        return _names_error(label)
    return any(step.score == 0 for step in label.step_labels)


def _is_grounded(label: TraceLabel, sources: Sequence[TraceLabel]) -> bool:
    """Whether a labeler has a verified quote: on the first error, if there is one."""
    error = first_error(label)
    chosen = slice(None) if error.index is None else slice(error.index, error.index + 1)
    return any(
        step.quote is not None and step.quote.verified
        for source in sources
        for step in source.step_labels[chosen]
    )


# Traces compared with each other -----------------------------------------------------------------


class TraceFilters:
    """All filters of a run: show it every labeled trace with `see`, then ask for `reason`.

    Without filters that compare traces, `see` does nothing and can be left out.
    """

    def __init__(self, filters: QualityFilters, selection: Selection | None = None) -> None:
        """Nothing is seen yet.

        Args:
            filters: the conditions.
            selection: what is chosen of the traces that pass them; None keeps all.
        """
        self._filters, self._selection = filters, selection
        self._seen: list[Candidate] = []
        self._removed: dict[str, Filtered] | None = None
        self._base: MinHash | None = None

    @property
    def compares(self) -> bool:
        """Whether all traces have to be seen first."""
        return self._filters.compares or self._selection is not None

    def see(
        self,
        context: TraceInContext,
        label: TraceLabel,
        sources: Sequence[TraceLabel] = (),
        *,
        measured: TraceLabel | None = None,
    ) -> None:
        """Take note of a trace with a label, in any order; do not show abstentions.

        Args:
            context: the trace.
            label: its label.
            sources: the labels that it was made from.
            measured: its Monte Carlo label, for a selection; None if there is none.
        """
        if not self.compares or filter_reason(context, label, sources, self._filters) is not None:
            return
        trace, error = context.trace, first_error(label)
        wanted = self._filters.near_duplicates is not None
        chosen = self._selection
        self._seen.append(
            Candidate(
                id=trace.id,
                problem=trace.problem_id,
                subset=trace.subset,
                order=_order(self._filters.seed, trace.id),
                has_error=None if error.missing else error.index is not None,
                right=trace.final_answer_correct is True,
                signature=self._signature(trace) if wanted else None,
                rank=None if chosen is None else chosen.rank(label, measured),
            )
        )

    def reason(
        self, context: TraceInContext, label: TraceLabel, sources: Sequence[TraceLabel] = ()
    ) -> Filtered | None:
        """Why a trace is not kept; None if it is."""
        alone = filter_reason(context, label, sources, self._filters)
        if alone is not None or not self.compares:
            return alone
        if self._removed is None:
            self._removed = self._settled()
        return self._removed.get(context.trace.id)

    def _settled(self) -> dict[str, Filtered]:
        """What is removed by the filters that compare traces, each working on what is left."""
        left, removed = sorted(self._seen, key=lambda one: one.order), dict[str, Filtered]()
        filters = self._filters
        steps: list[tuple[bool, Callable[[list[Candidate]], Iterable[Removal]]]] = [
            (filters.near_duplicates is not None, self._near_duplicates),
            (filters.filters == "med-prm", _med_prm),
            (filters.max_correct_per_problem is not None, self._correct_per_problem),
            (filters.balance is not None, self._balanced),
            (self._selection is not None, self._selected),
        ]
        for wanted, step in steps:
            if wanted:
                removed |= {one.id: why for one, why in step(left)}
                left = [one for one in left if one.id not in removed]
        self._seen = []
        return removed

    def _signature(self, trace: Trace) -> bytes:
        from datasketch import MinHash

        if self._base is None:
            self._base = MinHash(num_perm=_PERMUTATIONS, scheme=_SCHEME)
        made = MinHash(num_perm=_PERMUTATIONS, permutations=self._base.permutations, scheme=_SCHEME)
        made.update_batch([shingle.encode() for shingle in shingles_of(trace.steps)])
        values: bytes = made.hashvalues.tobytes()
        return values

    def _near_duplicates(self, left: list[Candidate]) -> Iterator[Removal]:
        import numpy as np
        from datasketch import LeanMinHash, MinHashLSH

        def values(one: Candidate) -> NDArray[np.uint32]:
            return np.frombuffer(one.signature or b"", np.uint32)

        least = self._filters.near_duplicates or 1.0
        by_place = dict(enumerate(left))
        index = MinHashLSH(least, num_perm=_PERMUTATIONS, weights=_RECALL)
        for place, one in by_place.items():
            own = LeanMinHash(seed=1, hashvalues=values(one), scheme=_SCHEME)
            shares = (
                (float((values(one) == values(by_place[other])).mean()), by_place[other].id)
                for other in index.query(own)
            )
            similarity, twin = max(shares, default=(0.0, ""))
            if similarity >= least:
                detail = f"its steps share {similarity:.2f} of their word triples with '{twin}'"
                yield one, Filtered("near-duplicates", detail)
            else:
                index.insert(place, own)

    def _correct_per_problem(self, left: list[Candidate]) -> Iterator[Removal]:
        most, count = self._filters.max_correct_per_problem or 0, Counter[str]()
        for one in left:
            if one.has_error is False:
                count[one.problem] += 1
                if count[one.problem] > most:
                    detail = f"more than {most} traces without an error of problem '{one.problem}'"
                    yield one, Filtered("max-correct-per-problem", detail)

    def _balanced(self, left: list[Candidate]) -> Iterator[Removal]:
        classes = {each: [one for one in left if one.has_error is each] for each in (True, False)}
        smaller, larger = sorted(classes, key=lambda each: len(classes[each]))
        most = whole_part(self._filters.balance or 1.0, len(classes[smaller]))
        words = "with" if larger else "without"
        for one in classes[larger][most:]:
            detail = f"more than {most} traces {words} an error for {len(classes[smaller])} others"
            yield one, Filtered("balance", detail)

    def _selected(self, left: list[Candidate]) -> Iterator[Removal]:
        chosen = self._selection
        if chosen is not None:
            yield from chosen.left_out(left)


_PERMUTATIONS, _SCHEME = 128, "affine32"
_RECALL = (0.02, 0.98)
"""Weights of false and missed candidates: a false one is found out when it is compared."""
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[-+*/=<>^]")


def shingles_of(steps: Sequence[str]) -> set[str]:
    """The triples of successive words in the steps; all words where there are fewer."""
    words = _WORDS.findall("\n".join(steps).lower())
    return {" ".join(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def _order(seed: int, trace_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{trace_id}".encode()).digest()[:12]


def _med_prm(left: list[Candidate]) -> Iterator[Removal]:
    """Of every question the first right answers, as many as wrong ones are kept, at least 2.

    Source: eth-medical-ai-lab/Med-PRM, python/2_training.py, `--do_filtering yes`. It takes them in
    the order of the file; the ids of its solutions (`question:0`, `question:1`) have that order.
    """
    questions = defaultdict[str, list[Candidate]](list)
    for one in left:
        questions[one.problem].append(one)
    for problem, solutions in questions.items():
        right = sorted((one for one in solutions if one.right), key=lambda one: _natural(one.id))
        most = max(len(solutions) - len(right), _MED_PRM_CORRECT)
        for one in right[most:]:
            detail = f"more than {most} solutions with the right answer of problem '{problem}'"
            yield one, Filtered("med-prm", detail)


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key in which numbers in a text count as numbers."""
    parts = re.split(r"(\d+)", text)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


# What was removed --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilterCounts:
    """How many labeled traces there were, and what each filter removed."""

    labeled: int
    """Traces with a label, before any filter."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """By filter, in the order in which they apply; filters that removed nothing are left out."""

    @classmethod
    def of(cls, kept: int, removed: Mapping[str, int]) -> FilterCounts:
        """From the traces that are kept, and those removed by each filter."""
        known = {name: place for place, name in enumerate(FILTERS)}
        order = sorted(removed, key=lambda name: known.get(name, len(known)))
        return cls(kept + sum(removed.values()), {name: removed[name] for name in order})

    @property
    def kept(self) -> int:
        """Traces that passed every filter."""
        return self.labeled - sum(self.removed.values())

    def as_json(self) -> dict[str, Any]:
        """The counts; `labeled` is `kept` and everything removed."""
        return {"labeled": self.labeled, "removed": dict(self.removed), "kept": self.kept}

    def table(self) -> str:
        """One line per filter: what it removed, and what was left after it."""
        lines, left = [("filter", "removed", "left"), ("", "", f"{self.labeled:,}")], self.labeled
        for name, count in self.removed.items():
            left -= count
            lines.append((name, f"{count:,}", f"{left:,}"))
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            f"{name.ljust(wide[0])}  {count.rjust(wide[1])}  {rest.rjust(wide[2])}"
            for name, count, rest in lines
        )
