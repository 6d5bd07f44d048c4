"""Traces written by the lab's policy, with the exact truth of every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inference import (
    PrefixEngine,
    PrefixRow,
    SamplingRule,
    SharedTrace,
    load_local_model,
    noise_key,
)
from lab import prompts
from lab.build import LabProblem, LabTrace
from lab.bundled import bundled_model_folder
from lab.solution import final_answer

MAX_NEW_TOKENS = 130
"""The longest correct solution has about 110 tokens."""


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
        passages: the retrieved top passage by problem id; a problem without one gets none.
        per_problem: solutions per problem, at least 1.
        seed: seed of the sampler.
        temperature: sampling temperature.

    Returns:
        One trace per completion with at least one step, ids `<problem id>-s<number>`.
    """
    local = load_local_model(str(bundled_model_folder("policy")))
    engine = PrefixEngine(local.model, local.end_ids)
    asked = []
    for problem in problems:
        user = prompts.user_text(passages.get(problem.id), problem.question)
        ids = tuple(
            local.tokenizer.encode(prompts.generation_prompt(user), add_special_tokens=False)
        )
        key = noise_key(seed, problem.id)
        # The last token of the prompt is fed to each row: its output is the first choice.
        rows = [
            PrefixRow(len(ids) - 1, ids[-1:], key, (0, number)) for number in range(per_problem)
        ]
        asked.append((problem, SharedTrace(ids, tuple(rows))))
    asked.sort(key=lambda pair: len(pair[1].ids))
    written = engine.continue_all(
        [shared for _, shared in asked],
        SamplingRule(temperature),
        max_new_tokens=MAX_NEW_TOKENS,
        stop=(),
        tokenizer=local.tokenizer,
    )
    traces = []
    for (problem, _), done in zip(asked, written, strict=True):
        for number, row in enumerate(done.rows):
            steps = tuple(prompts.split_steps(row.text))
            if steps:
                wrong = problem.first_error_index(steps)
                name = f"{problem.id}-s{number}"
                traces.append(
                    LabTrace(
                        name,
                        problem.id,
                        steps=steps,
                        final_answer=final_answer(steps),
                        first_error_index=wrong,
                    )
                )
    return sorted(traces, key=lambda trace: trace.id)
