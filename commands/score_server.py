"""A PRM behind a server for `score` and `retry`: joined to its checkpoint, and held against it first."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from commands.backends import parse_spec
from commands.score_parity import PARITY_KEY, ServerOptions, pass_gate
from commands.score_run import (
    ScorerOptions,
    ScoreStage,
    refuse_changed,
    stored_options,
)
from traces.errors import InputError
from traces.labels import Labeler

if TYPE_CHECKING:
    from inference.specs import ModelSpec
    from scoring.server_scorer import ServerScorer
    from storage import Store


def open_server_scorer(
    spec: ModelSpec, chosen: ScorerOptions, served: ServerOptions, closing: ExitStack
) -> ServerScorer:
    """A scorer over a server, not yet held against its checkpoint.

    Raises:
        InputError: no checkpoint, a mode that is this machine's only, or options that do not fit.
        PrmError: the checkpoint cannot be read.
        ModelError: the server does not serve the model.
    """
    from inference.json_server import JsonServer
    from scoring.engine_fit import Overflow
    from scoring.server_loading import load_server_scorer

    if served.checkpoint is None:
        raise InputError(
            f'"{spec}" needs its checkpoint on this machine too: its tokenizer lays the traces out, and'
            " its weights prove that the server gives the same scores.",
            remedy="add --checkpoint hf:PATH",
        )
    if parse_spec(served.checkpoint).kind != "hf":
        raise InputError(
            f'"{served.checkpoint}" is no checkpoint.', remedy="name it as --checkpoint hf:PATH"
        )
    if chosen.mode != "strict":
        raise InputError(
            f"The mode {chosen.mode} is one of this machine's.",
            remedy="leave --mode out, or take --prm hf:PATH",
        )
    server = JsonServer(spec.name, base_url=served.base_url, concurrency=served.concurrency)
    return load_server_scorer(
        closing.enter_context(server),
        served.checkpoint,
        family=chosen.family,
        max_tokens=chosen.max_tokens,
        overflow=Overflow(chosen.overflow),
        reserve=chosen.reserve,
        packing=chosen.packing,
        route=served.route,
        allow_phi=served.allow_phi,
    )


def serve_again(
    store: Store,
    dataset: str,
    labeler: Labeler,
    max_tokens: int | None,
    served: ServerOptions,
    closing: ExitStack,
) -> ScoreStage:
    """The stage of a stored labeler that a server scored, for traces that it failed on.

    Args:
        store: where the traces are.
        dataset: theirs.
        labeler: as stored.
        max_tokens: another window; None keeps the stored one.
        served: address, requests at once and permissions; the rest is as stored.
        closing: closes the connections.

    Raises:
        InputError: the checkpoint or its family is not what it was.
        PrmError: the server does not score as the checkpoint does.
        ModelError: the server cannot be asked.
    """
    config = labeler.config
    gate, how = config[PARITY_KEY], config["server"]
    terms = replace(
        served,
        checkpoint=how["checkpoint"],
        route=how["route"],
        sample=gate["asked"],
        limit=gate["limit"],
    )
    chosen = stored_options(labeler, max_tokens)
    scorer = open_server_scorer(parse_spec(str(labeler.model)), chosen, terms, closing)
    refuse_changed(labeler, {**scorer.config(), PARITY_KEY: gate})
    # The gate is the labeler's, in its own window, not that of the traces tried again.
    rules = scorer.rules
    scorer.rules = replace(rules, max_tokens=config["max_tokens"])
    pass_gate(store, dataset, labeler.name, scorer, chosen, terms)
    scorer.rules = rules
    return ScoreStage(scorer, batched=False)
