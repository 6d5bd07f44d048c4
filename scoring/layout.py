"""Texts and markers as token ids, with and without a chat template.

In a chat template the control tokens are found once. Everything between two of them (or markers) is
joined and encoded as plain text. So the ids are those of the whole rendered conversation, including
tokens that span the edge of a text, but a text can contain neither a control token nor a marker.

Without a chat template the pieces are joined first. Published scripts tokenize the whole text at
once, and sentence-piece tokenizers put a space before the beginning of a text, so that pieces
encoded one by one would give different tokens. The markers are the tokens that begin where a marker
was inserted; the same characters inside a step are text. Where a marker would merge with its
neighbors (a line break after a full stop is one token with many tokenizers), the text is split
there, so that each marker is a separate token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference import first_ids
from traces import InputError, PrmError, Problem


def single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the one token that is exactly this text; None if there is none."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    known = len(ids) == 1 and ids[0] != tokenizer.unk_token_id
    return int(ids[0]) if known else None


def token_after_word(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the one token that this text is after a word; None if it is not one token.

    Sentence-piece tokenizers put a space before a text, so that ` ки` alone is two tokens with
    them.
    """
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = tokenizer(f"a{text}", add_special_tokens=False)["input_ids"]
    known = len(ids) == len(word) + 1 and ids[:-1] == word and ids[-1] != tokenizer.unk_token_id
    return int(ids[-1]) if known else None


def plain_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, never: Collection[int] = ()
) -> list[int]:
    """Return a text's ids as plain text: what looks like a control token is spelled out.

    Args:
        tokenizer: the checkpoint's.
        text: any text.
        never: ids of markers. A marker that was added to the vocabulary without being declared
            special would be found in texts; there it is split in two and encoded in parts.
    """
    ids = list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    # Rare, so that the table of added tokens, which is rebuilt at each access, is seldom read.
    for marker in (marker for marker in set(ids) if marker in never):
        if (token := tokenizer.added_tokens_decoder.get(marker)) is not None:
            written = token.content
            first, *others = text.split(written)
            parts = [first + written[:1], *(written[1:] + part + written[:1] for part in others)]
            parts[-1] = parts[-1][:-1]
            return [i for part in parts for i in plain_ids(tokenizer, part, never)]
    return ids


_FIRST, _PLACES = 0xE000, 0xF8FF - 0xE000 + 1
"""Private-use characters represent texts while the template is rendered."""
_PLACE = re.compile("[\ue000-\uf8ff]")

Turn = tuple[str, str | None]
"""Role and content; None where a text is to be inserted."""


@dataclass(frozen=True, slots=True)
class _Between:
    """What the template writes between two places."""

    before: str
    """Text up to the first control token; all of it if there is none."""
    ids: tuple[int, ...]
    """From the first to the last control token."""
    after: str
    """Text after the last control token."""


