"""`retry`: rebuild labelers from their stored configuration, and ask again what failed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from stepgold.console import note
from stepgold.images import ImageOptions
from stepgold.labeling_run import (
    STOPS,
    LabelStage,
    LabelWriter,
    Reading,
    label_traces,
    share_traces,
    sources_in,
)
from stepgold.models import RunTerms, parse_spec, template_identity
from stepgold.options import HostedOptions, ImageSourceOptions, SpendingOptions
from stepgold.outcome import FAULTS, NO_FAILURE, LabelingResult, Tally
from stepgold.versions import ModelTruth
from traces import (
    AbstentionReason,
    BudgetExhausted,
    InputError,
    LabelerKind,
    Need,
    StrPath,
    ToolkitError,
    defaults_of,
    option,
)

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from storage import LabelerSummary, Store
    from traces import LabeledTrace, Labeler, TraceInContext, TraceLabel


RETRIES = "retries"
"""Key of a label's meta: how often its trace was retried."""
SAMPLES_A_RETRY = 1000
"""Sample indices reserved for one retry; more than the votes on a trace."""


class RetryOptions(ImageSourceOptions, SpendingOptions, HostedOptions):
    """What to retry, and with which changes."""

    dataset: str | None = option(
        default=None, metavar="NAME", help="Retry this dataset only [default: all]."
    )
    labeler: str | None = option(
        default=None, metavar="NAME", help="Retry this labeler only [default: all]."
    )
    max_tokens: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="New limit of one reply, or new window of a PRM [default: as before].",
    )
    prm: str | None = option(
        default=None,
        metavar="MODEL",
        help="hf:PATH: the checkpoint of PRM scores that were imported without one.",
        needs=Need("--labeler NAME", lambda config: config.labeler is not None),
    )
    service: Literal["standard", "flex"] = option(
        default="standard", choices=("standard", "flex"), help="Service of a judge's hosted calls."
    )
    template: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Tokenizer folder, for a policy that used --template.",
    )
    limit: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Retry only the first N traces of each labeler.",
    )


@dataclass(frozen=True, slots=True)
class Revived:
    """A stored labeler that can be run again."""

    dataset: str
    """The dataset that it labels."""
    labeler: Labeler
    """The labeler as stored."""
    options: RetryOptions
    """What may change."""
    terms: RunTerms
    """Store, budget and connections."""


Revive = Callable[[Revived, int], LabelStage]
"""Makes the stage of a labeler, given how often its traces were retried before."""


def retries_of(label: TraceLabel) -> int:
    """How often the trace of a label was retried before."""
    count = label.meta.get(RETRIES, 0)
    return count if isinstance(count, int) else 0


def faults_of(label: TraceLabel) -> frozenset[AbstentionReason]:
    """The retryable reasons of a label and of its steps."""
    given = [label.abstention, *(step.abstention for step in label.step_labels)]
    return frozenset(each.reason for each in given if each is not None and each.retryable)


def was_shortened(label: TraceLabel) -> bool:
    """Whether a PRM scored the trace with fewer documents than it has."""
    return bool(label.meta.get("documents_dropped"))


def was_held_back(label: TraceLabel) -> bool:
    """Whether the trace was withheld because it may contain protected health information."""
    return label.abstention is not None and label.abstention.reason is AbstentionReason.FILTERED


def next_retry(label: TraceLabel) -> int:
    """The number of the retry that a label needs.

    A failed call stored no reply, so it is sent again unchanged, and replies that were paid for are
    found in the store. An unusable reply is stored too, so a new sample is asked for. Only stored
    labels count retries: an interrupted retry resumes with the same number.
    """
    stored_replies = faults_of(label) - {AbstentionReason.MODEL_ERROR}
    return retries_of(label) + bool(stored_replies)


