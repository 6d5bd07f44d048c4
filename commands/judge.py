"""`stepgold judge`: RAG-as-a-judge over the traces of a dataset."""

from __future__ import annotations

from commands.build import command
from stepgold.judging import JudgeOptions
from stepgold.judging import judge as run

judge = command(
    JudgeOptions, run, help="Put verdicts on steps, grounded in the retrieved evidence."
)
