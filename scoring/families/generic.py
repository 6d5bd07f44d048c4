"""A PRM that we do not know: prompt, marker and the two tokens to compare come from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from retrieval.packing import render_document
from scoring.families.generic_layout import GenericLayout
from scoring.family import Aggregation, LaidOutTrace, of_signs
from scoring.layout import (
    ChatLayout,
    Marked,
    Turn,
    joint_ids,
    question_inline,
    single_token,
    token_behind,
)
from traces import Evidence, PrmError, TraceInContext


class Generic:
    """A read-out that a file describes, on one checkpoint."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, layout: GenericLayout
    ) -> None:
        """Bind the layout to a checkpoint.

        Raises:
            PrmError: marker or signs are no single tokens; no chat template where one is needed.
        """
        texts = (layout.marker, layout.positive, layout.negative)
        ids = [_token(tokenizer, text) for text in texts]
        if None in ids:
            raise PrmError(
                f'"{texts[ids.index(None)]}" is not one token of the checkpoint.',
                remedy="correct the family file: markers and signs are single tokens",
            )
        self.tokenizer = tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        self._layout = layout
        self._marker, *signs = (int(i) for i in ids if i is not None)
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._rows = head.weight[signs].detach().float()
        self.served = of_signs(*signs)
        self._chat = None if layout.chat == "none" else self._turns()

    @property
    def name(self) -> str:
        """The name that the file gives."""
        return self._layout.name

    @property
    def aggregation(self) -> Aggregation:
        """What the file says."""
        return cast(Aggregation, self._layout.aggregation)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The whole file: another file of the same name is another configuration."""
        return {"layout": asdict(self._layout)}

    @property
    def takes_documents(self) -> bool:
        """Whether the prompt has a place for documents."""
        return "{documents}" in self._layout.prompt

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Prompt and steps as the file says, each step with its marker."""
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        # One pass over the template: a question that says "{documents}" stays as it is.
        values = {"documents": documents, "question": question_inline(context.problem)}
        prompt = _fill(self._layout.prompt, values)
        written = [
            _fill(self._layout.step, {"step": step.strip(), "number": str(number)})
            for number, step in enumerate(context.trace.steps, 1)
        ]
        gaps = ["", *[self._layout.separator] * (len(written) - 1)]
        ids, markers = self._ids(prompt, [a + b for a, b in zip(gaps, written, strict=True)])
        shift = self._layout.read == "before"
        return LaidOutTrace(context.trace.id, ids, tuple((marker - shift,) for marker in markers))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """P(positive) of the two tokens."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]

    def _ids(self, prompt: str, steps: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self._chat is None:
            texts = [f"{prompt}{steps[0]}", *steps[1:]]
            pieces = [Marked(text, self._layout.marker) for text in texts]
            return joint_ids(self.tokenizer, pieces, self._marker)
        marked: list[str | int] = []
        for step in steps:
            marked += [step, self._marker]
        if self._layout.chat == "assistant":
            return self._chat.fill([[prompt], marked])
        return self._chat.fill([[f"{prompt}{marked[0]}", *marked[1:]]])

    def _turns(self) -> ChatLayout:
        turns: list[Turn] = [("system", self._layout.system)] if self._layout.system else []
        turns.append(("user", None))
        if self._layout.chat == "assistant":
            turns.append(("assistant", None))
        opened = self._layout.chat == "user"
        return ChatLayout(self.tokenizer, turns, add_generation_prompt=opened)


def _token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The token that the text is in the running prompt, or else by itself."""
    behind = token_behind(tokenizer, text)
    return single_token(tokenizer, text) if behind is None else behind


def _fill(template: str, values: dict[str, Any]) -> str:
    """The template with its places filled, each text exactly once and never looked into again."""
    out, rest = "", template
    while rest:
        found = [(rest.find(f"{{{name}}}"), name) for name in values if f"{{{name}}}" in rest]
        if not found:
            return out + rest
        place, name = min(found)
        out += rest[:place] + values[name]
        rest = rest[place + len(name) + 2 :]
    return out
