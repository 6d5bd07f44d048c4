"""`stepgold sample`: candidate traces for problems."""

from __future__ import annotations

from commands.build import command
from stepgold.sampling import SampleOptions
from stepgold.sampling import sample as run

sample = command(SampleOptions, run, help="Sample candidate traces for problems.")
