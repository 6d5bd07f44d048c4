"""What a 200 body of any service says, before it becomes a `ModelReply`."""

from __future__ import annotations

from dataclasses import dataclass

from traces.records import Usage


@dataclass(frozen=True, slots=True)
class WireReply:
    """What a reply body says."""

    text: str | None
    """The answer without thoughts; None if there is none."""
    finish_reason: str
    """`stop`, `length`, `blocked`, `empty` (no candidate at all), or the service's word in lower case."""
    resolved_model: str | None
    """The model version as the service names it; None if it does not."""
    usage: Usage
    """Tokens as billed."""

    @property
    def is_counted(self) -> bool:
        """Whether the service said what it bills: no text comes from nothing, some proxies drop the counts."""
        return self.text is None or self.usage.input_tokens > 0
