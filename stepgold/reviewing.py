"""Expert review: what the answers amount to, and how they leave and enter the workspace."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import combinations, product
from statistics import median
from typing import TYPE_CHECKING, Any

from traces import (
    AbstentionReason,
    ExpertAnswer,
    LabelerKind,
    ReviewAnswer,
    ReviewPurpose,
    StepLabel,
    Verdict,
    first_error,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evaluation import LabelAccuracy
    from storage import Store
    from traces import TraceLabel

RECENT = 30
"""The answers that a drift is looked for in: the last ones of an expert against those before."""
DRIFT_P = 0.05
"""Below this probability of agreeing so rarely by chance alone, an expert's drift is reported."""
_RESAMPLES = 500
_VERDICTS = frozenset({ExpertAnswer.CORRECT, ExpertAnswer.INCORRECT, ExpertAnswer.NEUTRAL})
_READ = frozenset({ReviewPurpose.QUEUE, ReviewPurpose.AUDIT, ReviewPurpose.DOUBLE})


def audit_ranks(ids: Sequence[str], n_steps: NDArray[Any]) -> NDArray[Any]:
    """The random order in which steps are audited: one number per step of all traces, in order.

    A step's number depends on its trace's id and its index alone, so that the steps up to a number
    are a random sample of any label set, whatever is labeled later.

    Args:
        ids: of the traces.
        n_steps: (n,) their numbers of steps.
    """
    import numpy as np

    words = [blake2b(one.encode(), digest_size=8, key=b"audit").digest() for one in ids]
    seeds = np.repeat(np.frombuffer(b"".join(words), "<u8"), n_steps)
    starts = np.repeat(np.concatenate([[0], np.cumsum(n_steps)])[:-1], n_steps)
    step = (np.arange(len(seeds)) - starts).astype(np.uint64)
    # The mixing function of SplitMix64 (Steele, Lea and Flood 2014).
    with np.errstate(over="ignore"):
        mixed = seeds + (step + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Two labelers on the steps that both labeled; neutral counts as no error."""

    a: str
    b: str
    n_steps: int
    agreement: float | None
    agreement_ci95: tuple[float, float] | None
    cohen_kappa: float | None
    cohen_kappa_ci95: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertFigures:
    """What one expert did."""

    code: str
    """The expert."""
    steps: int
    """Steps with a verdict."""
    cannot_tell: int
    skipped: int
    seconds: float | None
    """Median time for an answer; None if unknown."""
    training: tuple[int, int]
    """Training answers that equal gold, and all of them."""
    with_gold: tuple[int, int]
    """The same of all other answers where gold says something."""
    with_self: tuple[int, int]
    """Answers that equal the expert's own earlier one, of steps asked twice."""
    drift: str | None
    """What has fallen lately: `gold` or `self`; None if nothing has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewFigures:
    """A dataset's review."""

    dataset: str
    answers: int
    """Answers that count."""
    reviewed_steps: int
    """Steps with a verdict of some expert."""
    disputed: int
    """Steps on which experts differ, not adjudicated."""
    flagged: Mapping[str, str]
    """Notes of flagged problems, by the trace on which they were flagged."""
    experts: tuple[ExpertFigures, ...]
    between: tuple[Agreement, ...]
    """Every pair of experts."""
    krippendorff_alpha: float | None
    krippendorff_alpha_ci95: tuple[float, float] | None
    against: tuple[Agreement, ...]
    """Every expert against every labeler."""
    accuracy: Mapping[str, LabelAccuracy]
    """By labeler, the accuracy of its labels from the audit sample."""
    unanswered: int
    """Steps of the audit sample without a verdict; they are left out."""
    hours_left: float | None
    """At the pace so far; None before the first timed answer."""

    def as_json(self) -> dict[str, Any]:
        """All of it by name."""
        return {
            "dataset": self.dataset,
            "answers": self.answers,
            "reviewed_steps": self.reviewed_steps,
            "disputed": self.disputed,
            "flagged": dict(self.flagged),
            "experts": [asdict(one) for one in self.experts],
            "between": [asdict(one) for one in self.between],
            "krippendorff_alpha": self.krippendorff_alpha,
            "krippendorff_alpha_ci95": self.krippendorff_alpha_ci95,
            "against": [asdict(one) for one in self.against],
            "accuracy": {name: one.as_json() for name, one in self.accuracy.items()},
            "unanswered": self.unanswered,
            "hours_left": self.hours_left,
        }

    def lines(self) -> Iterator[str]:
        """The figures for `stepgold status`, one per line."""
        left = "" if self.hours_left is None else f", about {self.hours_left:.1f} hours left"
        yield (
            f"review of {self.dataset}: {self.answers} answers on {self.reviewed_steps} steps,"
            f" {self.disputed} disputed{left}"
        )
        for one in self.experts:
            pace = "" if one.seconds is None else f", {one.seconds:.0f} s a step"
            yield f"  expert {one.code}: {one.steps} steps{pace}"
            if one.drift is not None:
                other = "gold" if one.drift == "gold" else "their own earlier answers"
                yield f"  warning: expert {one.code} agrees less with {other} than before"
        for pair in self.between:
            yield f"  {pair.a} and {pair.b}: {_agreement(pair)}"
        for name, found in self.accuracy.items():
            ci95 = found.tuned.ci95
            if found.tuned.value is not None and ci95 is not None:
                yield (
                    f"  labels of {name}: {found.tuned.value:.1%} right"
                    f" [{ci95[0]:.1%}, {ci95[1]:.1%}] by {found.checked} audited steps"
                )


def _agreement(pair: Agreement) -> str:
    parts = []
    for word, value, ci95 in (
        ("agreement", pair.agreement, pair.agreement_ci95),
        ("kappa", pair.cohen_kappa, pair.cohen_kappa_ci95),
    ):
        if value is not None:
            interval = "" if ci95 is None else f" [{ci95[0]:.2f}, {ci95[1]:.2f}]"
            parts.append(f"{word} {value:.2f}{interval}")
    return f"{', '.join(parts) or 'nothing to compare'} on {pair.n_steps} steps"


def review_figures(store: Store, dataset: str, *, gold: str = "gold") -> ReviewFigures | None:
    """The figures of a dataset's review; None if there is no answer yet.

    Raises:
        InputError: there is no such dataset.
    """
    from storage import flagged, standing

    log = list(store.reviews.answers(dataset))
    if not log:
        return None
    answers = standing(log)
    ids = list(dict.fromkeys(one.trace_id for one in log))
    labels = {
        summary.labeler.name: store.labels.load(dataset, summary.labeler.name, ids)
        for summary in store.labels.labelers(dataset)
    }
    kinds = {row.labeler.name: row.labeler.kind for row in store.labels.labelers(dataset)}
    compared = _compared(store, dataset, ids=ids, labels=labels, kinds=kinds)
    truth = labels.get(gold, {})
    accuracy, unanswered = _accuracies(store, dataset, log, kinds)
    together = labels.get("experts", {}).values()
    steps = [step for label in together for step in label.step_labels]
    return ReviewFigures(
        dataset=dataset,
        answers=len(answers),
        reviewed_steps=sum(step.verdict is not None or _is_disputed(step) for step in steps),
        disputed=sum(map(_is_disputed, steps)),
        flagged={trace: one.note or "" for trace, one in flagged(log).items()},
        experts=tuple(_expert(code, log, truth) for code in sorted({one.expert for one in log})),
        **compared,
        accuracy=accuracy,
        unanswered=unanswered,
        hours_left=_hours_left(store, dataset, answers),
    )


def _is_disputed(step: StepLabel) -> bool:
    return step.abstention is not None and step.abstention.reason is AbstentionReason.DISAGREEMENT


def _compared(
    store: Store,
    dataset: str,
    *,
    ids: Sequence[str],
    labels: Mapping[str, Mapping[str, TraceLabel]],
    kinds: Mapping[str, LabelerKind],
) -> dict[str, Any]:
    """Agreement of experts with each other and with every labeler, on the reviewed traces."""
    from evaluation import ComparedTrace, compare_labelers

    experts = [name for name in labels if name.startswith("expert:")]
    others = [name for name in labels if kinds[name] is not LabelerKind.EXPERT]
    traces = [
        ComparedTrace(
            trace_id=context.trace.id,
            problem_id=context.problem.id,
            subset=context.trace.subset,
            n_steps=len(context.trace.steps),
            labels={
                name: of[context.trace.id] for name, of in labels.items() if context.trace.id in of
            },
        )
        for context in store.traces.contexts(dataset, trace_ids=ids, with_evidence=False)
    ]

    def pairs(names: Sequence[str], wanted: Iterable[tuple[str, str]]) -> Any:
        found = compare_labelers(
            traces, names, dict.fromkeys(names, 0.5), paired_tests=False, resamples=_RESAMPLES
        )
        known = [found.pair(*pair) for pair in wanted]
        return found, tuple(
            Agreement(
                a=one.a,
                b=one.b,
                n_steps=one.n_steps,
                agreement=one.agreement.value,
                agreement_ci95=one.agreement.ci95,
                cohen_kappa=one.cohen_kappa.value,
                cohen_kappa_ci95=one.cohen_kappa.ci95,
            )
            for one in known
            if one is not None and one.n_steps
        )

    alpha, between = None, ()
    if len(experts) > 1:
        found, between = pairs(experts, combinations(experts, 2))
        alpha = found.krippendorff_alpha
    against = [one for pair in product(experts, others) for one in pairs(pair, [pair])[1]]
    return {
        "between": between,
        "krippendorff_alpha": None if alpha is None else alpha.value,
        "krippendorff_alpha_ci95": None if alpha is None else alpha.ci95,
        "against": tuple(against),
    }


def _expert(
    code: str, log: Sequence[ReviewAnswer], truth: Mapping[str, TraceLabel]
) -> ExpertFigures:
    from storage import standing

    mine = [one for one in log if one.expert == code]
    answers = standing(mine)
    words = Counter(one.answer for one in answers.values())
    times = [one.seconds for one in answers.values() if one.seconds]
    gold = [same for one in answers.values() if (same := _as_gold(one, truth)) is not None]
    trained = standing(mine, {ReviewPurpose.TRAINING}).values()
    training = [same for one in trained if (same := _as_gold(one, truth)) is not None]
    again = [
        one.answer is answers[key].answer
        for key, one in standing(mine, {ReviewPurpose.REPEAT}).items()
        if key in answers
    ]
    falls = [name for name, of in (("gold", gold), ("self", again)) if has_fallen(of)]
    return ExpertFigures(
        code=code,
        steps=sum(words[one] for one in _VERDICTS),
        cannot_tell=words[ExpertAnswer.CANNOT_TELL],
        skipped=words[ExpertAnswer.SKIP],
        seconds=median(times) if times else None,
        training=(sum(training), len(training)),
        with_gold=(sum(gold), len(gold)),
        with_self=(sum(again), len(again)),
        drift=falls[0] if falls else None,
    )


def _as_gold(answer: ReviewAnswer, truth: Mapping[str, TraceLabel]) -> bool | None:
    """Whether an answer says what gold says of the step; None where one of them says nothing."""
    label = truth.get(answer.trace_id)
    if label is None or answer.answer not in _VERDICTS:
        return None
    wrong = gold_is_incorrect(label, answer.step_index)
    return None if wrong is None else wrong is (answer.answer is ExpertAnswer.INCORRECT)


def gold_is_incorrect(label: TraceLabel, step: int) -> bool | None:
    """Whether gold calls a step incorrect, also by its first error; None where it does not say."""
    if label.step_labels and label.step_labels[step].verdict is not None:
        return label.step_labels[step].verdict is Verdict.INCORRECT
    error = first_error(label)
    if error.missing or (error.index is not None and step > error.index):
        return None
    return step == error.index


def has_fallen(agrees: Sequence[bool]) -> bool:
    """Whether the last answers agree less often than those before (Fisher's exact test)."""
    recent, before = agrees[-RECENT:], agrees[:-RECENT]
    if len(before) < RECENT:
        return False
    total, hits = len(agrees), sum(agrees)
    at_most = sum(
        math.comb(hits, k) * math.comb(total - hits, len(recent) - k)
        for k in range(max(0, len(recent) - (total - hits)), sum(recent) + 1)
    )
    return at_most / math.comb(total, len(recent)) < DRIFT_P


def _accuracies(
    store: Store, dataset: str, log: Sequence[ReviewAnswer], kinds: Mapping[str, LabelerKind]
) -> tuple[dict[str, LabelAccuracy], int]:
    """By labeler, the accuracy of its labels; and audited steps without a verdict."""
    import numpy as np

    from evaluation import label_accuracy
    from storage import CODES, decided

    pages = [page for page in store.traces.columns(dataset) if page.ids]
    ids = [one for page in pages for one in page.ids]
    n_steps = np.concatenate([page.n_steps for page in pages])
    starts = np.concatenate([[0], np.cumsum(n_steps)])
    rows = {one: row for row, one in enumerate(ids)}
    ranks = audit_ranks(ids, n_steps)
    audited = [
        int(starts[rows[one.trace_id]]) + one.step_index
        for one in log
        if one.purpose is ReviewPurpose.AUDIT and one.answer is not ExpertAnswer.UNDO
    ]
    if not audited:
        return {}, 0
    sample = ranks <= ranks[audited].max()
    wrong = np.full(len(ranks), -1, np.int8)
    for (trace, step), label in decided(log).items():
        if label.verdict is not None:
            wrong[int(starts[rows[trace]]) + step] = label.verdict is Verdict.INCORRECT
    places = {
        key: place for place, key in enumerate(key for page in pages for key in page.keys.tolist())
    }
    sure = _sureness(store, dataset, kinds=kinds, places=places, starts=starts)
    found = {}
    for name, kind in kinds.items():
        if kind in (LabelerKind.EXPERT, LabelerKind.GOLD):
            continue
        calls, score = np.full(len(ranks), -1, np.int8), np.full(len(ranks), np.nan)
        for part in store.labels.columns(dataset, name):
            lengths = np.diff(part.offsets)
            first = starts[[places[key] for key in part.keys.tolist()]]
            at = np.repeat(first - part.offsets[:-1], lengths) + np.arange(len(part.marks))
            incorrect = part.verdicts == CODES[Verdict.INCORRECT]
            scored = part.scored & (part.verdicts == 0)
            calls[at[part.verdicts != 0]] = incorrect[part.verdicts != 0]
            calls[at[scored]] = part.scores[scored] < 0.5
            score[at[part.scored]] = part.scores[part.scored]
        labeled = calls >= 0
        right_by = np.where(np.isnan(sure), score, sure)
        predicted = np.where(calls == 1, 1 - right_by, right_by)
        predicted = np.where(np.isnan(predicted), 0.5, predicted)
        checked = sample & labeled & (wrong >= 0)
        if checked.sum() > 1:
            right = (calls[checked] == wrong[checked]).astype(float)
            found[name] = label_accuracy(right, predicted[checked], predicted[labeled])
    return found, int((sample & (wrong < 0)).sum())


def _sureness(
    store: Store,
    dataset: str,
    *,
    kinds: Mapping[str, LabelerKind],
    places: Mapping[int, int],
    starts: NDArray[Any],
) -> NDArray[Any]:
    """For each step the posterior of the newest `bayes` that no error came up to it; else NaN."""
    import numpy as np

    sure = np.full(int(starts[-1]), np.nan)
    for name in reversed(list(kinds)):
        posteriors = (
            store.reviews.posteriors(dataset, name) if kinds[name] is LabelerKind.CONSENSUS else {}
        )
        if posteriors:
            for key, posterior in posteriors.items():
                at = int(starts[places[key]])
                steps = len(posterior) - 1
                sure[at : at + steps] = np.cumsum(posterior[::-1])[::-1][1:]
            break
    return sure


def _hours_left(
    store: Store, dataset: str, answers: Mapping[tuple[str, int, str], ReviewAnswer]
) -> float | None:
    """Hours that the traces without an answer take, at the answers and the time of the others."""
    timed = [one for one in answers.values() if one.seconds and one.purpose in _READ]
    if not timed:
        return None
    per_trace: dict[str, int] = defaultdict(int)
    for trace, _, _ in answers:
        per_trace[trace] += 1
    left = store.traces.datasets()[dataset].traces - len(per_trace)
    seconds = sum(one.seconds or 0.0 for one in timed) / len(timed)
    return left * (sum(per_trace.values()) / len(per_trace)) * seconds / 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispute:
    """A step on which experts differ, not adjudicated yet."""

    trace_id: str
    step_index: int
    answers: tuple[ReviewAnswer, ...]
    """One per expert."""


def disputes(log: Sequence[ReviewAnswer]) -> list[Dispute]:
    """The steps to adjudicate, by the first answer on them."""
    from storage import decided, standing

    answers: dict[tuple[str, int], list[ReviewAnswer]] = defaultdict(list)
    for (trace, step, _), one in standing(log).items():
        answers[trace, step].append(one)
    return [
        Dispute(trace_id=trace, step_index=step, answers=tuple(answers[trace, step]))
        for (trace, step), label in decided(log).items()
        if _is_disputed(label)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Some traces in the order of import that are checked together, as VisualProcessBench was:
    part of a finished split is answered again, and with too many errors all of it returns."""

    number: int
    """From 1."""
    traces: int
    done: int
    """Traces that need no further answer."""
    sample: tuple[tuple[str, int], ...]
    """Steps to check: a random share of those with a verdict; empty until the split is done."""
    checked: int
    """Steps of the sample that were checked since they were answered."""
    errors: int
    """Checked steps on which the checker differs."""

    @property
    def error_rate(self) -> float | None:
        """Share of the checked steps that are wrong; None before the first check."""
        return self.errors / self.checked if self.checked else None


def review_splits(
    ids: Sequence[str],
    done: Sequence[bool],
    log: Sequence[ReviewAnswer],
    *,
    size: int,
    share: float,
) -> list[Split]:
    """The splits of a dataset.

    Args:
        ids: all traces in the order of import.
        done: for each, whether it needs no further answer.
        log: the answers, oldest first.
        size: traces of a split.
        share: share of its answered steps that is checked.
    """
    from storage import decided, standing

    order = {one.token: place for place, one in enumerate(log)}
    answered: dict[str, list[int]] = defaultdict(list)
    labels = {key: one.verdict for key, one in decided(log).items() if one.verdict is not None}
    for trace, step in labels:
        answered[trace].append(step)
    since: dict[tuple[str, int], int] = defaultdict(int)
    for (trace, step, _), one in standing(log).items():
        since[trace, step] = max(since[trace, step], order[one.token])
    checks = {
        (trace, step): one
        for (trace, step, _), one in standing(log, {ReviewPurpose.CHECK}).items()
        if order[one.token] > since[trace, step]
    }
    found = []
    for number, start in enumerate(range(0, len(ids), size), start=1):
        part, finished = ids[start : start + size], done[start : start + size]
        steps = [(trace, step) for trace in part for step in answered[trace]]
        ranked = sorted(steps, key=lambda key: blake2b(f"{key}".encode(), digest_size=8).digest())
        sample = tuple(ranked[: math.ceil(share * len(steps))]) if all(finished) else ()
        mine = [(key, checks[key]) for key in sample if key in checks]
        wrong = sum(
            (labels[key] is Verdict.INCORRECT) is not (one.answer is ExpertAnswer.INCORRECT)
            for key, one in mine
        )
        found.append(
            Split(
                number=number,
                traces=len(part),
                done=sum(finished),
                sample=sample,
                checked=len(mine),
                errors=wrong,
            )
        )
    return found


def returned_answers(
    ids: Collection[str], log: Sequence[ReviewAnswer], *, note: str
) -> list[ReviewAnswer]:
    """The entries that take all answers on these traces back, so that they are asked again; what
    was adjudicated is open again too."""
    from storage import standing

    given = standing(log) | {
        (*key, "adjudicated"): one
        for key, one in standing(log, {ReviewPurpose.ADJUDICATION}).items()
    }
    return [
        replace(
            one,
            answer=ExpertAnswer.UNDO,
            token=f"returned-{one.token}",
            note=note,
            at="",
            seconds=None,
        )
        for one in given.values()
        if one.trace_id in ids
    ]
