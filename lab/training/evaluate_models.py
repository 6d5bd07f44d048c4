"""Measure the shipped models: `python -m lab.training.evaluate_models [-n 500] [--only NAME]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab.build import ModelName, load_bundled
from lab.training.measures import (
    FirstErrorFigures,
    HeldOut,
    draw_held_out,
    likelihood_figures,
    marker_first_errors,
    pass_rate,
)

Figures = dict[str, float]
GENERATED = 200
"""Most solutions written per setting, because writing is far slower than reading."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures of every shipped model as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--only", choices=["policy", "judge", "prm"])
    parser.add_argument("--folder", type=Path, help="a folder of the model named by --only")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    held_out = draw_held_out(arguments.seed, arguments.n)
    names: list[ModelName] = [arguments.only] if arguments.only else ["policy", "judge", "prm"]
    for name in names:
        figures = measure(name, held_out, arguments.folder)
        print(json.dumps({"model": name, "n": arguments.n, **figures}, indent=1), flush=True)


def measure(
    name: ModelName, held_out: Sequence[HeldOut], folder: Path | None = None
) -> dict[str, Figures]:
    """Return the figures of one model with the right and with a wrong passage."""
    model, tokenizer = load_bundled(name, folder)
    if not isinstance(model, LlamaForCausalLM):
        raise TypeError(f"The lab's models are Llama models, '{name}' is a {type(model).__name__}.")
    if name == "prm":
        return {
            "marker": _rounded(marker_first_errors(model, tokenizer, held_out)),
            "marker, wrong passage": _rounded(
                marker_first_errors(model, tokenizer, held_out, wrong_passage=True)
            ),
        }
    figures = {
        "likelihood": _rounded(likelihood_figures(model, tokenizer, held_out)),
        "likelihood, wrong passage": _rounded(
            likelihood_figures(model, tokenizer, held_out, wrong_passage=True)
        ),
    }
    if name == "policy":
        figures["pass@1"] = _pass_rates(model, tokenizer, held_out)
    return figures


def _pass_rates(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[HeldOut]
) -> Figures:
    asked = held_out[:GENERATED]
    return {
        "n": len(asked),
        "greedy": round(pass_rate(model, tokenizer, asked), 3),
        "T=0.7": round(pass_rate(model, tokenizer, asked, temperature=0.7), 3),
        "greedy, wrong passage": round(
            pass_rate(model, tokenizer, asked[:100], wrong_passage=True), 3
        ),
    }


def _rounded(figures: FirstErrorFigures) -> Figures:
    return {
        "step_accuracy": round(figures.step_accuracy, 3),
        "error_accuracy": round(figures.error_accuracy, 3),
        "correct_accuracy": round(figures.correct_accuracy, 3),
        "processbench_f1": round(figures.processbench_f1, 3),
    }


if __name__ == "__main__":
    main()
