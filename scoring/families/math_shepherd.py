"""Math-Shepherd-Mistral-7B-PRM: `Step i: ... ки`, a line each, P(+) against P(-) at each `ки`.

Wang et al., "Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations",
https://arxiv.org/abs/2312.08935; checkpoint and read-out (ids 648 and 387 at tag 12902) as its card,
`peiyi9979/math-shepherd-mistral-7b-prm`, says. Aggregated by the minimum, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Final, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import Aggregation, LaidOutTrace
from scoring.plain_layout import Marked, joint_ids, numbered
from traces.context import TraceInContext
from traces.errors import PrmError
from traces.evidence import Evidence
from traces.problem import Problem

MARKER: Final = " ки"
"""Stands behind each step, a line break behind it."""
PROBE: Final = "a ки"
"""How the marker's token is found: behind a word, where sentence-piece puts no blank of its own."""
SIGNS: Final = ("+", "-")
"""The tokens whose logits are compared: good, bad."""


class MathShepherd:
    """The Math-Shepherd read-out on one checkpoint."""

    name = "math-shepherd"
    aggregation: Aggregation = "min"
    takes_documents = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: fast; ends `a ки` in one token, and has `+` and `-` behind a blank.
            model: a causal language model.

        Raises:
            PrmError: a token is missing.
        """
        marker = marker_token(tokenizer)
        signs = [_sign(tokenizer, sign) for sign in SIGNS]
        if marker is None or None in signs:
            raise PrmError(
                'The checkpoint lacks a token for "ки", "+" or "-", which the family '
                "math-shepherd reads.",
                remedy="name the right family with --family",
            )
        self.tokenizer = tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        self._marker = marker
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._rows = head.weight[[int(i) for i in signs if i is not None]].detach().float()

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """The question, then a numbered step a line, each with its marker; no place for evidence."""
        before, pieces = f"{question_inline(context.problem)} ", []
        for step in numbered(context.trace.steps):
            pieces.append(Marked(f"{before}{step}", MARKER))
            before = "\n"
        ids, markers = joint_ids(self.tokenizer, "", pieces, self._marker)
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """P(+) of the two signs, read at the markers."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]


def marker_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ` ки` is behind a word; None if it is not one token."""
    with_marker = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    without = tokenizer("a", add_special_tokens=False)["input_ids"]
    alone = len(with_marker) == len(without) + 1 and with_marker[:-1] == without
    unknown = tokenizer.unk_token_id
    return int(with_marker[-1]) if alone and with_marker[-1] != unknown else None


def question_inline(problem: Problem) -> str:
    """The question with its options inline, if it has any: ` (A) first (B) second`."""
    letters = zip(ascii_uppercase, problem.options, strict=False)
    return problem.question.strip() + "".join(f" ({letter}) {text}" for letter, text in letters)


def _sign(tokenizer: PreTrainedTokenizerBase, sign: str) -> int | None:
    """The last token of `+` or `-` alone, as the card encodes it; None if it is unknown."""
    ids = tokenizer(sign, add_special_tokens=False)["input_ids"]
    return int(ids[-1]) if ids and ids[-1] != tokenizer.unk_token_id else None
