"""`stepgold consensus`: keep what a judge and a Monte Carlo labeler agree on."""

from __future__ import annotations

from commands.build import command
from stepgold.agreeing import ConsensusOptions
from stepgold.agreeing import consensus as run

consensus = command(
    ConsensusOptions,
    run,
    help="Keep labels on which judge and MC agree.",
)
