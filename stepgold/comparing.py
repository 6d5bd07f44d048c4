"""`compare`: how far labelers agree, and where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepgold.options import TableOptions
from stepgold.results import NamedFigures, Result
from stepgold.trials import (
    LabelerThreshold,
    TrialOptions,
    compared_traces,
    known_gold,
    labeler_thresholds,
    labels_on,
    refuse_repeated,
)
from traces import InputError, argument, option

if TYPE_CHECKING:
    from evaluation import ComparedTraces, Disputes, Estimate
    from stepgold.workspace import WorkspaceFolder
    from storage import Store


class CompareOptions(TableOptions, TrialOptions):
    """Which labelers to compare."""

    labelers: Sequence[str] = argument(
        kw_only=False, metavar="LABELER", help="Two labelers or more."
    )
    gold: str | None = option(
        default=None,
        metavar="NAME",
        help="Labeler taken as truth [default: gold, if it exists].",
    )
    subset: Sequence[str] = option(
        default=(), metavar="NAME", help="Only this subset; may be repeated [default: all]."
    )
    disagreements: int = option(
        default=10,
        between=(0, None),
        metavar="N",
        help="Maximum number of disputed traces to list.",
    )

    def check(self) -> None:
        """Refuse fewer than two labelers.

        Raises:
            InputError: one only, or one twice.
        """
        super().check()
        if len(self.labelers) < 2:
            raise InputError(
                "A labeler cannot be compared with itself.", remedy="name at least two labelers"
            )
        refuse_repeated(self.labelers)


class PairFigures(NamedFigures):
    """Two labelers on the steps and traces that both labeled; None if undefined."""

    a: str
    b: str
    n_steps: int
    n_neutral: int
    agreement: float | None
    agreement_ci95: list[float] | None
    cohen_kappa: float | None
    cohen_kappa_ci95: list[float] | None
    n_scored: int
    pearson: float | None
    n_first_errors: int
    first_error_agreement: float | None
    first_error_agreement_ci95: list[float] | None
    first_errors: Mapping[str, Any]
    paired: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, repr=False)
class CompareResult(Result):
    """How far labelers agree, and where they do not."""

    dataset: str
    """Name of the dataset."""
    gold: str | None
    """The labeler taken as truth; None if there is none."""
    labelers: tuple[str, ...]
    """The labelers, in the order given."""
    pairs: tuple[PairFigures, ...]
    """All pairs of labelers."""
    krippendorff_alpha: float | None
    """Krippendorff's nominal alpha of all labelers; None if undefined."""
    document: Mapping[str, Any]
    """All of it, with the steps on which they disagree."""
    text: str
    """The same as tables."""

    @property
    def against_gold(self) -> Mapping[str, Mapping[str, Any]]:
        """By labeler `processbench_f1` and `macro_f1` with their intervals; empty without gold."""
        found: Mapping[str, Mapping[str, Any]] = self.document["against_gold"]
        return found

    @property
    def disagreements(self) -> Sequence[Mapping[str, Any]]:
        """The traces on which they disagree most, with step texts and evidence."""
        found: Sequence[Mapping[str, Any]] = self.document["disagreements"]
        return found

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        return dict(self.document)

    def words(self) -> str:
        """Tables of the pairs, and the disagreements."""
        return self.text

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """One row per pair, with the F1 of both against gold."""
        return [
            {
                **pair.row(),
                **{
                    f"processbench_f1_{side}": self.against_gold[name]["processbench_f1"]
                    for side, name in (("a", pair.a), ("b", pair.b))
                    if name in self.against_gold
                },
            }
            for pair in self.pairs
        ]


