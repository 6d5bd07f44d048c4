"""Train one of the lab's models: `python -m lab.training.train {policy,judge,conditions,prm} --out
DIR`.

    python -m lab.training.train policy --out lab/models/policy --marked 0.3
    python -m lab.training.train judge --out lab/models/judge
    python -m lab.training.train conditions --out DIR --start FOLDER   # on contraindications
    python -m lab.training.train prm --out lab/models/prm --start FOLDER

The models' card lists the folders they were started from. Figures are printed as lines of JSON; the
current weights are saved with each, and for the PRM the best ones so far.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.training.measures import draw_held_out, greedy_pass_rate, marker_figures
from lab.training.tokens import build_tokenizer, token_id
from lab.training.train_language import LanguageOptions, train_conditions, train_language
from lab.training.train_prm import PrmTraining, train_prm

_SEEDS = {"policy": 1, "judge": 2, "prm": 3, "conditions": 4}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    arguments = _parser().parse_args(argv)
    tokenizer = build_tokenizer()
    start = _load(arguments.start) if arguments.start is not None else None
    seed = arguments.seed if arguments.seed is not None else _SEEDS[arguments.model]
    measure = marker_figures if arguments.model == "prm" else greedy_pass_rate
    held_out = draw_held_out(10_000 + seed, arguments.held_out)
    best = -1.0
    common: dict[str, Any] = {
        "seed": seed,
        "steps": arguments.steps,
        "minutes": arguments.minutes,
        "batch_tokens": arguments.batch_tokens,
    }

    def report(model: LlamaForCausalLM, figures: dict[str, float]) -> None:
        nonlocal best
        model.eval()  # type: ignore[no-untyped-call]
        figures = {**figures, **measure(model, tokenizer, held_out)}
        model.train()
        print(json.dumps(figures), flush=True)
        if figures.get("processbench_f1", best) >= best:
            best = figures.get("processbench_f1", best)
            save(model, tokenizer, arguments.out)

    if arguments.model == "prm":
        if start is None:
            raise SystemExit(
                "The PRM is grown from a trained language model: name its folder with --start."
            )
        prm_options = PrmTraining(rate=arguments.rate, **common)
        trained, figures = train_prm(start, tokenizer, prm_options, report)
    else:
        options = LanguageOptions(
            bare_share=arguments.bare_share,
            marked=arguments.marked,
            drill=arguments.drill,
            decay=arguments.decay,
            start=start,
            **common,
        )
        if arguments.model == "conditions":
            if start is None:
                raise SystemExit("Name the model to train further with --start.")
            trained, figures = train_conditions(start, tokenizer, options, report)
        else:
            trained, figures = train_language(tokenizer, options, report)
    report(trained, figures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=sorted(_SEEDS))
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--start", type=Path, help="folder of a model to train further or to grow")
    parser.add_argument("--seed", type=int, help="seed of weights and data")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=30.0, help="ends earlier than --steps")
    parser.add_argument("--batch-tokens", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=80, help="traces measured at each report")
    language = parser.add_argument_group("policy and judge")
    language.add_argument(
        "--bare-share", type=float, default=0.45, help="leading share on bare passages"
    )
    language.add_argument("--marked", type=float, default=0.0, help="share in the PRM's layout")
    language.add_argument("--drill", type=float, default=0.3, help="share of bare calculations")
    language.add_argument("--decay", type=float, default=0.35, help="share of falling rate")
    prm = parser.add_argument_group("prm")
    prm.add_argument("--rate", type=float, default=1e-3, help="learning rate of the last layer")
    return parser


def _load(folder: Path) -> LlamaForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False)
    if not isinstance(model, LlamaForCausalLM):
        raise SystemExit(f"'{folder}' holds a {type(model).__name__}, not one of the lab's models.")
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write half-precision weights, configuration and tokenizer for plain transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    generation = half.generation_config
    generation.do_sample = True
    generation.max_new_tokens = 160
    generation.eos_token_id = token_id(tokenizer, prompts.END)
    generation.pad_token_id = token_id(tokenizer, prompts.PAD)
    half.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
