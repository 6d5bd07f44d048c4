"""`demo`: the whole pipeline on the bundled lab, offline; no figure is precomputed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.agreeing import ConsensusOptions, consensus
from stepgold.console import note
from stepgold.continuing import ContinueOptions, continue_
from stepgold.corpora import CorpusAddOptions, corpus_add
from stepgold.evaluating import EvaluateOptions, evaluate_one
from stepgold.exchange import ImportOptions, import_
from stepgold.exporting import ExportOptions, export
from stepgold.judging import JudgeOptions, judge
from stepgold.report import ReportOptions, report
from stepgold.results import Result, flat
from stepgold.retrieval import RetrieveOptions, retrieve
from stepgold.scoring_run import ScoreOptions, score
from stepgold.searching import IndexOptions, index
from stepgold.workspace import DATABASE_NAME, WorkspaceFolder
from traces import Config, InputError, StrPath, option, unfinished

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from lab import LabWorkspace


DATASET = "lab"
LABELERS = ("judge", "mc", "consensus", "prm", "likelihood")
MARK = "demo.json"
"""File that records the seed of a demo folder."""

PROBLEMS = 16
DISTRACTORS = 10
"""Additional documents, about drugs that no problem asks about."""
TRACES_PER_PROBLEM = 2
CONTINUATIONS = 4
PASSAGE_TOKENS = 160


class DemoOptions(Config):
    """The folder and the seed."""

    out: StrPath = option(
        default=Path("stepgold-demo"),
        metavar="DIR",
        help="Folder to create for the workspace, the report and the training file.",
    )
    seed: int = option(
        default=0,
        metavar="N",
        between=(0, None),
        help="Seed of the generated problems and of sampling.",
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class DemoResult(Result):
    """Every labeler measured against the exact truth, and the files."""

    seed: int
    """Seed of the lab."""
    labelers: Mapping[str, Mapping[str, Any]]
    """The documents of `evaluate` by labeler and protocol."""
    database: str
    """The workspace's database: its file, or its URL without a password."""
    training_set: Path
    """The training set: what the consensus kept."""
    report: Path
    """The report page."""

    def as_json(self) -> dict[str, Any]:
        """Figures and paths."""
        return {
            "command": "demo",
            "dataset": DATASET,
            "seed": self.seed,
            "labelers": {name: dict(each) for name, each in self.labelers.items()},
            "database": self.database,
            "training_set": str(self.training_set),
            "report": str(self.report),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per labeler and subset, with the figures of the first errors and macro F1."""
        return [
            {"labeler": name, "subset": subset}
            | flat(figures)
            | {"macro_f1": documents["macro-f1"]["subsets"].get(subset, {}).get("macro_f1")}
            for name, documents in self.labelers.items()
            for subset, figures in documents["processbench"]["subsets"].items()
        ]

    def words(self) -> RenderableType:
        """The table and the paths."""
        from rich.console import Group

        return Group(
            _table(self.labelers),
            f"database:     {self.database}",
            f"training set: {self.training_set}",
            f"report:       {self.report}",
        )


def demo(caller: WorkspaceFolder, options: DemoOptions) -> DemoResult:
    """Run the whole pipeline on the bundled dosing lab: no key, no network, no GPU.

    Raises:
        InputError: the folder exists and is not a demo folder, or has another seed.
    """
    out = Path(options.out)
    _claim(out, options.seed)
    workspace = WorkspaceFolder(out, db=caller.db, progress=caller.progress, debug=caller.debug)
    note(
        "The lab: invented drugs, guideline documents, questions and traces with exactly known"
        " truth."
    )
    note(
        "Its judge reads token likelihoods; `stepgold judge --judge gemini:...` runs the prompt,"
        " reply and quote path."
    )
    for result in _stages(out, options.seed, workspace):
        note(str(result))
    figures = {
        name: {
            protocol: evaluate_one(
                workspace, EvaluateOptions(dataset=DATASET, labeler=name, protocol=protocol)
            ).as_json()
            for protocol in ("processbench", "macro-f1")
        }
        for name in LABELERS
    }
    page = out / "report.html"
    # Only the policy's traces are candidates; the others were corrupted on purpose.
    report(
        workspace, ReportOptions(page, dataset=DATASET, labeler=LABELERS, candidates=("sampled",))
    )
    return DemoResult(
        seed=options.seed,
        labelers=figures,
        database=workspace.shown_url if workspace.db else str(out / DATABASE_NAME),
        training_set=out / "training.jsonl",
        report=page,
    )


def _claim(out: Path, seed: int) -> None:
    """Mark the folder as a demo folder, or refuse it."""
    mark = out / MARK
    if out.exists() and not mark.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"'{out}' exists and is not a demo folder.",
            where=str(out),
            remedy="choose another --out",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        if mark.is_file():
            made_with = json.loads(mark.read_text()).get("seed")
            if made_with != seed:
                raise InputError(
                    f"'{out}' was made with seed {made_with}, not {seed}.",
                    where=str(out),
                    remedy="choose another --out, or remove the folder",
                )
        else:
            mark.write_text(json.dumps({"seed": seed}))
    except OSError as fault:
        raise InputError(
            f"'{out}' cannot be written: {fault.strerror}.",
            where=str(out),
            remedy="choose another --out",
        ) from fault
    except ValueError as fault:
        raise InputError(
            f"'{mark}' is damaged.", where=str(mark), remedy="remove the folder"
        ) from fault


def _stages(out: Path, seed: int, workspace: WorkspaceFolder) -> Iterator[Result]:
    """The verbs in order, on the lab's files."""
    from lab import build_workspace, write_workspace_files

    lab = build_workspace(
        seed, PROBLEMS, traces_per_problem=TRACES_PER_PROBLEM, n_distractors=DISTRACTORS
    )
    write_workspace_files(lab, out)
    yield corpus_add(
        workspace,
        CorpusAddOptions(out / "guidelines", corpus="guidelines", passage_tokens=PASSAGE_TOKENS),
    )
    yield index(workspace, IndexOptions())
    yield import_(workspace, ImportOptions("traces", out / "traces.jsonl", dataset=DATASET))
    # The lab's models read only the top passage, so retrieval matters.
    yield retrieve(workspace, RetrieveOptions(dataset=DATASET, k=1))
    _write_sampled(lab, out / "sampled.jsonl", seed, workspace)
    yield import_(workspace, ImportOptions("traces", out / "sampled.jsonl", dataset=DATASET))
    yield judge(workspace, JudgeOptions(dataset=DATASET, judge="lab"))
    yield continue_(
        workspace,
        ContinueOptions(
            dataset=DATASET,
            policy="lab",
            k=CONTINUATIONS,
            seed=seed,
            max_tokens=130,
            temperature=1.0,
        ),
    )
    yield consensus(workspace, ConsensusOptions(dataset=DATASET, judge="judge", mc="mc"))
    yield export(
        workspace,
        ExportOptions("trl", out / "training.jsonl", dataset=DATASET, labeler="consensus"),
    )
    yield score(workspace, ScoreOptions(dataset=DATASET, prm="lab"))
    yield score(
        workspace,
        ScoreOptions(dataset=DATASET, prm="lab", family="likelihood", name="likelihood"),
    )


def _write_sampled(lab: LabWorkspace, path: Path, seed: int, workspace: WorkspaceFolder) -> None:
    """Sample traces from the policy, with their exact truth, once per folder."""
    from lab import sample_traces, trace_row

    if path.is_file():
        return
    with workspace.open_store() as store:
        passages = {
            context.problem.question: context.evidence[0].passage.text
            for context in store.traces.contexts(DATASET)
            if context.evidence
        }
    by_id = {problem.id: problem for problem in lab.problems}
    shown = {
        problem.id: passages[problem.question]
        for problem in lab.problems
        if problem.question in passages
    }
    right = sum(
        problem.decisive_passage.split(". ")[0] in shown.get(problem.id, "")
        for problem in lab.problems
    )
    note(
        f"hybrid search puts the deciding passage first for {right} of {len(by_id)} problems"
        " (measure it with retrieve --evaluate qrels.jsonl); a wrong one misleads judge and policy"
    )
    note(f"sampling {TRACES_PER_PROBLEM} traces for each of {len(by_id)} problems from the policy")
    sampled = sample_traces(lab.problems, shown, per_problem=TRACES_PER_PROBLEM, seed=seed)
    rows = [
        json.dumps(trace_row(by_id[trace.problem_id], trace, "sampled"), ensure_ascii=False)
        for trace in sampled
    ]
    with unfinished(path) as beside:
        beside.write_text("\n".join(rows) + "\n", encoding="utf-8")


COLUMNS = (
    "labeler",
    "subset",
    "err",
    "corr",
    "pb_f1 [95%]",
    "macro_f1 [95%]",
    "kept",
    "prec",
)

CAPTION = """\
err, corr: error and correct accuracy, exact first error; pb_f1: processbench_f1, their harmonic
mean; kept: share of traces with a label; prec: first-error precision on those. Missing labels count
as wrong in both F1s, and so do the steps after a first error, which a consensus leaves unlabeled:
a consensus keeps fewer labels to be right more often. likelihood is nearly perfect because it asks
the policy that wrote the traces about itself. The lab is small; its retriever makes errors."""


def _table(labelers: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per labeler and subset."""
    table = _empty_table()
    for name, documents in labelers.items():
        first_error, macro = documents["processbench"], documents["macro-f1"]
        for subset, row in first_error["subsets"].items():
            table.add_row(name, subset, *_cells(row, macro["subsets"].get(subset, {})))
        average = first_error["average"]
        table.add_row(
            name,
            "average",
            "",
            "",
            _with_interval(average["processbench_f1"], average["ci95"]),
            _with_interval(macro["overall"]["macro_f1"], macro["overall"].get("ci95")),
            _number(average["kept"]["share"]),
            _number(average["kept"]["first_error_precision"]),
            end_section=True,
        )
    return table


def _empty_table() -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title="Every labeler against the exact truth", caption=CAPTION, box=box.SIMPLE_HEAD
    )
    table.padding, table.show_edge, table.pad_edge = (0, 1, 0, 0), False, False
    table.caption_justify = "left"
    for column in COLUMNS:
        table.add_column(column, no_wrap=True, justify="left" if column in COLUMNS[:2] else "right")
    return table


def _cells(row: dict[str, Any], macro: dict[str, Any]) -> tuple[str, ...]:
    return (
        _number(row["error_accuracy"]),
        _number(row["correct_accuracy"]),
        _with_interval(row["processbench_f1"], row["ci95"]),
        _with_interval(macro.get("macro_f1"), macro.get("ci95")),
        _number(row["kept"]["share"]),
        _number(row["kept"]["first_error_precision"]),
    )


def _number(value: float | None) -> str:
    """Two decimals without the leading zero, so that the table fits into 80 columns."""
    return "-" if value is None else f"{value:.2f}".replace("0.", ".")


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or not interval:
        return _number(value)
    return f"{_number(value)} [{_number(interval[0])},{_number(interval[1])}]"