def judge_again(revived: Revived, retry: int) -> LabelStage:
    """The stage of a judge.

    Raises:
        InputError: its prompt is not stored, or its model cannot be used.
    """
    from stepgold.judging import JudgeOptions, judge_stage, lab_judge, rag_judge

    labeler, asked = revived.labeler, revived.options
    model = str(labeler.model)
    if parse_spec(model).kind == "lab":
        return judge_stage(lab_judge())
    options = JudgeOptions.from_dict(
        labeler.config,
        _prompt(revived.terms.store, labeler.config),
        dataset=revived.dataset,
        judge=model,
        name=labeler.name,
        service=asked.service,
        request_option=labeler.config.get("request_options", {}),
        **_changed(asked),
    )
    judge = rag_judge(options, revived.terms, first_sample=retry * SAMPLES_A_RETRY)
    return judge_stage(judge)


def _changed(asked: RetryOptions) -> dict[str, Any]:
    """How models are called this time, and the new limit if there is one."""
    limit = {} if asked.max_tokens is None else {"max_tokens": asked.max_tokens}
    return {name: getattr(asked, name) for name in defaults_of(HostedOptions)} | limit


def continue_again(revived: Revived, _retry: int) -> LabelStage:
    """The stage of a Monte Carlo labeler.

    Raises:
        InputError: it was made with another template, or its model cannot be used.
    """
    from stepgold.continuing import ContinueOptions, continue_stage

    labeler, asked, stored = revived.labeler, revived.options, revived.labeler.config
    if stored.get("template") != template_identity(asked.template):
        raise InputError(
            f"Labeler '{labeler.name}' was made with the template '{stored.get('template')}'.",
            remedy="name that tokenizer folder with --template",
        )
    options = ContinueOptions.from_stored(
        stored,
        dataset=revived.dataset,
        policy=str(labeler.model),
        name=labeler.name,
        template=asked.template,
        **_changed(asked),
    )
    shown = replace(revived.terms.images, shown=stored.get("images", True))
    return continue_stage(options, replace(revived.terms, images=shown))


def rescore(revived: Revived, retry: int) -> LabelStage:
    """The stage of a PRM; `--max-tokens` changes its window.

    Raises:
        InputError: the checkpoint or its family has changed.
        PrmError: the checkpoint cannot be used, or the server's scores differ from it.
    """
    from stepgold.generative_prm import ENGINE_KEY, asking_stage, stored_family
    from stepgold.scoring_run import ScoreOptions, score_again
    from stepgold.served_prm import serve_again

    labeler, dataset, asked = revived.labeler, revived.dataset, revived.options
    terms = revived.terms
    if ENGINE_KEY in labeler.config:
        family = stored_family(labeler.config, asked.max_tokens)
        options = ScoreOptions(
            dataset=dataset,
            prm=str(labeler.model),
            family=family,
            base_url=asked.base_url,
            concurrency=asked.concurrency,
            allow_phi=asked.allow_phi,
            insecure_http=asked.insecure_http,
        )
        samples = retry * SAMPLES_A_RETRY
        return asking_stage(options, family, terms, first_sample=samples)
    if "server" not in labeler.config:
        return score_again(
            terms.store,
            labeler,
            dataset,
            prm=asked.prm,
            max_tokens=asked.max_tokens,
            images=terms.images,
        )
    return serve_again(
        terms.store,
        terms.closing,
        labeler,
        dataset,
        **{"max_tokens": None} | _changed(asked),
    )


REVIVERS: Mapping[LabelerKind, Revive] = {
    LabelerKind.JUDGE: judge_again,
    LabelerKind.MC: continue_again,
    LabelerKind.PRM: rescore,
}
"""How to run each kind of labeler again."""


