"""Look at one thing: a trace with every labeler's view of it, or a document as it was indexed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stepgold.console import printable
from stepgold.options import DatasetOptions
from stepgold.results import Result
from traces import (
    Config,
    CorpusError,
    InputError,
    LabelerKind,
    StepLabel,
    TraceLabel,
    argument,
    first_error,
    option,
)

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import Continuation, Labeler, Passage, StoredCall, TraceInContext, Vote

_MARKS = {"correct": "+", "incorrect": "-", "neutral": "0"}


class ShowOptions(DatasetOptions):
    """Which trace, and whose work on it."""

    trace: str = argument(kw_only=False, metavar="TRACE", help="Id of the trace.")
    labeler: Sequence[str] = option(
        default=(),
        metavar="NAME",
        help="Show this labeler's reasoning, prompts, replies and continuations. May be repeated.",
    )


@dataclass(frozen=True, kw_only=True)
class LabelerView:
    """What one labeler says of the trace, and what its label was made from."""

    labeler: Labeler
    """The labeler."""
    label: TraceLabel
    """Its label."""
    votes: tuple[Vote, ...] = ()
    """A judge's votes; empty unless the labeler was asked for by name."""
    calls: tuple[StoredCall, ...] = ()
    """The model calls of the votes, as sent and received; likewise."""
    continuations: tuple[Continuation, ...] = ()
    """A Monte Carlo labeler's continuations; likewise."""

    def as_json(self) -> dict[str, Any]:
        """Everything, with the requests and replies as they were sent and received."""
        labeler, error = self.labeler, first_error(self.label)
        return {
            "name": labeler.name,
            "kind": labeler.kind.value,
            "model": labeler.model,
            "resolved_model": labeler.resolved_model,
            "first_error": None if error.missing else error.index,
            "first_error_missing": error.missing,
            "abstention": _abstention(self.label.abstention),
            "steps": [_step(step) for step in self.label.step_labels],
            "votes": [
                {
                    "index": vote.index,
                    "model": vote.model,
                    "escalated": vote.escalated,
                    "verdicts": [word.value for word in vote.words],
                    "request_keys": list(vote.request_keys),
                }
                for vote in self.votes
            ],
            "calls": [
                {
                    "key": call.key,
                    "request": call.request,
                    "finish_reason": call.reply.finish_reason,
                    "text": call.reply.text,
                    "raw": call.reply.raw,
                    "usd": call.reply.usd,
                    "usage": asdict(call.reply.usage),
                }
                for call in self.calls
            ],
            "continuations": [asdict(one) for one in self.continuations],
        }


def _abstention(found: Any) -> dict[str, str] | None:
    return None if found is None else {"reason": found.reason.value, "detail": found.detail}


