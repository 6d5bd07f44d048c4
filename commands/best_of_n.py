"""`stepgold best-of-n`: what a labeler's scores are worth for choosing among candidates."""

from __future__ import annotations

from commands.build import command
from stepgold.candidates import BestOfNOptions
from stepgold.candidates import best_of_n as run

best_of_n = command(
    BestOfNOptions,
    run,
    help="Choose among N candidates by step scores.\n\nBy min, product, last and"
    " mean score, beside majorities, pass@N and mean accuracy.",
)
