"""Traces that the lab's policy writes by itself, with the exact truth of every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab import prompts
from lab.build import LabProblem, LabTrace
from lab.bundled import load_bundled
from lab.sampling import complete
from lab.solution import final_answer
from lab.tokens import decode, token_id


def sample_traces(
    problems: Sequence[LabProblem],
    passages: Mapping[str, str],
    *,
    per_problem: int,
    seed: int,
    temperature: float = 1.0,
) -> list[LabTrace]:
    """Sample `per_problem` solutions of each problem from the bundled policy.

    Args:
        problems: the problems.
        passages: the retrieved top passage by problem id; a problem without one is asked bare.
        per_problem: solutions a problem, at least 1.
        seed: seed of the sampler.
        temperature: sampling temperature.

    Returns:
        One trace per completion that holds at least one step, ids `<problem id>-s<number>`.
    """
    model, tokenizer = load_bundled("policy")
    asked = [(problem, number) for problem in problems for number in range(per_problem)]
    encoded = [
        tokenizer.encode(
            prompts.generation_prompt(
                prompts.user_text(passages.get(problem.id), problem.question)
            ),
            add_special_tokens=False,
        )
        for problem, _ in asked
    ]
    end_id = token_id(tokenizer, prompts.END)
    completions = complete(model, encoded, end_id=end_id, temperature=temperature, seed=seed)
    traces = []
    for (problem, number), ids in zip(asked, completions, strict=True):
        steps = tuple(prompts.split_steps(decode(tokenizer, ids)))
        if steps:
            traces.append(
                LabTrace(
                    f"{problem.id}-s{number}",
                    problem.id,
                    steps,
                    final_answer(steps),
                    problem.first_error_index(steps),
                )
            )
    return traces
