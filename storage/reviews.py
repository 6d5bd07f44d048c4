"""Expert review: answers are appended to a log, and the experts' labels follow from it.

Each expert is a labeler `expert:CODE`; the labeler `experts` is what they say together, decided by
adjudication where they differ. An answer and the labels that follow from it are one transaction.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, func, select, update

from storage.columns import Codec
from storage.database import Connections
from storage.labels import declare_labeler
from storage.lookups import dataset_pk, find_labeler
from storage.records import label_columns
from storage.review_tables import REVIEW_ANSWERS, REVIEW_LEASES
from storage.rows import CHUNK, chunks, insert_missing, insert_rows, now
from storage.tables import LABELERS, SOURCE_FILES, TRACE_LABELS, TRACES
from storage.trace_labels import delete_labels, insert_labels
from traces import (
    Abstention,
    AbstentionReason,
    ExpertAnswer,
    InputError,
    Labeler,
    LabelerKind,
    ReviewAnswer,
    ReviewPurpose,
    StepLabel,
    TraceLabel,
    Verdict,
)

TOGETHER = "experts"
"""The labeler of what all experts say together."""
LABELING = frozenset(
    {ReviewPurpose.QUEUE, ReviewPurpose.AUDIT, ReviewPurpose.DOUBLE, ReviewPurpose.IMPORT}
)
"""Purposes whose answers are labels of the expert."""
_CONFIG = {"from": "review"}
_ALL = Labeler(TOGETHER, LabelerKind.EXPERT, _CONFIG)
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_VERDICTS: Mapping[ExpertAnswer, Verdict] = {
    ExpertAnswer.CORRECT: Verdict.CORRECT,
    ExpertAnswer.INCORRECT: Verdict.INCORRECT,
    ExpertAnswer.NEUTRAL: Verdict.NEUTRAL,
}
_OPEN = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "not answered"))
_FLAGS = frozenset({ExpertAnswer.FLAG, ExpertAnswer.UNFLAG})
_ANSWER = Codec(ReviewAnswer, REVIEW_ANSWERS)


def expert_labeler(code: str) -> Labeler:
    """The labeler of one expert.

    Raises:
        InputError: the code is not 1 to 32 letters, digits, `_`, `.` or `-`.
    """
    if not _CODE.fullmatch(code):
        raise InputError(
            f"{code!r} is not an expert's code.",
            remedy="use 1 to 32 letters, digits, _, . or -, such as E1; no names of persons",
        )
    return Labeler(f"expert:{code}", LabelerKind.EXPERT, _CONFIG)


class Reviews:
    """Answers of experts; safe to share between threads and processes."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def begin(self, dataset: str, experts: Iterable[str] = ()) -> None:
        """Declare the labelers of the experts, so that no answer is refused later.

        Raises:
            InputError: no such dataset, a code that cannot be used, or a labeler of another origin
                that has the name.
        """
        with self._connections.write() as connection:
            owner = dataset_pk(connection, dataset)
            _declare(connection, owner, _ALL)
            for code in experts:
                _declare(connection, owner, expert_labeler(code))

    def add(self, dataset: str, answers: Iterable[ReviewAnswer]) -> int:
        """Append answers to the log and store the labels that follow, all or none.

        Returns:
            How many were new: an answer whose token is in the log changes nothing.

        Raises:
            InputError: no such dataset, trace or step, or a code that cannot be used.
        """
        ready = list(answers)
        with self._connections.write() as connection:
            owner = dataset_pk(connection, dataset)
            known = _traces(connection, owner, {answer.trace_id for answer in ready})
            stored = _stored(connection, owner, [answer.token for answer in ready])
            rows = {
                answer.token: _columns(answer, known, owner)
                for answer in ready
                if answer.token not in stored
            }
            insert_rows(connection, REVIEW_ANSWERS, list(rows.values()))
            if rows:
                _label(connection, owner, known)
        return len(rows)

    def answers(
        self, dataset: str, *, trace_ids: Collection[str] | None = None
    ) -> Iterator[ReviewAnswer]:
        """The log on the traces as they are now (all, or these), oldest first.

        Answers on traces that were removed or changed since are left out; `log` has them.
        """
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
            pages = [None] if trace_ids is None else list(chunks(trace_ids))
            for page in pages:
                query = _current(owner)
                if page is not None:
                    query = query.where(REVIEW_ANSWERS.c.trace_id.in_(page))
                rows = connection.execute(query.execution_options(yield_per=CHUNK))
                yield from (_ANSWER.record(row) for row in rows)

    def log(self, dataset: str) -> list[ReviewAnswer]:
        """Every entry of the log, oldest first."""
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
            query = select(REVIEW_ANSWERS).where(REVIEW_ANSWERS.c.dataset_pk == owner)
            rows = connection.execute(query.order_by(REVIEW_ANSWERS.c.pk))
            return [_ANSWER.record(row) for row in rows]

    def posteriors(self, dataset: str, labeler: str) -> dict[int, list[float]]:
        """By key of the trace, what a `bayes` consensus thinks of each step as the first error, and
        last of none; without the traces whose label does not say."""
        with self._connections.read() as connection:
            found = find_labeler(connection, dataset, labeler)
            query = select(TRACE_LABELS.c.trace_pk, TRACE_LABELS.c.meta["posterior"])
            rows = connection.execute(query.where(TRACE_LABELS.c.labeler_pk == found.pk))
            return {key: posterior for key, posterior in rows if isinstance(posterior, list)}

    def contents(self, dataset: str) -> tuple[Any, ...]:
        """Changes whenever a file of the dataset is imported, or imported again with changes.

        Raises:
            InputError: no such dataset.
        """
        with self._connections.read() as connection:
            file = SOURCE_FILES.c
            here = file.dataset_pk == dataset_pk(connection, dataset)
            query = select(file.pk, file.sha256, file.imported_at).where(here).order_by(file.pk)
            return tuple(tuple(row) for row in connection.execute(query))

    def stamp(self, dataset: str, labelers: Collection[str]) -> tuple[Any, ...]:
        """Changes whenever one of these labelers labels a trace."""
        with self._connections.read() as connection:
            here = LABELERS.c.dataset_pk == dataset_pk(connection, dataset)
            label = TRACE_LABELS.c
            query = (
                select(LABELERS.c.pk, func.count(label.pk), func.max(label.created_at))
                .outerjoin(TRACE_LABELS, label.labeler_pk == LABELERS.c.pk)
                .where(here, LABELERS.c.name.in_(labelers))
                .group_by(LABELERS.c.pk)
                .order_by(LABELERS.c.pk)
            )
            return tuple(tuple(row) for row in connection.execute(query))

    def take(
        self, dataset: str, item: str, expert: str, *, at: float, until: float, most: int = 1
    ) -> bool:
        """Lease an item to an expert, or renew their lease; False if `most` others have it.

        Times are seconds since 1970, given by the caller. A lease that ran out is free.
        """
        with self._connections.write() as connection:
            here = and_(
                REVIEW_LEASES.c.dataset_pk == dataset_pk(connection, dataset),
                REVIEW_LEASES.c.item == item,
            )
            connection.execute(delete(REVIEW_LEASES).where(here, REVIEW_LEASES.c.expires_at < at))
            held = set(connection.scalars(select(REVIEW_LEASES.c.expert).where(here)))
            if expert in held:
                mine = here & (REVIEW_LEASES.c.expert == expert)
                connection.execute(update(REVIEW_LEASES).where(mine).values(expires_at=until))
                return True
            if len(held) >= most:
                return False
            row = {"item": item, "expert": expert, "expires_at": until}
            row["dataset_pk"] = dataset_pk(connection, dataset)
            insert_missing(connection, REVIEW_LEASES, [row], key=["dataset_pk", "item", "expert"])
            return True

    def give_back(self, dataset: str, item: str, expert: str) -> None:
        """End an expert's lease of an item."""
        with self._connections.write() as connection:
            mine = and_(
                REVIEW_LEASES.c.dataset_pk == dataset_pk(connection, dataset),
                REVIEW_LEASES.c.item == item,
                REVIEW_LEASES.c.expert == expert,
            )
            connection.execute(delete(REVIEW_LEASES).where(mine))

    def leases(self, dataset: str, *, at: float) -> dict[tuple[str, str], float]:
        """By item and expert, when the leases that have not run out will."""
        with self._connections.read() as connection:
            query = select(REVIEW_LEASES).where(
                REVIEW_LEASES.c.dataset_pk == dataset_pk(connection, dataset),
                REVIEW_LEASES.c.expires_at >= at,
            )
            rows = connection.execute(query.order_by(REVIEW_LEASES.c.expires_at))
            return {(row.item, row.expert): row.expires_at for row in rows}


