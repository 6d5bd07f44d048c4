"""`stepgold demo`: the whole pipeline on the bundled lab, offline, every figure computed now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import Json, Seed
from commands.run import invoke
from stepgold.api import Workspace
from stepgold.console import note
from stepgold.outcome import Outcome
from stepgold.results import OK
from stepgold.workspace import DATABASE_NAME, WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from lab.build import LabWorkspace


DATASET = "lab"
LABELERS = ("judge", "mc", "consensus", "prm", "likelihood")
MARK = "demo.json"
"""Says by which seed a demo folder was made."""

PROBLEMS = 16
DISTRACTORS = 10
"""Further documents, about drugs that no problem asks for."""
TRACES_PER_PROBLEM = 2
CONTINUATIONS = 4
PASSAGE_TOKENS = 160


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("stepgold-demo"),
    seed: Seed = 0,
    json_output: Json = False,
) -> Outcome:
    """Run the whole pipeline on the bundled dosing lab: no key, no network, no GPU."""
    _claim(out, seed)
    workspace = Workspace(out, debug=ctx.obj.debug)
    root = ctx.find_root().command
    note(
        "The lab: made-up drugs, guideline documents, questions and traces whose truth is known exactly."
    )
    note(
        "Its judge reads token likelihoods; the prompt, reply and quote path is what `stepgold judge --judge gemini:...` runs."
    )

    for argv in _stages(out, seed, workspace):
        outcome = invoke(root, workspace, argv)
        note(str(outcome.words))
    rows, document = demo_table(root, workspace, DATASET, LABELERS)
    report = out / "report.html"
    # Only what the policy wrote is a candidate; the other traces were made wrong on purpose.
    workspace.report(report, dataset=DATASET, labeler=LABELERS, candidates="sampled")
    places = {
        "database": out / DATABASE_NAME,
        "training_set": out / "training.jsonl",
        "report": report,
    }
    from rich.console import Group

    words = Group(
        rows,
        f"database:     {places['database']}",
        f"training set: {places['training_set']}",
        f"report:       {places['report']}",
    )
    whole = {"command": "demo", "dataset": DATASET, "seed": seed, "labelers": document}
    return Outcome(
        whole | {name: str(path) for name, path in places.items()}, words, OK, json_output
    )


def _claim(out: Path, seed: int) -> None:
    """Make the folder ours, or refuse one that is not."""
    mark = out / MARK
    if out.exists() and not mark.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"'{out}' exists and is no demo folder.",
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


def _stages(out: Path, seed: int, workspace: WorkspaceFolder) -> Iterator[list[str]]:
    """The verbs of the contract, in order, on the lab's files."""
    from lab.build import build_workspace, write_workspace_files

    lab = build_workspace(
        seed, PROBLEMS, traces_per_problem=TRACES_PER_PROBLEM, n_distractors=DISTRACTORS
    )
    write_workspace_files(lab, out)
    on = ["--dataset", DATASET]
    yield [
        "corpus",
        "add",
        "--corpus",
        "guidelines",
        "--passage-tokens",
        str(PASSAGE_TOKENS),
        str(out / "guidelines"),
    ]
    yield ["index"]
    yield ["import", "traces", str(out / "traces.jsonl"), *on]
    # The lab's models read one passage: the top one, so that retrieval decides.
    yield ["retrieve", *on, "--k", "1"]
    _write_sampled(lab, out / "sampled.jsonl", seed, workspace)
    yield ["import", "traces", str(out / "sampled.jsonl"), *on]
    yield ["judge", *on, "--judge", "lab"]
    yield [
        "continue",
        *on,
        "--policy",
        "lab",
        "--k",
        str(CONTINUATIONS),
        "--seed",
        str(seed),
        "--max-tokens",
        "130",
        "--temperature",
        "1.0",
    ]
    yield ["consensus", *on, "--judge", "judge", "--mc", "mc"]
    yield ["export", "trl", str(out / "training.jsonl"), *on, "--labeler", "consensus"]
    yield ["score", *on, "--prm", "lab"]
    yield ["score", *on, "--prm", "lab", "--family", "likelihood", "--name", "likelihood"]


def _write_sampled(lab: LabWorkspace, path: Path, seed: int, workspace: WorkspaceFolder) -> None:
    """Let the policy write traces of its own, with their exact truth, once a folder."""
    from lab.build import trace_row
    from lab.candidates import sample_traces

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
        " (retrieve --evaluate qrels.jsonl measures it); a wrong one misleads judge and policy alike"
    )
    note(f"sampling {TRACES_PER_PROBLEM} traces for each of {len(by_id)} problems from the policy")
    sampled = sample_traces(lab.problems, shown, per_problem=TRACES_PER_PROBLEM, seed=seed)
    rows = [
        json.dumps(trace_row(by_id[trace.problem_id], trace, "sampled"), ensure_ascii=False)
        for trace in sampled
    ]
    unfinished = path.with_suffix(".part")
    unfinished.write_text("\n".join(rows) + "\n", encoding="utf-8")
    unfinished.replace(path)


# --- Every labeler against the truth, one row a labeler and subset, from the evaluate command


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
mean; kept: share of traces the labeler has a word on; prec: first-error precision on those.
What has no word counts as wrong in both F1s, also the steps behind a first error, which a consensus
leaves unlabelled: it is there to be right on what it keeps. The lab is small, its retriever errs."""


def demo_table(
    root: Any, workspace: WorkspaceFolder, dataset: str, labelers: Sequence[str]
) -> tuple[Table, dict[str, Any]]:
    """The table and the `evaluate` documents it was read from, by labeler and protocol."""
    table = _empty_table()
    documents: dict[str, Any] = {}
    for name in labelers:
        on = ["--dataset", dataset, "--labeler", name]
        first_error = invoke(root, workspace, ["evaluate", *on]).document
        macro = invoke(root, workspace, ["evaluate", *on, "--protocol", "macro-f1"]).document
        documents[name] = {"processbench": first_error, "macro-f1": macro}
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
    return table, documents


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
