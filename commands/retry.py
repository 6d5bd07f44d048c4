"""`stepgold retry`: ask again what failed, with the labelers' stored configurations."""

from __future__ import annotations

from commands.build import command
from stepgold.again import RetryOptions
from stepgold.again import retry as run

retry = command(RetryOptions, run, help="Ask again what failed or could not be read.")
