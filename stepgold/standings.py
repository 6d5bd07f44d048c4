"""`evaluate` of one labeler or several: the one table of several, and tests against the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, cast, overload
from typing import Protocol as Face

from stepgold.evaluating import (
    EvaluateOptions,
    EvaluateResult,
    Side,
    evaluate_one,
    labeler_side,
    measured,
    methods_of,
    whole_name,
    with_methods,
)
from stepgold.results import Result
from stepgold.verbs import verb

if TYPE_CHECKING:
    from evaluation import FigureTable, PairedReport, Protocol
    from stepgold.workspace import WorkspaceFolder

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluateSeveralResult(Result):
    """Several labelers by one protocol on the same traces, each tested against the best."""

    dataset: str
    """Name of the dataset."""
    gold: str
    """The labeler taken as truth."""
    protocol: str
    """The name of the protocol."""
    labelers: Mapping[str, EvaluateResult]
    """The result of each labeler, in the order asked for."""
    measure: str
    """The protocol's leading measure, by which labelers are ranked."""
    best: str | None
    """The labeler with the highest figure, without gold itself; None if none is defined."""
    paired: tuple[Mapping[str, Any], ...]
    """The best labeler `a` against each other labeler `b`: a paired bootstrap by measure."""
    figures: Sequence[Mapping[str, Any]]
    """One row per labeler, then one per floor: the measure by subset and as a whole, with its
    interval, and the difference from the best."""
    methods: Mapping[str, str]
    """A methods paragraph, `text`, and the references that it cites, `bibtex`."""
    text: str
    """What a person reads, in the format asked for."""

    def as_json(self) -> dict[str, Any]:
        """The document of each labeler, and the tests."""
        return {
            "protocol": self.protocol,
            "dataset": self.dataset,
            "gold": self.gold,
            "labelers": {name: found.as_json() for name, found in self.labelers.items()},
            "best": self.best,
            "paired": [dict(pair) for pair in self.paired],
            "methods": dict(self.methods),
        }

    def words(self) -> str:
        """The table of all labelers, and the tests."""
        return self.text

    def rows(self) -> list[Mapping[str, Any]]:
        """The `figures`."""
        return list(self.figures)


