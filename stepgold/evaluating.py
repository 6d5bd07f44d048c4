"""`evaluate` measures labelers against gold by a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from stepgold.options import TableOptions
from stepgold.results import NamedFigures, Result
from stepgold.trials import (
    NONE_NEEDED,
    LabelerThreshold,
    TrialOptions,
    evaluated_traces,
    refuse_repeated,
    resolve_threshold,
)
from traces import InputError, option

if TYPE_CHECKING:
    from evaluation import EvaluatedTraces, Methods, Protocol
    from stepgold.workspace import WorkspaceFolder
    from storage import Store


BUILT_IN = ("processbench", "macro-f1", "balanced-f1", "prmbench", "mr-ben", "mistake")
"""The built-in protocols, listed here so that --help does not import numpy."""
FLOOR = "that of a floor"
"""Source of the threshold 0.5 of a floor."""
FLOOR_NAMES = ("no-error", "last-step", "position", "chance")
"""The floors of `evaluation.FLOORS`, listed here for the same reason."""


class EvaluateOptions(TableOptions, TrialOptions):
    """The labelers to evaluate, and the protocol."""

    labeler: Sequence[str] = option(
        metavar="NAME", help="Labeler in the dataset; repeat it for one table of several."
    )
    gold: str = option(default="gold", metavar="NAME", help="Labeler taken as truth.")
    protocol: str = option(
        default="processbench",
        metavar="NAME",
        help=f"One of {', '.join(BUILT_IN)}, or an installed one.",
    )
    against: str | None = option(
        default=None,
        metavar="NAME",
        help=f"Second labeler, or a floor ({', '.join(FLOOR_NAMES)}): paired bootstrap of the"
        " difference.",
    )
    subset: Sequence[str] = option(
        default=(), metavar="NAME", help="Only this subset; may be repeated [default: all]."
    )
    as_published: bool = option(
        default=False,
        flags=("--as-published",),
        help="Also repeat the protocol's official script, quirks included, and list where it"
        " differs from the strict figures.",
    )
    methods: bool = option(
        default=False,
        flags=("--methods",),
        help="Add a methods paragraph and the BibTeX of the protocol, to paste into a paper.",
    )

    def check(self) -> None:
        """Refuse a labeler that is named twice, and a second one beside several.

        Raises:
            InputError: there is one.
        """
        super().check()
        refuse_repeated(self.labeler)
        if not self.labeler:
            raise InputError("No labeler is named.", remedy="name one with --labeler")
        if self.against is not None and len(self.labeler) > 1:
            raise InputError(
                "Several labelers are compared with the best of them.",
                where=f"--against {self.against}",
                remedy="leave --against out, or name one labeler",
            )
        if self.methods and self.format == "csv":
            raise InputError(
                "A methods paragraph is no row of a table.",
                where="--methods --format csv",
                remedy="use --format text, md or tex",
            )


class KeptFigures(NamedFigures):
    """How a labeler does on the traces that it labeled."""

    n: int
    share: float | None
    first_error_precision: float | None
    ci95: list[float] | None


class EvaluationFigures(NamedFigures):
    """The figures of one subset, or of the whole; each protocol has some of them.

    All fractions are in [0, 1], the correlation `mcc` in [-1, 1]; None where not defined.
    """

    ci95: list[float] | None
    missing: int
    processbench_f1: float | None
    error_accuracy: float | None
    correct_accuracy: float | None
    kept: KeptFigures
    macro_f1: float | None
    f1_correct: float | None
    f1_incorrect: float | None
    n: int
    n_error: int
    n_correct: int
    n_incorrect: int
    n_neutral: int
    prmscore: float | None
    f1: float | None
    f1_negative: float | None
    n_steps: int
    missing_steps: int
    mr_score: float | None
    mcc: float | None
    mcc_ci95: list[float] | None
    step_accuracy: float | None
    step_accuracy_ci95: list[float] | None
    reason_accuracy: float | None
    reason_accuracy_ci95: list[float] | None
    reason_missing: int
    location_accuracy: float | None
    balanced_f1: float | None
    balanced_accuracy: float | None
    balanced_accuracy_ci95: list[float] | None
    correct_recall: float | None
    correct_recall_ci95: list[float] | None
    incorrect_recall: float | None
    incorrect_recall_ci95: list[float] | None
    response_balanced_f1: float | None
    response_balanced_f1_ci95: list[float] | None


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluateResult(Result):
    """A labeler by one protocol, with bootstrap intervals by problem.

    `average` and `subsets` (processbench), `classes` and `overall` (prmbench), `overall` and
    `subsets` (other protocols) hold the figures.
    """

    dataset: str
    """Name of the dataset."""
    labeler: str
    """The labeler that was evaluated."""
    gold: str
    """The labeler taken as truth."""
    protocol: str
    """The name of the protocol."""
    threshold: float | None
    """Steps with at least this score are correct."""
    threshold_source: str
    """`given`, or the split it was fitted on."""
    whole: EvaluationFigures
    """The dataset as a whole: `average` or `overall`."""
    parts: Mapping[str, EvaluationFigures]
    """By name: `subsets` or `classes`."""
    document: Mapping[str, Any]
    """All of it, with diagnostics and the second labeler."""
    floor_warning: str | None
    """A sentence if the labeler is not above the highest floor; else None."""
    text: str
    """What a person reads, in the format asked for."""

    @property
    def labelers(self) -> Mapping[str, EvaluateResult]:
        """This result by its labeler, as that of several labelers has it."""
        return {self.labeler: self}

    @property
    def average(self) -> EvaluationFigures:
        """processbench: the unweighted mean over subsets."""
        return self._whole_as("average")

    @property
    def overall(self) -> EvaluationFigures:
        """All protocols but processbench: all traces pooled."""
        return self._whole_as("overall")

    @property
    def subsets(self) -> Mapping[str, EvaluationFigures]:
        """All protocols but prmbench: the figures by subset."""
        return self._parts_as("subsets")

    @property
    def classes(self) -> Mapping[str, EvaluationFigures]:
        """prmbench: the figures by class of error."""
        return self._parts_as("classes")

    @property
    def missing(self) -> int:
        """How many traces (macro-f1: steps) of the whole the labeler left open."""
        return self.whole.missing

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Step scores, positions and false positives, whatever the protocol."""
        found: Mapping[str, Any] = self.document["diagnostics"]
        return found

    @property
    def floors(self) -> Mapping[str, Mapping[str, Any]]:
        """By floor (no-error, last-step, position, chance) the protocol's measures, and `subsets`
        with the same; what a labeler that reads nothing reaches on these traces."""
        found: Mapping[str, Mapping[str, Any]] = self.document["floors"]
        return found

    @property
    def as_published(self) -> Mapping[str, Any] | None:
        """The figures of the official script, where they differ from the strict ones, and why;
        None if they were not asked for or no script was published."""
        return self.document.get("as_published")

    @property
    def methods(self) -> Mapping[str, str]:
        """A methods paragraph, `text`, and the references that it cites, `bibtex`."""
        found: Mapping[str, str] = self.document["methods"]
        return found

    @property
    def against(self) -> Mapping[str, Any] | None:
        """The paired bootstrap against a second labeler; None if there was none."""
        return self.document.get("against")

    def as_json(self) -> dict[str, Any]:
        """The document of the protocol."""
        return dict(self.document)

    def words(self) -> str:
        """The figures as a table, and what else was found."""
        return self.text

    def rows(self) -> list[Mapping[str, Any]]:
        """One row per subset or class, and the whole."""
        kind = "class" if self.protocol == "prmbench" else "subset"
        named = [*self.parts.items(), (whole_name(self.protocol), self.whole)]
        return [{kind: name, **figures.row()} for name, figures in named]

    def _whole_as(self, name: str) -> EvaluationFigures:
        if name != whole_name(self.protocol):
            raise AttributeError(
                f"The protocol {self.protocol} has no {name}; use {whole_name(self.protocol)}."
            )
        return self.whole

    def _parts_as(self, name: str) -> Mapping[str, EvaluationFigures]:
        if name != parts_name(self.protocol):
            raise AttributeError(
                f"The protocol {self.protocol} has no {name}; use {parts_name(self.protocol)}."
            )
        return self.parts


