"""Local policies for tests, with the options of `PolicyConfig` and `LocalPolicy` in one call."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from inference import LocalPolicy, PolicyConfig

_CONFIG = {field.name for field in fields(PolicyConfig)}


def local_policy(folder: Path, *, spec: str = "hf:tiny", **options: Any) -> LocalPolicy:
    """A policy; evidence is not shown unless asked for."""
    options = {"with_evidence": False, **options}
    config = PolicyConfig(**{name: options.pop(name) for name in _CONFIG & options.keys()})
    return LocalPolicy(str(folder), config, spec=spec, **options)