class EvaluateCall(Face[P]):
    """The method: one name gives the result of one labeler, a list that of several."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, *, labeler: list[str] | tuple[str, ...], **options: Any
    ) -> EvaluateSeveralResult: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> EvaluateResult: ...


class EvaluateMethod(Face[P]):
    """An `EvaluateCall` as an attribute of a class."""

    def __get__(self, workspace: WorkspaceFolder, owner: type, /) -> EvaluateCall[P]: ...


def evaluate_method(config: Callable[P, EvaluateOptions]) -> EvaluateMethod[P]:
    """The method of the workspace."""
    return cast(EvaluateMethod[P], verb(config, evaluate))


def evaluate(
    workspace: WorkspaceFolder, options: EvaluateOptions
) -> EvaluateResult | EvaluateSeveralResult:
    """Measure labelers against gold by one of the field's protocols, with bootstrap intervals.

    Raises:
        InputError: unknown dataset, labeler, subset or split.
    """
    if len(options.labeler) == 1:
        return evaluate_one(workspace, options)
    from evaluation import formatted, protocol_named

    protocol = protocol_named(options.protocol)
    with workspace.open_store() as store:
        sides = {
            name: labeler_side(store, options, name, protocol=protocol, may_lack_scores=True)
            for name in options.labeler
        }
    found = {name: measured(side, options, protocol) for name, side in sides.items()}
    measure = protocol.measures[0]
    best = _best(found, measure, gold=options.gold)
    pairs = {} if best is None else _pairs(sides, best, options, protocol)
    rows = _rows(found, measure, {name: pair[measure] for name, pair in pairs.items()})
    tables = [_table(rows, measure, options, best=best)]
    methods = methods_of(sides, found, options, protocol)
    text = formatted(
        options.format,
        tables=tables,
        rows=rows,
        text=_text(tables[0], found, pairs, best=best, measure=measure),
    )
    return EvaluateSeveralResult(
        dataset=options.dataset,
        gold=options.gold,
        protocol=options.protocol,
        labelers=found,
        measure=measure,
        best=best,
        paired=tuple(
            {"a": best, "b": name, "measures": {key: one.as_json() for key, one in pair.items()}}
            for name, pair in pairs.items()
        ),
        figures=rows,
        methods=methods.as_json(),
        text=with_methods(text, methods, options),
    )


def _best(found: Mapping[str, EvaluateResult], measure: str, *, gold: str) -> str | None:
    """The labeler with the highest headline figure, the first of equals; gold itself is no
    candidate."""
    known = {
        name: value
        for name, each in found.items()
        if name != gold and (value := each.whole.get(measure)) is not None
    }
    return max(known, key=known.__getitem__) if known else None


def _pairs(
    sides: Mapping[str, Side], best: str, options: EvaluateOptions, protocol: Protocol
) -> dict[str, Mapping[str, PairedReport]]:
    """The best labeler against each other one, by measure."""
    return {
        name: protocol.compare(
            sides[best].traces,
            side.traces,
            thresholds=(sides[best].threshold.value, side.threshold.value),
            seed=options.seed,
            resamples=options.resamples,
        )
        for name, side in sides.items()
        if name not in (best, options.gold)
    }


def _rows(
    found: Mapping[str, EvaluateResult], measure: str, pairs: Mapping[str, PairedReport]
) -> list[dict[str, Any]]:
    """The figures of every labeler and floor; None where undefined."""
    rows: list[dict[str, Any]] = []
    for name, each in found.items():
        pair = pairs.get(name)
        # The difference is told of this labeler, the pair's of the best.
        apart = None if pair is None else pair.headline
        low, high = (None, None) if apart is None or apart.ci95 is None else apart.ci95
        interval = each.whole.get(f"{measure}_ci95", each.whole.get("ci95")) or (None, None)
        rows.append(
            {
                "labeler": name,
                "kind": "labeler",
                **{f"{measure}_{part}": of.get(measure) for part, of in each.parts.items()},
                measure: each.whole.get(measure),
                f"{measure}_ci95_low": interval[0],
                f"{measure}_ci95_high": interval[1],
                "missing": each.whole.get("missing"),
                "difference": _negative(None if apart is None else apart.difference),
                "difference_ci95_low": _negative(high),
                "difference_ci95_high": _negative(low),
                "p_value": None if apart is None else apart.p_value,
            }
        )
    first = next(iter(found.values()))
    for name, floor in first.floors.items():
        parts = {part: floor["subsets"].get(part, {}).get(measure) for part in first.parts}
        named = {f"{measure}_{part}": value for part, value in parts.items()}
        rows.append({"labeler": name, "kind": "floor", **named, measure: floor[measure]})
    return rows


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _table(
    rows: Sequence[Mapping[str, Any]],
    measure: str,
    options: EvaluateOptions,
    *,
    best: str | None,
) -> FigureTable:
    """The rows as a person reads them."""
    from evaluation import UNDEFINED, Estimate, FigureTable, figure, with_interval

    lead = f"{measure}_"
    keys = [key for key in rows[0] if key.startswith(lead) and not key.startswith(f"{lead}ci95_")]
    # With one subset, it is the whole.
    keys = keys if len(keys) > 1 else []

    def shown(row: Mapping[str, Any], key: str) -> str:
        low = row.get(f"{key}_ci95_low")
        interval = None if low is None else (low, row[f"{key}_ci95_high"])
        return with_interval(Estimate(row.get(key), interval))

    cells = [
        (
            f"floor {row['labeler']}" if row["kind"] == "floor" else row["labeler"],
            *(figure(row[key]) for key in keys),
            shown(row, measure),
            UNDEFINED if row.get("missing") is None else str(row["missing"]),
            "best" if row["labeler"] == best else shown(row, "difference"),
            figure(row.get("p_value")),
        )
        for row in rows
    ]
    labelers = [at for at, row in enumerate(rows) if row["kind"] == "labeler"]
    judged = [at for at in labelers if rows[at]["labeler"] != options.gold]
    bold = set()
    for column, key in enumerate([*keys, measure], 1):
        known = {at: rows[at][key] for at in judged if rows[at][key] is not None}
        bold |= {(at, column) for at, value in known.items() if value == max(known.values())}
    return FigureTable(
        title=f"{measure} on {options.dataset} against {options.gold}, 95% intervals by problem"
        f" ({options.resamples} resamples, seed {options.seed}), difference from the best",
        head=(
            "labeler",
            *(key.removeprefix(lead) for key in keys),
            whole_name(options.protocol),
            "missing",
            "difference",
            "p",
        ),
        rows=cells,
        best=frozenset(bold),
        ruled=len(labelers),
    )


def _text(
    table: FigureTable,
    found: Mapping[str, EvaluateResult],
    pairs: Mapping[str, Mapping[str, PairedReport]],
    *,
    best: str | None,
    measure: str,
) -> str:
    """The table without the differences, which follow it, and what else is to be known."""
    from evaluation import UNDEFINED, width_note

    # Labeler, subsets, whole, missing: the last is left out where nothing is.
    kept = -2 if any(row[-3] not in ("0", UNDEFINED) for row in table.rows) else -3
    short = replace(
        table,
        title=table.title.removesuffix(", difference from the best"),
        head=table.head[:kept],
        rows=[row[:kept] for row in table.rows],
    )
    lines = [short.plain()]
    lines += width_note([short])
    if best is None:
        lines.append(f"No labeler has a defined {measure}, so that none is tested as the best.")
    lines += [pair[measure].line(str(best), name) for name, pair in pairs.items()]
    if len(pairs) > 1:
        lines.append(
            f"{best} was chosen on these traces; p is not corrected for {len(pairs)} tests."
        )
    for name, each in found.items():
        fitted = each.document["threshold_fit"]
        if fitted is not None:
            lines.append(f"threshold of {name}: {each.threshold:.6g} from {each.threshold_source}")
        warnings = [*each.document.get("notes", ()), each.floor_warning]
        lines += [warning for warning in warnings if warning]
    return "\n".join(lines)
