"""`stepgold report`: one self-contained page about a dataset's labelers."""

from __future__ import annotations

from commands.build import command
from stepgold.report import ReportOptions
from stepgold.report import report as run

report = command(
    ReportOptions,
    run,
    help="Write one page about the labelers of a dataset.\n\nHeadline figures, curves,"
    " agreement, cost and disputed traces in one file that needs no network.",
)
