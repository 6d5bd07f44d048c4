"""`stepgold train` on a lab export beside the lab's bundled PRM: `make bench-train`.

    python -m benchmarks.train [--problems N] [--epochs N] [--rate X] [--rank N] [--dev-only]

The base is what the bundled PRM was before it was trained: a language model with two layers on top
that compare each token with its prediction (`lab.training.grow`), built and not trained. The bundled
PRM then learned its last layer and read-out from 4 million tokens with a target at every token. Here
LoRA adapters of the last layer learn from the step labels of an export, through `stepgold train`.
Measured on drugs that neither training nor dev traces ask about. The settings were chosen on dev
traces, as both thresholds are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

import stepgold
from lab import LabWorkspace, build_workspace, trace_row, write_workspace_files
from lab.build import load_bundled
from lab.training.train_prm import untrained

PARTS = (("train", 0.7), ("dev", 0.85), ("held", 1.0))
"""Datasets and where each ends among the drugs."""
PER_DRUG = 4


def write_base(to: Path) -> None:
    """Write the bundled PRM without what it was taught."""
    model, tokenizer = load_bundled("prm")
    if not isinstance(model, LlamaForCausalLM):
        raise TypeError(f"The lab's PRM is a {type(model).__name__}, not a Llama model.")
    untrained(model, tokenizer)
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


def filled(folder: Path, lab: LabWorkspace) -> stepgold.Workspace:
    """A workspace with guidelines, and with the traces exported and imported again by part."""
    ws = stepgold.Workspace(folder / "w", progress=False)
    write_workspace_files(lab, folder)
    ws.corpus_add(folder / "guidelines", corpus="guidelines", passage_tokens=160)
    ws.index()
    drugs = list(dict.fromkeys(problem.drug for problem in lab.problems))
    problems = {problem.id: problem for problem in lab.problems}
    for name, end in PARTS:
        start = dict(zip((part for part, _ in PARTS), (0.0, *(e for _, e in PARTS)), strict=False))
        mine = set(drugs[int(start[name] * len(drugs)) : int(end * len(drugs))])
        rows = [
            trace_row(problems[trace.problem_id], trace)
            for trace in lab.traces
            if problems[trace.problem_id].drug in mine
        ]
        made, exported = folder / f"{name}.jsonl", folder / f"{name}-exported.jsonl"
        made.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        ws.import_("traces", made, dataset=f"{name}-made")
        ws.export("traces", exported, dataset=f"{name}-made", labeler="gold")
        ws.import_("traces", exported, dataset=name)
        ws.retrieve(dataset=name, k=1)
    return ws


def scored(ws: stepgold.Workspace, datasets: Sequence[str], prms: dict[str, str]) -> None:
    """Score datasets with several PRMs, each under its name."""
    for dataset in datasets:
        for name, prm in prms.items():
            ws.score(dataset=dataset, prm=prm, name=name)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=1_000)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=20_261_130)
    parser.add_argument("--dev-only", action="store_true", help="do not look at held-out drugs")
    return parser.parse_args()


def main() -> None:
    """Train, score and compare; prints JSON."""
    asked = arguments()
    torch.set_num_threads(1)
    lab = build_workspace(asked.seed, asked.problems, problems_per_drug=PER_DRUG, n_distractors=0)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ws = filled(folder, lab)
        write_base(folder / "base")
        began = time.monotonic()
        trained = ws.train(
            dataset="train",
            labeler="gold",
            dev="dev",
            base=str(folder / "base"),
            out=folder / "prm",
            family="medprm",
            lora=asked.rank,
            lora_option={
                "layers_to_transform": [7],
                "target_modules": ["v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            },
            learning_rate=asked.rate,
            epochs=asked.epochs,
            class_weights="balanced",
        )
        minutes = (time.monotonic() - began) / 60
        figures: dict[str, Any] = {
            "minutes": round(minutes, 1),
            "traces": trained.done,
            "updates": trained.updates,
            "dev": dict(trained.dev),
            "floors": dict(trained.floors),
        }
        prms = {
            "trained": f"hf:{folder / 'prm'}",
            "base": f"hf:{folder / 'base'}",
            "bundled": "lab",
        }
        measured = ["dev"] if asked.dev_only else ["dev", "held"]
        scored(ws, measured, prms)
        for name in prms:
            against = "bundled" if name != "bundled" else None
            found = ws.evaluate(
                dataset=measured[-1],
                labeler=name,
                against=against,
                threshold="fit:dev/corrupted",
                in_sample=asked.dev_only,
            )
            figures[name] = {
                "processbench_f1": found.average.processbench_f1,
                "ci95": found.average.ci95,
                "against": found.against,
            }
    print(json.dumps(figures, indent=1, default=str))


if __name__ == "__main__":
    main()
