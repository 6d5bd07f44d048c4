"""Loading checkpoints without transformers' reports, where what is missing is told otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import get_verbosity, set_verbosity

from inference import checkpoint_folder, load_pretrained, weights_fingerprint
from traces import PrmError


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' report of unexpected weights: a head that we load ourselves is none."""
    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(before)


# --- The second model of an implicit PRM: found, and held against the tokenizer of the first


_TRIED: Final = (
    "Step 1: 6 x 30.5 = 183 mg/kg (so far)...\n\nStep 2: \\boxed{\\frac{1}{2}} ≤ 3²; naïve\tи 剂量"
)
"""What both tokenizers have to encode alike: a vocabulary alone does not say how texts are split."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A checkpoint that another one is held against."""

    name: str
    """Its path or hub id."""
    folder: Path
    """Where it lies."""

    @classmethod
    def find(cls, spec: str, tokenizer: PreTrainedTokenizerBase) -> Reference:
        """The checkpoint behind a spec, if it takes the ids of this tokenizer.

        Args:
            spec: `hf:PATH_OR_ID`, or the bare path or id.
            tokenizer: the PRM's.

        Raises:
            ModelRefused: there is no such checkpoint.
            PrmError: its tokenizer makes other ids of texts.
        """
        name = spec.removeprefix("hf:")
        folder = checkpoint_folder(name)
        differing = difference(tokenizer, load_pretrained(AutoTokenizer, folder))
        if differing is not None:
            raise PrmError(
                f'The PRM and its reference "{name}" do not share a vocabulary: {differing}.',
                remedy="give as --reference the model that the PRM was trained from",
            )
        return cls(name, folder)

    def settings(self) -> Mapping[str, Any]:
        """Which one it is, for the labeler's configuration."""
        weights = weights_fingerprint(self.folder)
        return {"reference": f"hf:{self.name}", "reference_weights": weights}


def difference(own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """What the other tokenizer does not do as the own one; None if it takes its ids.

    It may know further tokens: no text of ours becomes one of them.
    """
    known = other.get_vocab()
    for token, number in sorted(own.get_vocab().items(), key=lambda entry: entry[1]):
        if known.get(token) != number:
            there = "does not know it" if token not in known else f"calls it {known[token]}"
            return f"token {number} of the PRM is {token!r}, the reference {there}"
    mine, theirs = (each(_TRIED, add_special_tokens=False)["input_ids"] for each in (own, other))
    return None if mine == theirs else "they split texts in different ways"
