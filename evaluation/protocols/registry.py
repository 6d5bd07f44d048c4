"""The protocols by name: built-in ones, and those of other installed distributions.

A built-in protocol is a `Protocol` in a module of `evaluation.protocols`. Another distribution adds
one with an entry point of the group `stepgold.protocols` that names a `Protocol`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from evaluation import protocols
from evaluation.protocols.protocol import Protocol
from traces import InputError, meant
from traces.plugins import broken_plugin, load_plugin, load_plugins

GROUP = "stepgold.protocols"


@cache
def built_in_protocols() -> Mapping[str, Protocol]:
    """Our protocols by name, in alphabetical order."""
    modules = [
        importlib.import_module(f"{protocols.__name__}.{found.name}")
        for found in pkgutil.iter_modules(protocols.__path__)
        if f"{protocols.__name__}.{found.name}" != __name__
    ]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Protocol)
    ]
    return {known.name: known for known in sorted(found, key=lambda known: known.name)}


def protocol_names() -> tuple[str, ...]:
    """Names of all protocols, plug-ins included."""
    return tuple(sorted(built_in_protocols().keys() | load_plugins(GROUP).keys()))


def protocol_named(name: str) -> Protocol:
    """The protocol of that name; a plug-in is imported only here.

    Raises:
        InputError: there is no such protocol, or the plug-in cannot be used.
    """
    known = built_in_protocols().get(name)
    if known is not None:
        return known
    entry = load_plugins(GROUP).get(name)
    if entry is None:
        raise InputError(
            f"Unknown protocol '{name}'.",
            where="--protocol",
            remedy=meant(name, protocol_names(), f"use one of {', '.join(protocol_names())}"),
        )
    found = load_plugin(entry)
    if not isinstance(found, Protocol):
        raise broken_plugin(entry, f"its type is {type(found).__name__}, not evaluation.Protocol")
    if found.name != name:
        raise broken_plugin(entry, f"its Protocol is named '{found.name}'")
    return found
