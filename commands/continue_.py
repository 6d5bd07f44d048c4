"""`stepgold continue`: Monte Carlo continuation of every prefix."""

from __future__ import annotations

from commands.build import command
from stepgold.continuing import ContinueOptions
from stepgold.continuing import continue_ as run

continue_ = command(
    ContinueOptions,
    run,
    help="Label steps by Monte Carlo continuation.",
)
