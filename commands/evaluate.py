"""`stepgold evaluate`: a labeler against the gold annotation."""

from __future__ import annotations

from commands.build import command
from stepgold.evaluating import EvaluateOptions
from stepgold.evaluating import evaluate as run

evaluate = command(
    EvaluateOptions,
    run,
    help="Measure a labeler against gold.\n\nBy a published protocol, with"
    " bootstrap intervals by problem.",
)
