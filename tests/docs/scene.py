"""The files that the documentation's commands name: small, made from the lab, with tiny models."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROBLEMS = 4
PER_PROBLEM = 2
CANDIDATES = 8


def make_scene(folder: Path) -> Path:
    """Write the folder in which the pages' commands run, and return it."""
    from lab.build import build_workspace, trace_row, write_workspace_files
    from tests.commands.tiny_prm import save_prm
    from tests.scoring.checkpoints import save_qwen_prm

    lab = build_workspace(0, PROBLEMS, traces_per_problem=PER_PROBLEM, n_distractors=3)
    write_workspace_files(lab, folder)
    problems = {problem.id: problem for problem in lab.problems}
    rows = [trace_row(problems[trace.problem_id], trace) for trace in lab.traces]
    for number, subset in enumerate(("gsm8k", "math", "olympiadbench", "omnimath")):
        benchmark = [_processbench(row, f"{subset}-{i}") for i, row in enumerate(rows)]
        (folder / f"{subset}.json").write_text(json.dumps(benchmark[number:]))
    asked = ({"id": p.id, "problem": p.question, "answer": p.answer} for p in lab.problems)
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    _write_pool(folder)
    save_qwen_prm(folder / "Qwen" / "Qwen2.5-Math-PRM-7B", published=True)
    save_qwen_prm(folder / "Qwen" / "Qwen2.5-Math-7B-PRM800K", published=True)
    save_prm(folder / "path" / "to" / "prm")
    return folder


def _processbench(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    first = row["labels"]["gold"]["first_error"]
    return {
        "id": name,
        "generator": "lab",
        "problem": row["problem"],
        "steps": row["steps"],
        "final_answer_correct": first is None,
        "label": -1 if first is None else first,
    }


def _write_pool(folder: Path) -> None:
    """A pool of candidates and a PRM's scores of them, in two files."""
    numbers = [(p, c) for p in range(PROBLEMS) for c in range(CANDIDATES)]
    pool = (
        {
            "problem_id": f"p{p}", "candidate_index": c, "answer": str((p + c) % 3),
            "is_correct": (p + c) % 3 == 0, "ground_truth": "0",
        }
        for p, c in numbers
    )  # fmt: skip
    scores = (
        {"problem_id": f"p{p}", "candidate_index": c, "step_scores": [0.9, ((p * c) % 7) / 7]}
        for p, c in numbers
    )
    for name, rows in (("candidates", pool), ("prm", scores)):
        _write_rows(folder / f"{name}.jsonl.gz", rows)


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