@dataclass(frozen=True, slots=True)
class _Rendering:
    """How a conversation is rendered."""

    tokenizer: PreTrainedTokenizerBase
    opened: bool
    """Whether the assistant's turn is opened at the end."""
    template: str | None
    """Replaces the tokenizer's chat template; None to use that one."""


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
            template: replaces the checkpoint's chat template, for PRMs whose published code writes
                the conversation itself.

        Raises:
            PrmError: no chat template, or one that rejects, drops or repeats a place.
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
        """The ids after the last place; empty if there is no control token among them.

        From the first of them on they do not depend on the text before.
        """
        last = self._between[-1]
        if last.before or not last.ids:
            return ()
        return (*last.ids, *plain_ids(self._tokenizer, last.after))

    def fill(self, texts: Sequence[Sequence[str | int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the conversation's token ids, and the positions of the markers in it.

        Args:
            texts: for each place its pieces in order: texts, and single token ids (markers). Spaces
                around the whole are dropped where the template trims them.
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
                loose = between.after
            for piece in pieces:
                if isinstance(piece, int):
                    if loose:  # an image is thousands of markers in a row
                        ids += plain_ids(self._tokenizer, loose, marker_ids)
                        loose = ""
                    markers.append(len(ids))
                    ids.append(piece)
                else:
                    loose += piece
        ids += plain_ids(self._tokenizer, loose, marker_ids)
        return tuple(ids), tuple(markers)

    def _trimmed(self, pieces: Sequence[str | int]) -> Sequence[str | int]:
        """Return the pieces as the template writes them."""
        trimmed = list(pieces)
        if self._trims and trimmed and isinstance(first := trimmed[0], str):
            trimmed[0] = first.lstrip()
        if self._trims and trimmed and isinstance(last := trimmed[-1], str):
            trimmed[-1] = last.rstrip()
        return trimmed


def _between(tokenizer: PreTrainedTokenizerBase, text: str) -> _Between:
    """Split a piece of the template at its first and last control token."""
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
    """Return the rendered template, split at the places, each surrounded by a margin."""
    if (how.template or how.tokenizer.chat_template) is None:
        raise PrmError(
            "The checkpoint's tokenizer has no chat template, which this family needs.",
            remedy="use the tokenizer files that were published with the PRM",
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
        raise PrmError(f"The checkpoint's chat template rejects the prompt: {fault}") from fault
    text = str(rendered)
    if _PLACE.findall(text) != places:
        raise PrmError("The checkpoint's chat template drops or repeats a turn of the prompt.")
    return _PLACE.split(text)


@dataclass(frozen=True, slots=True)
class Marked:
    """A piece of text that ends in a marker."""

    text: str
    """Text before the marker."""
    marker: str
    """The marker as text; it becomes a separate token."""


def joint_ids(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Marked], marker_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the joined text with the tokenizer's first ids, and the markers' positions.

    Args:
        tokenizer: a fast one: tokens are found by their offsets.
        pieces: in order.
        marker_id: the token of every marker.

    Raises:
        PrmError: the tokenizer does not give offsets.
    """
    if not tokenizer.is_fast:
        raise PrmError("This family needs a fast tokenizer (tokenizer.json).")
    start = first_ids(tokenizer)
    # An added token splits the text anyway, and the text before it must not contain another one.
    added = marker_id in tokenizer.added_tokens_decoder
    cut = frozenset(range(len(pieces)) if added else ())
    while True:
        ids, markers, merged = _encoded(tokenizer, pieces, marker_id, cut)
        if not merged:
            return (*start, *ids), tuple(len(start) + place for place in markers)
        cut |= merged


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[Marked],
    marker_id: int,
    cut: frozenset[int],
) -> tuple[list[int], list[int], frozenset[int]]:
    """Return ids, the markers' positions among them, and the numbers of pieces whose marker merged.

    After each piece in `cut` the text is split, and the marker is inserted as its token.
    """
    ids: list[int] = []
    markers: list[int] = []
    merged: set[int] = set()
    text, ends = "", {}
    for number, piece in enumerate(pieces):
        text += piece.text
        if number not in cut:
            text += piece.marker
            ends[number] = len(text)
        if number in cut or number == len(pieces) - 1:
            found, at = _run(tokenizer, text, marker_id, located=bool(ends))
            for ended, end in ends.items():
                place = at.get(end)
                if place is None or found[place] != marker_id:
                    merged.add(ended)
                else:
                    markers.append(len(ids) + place)
            ids += found
            text, ends = "", {}
            if number in cut:
                markers.append(len(ids))
                ids.append(marker_id)
    return ids, markers, frozenset(merged)


def _run(
    tokenizer: PreTrainedTokenizerBase, text: str, marker_id: int, *, located: bool
) -> tuple[list[int], dict[int, int]]:
    """Return the ids of an unsplit text as plain text; if `located`, also the token at each end
    offset."""
    if not located:
        return plain_ids(tokenizer, text, {marker_id}), {}
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
    )
    offsets = encoded["offset_mapping"]
    at = {end: place for place, (begin, end) in enumerate(offsets) if end > begin}
    return list(encoded["input_ids"]), at


def question_inline(problem: Problem) -> str:
    """Return the question with its options inline, if it has any: ` (A) first (B) second`.

    Raises:
        InputError: more options than letters.
    """
    if len(problem.options) > len(ascii_uppercase):
        raise InputError(
            f"The problem has {len(problem.options)} options, but at most 26 have a letter.",
            where=problem.id,
        )
    letters = zip(ascii_uppercase, problem.options, strict=False)
    options = "".join(f" ({letter}) {text}" for letter, text in letters)
    return f"{problem.shown_question.strip()}{options}"


def one_line(step: str) -> str:
    """Return a step on one line: line breaks become spaces, nothing else changes."""
    return " ".join(step.splitlines()).strip()


def numbered(steps: Sequence[str]) -> list[str]:
    """Return steps as `Step i: ..` (1-based); numbered steps stay as they are."""
    return [
        step if step.lower().startswith(f"step {number}:") else f"Step {number}: {step}"
        for number, step in enumerate(steps, 1)
    ]
