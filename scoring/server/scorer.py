"""Score with a PRM on a model server: traces are laid out here and run there.

`ServerScorer` has the interface of `scoring.Scorer`, so that a command need not care where the
forward passes run. It scores nothing before the parity gate: a server with another tokenizer, other
weights or other positions gives plausible but wrong scores, so some traces are first scored by both
sides. Limits: `max |dp| < 0.02`, and the same first error on 99.5% of the traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from inference import (
    JsonClient,
    RequestTooLong,
    checkpoint_folder,
    load_pretrained,
    model_window,
    weights_fingerprint,
)
from scoring.engine.fit import FitOptions, FitRules, Fitted, fit, refuse_over_length
from scoring.families.generic_layout import NamedFamily, named_family
from scoring.family import Family, PrmCheckpoint, Servable
from scoring.loading import DEFAULT_WINDOW, bind, limited, require_family
from scoring.server.routes import Route, ServerRow, Unread, route_of, row_scores
from traces import (
    AbstentionReason,
    InputError,
    ModelRefused,
    ModelUnavailable,
    PrmError,
    TraceInContext,
    TraceLabel,
    abstained,
    record_defect,
    refuse_phi,
)

Answered = tuple[Fitted, list[ServerRow]]
"""A trace that was sent, and the row of each of its reading positions."""


@dataclass(frozen=True, slots=True)
class ServedCheckpoint:
    """The checkpoint that a server is supposed to run."""

    spec: str
    """The same checkpoint on this machine, as the user named it."""
    weights: str | None
    """Fingerprint of its weights; None if unknown."""
    resolved_model: str
    """The model that the server reports."""
    route: str
    """Name of the route."""


@dataclass(slots=True)
class ServerScorer:
    """Scores steps with one PRM on a server."""

    family: Family
    """Lays out traces; its model has no weights here."""
    rules: FitRules
    """How traces are made to fit."""
    server: JsonClient
    """Closed by its owner."""
    route: Route
    checkpoint: ServedCheckpoint
    allow_phi: bool = False
    """Whether problems with `phi_removed: false` may be sent to a hosted server."""
    reading: str | None = None
    """Meaning of the server's rows; None until the parity gate is passed."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """Result of the gate, for the labeler's configuration; empty until then."""
    not_shared: None = None
    """Common prefixes are left to the server."""

    @property
    def resolved_model(self) -> str:
        """The model that the server reports."""
        return self.checkpoint.resolved_model

    def config(self) -> dict[str, Any]:
        """Return the configuration that is stored with the labels (strict JSON)."""
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
        """Return the characters of each trace with its problem and evidence, by its id."""
        return {
            context.trace.id: float(
                len(context.problem.shown_question)
                + sum(map(len, context.trace.steps))
                + sum(len(each.passage.text) for each in context.evidence)
            )
            for context in contexts
        }

    def refuse_over_length(self, contexts: Iterable[TraceInContext]) -> None:
        """As `scoring.Scorer.refuse_over_length`."""
        refuse_over_length(self.family, contexts, self.rules)

    def is_comparable(self, context: TraceInContext) -> bool:
        """Whether the trace would be sent."""
        return isinstance(self._prepared(context), Fitted)

    def score_batches(self, contexts: Iterable[TraceInContext]) -> Iterator[list[TraceLabel]]:
        """Score every step of every trace; yield traces as they are done, in any order.

        A trace is an abstention if it does not fit (`over_length`), must not leave this machine
        (`filtered`), or gets no number from the server (`model_error`).

        Raises:
            ValueError: the parity gate was not passed.
            ModelRefused: the server's replies differ from those at the gate; labels yielded before
                are valid.
            ModelUnavailable, QuotaExhausted: see the server client's `run`.
        """
        if self.reading is None:
            raise ValueError("the parity gate was not passed")
        for answer in self.answers(contexts):
            yield [answer if isinstance(answer, TraceLabel) else self.read(*answer, self.reading)]

    def read(self, fitted: Fitted, rows: list[ServerRow], reading: str) -> TraceLabel:
        """Return the label of a trace.

        Raises:
            ModelRefused: the rows do not fit the reading.
        """
        scores = row_scores(rows, reading)
        if scores is None:
            raise ModelRefused(
                f'"{self.server.spec}" returned probabilities at first, and other numbers now.',
                where=f'trace "{fitted.laid_out.trace_id}"',
                remedy="check whether the server was restarted with other options",
            )
        return fitted.label(scores)

    def answers(self, contexts: Iterable[TraceInContext]) -> Iterator[Answered | TraceLabel]:
        """Yield the rows of every trace, or why there are none; in any order."""
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
                f'The server answers as "{named}" instead of "{self.server.model}".',
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
        except Exception as fault:
            # No reply of a server may end a run, whatever we forgot about it.
            why = record_defect(fault, f'a reply to trace "{trace_id}"')
            return abstained(trace_id, AbstentionReason.MODEL_ERROR, why)

    def _calls(
        self, contexts: Iterable[TraceInContext], ready: list[TraceLabel]
    ) -> Iterator[tuple[Fitted, str, dict[str, Any]]]:
        """Yield one call per trace; labels of traces that are not sent go to `ready`."""
        for context in contexts:
            found = self._prepared(context)
            if isinstance(found, TraceLabel):
                ready.append(found)
            else:
                yield found, self.route.path, self.route.body(self.server.model, found.laid_out)

    def _prepared(self, context: TraceInContext) -> Fitted | TraceLabel:
        """Return the trace as it is sent, or its label if it is not."""
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


_MODELS = "/v1/models"
"""Where vLLM and SGLang list their models."""


class WeightlessCheckpoint(PrmCheckpoint):
    """A checkpoint whose model has shapes but no weights, which is enough to lay out traces."""

    __slots__ = ()

    def model(self, auto_class: Any = AutoModelForCausalLM) -> Any:
        """Return the model on torch's `meta` device."""
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
            with torch.device("meta"):
                return auto_class.from_config(
                    config, dtype=self.dtype, trust_remote_code=False
                ).eval()
        except Exception as fault:  # damaged settings raise anything
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            raise PrmError(
                f'Cannot read the checkpoint in "{self.folder}": {reason[0][:200]}'
            ) from fault


