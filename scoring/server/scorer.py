"""From a server and a checkpoint to a scorer: the layout from the files here, the numbers from there.

A PRM behind a server: laid out and made to fit here, run there, read as the family reads.

It has the face of `scoring.engine.engine.Scorer`, so that a command need not care where the forward passes
run. Nothing is scored before `scoring.server.parity` has let the server pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from inference import (
    JsonClient,
    RequestTooLong,
    checkpoint_folder,
    load_pretrained,
    model_window,
    weights_fingerprint,
)
from scoring.engine.fit import FitRules, Fitted, Overflow, fit, refuse_over_length
from scoring.families.generic_layout import GenericLayout, named_family
from scoring.family import Checkpoint, Family, Servable
from scoring.loading import DEFAULT_WINDOW, bind, told_family
from scoring.server.routes import Route, Row, Unread, probabilities, route_of
from traces import (
    AbstentionReason,
    InputError,
    ModelRefused,
    ModelUnavailable,
    PrmError,
    TraceInContext,
    TraceLabel,
    abstained,
    refuse_phi,
)

Answered = tuple[Fitted, list[Row]]
"""A trace that was sent, and the row of each of its reading places."""


@dataclass(frozen=True, slots=True)
class ServedCheckpoint:
    """Which checkpoint a server is held to be, and where it stands."""

    spec: str
    """The same checkpoint on this machine, as the user named it."""
    weights: str | None
    """Fingerprint of its weights; None if that cannot be told cheaply."""
    resolved_model: str
    """What the server says it serves."""
    route: str
    """The name of the route it is asked by."""


@dataclass(slots=True)
class ServerScorer:
    """Scores steps with one PRM behind a server."""

    family: Family
    """Lays out; its model has no weights here."""
    rules: FitRules
    """How traces are made to fit."""
    server: JsonClient
    """Who is asked; closed by its owner."""
    route: Route
    """How."""
    checkpoint: ServedCheckpoint
    """What is served."""
    allow_phi: bool = False
    """Whether problems that say `phi_removed: false` may go to a server elsewhere."""
    reading: str | None = None
    """What the server's rows are; None until the parity gate was passed."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """What the gate found, for the labeler's configuration; empty until then."""
    not_shared: None = None
    """Common beginnings are the server's business."""

    @property
    def resolved_model(self) -> str:
        """What the server says it serves."""
        return self.checkpoint.resolved_model

    def config(self) -> dict[str, Any]:
        """The configuration that is stored with the labels (strict JSON)."""
        return {
            "family": self.family.name,
            "mode": "strict",
            **self.family.settings,
            **self.rules.as_dict(),
            "weights": self.checkpoint.weights,
            "server": {"route": self.checkpoint.route, "checkpoint": self.checkpoint.spec},
            "parity": dict(self.parity),
        }

    def expected_work(self, contexts: Iterable[TraceInContext]) -> Mapping[str, float]:
        """Characters of each trace with its problem and evidence, by its id: time goes with them."""
        return {
            context.trace.id: float(
                len(context.problem.question)
                + sum(map(len, context.trace.steps))
                + sum(len(each.passage.text) for each in context.evidence)
            )
            for context in contexts
        }

    def refuse_over_length(self, contexts: Iterable[TraceInContext]) -> None:
        """As `scoring.engine.engine.Scorer.refuse_over_length`."""
        refuse_over_length(self.family, contexts, self.rules)

    def is_comparable(self, context: TraceInContext) -> bool:
        """Whether the trace would be sent."""
        return isinstance(self._prepared(context), Fitted)

    def score_batches(self, contexts: Iterable[TraceInContext]) -> Iterator[list[TraceLabel]]:
        """Score every step of every trace; yield traces as they are done, in any order, none twice.

        A trace that does not fit is an abstention (`over_length`), one that must not leave this machine
        another (`filtered`), one that the server gives no number for a third (`model_error`).

        Raises:
            ValueError: the parity gate was not passed.
            ModelRefused: the server answers otherwise than it did at the gate; with what was yielded
                before, all is well.
            ModelUnavailable, QuotaExhausted: see `inference.openai.json_client.JsonClient.run`.
        """
        if self.reading is None:
            raise ValueError("nothing is scored before the server was held against the checkpoint")
        for answer in self.answers(contexts):
            yield [answer if isinstance(answer, TraceLabel) else self.read(*answer, self.reading)]

    def read(self, fitted: Fitted, rows: list[Row], reading: str) -> TraceLabel:
        """The label of a trace.

        Raises:
            ModelRefused: the rows cannot be read so.
        """
        scores = probabilities(rows, reading)
        if scores is None:
            raise ModelRefused(
                f'"{self.server.spec}" gave probabilities before and gives other numbers now.',
                where=f'trace "{fitted.laid_out.trace_id}"',
                remedy="look whether the server was started anew with other options",
            )
        return fitted.label(scores)

    def answers(self, contexts: Iterable[TraceInContext]) -> Iterator[Answered | TraceLabel]:
        """The rows of every trace, or why there are none; in any order."""
        ready: list[TraceLabel] = []
        for fitted, reply in self.server.run(self._calls(contexts, ready)):
            yield from _drained(ready)
            trace_id = fitted.laid_out.trace_id
            if isinstance(reply, RequestTooLong):
                yield abstained(trace_id, AbstentionReason.OVER_LENGTH, str(reply))
            elif isinstance(reply, ModelUnavailable):
                yield abstained(trace_id, AbstentionReason.MODEL_ERROR, reply.what)
            else:
                yield self._rows(fitted, reply)
        yield from _drained(ready)

    def _rows(self, fitted: Fitted, reply: Mapping[str, Any]) -> Answered | TraceLabel:
        trace_id = fitted.laid_out.trace_id
        named = reply.get("model")
        if named is not None and named != self.server.model:
            raise ModelRefused(
                f'"{named}" answers where "{self.server.model}" was asked.',
                where=f'trace "{trace_id}"',
                remedy="name the model as the server lists it",
            )
        try:
            return fitted, self.route.rows(reply, fitted.laid_out)
        except Unread as fault:
            return abstained(trace_id, AbstentionReason.MODEL_ERROR, str(fault))
        except ModelRefused as refusal:
            where = f'trace "{trace_id}", {self.server.root}{self.route.path}'
            raise ModelRefused(refusal.what, where=where, remedy=refusal.remedy) from refusal

    def _calls(
        self, contexts: Iterable[TraceInContext], ready: list[TraceLabel]
    ) -> Iterator[tuple[Fitted, str, dict[str, Any]]]:
        """One call a trace; what is not sent goes to `ready`."""
        for context in contexts:
            found = self._prepared(context)
            if isinstance(found, TraceLabel):
                ready.append(found)
            else:
                yield found, self.route.path, self.route.body(self.server.model, found.laid_out)

    def _prepared(self, context: TraceInContext) -> Fitted | TraceLabel:
        """The trace as it is sent, or its label where it is not."""
        kept = refuse_phi(context, hosted=self.server.hosted, allow_phi=self.allow_phi)
        if kept is not None:
            return kept
        found = fit(self.family, context, self.rules)
        if isinstance(found, Fitted) and not any(found.laid_out.read_at):
            return found.label(())
        return found


def _drained(ready: list[TraceLabel]) -> list[TraceLabel]:
    taken = list(ready)
    ready.clear()
    return taken


# --- From a server and a checkpoint to a scorer: the layout from the files here, the numbers


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
    server: JsonClient,
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
        route: a name of `scoring.server.routes.ROUTES`; None takes the family's usual one.
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


def _listed(server: JsonClient) -> Mapping[str, Any]:
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
