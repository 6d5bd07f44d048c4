"""`compare`: how far labelers agree, and where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepgold.options import TableOptions
from stepgold.results import NamedFigures, Result
from stepgold.trials import (
    TrialOptions,
    compared_traces,
    known_gold,
    labeler_thresholds,
    labels_on,
    refuse_repeated,
)
from traces import InputError, argument, option

if TYPE_CHECKING:
    from evaluation import Disputes
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
        """One row per pair."""
        return [pair.row() for pair in self.pairs]


def compare(workspace: WorkspaceFolder, options: CompareOptions) -> CompareResult:
    """Compare labelers: agreement, kappa, alpha, correlation, first errors, disagreements.

    Raises:
        InputError: unknown dataset, labeler, subset or split.
    """
    from evaluation import (
        compare_labelers,
        comparison_lines,
        comparison_tables,
        disagreement_lines,
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
        disputes = find_disputes(found.table)
        entries = _entries(store, options, disputes)
    document = {
        "dataset": options.dataset,
        "gold": gold,
        **found.as_json(),
        "thresholds": {name: limits[name].as_json() for name in names},
        "resamples": options.resamples,
        "seed": options.seed,
        "disagreements_total": {"traces": len(disputes), "steps": disputes.steps},
        "disagreements": entries,
    }
    lines = [
        *comparison_lines(found),
        *(limits[name].line(name) for name in names if limits[name].fit is not None),
        f"They disagree on {disputes.steps} steps of {len(disputes)} traces; "
        f"{len(entries)} traces follow (--disagreements N for more).",
        *disagreement_lines(entries),
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
    tables, text = comparison_tables(found), compared.text
    rows = compared.rows()
    return replace(compared, text=formatted(options.format, tables=tables, rows=rows, text=text))


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
