"""The keyword under which a model takes the keys and values that it has already computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn
from transformers import Cache


def kept_in(module: nn.Module, past: Cache) -> dict[str, Any]:
    """Keywords for a forward pass of `module` that reads `past` and adds to it.

    The keyword is `cache` from transformers 5.24 on and `past_key_values` before, and in models
    whose code comes with their weights; the signature says which one applies.
    """
    return {_name(type(module).forward): past, "use_cache": True}


@lru_cache
def _name(forward: Callable[..., object]) -> str:
    parameters = inspect.signature(forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"
