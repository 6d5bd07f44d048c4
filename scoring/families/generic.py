"""A PRM described by a TOML file: prompt, marker and the two tokens to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from retrieval import render_document
from scoring.families.generic_layout import GenericLayout
from scoring.family import Aggregation, LaidOutTrace
from scoring.layout import (
    ChatLayout,
    Marked,
    Turn,
    joint_ids,
    question_inline,
    single_token,
    token_after_word,
)
from scoring.read_outs import TwoTokens
from traces import Evidence, PrmError, TraceInContext


class Generic(TwoTokens):
    """The read-out that a file describes, on one checkpoint."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, layout: GenericLayout
    ) -> None:
        """Bind the layout to a checkpoint.

        Raises:
            PrmError: marker or verdict tokens are not single tokens, or a chat template is missing.
        """
        texts = (layout.marker, layout.positive, layout.negative)
        ids = [_token(tokenizer, text) for text in texts]
        if None in ids:
            raise PrmError(
                f'"{texts[ids.index(None)]}" is not one token of the checkpoint.',
                remedy="in the family file, make marker, positive and negative single tokens",
            )
        self._marker, *verdicts = (int(i) for i in ids if i is not None)
        super().__init__(tokenizer, model, verdicts)
        self._layout, self.name = layout, layout.name
        self.aggregation = cast(Aggregation, layout.aggregation)
        # A different file of the same name is a different configuration.
        self.settings = {"layout": asdict(layout)}
        self.takes_documents = "{documents}" in layout.prompt
        self._chat = None if layout.chat == "none" else self._turns()

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out prompt and steps as the file says, each step with its marker."""
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        # One pass over the template: a question that contains "{documents}" is left as it is.
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
    """Return the token that the text is after a word, else on its own."""
    found = token_after_word(tokenizer, text)
    return single_token(tokenizer, text) if found is None else found


def _fill(template: str, values: dict[str, Any]) -> str:
    """Return the template with its placeholders filled; inserted text is not searched again."""
    out, rest = "", template
    while rest:
        found = [(rest.find(f"{{{name}}}"), name) for name in values if f"{{{name}}}" in rest]
        if not found:
            return out + rest
        place, name = min(found)
        out += rest[:place] + values[name]
        rest = rest[place + len(name) + 2 :]
    return out
