"""Texts inside a chat template, token by token: markers are always tokens of their own.

The template's control tokens are found once; everything between two of them (or markers) is joined
and encoded as plain text. So the ids are those of the whole rendered conversation, tokens that reach
across the edge of a text included, yet neither a control token nor a marker can be smuggled in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.chat_tokens import first_ids
from scoring.tokens import plain_ids
from traces.errors import PrmError

_FIRST, _PLACES = 0xE000, 0xF8FF - 0xE000 + 1
"""Private-use characters stand for texts while the template is rendered."""
_PLACE = re.compile("[\ue000-\uf8ff]")

Turn = tuple[str, str | None]
"""Role and content; None where a text is to be filled in."""


@dataclass(frozen=True, slots=True)
class _Between:
    """What the template puts between two places."""

    before: str
    """Text up to the first control token; all of it if there is none."""
    ids: tuple[int, ...]
    """From the first to the last control token."""
    behind: str
    """Text behind the last control token."""


@dataclass(frozen=True, slots=True)
class _Rendering:
    """How a conversation is rendered."""

    tokenizer: PreTrainedTokenizerBase
    """The checkpoint's."""
    opened: bool
    """Whether the assistant's turn is opened at the end."""
    template: str | None
    """In place of the tokenizer's own chat template; None for that."""


class ChatLayout:
    """A conversation with places for texts, rendered once and filled often."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        turns: Sequence[Turn],
        *,
        add_generation_prompt: bool,
        template: str | None = None,
    ) -> None:
        """Render the template around the places.

        Args:
            tokenizer: the checkpoint's, with a chat template.
            turns: the conversation; at most 6,400 contents are None.
            add_generation_prompt: whether the assistant's turn is opened at the end.
            template: a chat template that takes the place of the checkpoint's own, for PRMs whose
                published code writes the conversation by itself.

        Raises:
            PrmError: no chat template, or one that refuses, drops or repeats a place.
        """
        self._tokenizer = tokenizer
        how = _Rendering(tokenizer, add_generation_prompt, template)
        pieces = _pieces(how, turns, margin="")
        self._trims = pieces == _pieces(how, turns, margin=" ")
        self._between = [_between(tokenizer, piece) for piece in pieces]
        start = first_ids(tokenizer)
        self._start = () if self._between[0].ids[: len(start)] == start else start

    @property
    def closing(self) -> tuple[int, ...]:
        """The ids behind the last place; empty if none of them is a control token.

        From the first of them on they are what they are, whatever text stands before.
        """
        last = self._between[-1]
        if last.before or not last.ids:
            return ()
        return (*last.ids, *plain_ids(self._tokenizer, last.behind))

    def fill(self, texts: Sequence[Sequence[str | int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the conversation, and the positions of the ids among the given pieces.

        Args:
            texts: for each place its pieces in order: texts, and single token ids (markers). Blanks
                around the whole go where the template trims them.
        """
        marker_ids = {piece for pieces in texts for piece in pieces if isinstance(piece, int)}
        ids: list[int] = list(self._start)
        markers: list[int] = []
        loose = ""
        for between, pieces in zip(self._between, [*map(self._trimmed, texts), ()], strict=True):
            loose += between.before
            if between.ids:
                ids += plain_ids(self._tokenizer, loose, marker_ids)
                ids += between.ids
                loose = between.behind
            for piece in pieces:
                if isinstance(piece, int):
                    if loose:  # the places of an image are thousands of markers in a row
                        ids += plain_ids(self._tokenizer, loose, marker_ids)
                        loose = ""
                    markers.append(len(ids))
                    ids.append(piece)
                else:
                    loose += piece
        ids += plain_ids(self._tokenizer, loose, marker_ids)
        return tuple(ids), tuple(markers)

    def _trimmed(self, pieces: Sequence[str | int]) -> Sequence[str | int]:
        """The pieces as the template writes them."""
        trimmed = list(pieces)
        if self._trims and trimmed and isinstance(first := trimmed[0], str):
            trimmed[0] = first.lstrip()
        if self._trims and trimmed and isinstance(last := trimmed[-1], str):
            trimmed[-1] = last.rstrip()
        return trimmed


def _between(tokenizer: PreTrainedTokenizerBase, text: str) -> _Between:
    """A piece of the template, split at its first and last control token."""
    if not tokenizer.is_fast:
        return _Between("", tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), "")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    control = [place for place, i in enumerate(ids) if i in tokenizer.added_tokens_decoder]
    if not control:
        return _Between(text, (), "")
    first, last = control[0], control[-1]
    return _Between(
        text[: offsets[first][0]], tuple(ids[first : last + 1]), text[offsets[last][1] :]
    )


def _pieces(how: _Rendering, turns: Sequence[Turn], *, margin: str) -> list[str]:
    """The rendered template, split at the places; each was filled in with a margin on both sides."""
    if (how.template or how.tokenizer.chat_template) is None:
        raise PrmError(
            "The checkpoint's tokenizer has no chat template, which this family needs.",
            remedy="take the tokenizer files that were published with the PRM",
        )
    number_of_places = sum(text is None for _, text in turns)
    if number_of_places > _PLACES:
        raise PrmError(f"The conversation has {number_of_places} texts, at most {_PLACES} fit.")
    places = [chr(_FIRST + number) for number in range(number_of_places)]
    names = iter(places)
    filled = [
        {"role": role, "content": f"{margin}{next(names)}{margin}" if content is None else content}
        for role, content in turns
    ]
    try:
        rendered = how.tokenizer.apply_chat_template(
            filled,
            tokenize=False,
            add_generation_prompt=how.opened,
            chat_template=how.template,
        )
    except TemplateError as fault:
        raise PrmError(f"The checkpoint's chat template refuses the prompt: {fault}") from fault
    text = str(rendered)
    if _PLACE.findall(text) != places:
        raise PrmError("The checkpoint's chat template drops or repeats a turn of the prompt.")
    return _PLACE.split(text)
