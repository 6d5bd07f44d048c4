"""Train one of the lab's models: `python -m lab.train {policy,judge,prm} --out DIR`."""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.domain import draw_facts, draw_question
from lab.examples import draw_passage, encode
from lab.sampling import complete
from lab.solution import final_answer, gold_answer
from lab.train_language import LanguageOptions, train_language
from lab.vocabulary import build_tokenizer

_SEEDS = {"policy": 1, "judge": 2, "prm": 3}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=sorted(_SEEDS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--batch-tokens", type=int, default=4000)
    parser.add_argument("--bare-share", type=float, default=0.45)
    parser.add_argument("--marked", type=float, default=0.0)
    parser.add_argument("--drill", type=float, default=0.3)
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else _SEEDS[arguments.model]
    tokenizer = build_tokenizer()
    options = LanguageOptions(
        seed, arguments.steps, arguments.minutes, arguments.batch_tokens,
        arguments.bare_share, arguments.marked, arguments.drill,
    )  # fmt: skip

    def report(model: LlamaForCausalLM, figures: dict[str, float]) -> None:
        figures = {**figures, **quick_figures(model, tokenizer)}
        print(json.dumps(figures), flush=True)
        save(model, tokenizer, arguments.out)

    model, figures = train_language(tokenizer, options, report)
    report(model, figures)


def quick_figures(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, n: int = 40
) -> dict[str, float]:
    """Return greedy pass@1 on a few fresh questions, bare and windowed passages."""
    rng = random.Random(10_000)
    end = encode(tokenizer, prompts.END)[0]
    figures = {}
    for name, window in (("bare", 0.0), ("window", 1.0)):
        heads, answers = [], []
        for _ in range(n):
            facts = draw_facts(rng)
            question = draw_question(rng, facts)
            user = prompts.user_text(draw_passage(rng, facts, window), question.text)
            heads.append(encode(tokenizer, prompts.generation_prompt(user)))
            answers.append(gold_answer(facts, question))
        model.eval()
        texts = [tokenizer.decode(ids) for ids in complete(model, heads, end_id=end)]
        model.train()
        right = [final_answer(prompts.split_steps(t)) == a for t, a in zip(texts, answers, strict=True)]
        figures[f"pass_{name}"] = sum(right) / n
    return figures


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write half-precision weights, configuration and tokenizer, loadable by plain transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
