"""`best-of-n`: how well scores choose among candidates, those of one labeler or several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, cast, overload
from typing import Protocol as Face

from stepgold.candidates import Candidates, UnusedScores, from_files, from_workspace, trace_pages
from stepgold.golds import list_unusable_golds
from stepgold.hub import input_file
from stepgold.options import BootstrapOptions, TableOptions
from stepgold.results import INCOMPLETE, OK, NamedFigures, Result
from stepgold.trials import refuse_repeated
from stepgold.verbs import verb
from traces import InputError, StrPath, option

if TYPE_CHECKING:
    from evaluation import BestOfNReport, PublishedCandidate
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import TraceLabel

P = ParamSpec("P")
LISTED = 5
"""Score rows shown to a person; the JSON document lists all."""
_MOST = 10**6
"""Largest N."""


class BestOfNOptions(TableOptions, BootstrapOptions):
    """The candidates, and the scores that choose among them."""

    n: str | int | Collection[int] = option(
        flags=("--n", "-n"), metavar="N,N...", help="How many candidates to choose from, e.g. 8,32."
    )
    dataset: str | None = option(
        default=None, metavar="NAME", help="Dataset: the traces of a problem are its candidates."
    )
    labeler: Sequence[str] = option(
        default=(),
        metavar="NAME",
        help="With --dataset: the labeler whose step scores choose; repeat it for one table.",
    )
    subset: Sequence[str] = option(
        default=(),
        metavar="NAME",
        help="With --dataset: only traces of this subset; may be repeated [default: all].",
    )
    pool: StrPath | None = option(
        default=None, metavar="FILE", help="Instead of a dataset: a file of candidates."
    )
    scores: Sequence[StrPath] = option(
        default=(),
        metavar="FILE",
        help="With --pool: a file of their step scores; repeat it for one table.",
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
        refuse_repeated(self.labeler)
        twice = [one for one in self.scores if list(map(str, self.scores)).count(str(one)) > 1]
        if twice:
            raise InputError(f"Score file '{twice[0]}' is named twice.", remedy="name it once")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The N asked for, each once."""
        return tuple(_sizes(self.n))

    @property
    def source(self) -> dict[str, str]:
        """Where candidates and scores come from, as keys of the document."""
        key, one = (
            ("labeler", self.labeler) if self.dataset is not None else ("scores", self.scores)
        )
        return self.candidates | ({key: str(one[0])} if len(one) == 1 else {})

    @property
    def candidates(self) -> dict[str, str]:
        """Where candidates come from, as keys of the document."""
        if self.dataset is not None:
            return {"dataset": self.dataset}
        return {"pool": str(self.pool)}

    def each(self) -> dict[str, BestOfNOptions]:
        """The options of every labeler alone, by its name; score files by theirs."""
        if self.labeler:
            return {name: replace(self, labeler=(name,)) for name in self.labeler}
        names = [Path(one).name for one in self.scores]
        return {
            str(one) if names.count(name) > 1 else name: replace(self, scores=(one,))
            for name, one in zip(names, self.scores, strict=True)
        }


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
    left_out: tuple[str, ...]
    """What could not be used, and the published figures if they were asked for, as lines."""
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


@dataclass(frozen=True, kw_only=True, repr=False)
class BestOfNSeveralResult(Result):
    """Best-of-N by the scores of several labelers among the same candidates."""

    labelers: Mapping[str, BestOfNResult]
    """The result of each, in the order asked for; score files by their names."""
    candidates: Mapping[str, str]
    """Where the candidates come from: `dataset` or `pool`."""
    text: str
    """What a person reads, in the format asked for."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if score rows could not be used."""
        return max(found.exit_code for found in self.labelers.values())

    def as_json(self) -> dict[str, Any]:
        """The document of each."""
        documents = {name: found.as_json() for name, found in self.labelers.items()}
        return {**self.candidates, "labelers": documents}

    def words(self) -> str:
        """One table per N, and what could not be used."""
        return self.text

    def rows(self) -> list[Mapping[str, Any]]:
        """One row per labeler and N."""
        return [
            {"labeler": name, **row}
            for name, found in self.labelers.items()
            for row in found.rows()
        ]


