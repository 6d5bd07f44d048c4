"""From a server and a checkpoint to a scorer: the layout from the files here, the numbers from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from inference.checkpoints import (
    checkpoint_folder,
    load_pretrained,
    model_window,
    weights_fingerprint,
)
from inference.json_server import JsonServer
from scoring.binding import bind
from scoring.checkpoint import Checkpoint
from scoring.engine_fit import FitRules, Overflow
from scoring.families.generic_layout import GenericLayout, named_family
from scoring.family import Family
from scoring.loading import DEFAULT_WINDOW, told_family
from scoring.served import Servable
from scoring.server_routes import Route, route_of
from scoring.server_scorer import ServedCheckpoint, ServerScorer
from traces.errors import InputError, ModelRefused, PrmError

_MODELS = "/v1/models"
"""Where vLLM and SGLang list what they serve."""


class HollowCheckpoint(Checkpoint):
    """A checkpoint whose model has its shapes and no weights: enough to lay traces out."""

    __slots__ = ()

    def model(self, auto_class: Any) -> Any:
        """The model on torch's `meta` device."""
        try:
            config = AutoConfig.from_pretrained(self.folder)
            with torch.device("meta"):
                return auto_class.from_config(config, dtype=self.dtype).eval()
        except (OSError, ValueError, KeyError) as fault:
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            raise PrmError(
                f'The checkpoint in "{self.folder}" cannot be read: {reason[0][:200]}'
            ) from fault


def load_server_scorer(
    server: JsonServer,
    spec: str,
    *,
    family: str | GenericLayout | None = None,
    max_tokens: int | None = None,
    overflow: Overflow = Overflow.DROP_DOCUMENTS,
    reserve: int = 0,
    packing: str = "fit",
    route: str | None = None,
    allow_phi: bool = False,
) -> ServerScorer:
    """Join a server to the checkpoint that it serves; it is asked what it serves, nothing more.

    Args:
        server: where the PRM runs.
        spec: the same checkpoint here, `hf:PATH_OR_ID`: its tokenizer and configuration; the weights are
            not loaded.
        family, overflow, reserve, packing: as for `scoring.loading.load_scorer`.
        max_tokens: the window a trace must fit into; None takes the least of the model's, the server's
            and 4,096.
        route: a name of `scoring.server_routes.ROUTES`; None takes the family's usual one.
        allow_phi: see `ServerScorer`.

    Raises:
        InputError: an unknown family or route, one that a server cannot run, a window that is not there.
        PrmError: the checkpoint cannot be read, or is not recognised.
        ModelError: the server gives no list of models, or not this one.
    """
    named = named_family(family)
    try:
        folder = checkpoint_folder(spec.removeprefix("hf:"))
        tokenizer = load_pretrained(AutoTokenizer, folder)
    except ModelRefused as refusal:
        raise PrmError(refusal.what, where=refusal.where, remedy=refusal.remedy) from refusal
    hollow = HollowCheckpoint(folder, tokenizer, torch.device("meta"), torch.float32)
    bound = bind(named or told_family(folder, tokenizer, spec), hollow)
    chosen = _route(route, bound)
    listed = _listed(server)
    window = model_window(bound.backbone.config, tokenizer)
    length = listed.get("max_model_len")
    if isinstance(length, int):
        window = min(window, length - chosen.spare)
    if max_tokens is not None and not 1 <= max_tokens <= window:
        raise InputError(
            f"The window of {max_tokens} tokens is not one that the PRM has behind this server.",
            remedy=f"give --max-tokens from 1 to {window}",
        )
    limit = max_tokens or min(window, DEFAULT_WINDOW)
    root = listed.get("root")
    served = server.model if root in (None, server.model) else f"{server.model} ({root})"
    what = ServedCheckpoint(
        spec, weights_fingerprint(folder), served, type(chosen).__name__.lower()
    )
    rules = FitRules(limit, overflow, reserve, packing)
    return ServerScorer(bound, rules, server, chosen, what, allow_phi)


def _route(name: str | None, family: Family) -> Route:
    if not isinstance(family, Servable):
        raise InputError(
            f"The family {family.name} cannot be read off a server: it needs more than a row a step.",
            remedy="score it on this machine: --prm hf:PATH",
        )
    return route_of(name, family.served, family.name)


def _listed(server: JsonServer) -> Mapping[str, Any]:
    """What the server says of the model.

    Raises:
        ModelRefused: it does not list it, or gives no list.
    """
    models = server.get(_MODELS).get("data")
    entries = (
        [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    )
    for entry in entries:
        if entry.get("id") == server.model:
            return entry
    names = ", ".join(str(each.get("id")) for each in entries[:8])
    raise ModelRefused(
        f'The server does not serve "{server.model}".',
        where=f"{server.root}{_MODELS}",
        remedy=f"name one that it lists: {names}"
        if names
        else "look whether it serves models at all",
    )
