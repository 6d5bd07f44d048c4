"""The examples in docstrings run."""

from __future__ import annotations

import doctest

import pytest

from formats import registry, rows, trace_files


@pytest.mark.parametrize("module", [registry, rows, trace_files])
def test_docstring_examples(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0
