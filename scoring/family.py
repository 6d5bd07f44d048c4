"""The interface of a PRM family: it lays out a trace as token ids and reads step scores.

A family is bound to a checkpoint by a function that takes a `PrmCheckpoint` and returns a `Family`;
`scoring.names.BUILT_IN` lists those of this package.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import get_verbosity, set_verbosity

from inference import ProblemImages, checkpoint_folder, load_pretrained, weights_fingerprint
from scoring.names import Aggregation as Aggregation
from traces import Abstention, Evidence, PrmError, TraceInContext

NO_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({})
"""Settings of families that are fully described by their name."""


@dataclass(frozen=True, slots=True)
class LaidOutTrace:
    """A trace as one sequence of token ids, and where its step scores are read."""

    trace_id: str
    ids: tuple[int, ...]
    """Token ids of the whole sequence."""
    read_at: tuple[tuple[int, ...], ...]
    """For each step, in order, the 0-based positions in `ids` whose hidden states are read.
    The step's score is the lowest probability among them. Empty if there is nothing to read."""


class CannotLayOut(Exception):
    """A trace that cannot be laid out in any window, because of its problem."""

    def __init__(self, abstention: Abstention) -> None:
        """Take what is stored in place of scores."""
        super().__init__(abstention.detail)
        self.abstention = abstention


@runtime_checkable
class Family(Protocol):
    """One kind of PRM, bound to a checkpoint."""

    @property
    def name(self) -> str:
        """The name given to `--family`."""

    @property
    def aggregation(self) -> Aggregation:
        """The aggregation published with the family."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else its scores depend on besides the name; stored with the labels (strict JSON)."""

    @property
    def takes_documents(self) -> bool:
        """Whether the family's prompt has a place for evidence."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer."""

    @property
    def backbone(self) -> PreTrainedModel:
        """The causal model that gives hidden states, without its output head."""

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Return the trace with the given evidence as token ids, never truncated.

        Raises:
            CannotLayOut: an image of the problem cannot be read.
        """

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return the probability read at each position.

        Args:
            hidden: `[positions, width]`, the backbone's last hidden states.
            next_ids: int64 `[positions]`, the id that follows each position (0 at the end).

        Returns:
            float32 `[positions]`, in [0, 1].
        """


FAMILY_MEMBERS: Final = tuple(name for name in vars(Family) if not name.startswith("_"))
"""What an object must have to be a family."""


@contextmanager
def hidden_load_reports() -> Iterator[None]:
    """Hide transformers' report of unexpected weights while a checkpoint loads.

    Heads that this package reads itself would be reported as unexpected.
    """
    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(before)


_TRIED: Final = (
    "Step 1: 6 x 30.5 = 183 mg/kg (so far)...\n\nStep 2: \\boxed{\\frac{1}{2}} ≤ 3²; naïve\tи 剂量"
)
"""Text that both tokenizers must encode alike: equal vocabularies may still split differently."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The model that an implicit PRM is compared with."""

    name: str
    """Its path or hub id."""
    folder: Path

    @classmethod
    def find(cls, spec: str, tokenizer: PreTrainedTokenizerBase) -> Reference:
        """Find the checkpoint of a spec and check that it takes the ids of this tokenizer.

        Args:
            spec: `hf:PATH_OR_ID`, or the bare path or id.
            tokenizer: the PRM's.

        Raises:
            ModelRefused: there is no such checkpoint.
            PrmError: its tokenizer gives other ids.
        """
        name = spec.removeprefix("hf:")
        folder = checkpoint_folder(name)
        differing = difference(tokenizer, load_pretrained(AutoTokenizer, folder))
        if differing is not None:
            raise PrmError(
                f'The PRM and its reference "{name}" do not share a vocabulary: {differing}.',
                remedy="use the model that the PRM was trained from as --reference",
            )
        return cls(name, folder)

    def settings(self) -> Mapping[str, Any]:
        """Return name and weights, for the labeler's configuration."""
        weights = weights_fingerprint(self.folder)
        return {"reference": f"hf:{self.name}", "reference_weights": weights}


def difference(own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """Return how the other tokenizer differs from `own`; None if both give the same ids.

    The other one may know further tokens: no text becomes one of them.
    """
    known = other.get_vocab()
    for token, number in sorted(own.get_vocab().items(), key=lambda entry: entry[1]):
        if known.get(token) != number:
            there = "does not have it" if token not in known else f"numbers it {known[token]}"
            return f"token {number} of the PRM is {token!r}, the reference {there}"
    mine, theirs = (each(_TRIED, add_special_tokens=False)["input_ids"] for each in (own, other))
    return None if mine == theirs else "they split texts in different ways"


@dataclass(frozen=True, slots=True)
class PrmCheckpoint:
    """The checkpoint that a family is bound to."""

    folder: Path
    """Holds config.json, tokenizer files and safetensors files."""
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    """Of the weights."""
    images: ProblemImages = field(default_factory=ProblemImages)
    """The images of problems, for families that show them to the model."""
    reference: Reference | None = None
    """What an implicit PRM is compared with; None if the user named nothing."""
    family: str = ""
    """The family's name as given to `--family`, filled in when it is bound."""

    def model(self, auto_class: Any = AutoModelForCausalLM) -> Any:
        """Load the model with a transformers auto class, in evaluation mode on the device."""
        with hidden_load_reports():
            model = load_pretrained(auto_class, self.folder, dtype=self.dtype)
        return model.to(self.device).eval()


@dataclass(frozen=True, slots=True)
class ServedReadOut:
    """What a family needs from a model server: class logits or two token log-probabilities.

    Hidden states cannot be served.
    """

    columns: tuple[int, ...]
    """Accepted numbers of values in a row of a pooling server: 1 is a value whose sigmoid is the
    score, 2 are the logits of wrong and right, in this order."""
    tokens: tuple[int, int] | None = None
    """Ids of the tokens for right and wrong, where the score is the softmax of their logits; None
    where a separate head is read."""


def served_tokens(right: int, wrong: int) -> ServedReadOut:
    """Return the read-out of two tokens of the vocabulary."""
    # A server may also make a head of the two: of two classes, or of their difference.
    return ServedReadOut((1, 2), (right, wrong))


def served_head(classes: int) -> ServedReadOut:
    """Return the read-out of a head with 1 or 2 outputs."""
    return ServedReadOut((classes,))


@runtime_checkable
class Servable(Protocol):
    """A family that a model server can run."""

    @property
    def served(self) -> ServedReadOut:
        """What is needed from the server."""