class BestOfNCall(Face[P]):
    """The method: one name gives the result of one labeler, a list that of several."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, *, labeler: list[str] | tuple[str, ...], **options: Any
    ) -> BestOfNSeveralResult: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, *, scores: list[StrPath] | tuple[StrPath, ...], **options: Any
    ) -> BestOfNSeveralResult: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> BestOfNResult: ...


class BestOfNMethod(Face[P]):
    """A `BestOfNCall` as an attribute of a class."""

    def __get__(self, workspace: WorkspaceFolder, owner: type, /) -> BestOfNCall[P]: ...


def best_of_n_method(config: Callable[P, BestOfNOptions]) -> BestOfNMethod[P]:
    """The method of the workspace."""
    return cast(BestOfNMethod[P], verb(config, best_of_n))


def best_of_n(
    workspace: WorkspaceFolder, options: BestOfNOptions
) -> BestOfNResult | BestOfNSeveralResult:
    """Choose among N candidates by min, product, last and mean score, and by majority.

    Raises:
        InputError: unknown dataset, labeler or subset, faulty files, or nothing to choose by.
    """
    from evaluation import by_measure, formatted, width_note

    alone = {name: _chosen(workspace, one, name) for name, one in options.each().items()}
    if len(alone) == 1:
        ((name, (result, report)),) = alone.items()
        tables = [report.figures_table(name)]
        text = formatted(options.format, tables=tables, rows=result.rows(), text=result.text)
        return replace(result, text=text)
    title = next(iter(alone.values()))[1].title
    tables = [
        by_measure(
            {name: report.by_n[n] for name, (_, report) in alone.items()},
            title=f"N={n}, {title}",
        )
        for n in options.sizes
    ]
    lines = [*(one.plain() for one in tables), *width_note(tables)]
    for name, (result, report) in alone.items():
        more = [*report.notes(), *result.left_out]
        lines += [f"{name}: {line}" if line[:1] != " " else line for line in more]
    several = BestOfNSeveralResult(
        labelers={name: result for name, (result, _) in alone.items()},
        candidates=options.candidates,
        text="\n".join(lines),
    )
    text = formatted(options.format, tables=tables, rows=several.rows(), text=several.text)
    return replace(several, text=text)


def _chosen(
    workspace: WorkspaceFolder, options: BestOfNOptions, name: str
) -> tuple[BestOfNResult, BestOfNReport]:
    """The result of one labeler, and the figures with their intervals."""
    from evaluation import evaluate_best_of_n
    from labeling import normal_answer

    if options.dataset is not None:
        with workspace.open_store() as store:
            found = from_workspace(store, options.dataset, name, options.subset)
            if options.as_published:
                found = replace(found, published=_published(store, options))
            if options.normalize_answers:
                list_unusable_golds(store.traces.golds(options.dataset))
    else:
        found = from_files(input_file(Path(str(options.pool))), input_file(Path(options.scores[0])))
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
    left_out = found.words(LISTED)
    if options.as_published:
        document["as_published"] = as_published(found, options.sizes)
        left_out += _published_words(document)
    result = BestOfNResult(
        n={
            int(n): BestOfNFigures(figures, of=f"Best-of-{n}")
            for n, figures in document["n"].items()
        },
        pools=report.pools,
        candidates=report.candidates,
        rejected=found.rejected,
        document=document,
        left_out=tuple(left_out),
        text="\n".join([report.table(name), *left_out]),
    )
    return result, report


def _published(store: Store, options: BestOfNOptions) -> dict[str, list[list[PublishedCandidate]]]:
    """What Med-PRM's script sees: `now`, and `before` the retry if there was one."""
    from evaluation import PublishedCandidate

    dataset, labeler = str(options.dataset), options.labeler[0]
    now: dict[str, list[PublishedCandidate]] = defaultdict(list)
    before: dict[str, list[PublishedCandidate]] = defaultdict(list)
    retried = False
    for page, kept in trace_pages(store, dataset, options.subset):
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