def standing(
    answers: Iterable[ReviewAnswer], purposes: Collection[ReviewPurpose] = LABELING
) -> dict[tuple[str, int, str], ReviewAnswer]:
    """By trace, step and expert, the last answer that was not taken back.

    Args:
        answers: a log, oldest first.
        purposes: those that count.
    """
    found: dict[tuple[str, int, str], ReviewAnswer] = {}
    for answer in answers:
        if answer.purpose not in purposes or answer.answer in _FLAGS:
            continue
        key = (answer.trace_id, answer.step_index, answer.expert)
        if answer.answer is ExpertAnswer.UNDO:
            found.pop(key, None)
        else:
            found[key] = answer
    return found


def flagged(answers: Iterable[ReviewAnswer]) -> dict[str, ReviewAnswer]:
    """By trace, the last flag of its problem that was not taken back."""
    found: dict[str, ReviewAnswer] = {}
    for answer in answers:
        if answer.answer is ExpertAnswer.FLAG:
            found[answer.trace_id] = answer
        elif answer.answer is ExpertAnswer.UNFLAG:
            found.pop(answer.trace_id, None)
    return found


def decided(answers: Sequence[ReviewAnswer]) -> dict[tuple[str, int], StepLabel]:
    """By trace and step, what the experts say together.

    Adjudication decides; else all verdicts are the same, or the step is a disagreement.
    """
    ruled = {
        (trace, step): each
        for (trace, step, _), each in standing(answers, {ReviewPurpose.ADJUDICATION}).items()
    }
    said: dict[tuple[str, int], list[ReviewAnswer]] = defaultdict(list)
    for (trace, step, _), each in standing(answers).items():
        said[trace, step].append(each)
    found = {key: _together(some) for key, some in said.items()}
    return found | {key: _step(each) for key, each in ruled.items()}


