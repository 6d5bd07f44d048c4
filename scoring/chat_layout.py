"""Texts inside a chat template, token by token: markers are always tokens of their own.

The template's own pieces are encoded with their control tokens; texts of problems, documents and
steps are encoded as plain text, so that neither a control token nor a marker can be smuggled in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.chat_tokens import first_ids
from traces.errors import PrmError

_FIRST, _PLACES = 0xE000, 0xF8FF - 0xE000 + 1
"""Private-use characters stand for texts while the template is rendered."""
_PLACE = re.compile("[\ue000-\uf8ff]")

Turn = tuple[str, str | None]
"""Role and content; None where a text is to be filled in."""


class ChatLayout:
    """A conversation with places for texts, rendered once and filled often."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        turns: Sequence[Turn],
        *,
        add_generation_prompt: bool,
    ) -> None:
        """Render the template around the places.

        Args:
            tokenizer: the checkpoint's, with a chat template.
            turns: the conversation; at most 6,400 contents are None.
            add_generation_prompt: whether the assistant's turn is opened at the end.

        Raises:
            PrmError: no chat template, or one that refuses, drops or repeats a place.
        """
        self._tokenizer = tokenizer
        pieces = _pieces(tokenizer, turns, add_generation_prompt)
        self._around = [self._encode(piece, plain=False) for piece in pieces]
        start = list(first_ids(tokenizer))
        if self._around[0][: len(start)] != start:
            self._around[0] = start + self._around[0]

    def fill(self, texts: Sequence[Sequence[str | int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the conversation, and the positions of the ids among the given pieces.

        Args:
            texts: for each place its pieces in order: texts, encoded one by one, and single token
                ids (markers).
        """
        ids: list[int] = list(self._around[0])
        markers: list[int] = []
        for pieces, behind in zip(texts, self._around[1:], strict=True):
            for piece in pieces:
                if isinstance(piece, int):
                    markers.append(len(ids))
                    ids.append(piece)
                else:
                    ids += self._encode(piece, plain=True)
            ids += behind
        return tuple(ids), tuple(markers)

    def _encode(self, text: str, *, plain: bool) -> list[int]:
        return list(
            self._tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
        )


def single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The one token that is exactly this text; None if there is none."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    known = len(ids) == 1 and ids[0] != tokenizer.unk_token_id
    return int(ids[0]) if known else None


def _pieces(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], add_generation_prompt: bool
) -> list[str]:
    """The rendered template, split at the places."""
    if tokenizer.chat_template is None:
        raise PrmError(
            "The checkpoint's tokenizer has no chat template, which this family needs.",
            remedy="take the tokenizer files that were published with the PRM",
        )
    places = [chr(_FIRST + number) for number in range(sum(text is None for _, text in turns))]
    if len(places) > _PLACES:
        raise PrmError(f"The conversation has {len(places)} turns to fill, at most {_PLACES} fit.")
    names = iter(places)
    filled = [
        {"role": role, "content": next(names) if content is None else content}
        for role, content in turns
    ]
    try:
        rendered = tokenizer.apply_chat_template(
            filled, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as fault:
        raise PrmError(f"The checkpoint's chat template refuses the prompt: {fault}") from fault
    text = str(rendered)
    if _PLACE.findall(text) != places:
        raise PrmError("The checkpoint's chat template drops or repeats a turn of the prompt.")
    return _PLACE.split(text)