def compare(workspace: WorkspaceFolder, options: CompareOptions) -> CompareResult:
    """Compare labelers: agreement, kappa, alpha, correlation, first errors, disagreements.

    Raises:
        InputError: unknown dataset, labeler, subset or split.
    """
    from evaluation import (
        compare_labelers,
        comparison_lines,
        comparison_tables,
        find_disputes,
        formatted,
    )

    names = options.labelers
    with workspace.open_store() as store:
        gold = known_gold(store, options.dataset, options.gold)
        everyone = list(dict.fromkeys([*names, *([] if gold is None else [gold])]))
        traces = compared_traces(store, options.dataset, everyone, options.subset)
        limits = labeler_thresholds(store, options, traces, everyone, gold=gold)
        found = compare_labelers(
            traces,
            names,
            {name: limit.value for name, limit in limits.items()},
            gold=gold,
            seed=options.seed,
            resamples=options.resamples,
        )
        scored = _against_gold(traces, names, limits, gold=gold, options=options)
        disputes = find_disputes(found.table)
        entries = _entries(store, options, disputes)
    document = {
        "dataset": options.dataset,
        "gold": gold,
        **found.as_json(),
        "against_gold": _gold_json(scored),
        "thresholds": {name: limits[name].as_json() for name in names},
        "resamples": options.resamples,
        "seed": options.seed,
        "disagreements_total": {"traces": len(disputes), "steps": disputes.steps},
        "disagreements": entries,
    }
    lines = [
        *comparison_lines(found, scored),
        *(limits[name].line(name) for name in names if limits[name].fit is not None),
        *_disputed_lines(disputes, entries),
    ]
    compared = CompareResult(
        dataset=options.dataset,
        gold=gold,
        labelers=tuple(names),
        pairs=tuple(PairFigures(pair, of="A pair of labelers") for pair in document["pairs"]),
        krippendorff_alpha=document["krippendorff_alpha"],
        document=document,
        text="\n".join(lines),
    )
    tables, rows = comparison_tables(found, scored), compared.rows()
    shown = formatted(options.format, tables=tables, rows=rows, text=compared.text)
    return replace(compared, text=shown)


def _against_gold(
    traces: ComparedTraces,
    names: Sequence[str],
    limits: Mapping[str, LabelerThreshold],
    *,
    gold: str | None,
    options: CompareOptions,
) -> dict[str, tuple[Estimate, Estimate]]:
    """By labeler its processbench_f1 and macro_f1, as `evaluate` measures them; gold has none."""
    from evaluation import evaluate_macro_f1, evaluate_processbench

    if gold is None:
        return {}
    drawn: dict[str, Any] = {"seed": options.seed, "resamples": options.resamples}
    found = {}
    for name in names:
        if name != gold:
            seen, limit = traces.against(name, gold), limits[name].value
            found[name] = (
                evaluate_processbench(seen, limit, **drawn).average.processbench_f1,
                evaluate_macro_f1(seen, limit, **drawn).overall.macro_f1,
            )
    return found


def _disputed_lines(disputes: Disputes, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far they disagree, and the traces that are shown."""
    from evaluation import disagreement_lines

    return [
        f"They disagree on {disputes.steps} steps of {len(disputes)} traces; "
        f"{len(entries)} traces follow (--disagreements N for more).",
        *disagreement_lines(entries),
    ]


def _gold_json(scored: Mapping[str, tuple[Estimate, Estimate]]) -> dict[str, Any]:
    """The key `against_gold`."""
    from evaluation import as_list

    return {
        name: {
            "processbench_f1": first.value,
            "ci95": as_list(first),
            "macro_f1": steps.value,
            "macro_f1_ci95": as_list(steps),
        }
        for name, (first, steps) in scored.items()
    }


def _entries(store: Store, options: CompareOptions, disputes: Disputes) -> list[dict[str, Any]]:
    """The most disputed traces, with step texts and evidence."""
    from evaluation import disagreement_json

    chosen = disputes.first(options.disagreements)
    if not chosen:
        return []
    ids, table = [one.trace_id for one in chosen], disputes.table
    found = store.traces.contexts(options.dataset, trace_ids=ids)
    contexts = {context.trace.id: context for context in found}
    labels = {name: store.labels.load(options.dataset, name, ids) for name in table.columns}
    return [
        disagreement_json(one, table, contexts[one.trace_id], labels_on(labels, one.trace_id))
        for one in chosen
    ]
