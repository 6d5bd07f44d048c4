"""Training examples that dwell on the contraindication: is the patient's condition the drug's?

In plain examples that decision is one token of a hundred and its answer is "use it" seven times of
ten, so that models learned the share and not the comparison. Here the answer is balanced and the
token weighs more; beside whole solutions stands the bare line.
"""

from __future__ import annotations

import random
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from lab import names, prompts
from lab.domain import draw_facts, draw_question
from lab.solution import solution_steps
from lab.training.examples import CONTEXT_WEIGHT, Encoded, draw_passage
from lab.training.tokens import encode, token_id

DECISION_WEIGHT = 5.0
MATCH_SHARE = 0.3
"""Share of whole solutions whose condition is made to match, beside those that match by chance."""
WINDOW_SHARE = 0.75


def draw_line(rng: random.Random, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Draw one contraindication line by itself; only the decision counts."""
    drug, condition = draw_facts(rng).drug, rng.choice(names.CONDITIONS)
    patient = condition if rng.random() < 0.5 else rng.choice(names.CONDITIONS)
    verb = "avoid" if patient == condition else "use"
    line = f"{drug} is contraindicated in {condition} and the patient has {patient}, so {verb} it."
    ids = encode(tokenizer, prompts.ASSISTANT + line)
    decisions = decision_ids(tokenizer)
    return Encoded(ids, [float(token in decisions) for token in ids])


def draw_solution(rng: random.Random, tokenizer: PreTrainedTokenizerBase, marked: float) -> Encoded:
    """Draw one right solution with its prompt, `marked` being the share in the PRM's layout."""
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    if facts.contraindication is not None and rng.random() < MATCH_SHARE:
        question = replace(question, condition=facts.contraindication)
    steps = solution_steps(facts, question)
    user = prompts.user_text(draw_passage(rng, facts, WINDOW_SHARE), question.text)
    if rng.random() < marked:
        head = f"{prompts.USER}{user}\n\nExplanation:"
        tail = " " + prompts.MARKED_STEP_SEPARATOR.join(step + prompts.MARKER for step in steps)
    else:
        head, tail = prompts.generation_prompt(user), prompts.STEP_SEPARATOR.join(steps)
    head_ids, tail_ids = encode(tokenizer, head), encode(tokenizer, tail + prompts.END)
    decisions = decision_ids(tokenizer)
    weights = [CONTEXT_WEIGHT] * len(head_ids)
    weights += [DECISION_WEIGHT if token in decisions else 1.0 for token in tail_ids]
    return Encoded(head_ids + tail_ids, weights)


def decision_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids of the two words that a contraindication is decided by."""
    return token_id(tokenizer, " use"), token_id(tokenizer, " avoid")