def load_server_scorer(
    server: JsonClient,
    spec: str,
    *,
    family: NamedFamily | None = None,
    options: FitOptions | None = None,
    route: str | None = None,
    allow_phi: bool = False,
) -> ServerScorer:
    """Connect a server with its checkpoint; the server is only asked which models it has.

    Args:
        server: runs the PRM.
        spec: the same checkpoint here, `hf:PATH_OR_ID`; only its tokenizer and configuration are
            loaded.
        family: as for `scoring.load_scorer`.
        options: window and documents. Without a window the smallest of the model's, the server's
            and 4,096 is used.
        route: one of `scoring.server.routes.ROUTES`; None for the family's default.
        allow_phi: see `ServerScorer`.

    Raises:
        InputError: an unknown family or route, one that a server cannot run, or a wrong window.
        PrmError: the checkpoint cannot be read, or is not recognized.
        ModelError: the server does not list this model.
    """
    named = named_family(family)
    try:
        folder = checkpoint_folder(spec.removeprefix("hf:"))
        tokenizer = load_pretrained(AutoTokenizer, folder)
    except ModelRefused as refusal:
        raise PrmError(refusal.what, where=refusal.where, remedy=refusal.remedy) from refusal
    checkpoint = WeightlessCheckpoint(
        folder, tokenizer, device=torch.device("meta"), dtype=torch.float32
    )
    bound = bind(named or require_family(folder, tokenizer, spec), checkpoint)
    chosen = _route(route, bound)
    listed = _listed(server)
    window = model_window(bound.backbone.config, tokenizer)
    length = listed.get("max_model_len")
    if isinstance(length, int):
        window = min(window, length - chosen.spare)
    options = options or FitOptions()
    root = listed.get("root")
    served = server.model if root in (None, server.model) else f"{server.model} ({root})"
    return ServerScorer(
        family=bound,
        rules=FitRules(
            limited(options.max_tokens, window, DEFAULT_WINDOW),
            overflow=options.overflow,
            reserve=options.reserve,
            packing=options.packing,
        ),
        server=server,
        route=chosen,
        checkpoint=ServedCheckpoint(
            spec, weights_fingerprint(folder), served, type(chosen).__name__.lower()
        ),
        allow_phi=allow_phi,
    )


def _route(name: str | None, family: Family) -> Route:
    if not isinstance(family, Servable):
        raise InputError(
            f"The family {family.name} cannot be served: it needs more than a row per step.",
            remedy="score on this machine with --prm hf:PATH",
        )
    return route_of(name, family.served, family.name)


