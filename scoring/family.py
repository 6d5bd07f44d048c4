"""What a PRM family is: it lays a trace out as token ids and reads step scores off hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.names import Aggregation as Aggregation
from traces.abstention import Abstention
from traces.context import TraceInContext
from traces.evidence import Evidence

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
