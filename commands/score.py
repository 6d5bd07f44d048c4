"""`stepgold score`: PRM step scores."""

from __future__ import annotations

from commands.build import command
from stepgold.scoring_run import ScoreOptions
from stepgold.scoring_run import score as run

score = command(
    ScoreOptions,
    run,
    help="Score every step with a process reward model.\n\nWhat does not fit into the"
    " model's window is named, never cut.",
)