def whole_name(protocol: str) -> str:
    """The key of a protocol's whole."""
    return "average" if protocol == "processbench" else "overall"


def parts_name(protocol: str) -> str:
    """The key of a protocol's parts."""
    return "classes" if protocol == "prmbench" else "subsets"


def evaluate_one(workspace: WorkspaceFolder, options: EvaluateOptions) -> EvaluateResult:
    """Measure a labeler against gold by one of the field's protocols, with bootstrap intervals.

    Raises:
        InputError: unknown dataset, labeler, subset or split.
    """
    from evaluation import protocol_named

    protocol = protocol_named(options.protocol)
    with workspace.open_store() as store:
        (name,) = options.labeler
        first = labeler_side(store, options, name, protocol=protocol)
        second = None
        if options.against is not None:
            second = _second(store, options, options.against, first=first, protocol=protocol)
    return measured(first, options, protocol, second=second)


def measured(
    first: Side, options: EvaluateOptions, protocol: Protocol, *, second: Side | None = None
) -> EvaluateResult:
    """The figures of one labeler, and its difference from a second."""
    from evaluation import ProtocolReport, diagnose, formatted

    report = protocol.evaluate(
        first.traces,
        threshold=first.threshold.value,
        threshold_source=first.threshold.source,
        seed=options.seed,
        resamples=options.resamples,
    )
    diagnostics = diagnose(
        first.traces, first.threshold.value, seed=options.seed, resamples=options.resamples
    )
    document = report.as_json(dataset=options.dataset, labeler=first.labeler, gold=options.gold)
    document |= first.threshold.as_json()
    document |= {"resamples": options.resamples, "seed": options.seed}
    document["diagnostics"] = diagnostics.as_json()
    floors = protocol.floors(first.traces, first.threshold.value, seed=options.seed)
    document["floors"] = floors.as_json()
    lines = [report.table(first.labeler), *floors.lines(first.labeler), *diagnostics.lines()]
    if first.labeler == options.gold:
        itself = f"'{options.gold}' is compared with itself: the figures say nothing about it."
        document["notes"] = [itself]
        lines.insert(0, itself)
    if options.as_published:
        document["as_published"] = _as_published(protocol, first, document)
        lines += _published_words(document["as_published"], protocol.name)
    if second is not None:
        document["against"], more = _compared(first, second, options, protocol)
        lines += more
    # The document has less about the average than was measured.
    whole = getattr(report, whole_name(protocol.name)).as_json()
    parts = document[parts_name(protocol.name)]
    tables = [report.figures_table(first.labeler)] if isinstance(report, ProtocolReport) else []
    found = EvaluateResult(
        dataset=options.dataset,
        labeler=first.labeler,
        gold=options.gold,
        protocol=options.protocol,
        threshold=document["threshold"],
        threshold_source=first.threshold.source,
        whole=_figures(whole, f"The {whole_name(protocol.name)} of {protocol.name}"),
        parts={name: _figures(part, f"A part of {protocol.name}") for name, part in parts.items()},
        document=document,
        floor_warning=floors.warning(first.labeler, floors.own),
        text="\n".join(lines),
    )
    methods = methods_of({first.labeler: first}, {first.labeler: found}, options, protocol)
    document["methods"] = methods.as_json()
    text = formatted(
        options.format, tables=[*tables, floors.table()], rows=found.rows(), text=found.text
    )
    return replace(found, text=with_methods(text, methods, options))