def _together(answers: Sequence[ReviewAnswer]) -> StepLabel:
    labels = [_step(each) for each in answers]
    stated = [label for label in labels if label.verdict is not None]
    if len({label.verdict for label in stated}) > 1:
        detail = ", ".join(
            f"{each.expert}: {each.answer.value}" for each in answers if each.answer in _VERDICTS
        )
        return StepLabel(abstention=Abstention(AbstentionReason.DISAGREEMENT, detail))
    unsure = [one for one in labels if one.abstention and one.abstention != _OPEN.abstention]
    return next(iter(stated or unsure), _OPEN)


def _step(answer: ReviewAnswer) -> StepLabel:
    verdict = _VERDICTS.get(answer.answer)
    if verdict is not None:
        return StepLabel(verdict, reasoning=answer.note)
    if answer.answer is ExpertAnswer.CANNOT_TELL:
        detail = answer.note or "the expert cannot tell"
        return StepLabel(abstention=Abstention(AbstentionReason.UNCERTAIN, detail))
    return _OPEN


def _columns(answer: ReviewAnswer, known: Mapping[str, Any], owner: int) -> dict[str, Any]:
    trace = known.get(answer.trace_id)
    if trace is None:
        raise InputError(f"The dataset has no trace {answer.trace_id!r}.")
    if not 0 <= answer.step_index < trace.n_steps:
        raise InputError(
            f"Trace {answer.trace_id!r} has {trace.n_steps} steps, and no step"
            f" {answer.step_index + 1}."
        )
    columns = _ANSWER.columns(answer, f"the answer on trace {answer.trace_id!r}")
    at = answer.at or now()
    return columns | {"dataset_pk": owner, "digest": trace.digest, "at": at}


