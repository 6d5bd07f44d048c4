"""`stepgold compare`: how far labelers agree, and where they do not."""

from __future__ import annotations

from commands.build import command
from stepgold.evaluating import CompareOptions
from stepgold.evaluating import compare as run

compare = command(
    CompareOptions,
    run,
    help="Compare labelers on the same traces.\n\nAgreement, kappa, alpha,"
    " correlation, first errors, and the steps on which they disagree.",
)
