"""What a PRM family is: it lays a trace out as token ids and reads step scores off hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference import ProblemImages, load_pretrained
from scoring.names import Aggregation as Aggregation
from scoring.quiet import Reference, quiet
from traces import Abstention, Evidence, TraceInContext

NO_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({})
"""Of families whose name says all."""


@dataclass(frozen=True, slots=True)
class LaidOutTrace:
    """A trace as one sequence of token ids, and where its step scores are read."""

    trace_id: str
    """The trace."""
    ids: tuple[int, ...]
    """Token ids of the whole sequence."""
    read_at: tuple[tuple[int, ...], ...]
    """For each step of the trace, in order, the 0-based positions in `ids` whose hidden states are
    read; the step's score is the least probability among them. Empty if there is nothing to read."""


class CannotLayOut(Exception):
    """A trace that cannot be laid out at all, whatever the window: its problem is at fault."""

    def __init__(self, abstention: Abstention) -> None:
        """Take what is stored instead of scores."""
        super().__init__(abstention.detail)
        self.abstention = abstention


class Family(Protocol):
    """One kind of PRM, bound to a checkpoint."""

    @property
    def name(self) -> str:
        """The name given to `--family`."""

    @property
    def aggregation(self) -> Aggregation:
        """The aggregation that was published with the family."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What beyond the name makes its scores what they are: stored with the labels (strict JSON)."""

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
        """The trace with the given evidence as token ids; never cut, whatever its length.

        Raises:
            CannotLayOut: an image of the problem cannot be read.
        """

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """The probability read at each position.

        Args:
            hidden: `[positions, width]`, the backbone's last hidden states.
            next_ids: int64 `[positions]`, the id that follows each position (0 at the end).

        Returns:
            float32 `[positions]`, in [0, 1].
        """


# --- What a family is bound to: a checkpoint's folder and tokenizer, and where its model is to


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a family is bound to."""

    folder: Path
    """With config.json, tokenizer files and safetensors files."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    device: torch.device
    """Where the model is to run."""
    dtype: torch.dtype
    """Of its weights."""
    images: ProblemImages = field(default_factory=ProblemImages)
    """The images of problems, for families that are shown them."""
    reference: Reference | None = None
    """What an implicit PRM is held against; None if the user named nothing."""

    def model(self, auto_class: Any) -> Any:
        """The model of a transformers auto class, ready to run."""
        with quiet():
            model = load_pretrained(auto_class, self.folder, dtype=self.dtype)
        return model.to(self.device).eval()


# --- What of a family's read-out a server has to give: so much can be had over a wire, hidden


@dataclass(frozen=True, slots=True)
class ServedReadOut:
    """The numbers that a step score is made of."""

    columns: tuple[int, ...]
    """How many numbers a row of a pooling server may have: 1 is a value whose sigmoid is the score, 2 are
    the logits of wrong and right, in this order."""
    tokens: tuple[int, int] | None = None
    """Ids of the right and the wrong sign, where the score is the softmax of two tokens' logits; None where
    a head of its own is read."""


def of_signs(right: int, wrong: int) -> ServedReadOut:
    """The read-out of two tokens of the vocabulary."""
    # A server may also make a head of the two: of two classes, or of their difference.
    return ServedReadOut((1, 2), (right, wrong))


def of_head(classes: int) -> ServedReadOut:
    """The read-out of a head with so many outputs, 1 or 2."""
    return ServedReadOut((classes,))


@runtime_checkable
class Servable(Protocol):
    """A family that a server can run."""

    @property
    def served(self) -> ServedReadOut:
        """What is asked of the server."""
