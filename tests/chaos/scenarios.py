"""What is killed: every command, on a workspace in which it has something to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.index.encoder import packaged_model
from tests.chaos.world import CONCURRENCY, World
from tests.commands.test_judge_chaos import SURVIVABLE, many_traces
from tests.commands.tiny_prm import save_prm, write_pool

ON = ("--dataset", "d")
SPEC = "gemini:gemini-3.5-flash-lite"
AT_ONCE = ("--concurrency", str(CONCURRENCY))
Argv = Sequence[str | Path]


@dataclass(frozen=True)
class Scenario:
    """A command, and how its workspace is made."""

    name: str
    argv: Argv
    prepare: Callable[[World, Path, Path], None]
    """Makes the workspace; the second path is for files beside it."""
    share: float = 1.0
    """How many kills it gets, relative to the others."""
    processes: int = 1
    labels: bool = False
    """Whether it adds labels and takes none away."""
    repeatable: bool = True
    """Whether it ends in the same place each time; a server that fails at random sees to it."""


def _run(world: World, home: Path, *argv: str | Path) -> None:
    code, said = world.run(home, *argv)
    assert code in (0, 1), said


def _nothing(world: World, home: Path, beside: Path) -> None:
    home.mkdir()
    many_traces(beside / "t.jsonl", 300)
    (beside / "guides").mkdir()
    for number in range(24):
        text = f"# Guide {number}\n\n" + f"Give {number} mg per kg, at most {number * 9} mg. " * 8
        (beside / "guides" / f"g{number}.md").write_text(text)
    tables = '[import]\nformat = "traces"\nfiles = ["t.jsonl"]\ndataset = "d"\n'
    tables += f'[judge]\ndataset = "d"\njudge = "{SPEC}"\nlimit = 40\nconcurrency = {CONCURRENCY}\n'
    tables += '[export]\nformat = "traces"\nout = "out.jsonl"\ndataset = "d"\nlabeler = "judge"\n'
    (beside / "run.toml").write_text(tables)


def _traces(world: World, home: Path, beside: Path, count: int = 60) -> None:
    _nothing(world, home, beside)
    rows = [
        {"id": f"t{i}", "problem": f"Which dose, {i}?", "answer": f"{i + 1}"}
        | {"steps": [f"{i} + 1 = {i + 1}.", f"The answer is {i + 1}."]}
        for i in range(count)
    ]
    write_lines(beside / "few.jsonl", rows)
    scores = [{"id": f"t{i}", "scores": [0.9, i / count]} for i in range(count)]
    write_lines(beside / "scores.jsonl", scores)
    problems = [{"id": f"p{i}", "problem": f"What is {i} + 1?"} for i in range(count)]
    write_lines(beside / "problems.jsonl", problems)
    _run(world, home, "import", "traces", beside / "few.jsonl", *ON)


def write_lines(path: Path, rows: Sequence[object]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _corpus(world: World, home: Path, beside: Path) -> None:
    _traces(world, home, beside)
    _run(world, home, "corpus", "add", beside / "guides", "--corpus", "g")


def _labeled(world: World, home: Path, beside: Path) -> None:
    _traces(world, home, beside)
    for name, kind, modulus in (("judge", "judge", 2), ("mc", "mc", 3), ("gold2", "judge", 5)):
        rows = [{"id": f"t{i}", "first_error": None if i % modulus else 0} for i in range(60)]
        write_lines(beside / f"{name}.jsonl", rows)
        labeler = ("--labeler", name, "--kind", kind)
        _run(world, home, "import", "scores", beside / f"{name}.jsonl", *ON, *labeler)
    _run(world, home, "import", "scores", beside / "scores.jsonl", *ON, "--labeler", "prm")


def _failed(world: World, home: Path, beside: Path) -> None:
    _traces(world, home, beside)
    gemini = world.gemini
    before = gemini.fault_rate, gemini.faults
    gemini.fault_rate, gemini.faults = 0.7, tuple(SURVIVABLE)
    _run(world, home, "judge", *ON, "--judge", SPEC, *AT_ONCE)
    gemini.fault_rate, gemini.faults = before


def _pool(world: World, home: Path, beside: Path) -> None:
    home.mkdir()
    pool = write_pool(beside / "pool.jsonl", problems=8, candidates=4, documents=2)
    _run(world, home, "import", "traces", pool, *ON)
    save_prm(beside / "prm", intermediate_size=2048)


JUDGE: Argv = ("judge", *ON, "--judge", SPEC, *AT_ONCE, "--json")
CONTINUE: Argv = ("continue", *ON, "--policy", "openai:m", "-k", "2", *AT_ONCE, "--json")
SAMPLE: Argv = ("sample", *ON, "--policy", "openai:m", "-n", "2", *AT_ONCE, "--json")
SCORE: Argv = ("score", *ON, "--prm", "hf:{home}/../beside/prm", "--json")
BESIDE = "{home}/../beside"

SCENARIOS = [
    Scenario("import traces", ("import", "traces", f"{BESIDE}/t.jsonl", *ON, "--json"), _nothing),
    Scenario(
        "import scores",
        ("import", "scores", f"{BESIDE}/scores.jsonl", *ON, "--labeler", "prm", "--json"),
        _traces,
    ),
    Scenario("corpus add", ("corpus", "add", f"{BESIDE}/guides", "--corpus", "g"), _traces),
    Scenario("corpus remove", ("corpus", "remove", "g"), _corpus, share=0.5),
    Scenario("retrieve", ("retrieve", *ON, "--mode", "bm25"), _corpus),
    Scenario("judge", JUDGE, _corpus, share=2, labels=True),
    Scenario("two judges", JUDGE, _traces, share=3, processes=2, labels=True),
    Scenario("two continue", CONTINUE, _traces, share=2, processes=2, labels=True),
    Scenario(
        "two sample",
        (*SAMPLE, "--problems", f"{BESIDE}/problems.jsonl"),
        _traces,
        share=2,
        processes=2,
    ),
    Scenario("two score", SCORE, _pool, share=2, processes=2, labels=True),
    Scenario(
        "two retry", ("retry", *AT_ONCE, "--json"), _failed, share=2, processes=2, repeatable=False
    ),
    Scenario("consensus", ("consensus", *ON, "--judge", "judge", "--mc", "mc", "--json"), _labeled),
    Scenario("export", ("export", "traces", "{home}/o.jsonl", *ON, "--labeler", "judge"), _labeled),
    Scenario(
        "export parquet",
        ("export", "parquet", "{home}/o.parquet", *ON, "--labeler", "judge"),
        _labeled,
        share=0.5,
    ),
    Scenario("report", ("report", "{home}/o.html", *ON, "--gold", "gold2"), _labeled),
    Scenario(
        "evaluate",
        ("evaluate", *ON, "--labeler", "judge", "--gold", "gold2", "--json"),
        _labeled,
        share=0.5,
    ),
    Scenario("compare", ("compare", *ON, "judge", "mc", "prm"), _labeled, share=0.5),
    Scenario("search", ("search", "mg per kg", "--mode", "bm25"), _corpus, share=0.5),
    Scenario("status", ("status", "--json"), _labeled, share=0.5),
    Scenario("plan", ("plan", *ON, "--judge", SPEC, "--json"), _labeled, share=0.5),
    Scenario("overlap", ("overlap", f"{BESIDE}/t.jsonl", *ON, "--json"), _labeled, share=0.5),
    Scenario("remove labeler", ("remove", "labeler", "judge", *ON, "--yes"), _labeled),
    Scenario("remove dataset", ("remove", "dataset", "d", "--yes"), _labeled),
    Scenario("run", ("run", f"{BESIDE}/run.toml", "--json"), _nothing),
]
if packaged_model() is not None:
    SCENARIOS.append(Scenario("index", ("index", "--json"), _corpus, share=0.5))