def counted(stage: LabelStage, retry: int, max_tokens: int | None) -> LabelStage:
    """The stage, with the retry's number and changes recorded in the meta of its labels."""
    noted: dict[str, Any] = {RETRIES: retry} if retry else {}
    if max_tokens is not None:
        noted["max_tokens"] = max_tokens

    def run(contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        for labeled in stage(contexts):
            label = replace(labeled.label, meta={**labeled.label.meta, **noted})
            yield replace(labeled, label=label)

    return run


def _prompt(store: Store, config: Mapping[str, Any]) -> Any:
    """The prompt that a judge was made with.

    Raises:
        InputError: it is neither the packaged one nor stored.
    """
    from judge import JudgePrompt, packaged_prompt

    sha256 = str(config.get("prompt_sha256"))
    packaged = packaged_prompt()
    if packaged.sha256 == sha256:
        return packaged
    text = store.replies.prompt(sha256)
    if text is None:
        raise InputError(
            f"The labeler's prompt {sha256[:12]} is not stored.",
            remedy="judge these traces under another --name",
        )
    return JudgePrompt.parse(text, where=f"prompt {sha256[:12]}")


@dataclass(frozen=True, slots=True)
class Work:
    """What to retry for one labeler."""

    row: LabelerSummary
    """The labeler and its dataset."""
    groups: dict[int, list[str]]
    """Trace ids by the number of the retry they need."""
    left: int
    """Traces that only another limit can help."""
    stamps: dict[str, str | None]
    """When the labels that are to be replaced were made, by trace id."""


@dataclass(frozen=True, kw_only=True, repr=False)
class RetryResult(LabelingResult):
    """What was retried, in total and per labeler."""

    labelers: tuple[LabelingResult, ...]
    """One per labeler that had something to retry."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with one per labeler."""
        return super().as_json() | {"labelers": [each.as_json() for each in self.labelers]}

    def words(self) -> str:
        """The counts of every labeler."""
        return "\n".join(each.words() for each in self.labelers) or "There is nothing to retry."

    def rows(self) -> list[dict[str, Any]]:
        """One row per labeler."""
        return [each.as_json() for each in self.labelers]


def retry(workspace: WorkspaceFolder, options: RetryOptions) -> RetryResult:
    """Ask again what failed or could not be read; a new label replaces the abstention.

    Raises:
        InputError: a labeler that does not exist, or a model that cannot be used.
    """
    from inference import Purse

    purse, images = Purse(options.budget), ImageOptions.of(workspace, options.images)
    tallies: list[Tally] = []
    with workspace.open_store() as store:
        for work in _work(store, options):
            truth = ModelTruth(allow_mixed=options.allow_mixed)
            shared = RunTerms(store, ExitStack(), truth, purse, images=images)
            tally = _tally(work)
            tallies.append(tally)
            _retry(tally, work, options, shared, kept=any(map(_stored, tallies)))
    return _total(tallies, options)


def _work(store: Store, options: RetryOptions) -> list[Work]:
    """What can be retried, labeler by labeler.

    Raises:
        InputError: the named dataset or labeler does not exist.
    """
    dataset, name, changed = options.dataset, options.labeler, options.max_tokens is not None
    if dataset is not None:
        store.traces.require_dataset(dataset)
    if name is not None:
        _require_labeler(store, dataset, name)
    found = []
    for row in store.labels.labelers(dataset):
        if row.labeler.kind not in REVIVERS or name not in (None, row.labeler.name):
            continue
        loaded, stamps = _labels(store, row)
        labels = loaded.values()
        # Another limit may also make room for documents that a PRM dropped.
        failed = [
            label
            for label in labels
            if faults_of(label)
            or (changed and was_shortened(label))
            or (options.allow_phi and was_held_back(label))
        ][: options.limit]
        groups: dict[int, list[str]] = defaultdict(list)
        for label in failed:
            # Without another limit the same prompt is too long again.
            if changed or AbstentionReason.OVER_LENGTH not in faults_of(label):
                groups[next_retry(label)].append(label.trace_id)
        if failed:
            left = len(failed) - sum(map(len, groups.values()))
            found.append(Work(row, dict(sorted(groups.items())), left, stamps))
    return found


def _labels(
    store: Store, row: LabelerSummary
) -> tuple[dict[str, TraceLabel], dict[str, str | None]]:
    """The labels of a labeler, and when each was made, at one moment."""
    with store.transaction():
        labels = store.labels.load(row.dataset, row.labeler.name)
        return labels, store.labels.stamps(row.dataset, row.labeler, list(labels))


def _require_labeler(store: Store, dataset: str | None, name: str) -> None:
    """Refuse an unknown name: a typo must not look like a labeler with nothing to retry."""
    if dataset is not None:
        store.labels.labeler(dataset, name)
        return
    known = sorted({row.labeler.name for row in store.labels.labelers()})
    if name not in known:
        remedy = f"known: {', '.join(known)}" if known else "there is none yet"
        raise InputError(f"There is no labeler '{name}'.", remedy=remedy)


def _tally(work: Work) -> Tally:
    judge = work.row.labeler.kind is LabelerKind.JUDGE
    return Tally(
        "retry",
        work.row.dataset,
        work.row.labeler.name,
        failed=work.left,
        harmless=NO_FAILURE - {AbstentionReason.UNCERTAIN} if judge else NO_FAILURE,
        step_faults=FAULTS if judge else frozenset(),
    )


def _retry(
    tally: Tally, work: Work, options: RetryOptions, shared: RunTerms, *, kept: bool
) -> None:
    """Retry one labeler, group by group; a stop leaves later groups unchanged."""
    row, store = work.row, shared.store
    waiting = [list(ids) for ids in work.groups.values()]
    shared.truth.expect(store, row.dataset, row.labeler.name)
    if work.left:
        note(f"{work.left} traces are too long: add a larger --max-tokens.")

    def forget_consensus(labels: Sequence[TraceLabel]) -> None:
        _forget_consensus(store, row, [label.trace_id for label in labels])

    try:
        for number, trace_ids in work.groups.items():
            with (
                ExitStack() as closing,
                share_traces(store, tally, row.labeler, stamps=work.stamps) as share,
            ):
                terms = replace(shared, closing=closing)
                again = REVIVERS[row.labeler.kind](
                    Revived(row.dataset, row.labeler, options, terms), number
                )
                label_traces(
                    share,
                    tally,
                    row.labeler,
                    counted(again, number, options.max_tokens),
                    trace_ids=trace_ids,
                    writer=LabelWriter(
                        share, tally, row.labeler, declared=True, also=forget_consensus
                    ),
                    truth=terms.truth,
                    reading=_reading(again, store, row.dataset),
                )
            waiting.pop(0)
            if tally.stopped is not None:
                break
    except STOPS as stop:
        if not kept and not isinstance(stop, BudgetExhausted):
            raise
        tally.stopped = stop
        note(str(stop))
    tally.failed += sum(map(len, waiting))


def _reading(stage: LabelStage, store: Store, dataset: str) -> Reading | None:
    """The reading order of a PRM: by problem, to compute once what its candidates share."""
    from stepgold.scoring_run import ScoreStage

    return stage.reading(store, dataset) if isinstance(stage, ScoreStage) else None


def _forget_consensus(store: Store, row: LabelerSummary, trace_ids: Sequence[str]) -> None:
    """Drop consensus labels made from the old labels; the next `consensus` makes them again."""
    for other in store.labels.labelers(row.dataset):
        sources = sources_in(other.labeler.config)
        if other.labeler.kind is LabelerKind.CONSENSUS and any(
            source.get("labeler") == row.labeler.name for source in sources
        ):
            store.labels.drop(row.dataset, other.labeler.name, trace_ids)


def _stored(tally: Tally) -> bool:
    return bool(tally.done or tally.abstained)


def _total(tallies: Sequence[Tally], options: RetryOptions) -> RetryResult:
    total = Tally("retry", options.dataset, options.labeler)
    stops: list[ToolkitError] = []
    abstained: Counter[str] = Counter()
    for tally in tallies:
        total.done += tally.done
        total.unchanged += tally.unchanged
        total.failed += tally.failed
        abstained.update(tally.abstained)
        stops += [tally.stopped] if tally.stopped is not None else []
    total.abstained, total.stopped = abstained, stops[0] if stops else None
    if tallies:
        total.started = min(tally.started for tally in tallies)
    each = tuple(tally.result() for tally in tallies)
    figures = total.figures() | {"complete": all(one.complete for one in each)}
    return RetryResult(**figures, labelers=each)