def _traces(connection: Connection, owner: int, ids: Collection[str]) -> dict[str, Any]:
    query = select(TRACES.c.id, TRACES.c.pk, TRACES.c.n_steps, TRACES.c.digest)
    query = query.where(TRACES.c.dataset_pk == owner)
    return {
        row.id: row
        for chunk in chunks(ids)
        for row in connection.execute(query.where(TRACES.c.id.in_(chunk)))
    }


def _stored(connection: Connection, owner: int, tokens: Sequence[str]) -> set[str]:
    query = select(REVIEW_ANSWERS.c.token).where(REVIEW_ANSWERS.c.dataset_pk == owner)
    return {
        token
        for chunk in chunks(tokens)
        for token in connection.scalars(query.where(REVIEW_ANSWERS.c.token.in_(chunk)))
    }


def _current(owner: int) -> Select[Any]:
    same = and_(
        TRACES.c.dataset_pk == REVIEW_ANSWERS.c.dataset_pk,
        TRACES.c.id == REVIEW_ANSWERS.c.trace_id,
        TRACES.c.digest == REVIEW_ANSWERS.c.digest,
    )
    query = select(REVIEW_ANSWERS).join(TRACES, same)
    return query.where(REVIEW_ANSWERS.c.dataset_pk == owner).order_by(REVIEW_ANSWERS.c.pk)


def _label(connection: Connection, owner: int, known: Mapping[str, Any]) -> None:
    """Replace the labels on these traces by what now follows from the log."""
    labelers = {
        TOGETHER: _declare(connection, owner, Labeler(TOGETHER, LabelerKind.EXPERT, _CONFIG))
    }
    for chunk in chunks(known.values()):
        ids = [row.id for row in chunk]
        query = _current(owner).where(REVIEW_ANSWERS.c.trace_id.in_(ids))
        log = [_ANSWER.record(row) for row in connection.execute(query)]
        steps: dict[str, dict[tuple[str, int], StepLabel]] = {TOGETHER: decided(log)}
        for expert in {answer.expert for answer in log if answer.purpose in LABELING}:
            steps[f"expert:{expert}"] = {}
        for (trace, step, expert), each in standing(log).items():
            steps[f"expert:{expert}"][trace, step] = _step(each)
        for name, found in steps.items():
            if name not in labelers:
                code = expert_labeler(name.partition(":")[2])
                labelers[name] = _declare(connection, owner, code)
            _replace(connection, labelers[name], chunk, found)


def _replace(
    connection: Connection,
    labeler: int,
    traces: Sequence[Any],
    steps: Mapping[tuple[str, int], StepLabel],
) -> None:
    delete_labels(connection, labeler, [row.pk for row in traces])
    answered = {trace for trace, _ in steps}
    labels = {}
    for row in traces:
        if row.id in answered:
            each = tuple(steps.get((row.id, step), _OPEN) for step in range(row.n_steps))
            labels[labeler, row.pk] = label_columns(TraceLabel(row.id, each), row.n_steps)
    insert_labels(connection, labels, imported=False)


def _declare(connection: Connection, owner: int, labeler: Labeler) -> int:
    remedy = f"remove it first: stepgold remove labeler {labeler.name} --dataset NAME"
    return declare_labeler(connection, owner, labeler, remedy=remedy)