def _step(step: StepLabel) -> dict[str, Any]:
    values = {
        "verdict": None if step.verdict is None else step.verdict.value,
        "score": step.score,
        "abstention": _abstention(step.abstention),
        "reasoning": step.reasoning,
        "quote": None if step.quote is None else asdict(step.quote),
        "successes": step.successes,
        "continuations": step.continuations,
    }
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True, repr=False)
class ShowResult(Result):
    """A trace in context with every labeler's view of it."""

    dataset: str
    """Its dataset."""
    context: TraceInContext
    """The trace, its problem and its evidence."""
    views: tuple[LabelerView, ...]
    """One per labeler that has labeled it."""
    detailed: frozenset[str] = frozenset()
    """Labelers whose work is shown in full."""

    def as_json(self) -> dict[str, Any]:
        """The whole of it."""
        problem, trace = self.context.problem, self.context.trace
        return {
            "command": "show",
            "dataset": self.dataset,
            "problem": asdict(problem),
            "trace": asdict(trace),
            "evidence": [asdict(each) for each in self.context.evidence],
            "labelers": [view.as_json() for view in self.views],
        }

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row per step, with a column per labeler."""
        for index, text in enumerate(self.context.trace.steps):
            row: dict[str, Any] = {"step": index, "text": text}
            for view in self.views:
                row[view.labeler.name] = _cell(view.label, index)
            yield row

    def words(self) -> str:
        """The problem, the evidence, the steps with every verdict, and the work they come from."""
        lines = [*self._problem_lines(), "", *self._step_lines()]
        for view in self.views:
            work = list(self._view_lines(view))
            lines += ["", *work] if work else []
        return printable("\n".join(lines))

    def _problem_lines(self) -> Iterator[str]:
        problem, trace = self.context.problem, self.context.trace
        yield f"trace {trace.id} of {self.dataset}/{trace.subset}, problem {problem.id}"
        yield problem.shown_question
        for letter, text in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", problem.options, strict=False):
            yield f"  {letter}. {text}"
        if problem.images:
            yield "images: " + ", ".join(problem.images)
        if problem.answer is not None:
            yield f"gold answer: {problem.answer}"
        for number, each in enumerate(self.context.evidence, start=1):
            passage = each.passage
            close = "" if each.similarity is None else f", similarity {each.similarity:.3f}"
            yield ""
            yield (
                f"evidence {number}: {passage.corpus}/{passage.document}, characters"
                f" {passage.start} to {passage.end}{close}"
            )
            yield passage.text

    def _step_lines(self) -> Iterator[str]:
        """The steps, each after a column of marks per labeler."""
        names = [view.labeler.name for view in self.views]
        if not names:
            yield "no labels yet"
        else:
            width = max(map(len, names))
            for name, view in zip(names, self.views, strict=True):
                yield f"{name.ljust(width)}  {_opinion(view.label)}"
            yield ""
        for index, text in enumerate(self.context.trace.steps):
            cells = "  ".join(
                f"{name} {_cell(view.label, index)}"
                for name, view in zip(names, self.views, strict=True)
            )
            yield f"step {index + 1}: {text}"
            if cells:
                yield f"    {cells}"

    def _view_lines(self, view: LabelerView) -> Iterator[str]:
        """Quotes always; reasoning, prompts, replies and continuations for those asked for."""
        name = view.labeler.name
        full = name in self.detailed
        for index, step in enumerate(view.label.step_labels):
            if full and step.reasoning:
                yield f"{name}, step {index + 1}: {step.reasoning}"
            if step.quote is not None and (full or step.quote.verified):
                found = "verified" if step.quote.verified else "not in the passage"
                source = f"document {step.quote.document}" if step.quote.document else "no document"
                yield f'{name}, step {index + 1} quotes {source} ({found}): "{step.quote.text}"'
        for call in view.calls:
            yield f"{name}, prompt of call {call.key}:"
            yield from _prompt(call.request)
            yield f"{name}, raw reply ({call.reply.finish_reason}):"
            yield call.reply.raw or call.reply.text or ""
        for one in view.continuations:
            right = {True: "right", False: "wrong", None: "no answer read"}[one.correct]
            answer = "" if one.answer is None else f", answer {one.answer}"
            yield (
                f"{name}, continuation {one.index + 1} after step {one.step_index + 1}"
                f" ({right}{answer}, {one.finish_reason}):"
            )
            yield one.text


def _prompt(request: str) -> Iterator[str]:
    """A stored request message by message, then its settings; as it is if it has no messages."""
    settings = json.loads(request)
    messages = settings.pop("messages", None) if isinstance(settings, dict) else None
    if not messages:
        yield request
        return
    for role, text in messages:
        yield f"[{role}]"
        yield text
    yield f"[settings] {json.dumps(settings, ensure_ascii=False)}"


def _opinion(label: TraceLabel) -> str:
    """What a labeler says of the trace as a whole."""
    if label.abstention is not None:
        return f"{label.abstention.reason.value}: {label.abstention.detail}".rstrip(": ")
    error = first_error(label)
    if error.missing:
        return "leaves the first error open"
    return "no error" if error.index is None else f"first error at step {error.index + 1}"


def _cell(label: TraceLabel, index: int) -> str:
    """What a labeler says of one step, in a word."""
    if index >= len(label.step_labels):
        error = first_error(label)
        if error.missing or not label.first_error_given:
            return "?"
        return "-" if error.index == index else "+" if _before(error.index, index) else "?"
    step = label.step_labels[index]
    mark = "?" if step.verdict is None else _MARKS[step.verdict.value]
    if step.score is not None:
        return f"{step.score:.2f}" if step.verdict is None else f"{mark} {step.score:.2f}"
    return step.abstention.reason.value if step.abstention is not None else mark


def _before(first: int | None, index: int) -> bool:
    return first is None or index < first


def show(workspace: WorkspaceFolder, options: ShowOptions) -> ShowResult:
    """A trace with its evidence, and what every labeler says of it.

    Raises:
        InputError: there is no such dataset, trace or labeler.
    """
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        labelers = [each.labeler for each in store.labels.labelers(options.dataset)]
        return shown_in(store, options, labelers)


def shown_in(
    store: Store, options: ShowOptions, labelers: Sequence[Labeler], *, full: str | None = None
) -> ShowResult:
    """As `show`, in a database that is open.

    Args:
        store: the database.
        options: which trace, and whose labels alone; none for those of all.
        labelers: the labelers of the dataset.
        full: a labeler whose work is shown in full beside the labels of all.

    Raises:
        InputError: there is no such dataset, trace or labeler.
    """
    found = list(store.traces.contexts(options.dataset, trace_ids=[options.trace]))
    if not found:
        raise InputError(
            f"There is no trace '{options.trace}' in dataset '{options.dataset}'.",
            remedy="list ids with: stepgold export traces FILE --dataset NAME",
        )
    detailed = frozenset(filter(None, (*options.labeler, full)))
    for name in detailed:
        store.labels.labeler(options.dataset, name)
    views = tuple(
        view
        for each in labelers
        if not options.labeler or each.name in options.labeler
        if (view := _view(store, options, each, detailed=detailed)) is not None
    )
    return ShowResult(dataset=options.dataset, context=found[0], views=views, detailed=detailed)


def _view(
    store: Store, options: ShowOptions, labeler: Labeler, *, detailed: frozenset[str]
) -> LabelerView | None:
    """A labeler's view; None if it has not labeled the trace."""
    dataset, trace, name = options.dataset, options.trace, labeler.name
    label = store.labels.load(dataset, name, [trace]).get(trace)
    if label is None:
        return None
    if name not in detailed:
        return LabelerView(labeler=labeler, label=label)
    votes = store.labels.votes.of(dataset, name, trace)
    keys = dict.fromkeys(key for vote in votes for key in vote.request_keys)
    is_mc = labeler.kind is LabelerKind.MC
    return LabelerView(
        labeler=labeler,
        label=label,
        votes=votes,
        calls=tuple(call for key in keys if (call := store.replies.call(key)) is not None),
        continuations=tuple(store.labels.continuations(dataset, name, trace) if is_mc else ()),
    )