def methods_of(
    sides: Mapping[str, Side],
    found: Mapping[str, EvaluateResult],
    options: EvaluateOptions,
    protocol: Protocol,
) -> Methods:
    """The methods paragraph of these labelers on the same traces."""
    from evaluation import Methods, decided_by_scores, threshold_words

    first = next(iter(sides.values())).traces.frame
    documents = [each.document for each in found.values()]
    return Methods(
        dataset=options.dataset,
        gold=options.gold,
        traces=len(first),
        problems=len(set(first.problem.tolist())),
        left_out=max(one["gold_unusable"] + one["gold_missing"] for one in documents),
        subsets=first.subsets,
        thresholds={
            name: threshold_words(
                side.threshold.value,
                side.threshold.source,
                needed=decided_by_scores(side.traces),
                strict=protocol.name == "prmbench",
            )
            for name, side in sides.items()
        },
        missing={name: each.missing for name, each in found.items()},
        protocols=[protocol],
        seed=options.seed,
        resamples=options.resamples,
        version=version("stepgold"),
    )


def with_methods(text: str, methods: Methods, options: EvaluateOptions) -> str:
    """The text with the paragraph, if it was asked for."""
    return f"{text}\n\n{methods.formatted(options.format)}" if options.methods else text


def _as_published(
    protocol: Protocol, side: Side, strict: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The document's key `as_published`; None where no script was published."""
    if protocol.as_published is None:
        return None
    found = protocol.as_published(side.traces, side.threshold.value)
    keys = {"whole_key": whole_name(protocol.name), "groups_key": parts_name(protocol.name)}
    document: dict[str, Any] = found.as_json(strict, **keys)
    return document


def _published_words(document: Mapping[str, Any] | None, protocol: str) -> list[str]:
    from evaluation import published_lines

    if document is None:
        return [f"as published: no script of {protocol} was published; these are its paper's rules"]
    return published_lines(document, whole_key=whole_name(protocol))


def _figures(figures: Mapping[str, Any], of: str) -> EvaluationFigures:
    if "kept" in figures:
        kept = KeptFigures(figures["kept"], of=f"{of}, kept traces,")
        figures = {**figures, "kept": kept}
    return EvaluationFigures(figures, of=of)


@dataclass(frozen=True, slots=True)
class Side:
    """One labeler on the traces of the trial."""

    labeler: str
    traces: EvaluatedTraces
    threshold: LabelerThreshold


def labeler_side(
    store: Store,
    options: EvaluateOptions,
    labeler: str,
    *,
    protocol: Protocol,
    may_lack_scores: bool = False,
) -> Side:
    """A labeler's traces and its threshold.

    With `may_lack_scores` a labeler of verdicts needs no threshold where one is to be fitted, so
    that a PRM can be compared with a judge.
    """
    from evaluation import decided_by_scores

    traces = evaluated_traces(
        store, options.dataset, labeler, gold=options.gold, subsets=options.subset
    )
    if may_lack_scores and options.number is None and not decided_by_scores(traces):
        return Side(labeler, traces, LabelerThreshold(0.5, NONE_NEEDED))
    threshold = resolve_threshold(
        store, options, labeler, gold=options.gold, protocol=protocol, evaluated=traces
    )
    return Side(labeler, traces, threshold)


def _second(
    store: Store, options: EvaluateOptions, name: str, *, first: Side, protocol: Protocol
) -> Side:
    """The second labeler of the dataset, or the floor of that name."""
    from evaluation import FLOORS, floor_traces

    known = {summary.labeler.name for summary in store.labels.labelers(options.dataset)}
    if name in FLOORS and name not in known:
        traces = floor_traces(first.traces, name, seed=options.seed)
        return Side(name, traces, LabelerThreshold(0.5, FLOOR))
    return labeler_side(store, options, name, protocol=protocol, may_lack_scores=True)


def _compared(
    first: Side, second: Side, options: EvaluateOptions, protocol: Protocol
) -> tuple[dict[str, Any], list[str]]:
    """The document's key `against`, and the lines for it."""
    pairs = protocol.compare(
        first.traces,
        second.traces,
        thresholds=(first.threshold.value, second.threshold.value),
        seed=options.seed,
        resamples=options.resamples,
    )
    document = {"labeler": second.labeler, **second.threshold.as_json()}
    document["measures"] = {measure: pair.as_json() for measure, pair in pairs.items()}
    lines = [pair.line(first.labeler, second.labeler) for pair in pairs.values()]
    if second.threshold.fit is not None:
        lines.append(second.threshold.line(second.labeler))
    return document, lines