def _listed(server: JsonClient) -> Mapping[str, Any]:
    """Return the server's entry of the model.

    Raises:
        ModelRefused: the server does not list it.
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
        remedy=f"use one of its models: {names}" if names else "check that it serves a model",
    )


THRESHOLD: Final = 0.5
"""A step below it is incorrect, for the first error."""
AGREEMENT: Final = 0.995
"""Share of traces that must have the same first error."""
NEAR_TIE: Final = 2.0**-8
"""A differing first error is tolerated where both scores are this close to the threshold: one step
of bfloat16, so that the side is arbitrary."""

Compared = tuple[str, int, float, float]
"""Trace, 0-based step, the checkpoint's score, the server's."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The result of the comparison."""

    traces: int
    """Traces scored by both, at least 1."""
    steps: int
    """Their steps with a score."""
    max_difference: float
    """Largest difference of a step score, in [0, 1]."""
    worst: Compared
    """The step with this difference."""
    first_errors: int
    """Traces with the same first error."""
    near_ties: int
    """Traces whose first error differs at a near tie."""

    @property
    def agreement(self) -> float:
        """Share of traces with the same first error, near ties included."""
        return (self.first_errors + self.near_ties) / self.traces

    def passes(self, limit: float) -> bool:
        """Whether the server may score."""
        return self.max_difference <= limit and self.agreement >= AGREEMENT

    def as_dict(self) -> dict[str, Any]:
        """Return the result for the labeler's configuration."""
        return {
            "traces": self.traces,
            "steps": self.steps,
            "max_difference": round(self.max_difference, 9),
            "first_error_agreement": self.agreement,
            "near_ties": self.near_ties,
        }


def compare_scores(here: Mapping[str, TraceLabel], there: Mapping[str, TraceLabel]) -> Parity:
    """Compare the server's labels with the checkpoint's.

    Args:
        here: from the engine on this machine, at least one trace with a score.
        there: from the server, for the same traces.

    Raises:
        PrmError: only one of the two scores some step, or there is nothing to compare.
    """
    compared: list[Compared] = []
    same, ties = 0, 0
    for trace_id, ours in here.items():
        mine, theirs = _scores(ours), _scores(there.get(trace_id))
        if [score is None for score in mine] != [score is None for score in theirs]:
            raise PrmError(
                "The server scores different steps than the checkpoint on this machine"
                f"{_why(there.get(trace_id))}.",
                where=f'trace "{trace_id}"',
                remedy="check the server's log, or try another --route",
            )
        steps = [
            (trace_id, step, a, b)
            for step, (a, b) in enumerate(zip(mine, theirs, strict=True))
            if a is not None and b is not None
        ]
        compared += steps
        differing = _first_difference(steps)
        same += differing is None
        ties += differing is not None and _is_near_tie(differing)
    if not compared:
        raise PrmError(
            "No trace can be scored by both the server and this machine.",
            remedy="import traces that fit into the window",
        )
    worst = max(compared, key=_difference)
    return Parity(
        traces=len(here),
        steps=len(compared),
        max_difference=_difference(worst),
        worst=worst,
        first_errors=same,
        near_ties=ties,
    )


def _first_difference(steps: Sequence[Compared]) -> Compared | None:
    """Return the step at which the first errors differ; None if they agree."""
    for one in steps:
        _, _, here, there = one
        if (here < THRESHOLD) != (there < THRESHOLD):
            return one
        if here < THRESHOLD:
            return None
    return None


def _is_near_tie(one: Compared) -> bool:
    _, _, here, there = one
    return max(abs(here - THRESHOLD), abs(there - THRESHOLD)) <= NEAR_TIE


def _difference(one: Compared) -> float:
    _, _, here, there = one
    return abs(here - there)


def parity_error(spec: str, parity: Parity, limit: float) -> PrmError:
    """Return the error for a server that fails the gate."""
    trace_id, step, here, there = parity.worst
    return PrmError(
        f'"{spec}" gives different scores from the checkpoint, so nothing was stored: step scores'
        f" differ by up to {parity.max_difference:.4f} (limit {limit:g}), first errors agree on"
        f" {parity.agreement:.1%} of {parity.traces} traces (at least {AGREEMENT:.1%} required).",
        where=f'trace "{trace_id}", step {step + 1}: {here:.4f} here, {there:.4f} there',
        remedy="serve the weights of --checkpoint, not quantized, with the family's head, or raise"
        " --parity-limit",
    )


def _scores(label: TraceLabel | None) -> list[float | None]:
    return [] if label is None else [step.score for step in label.step_labels]


def _why(label: TraceLabel | None) -> str:
    why = label.abstention if label is not None else None
    return f": {why.detail.rstrip('.')}" if why is not None and why.detail else ""