class CorpusShowOptions(Config):
    """Which document."""

    document: str = argument(
        kw_only=False, metavar="DOCUMENT", help="Name of the document, as search prints it."
    )
    corpus: str | None = option(
        default=None, metavar="NAME", help="Its corpus, if several have one of that name."
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class CorpusShowResult(Result):
    """A document as the index has it."""

    corpus: str
    """Its corpus."""
    document: str
    """Its name."""
    text: str
    """The text that passage offsets refer to."""
    passages: tuple[Passage, ...]
    """Its passages in order."""

    def as_json(self) -> dict[str, Any]:
        """The text and its passages."""
        return {
            "command": "corpus show",
            "corpus": self.corpus,
            "document": self.document,
            "text": self.text,
            "passages": list(self.rows()),
        }

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row per passage."""
        for each in self.passages:
            yield {
                "index": each.index,
                "start": each.start,
                "end": each.end,
                "title": each.title,
                "text": each.text,
            }

    def words(self) -> str:
        """The passages, each after a line with its offsets, and the text between them."""
        lines, place = [f"{self.corpus}/{self.document}: {len(self.text)} characters"], 0
        for each in self.passages:
            if each.start > place and self.text[place : each.start].strip():
                lines += ["", f"in no passage: {json.dumps(self.text[place : each.start])}"]
            title = f", {each.title}" if each.title else ""
            lines += [
                "",
                f"passage {each.index + 1}: characters {each.start} to {each.end}{title}",
                each.text,
            ]
            place = max(place, each.end)
        if self.text[place:].strip():
            lines += ["", f"in no passage: {json.dumps(self.text[place:])}"]
        return printable("\n".join(lines))


def corpus_show(workspace: WorkspaceFolder, options: CorpusShowOptions) -> CorpusShowResult:
    """A document's text as it was indexed, with its passages.

    Raises:
        CorpusError: there is no such document, or several.
    """
    with workspace.open_store() as store:
        found = store.corpora.document(options.document, corpus=options.corpus)
        if not found:
            raise CorpusError(
                f"There is no document '{options.document}' in the corpora.",
                remedy="see the names with: stepgold search TEXT",
            )
        if len(found) > 1:
            names = ", ".join(corpus for corpus, _, _ in found)
            raise CorpusError(
                f"Several corpora have a document '{options.document}': {names}.",
                remedy=f"name one with --corpus {found[0][0]}",
            )
        corpus, text, passages = found[0]
    return CorpusShowResult(
        corpus=corpus, document=options.document, text=text, passages=tuple(passages)
    )
