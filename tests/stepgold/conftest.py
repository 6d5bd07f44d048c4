"""The command line beside the Python API, so that both can be compared."""

from __future__ import annotations

from tests.commands.conftest import cli as cli
from tests.commands.conftest import traces_file as traces_file
