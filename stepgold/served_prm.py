"""The parity gate of `score` and `retry`: before anything is stored, a server is held against its checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.labeling_run import EVIDENCE_KEY
from stepgold.models import parse_spec
from stepgold.scoring_run import (
    ScorerOptions,
    ScoreStage,
    open_scorer,
    refuse_changed,
    stored_options,
)
from traces import InputError, Labeler, LabelerKind, PrmError, TraceLabel

if TYPE_CHECKING:
    from inference import ModelSpec
    from scoring import Scorer
    from scoring.engine.fit import Fitted
    from scoring.server.parity import Parity
    from scoring.server.routes import Row
    from scoring.server.scorer import ServerScorer
    from storage import Store
    from traces import TraceInContext


PARITY_KEY = "parity"
"""Under which a labeler's configuration says how the server compared."""
_APART = frozenset({PARITY_KEY, EVIDENCE_KEY})
"""Keys of a configuration that say nothing about what the server is and how it is read."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server is reached, and what it is held against."""

    base_url: str | None = None
    """Its address; None takes the environment's."""
    checkpoint: str | None = None
    """The same PRM on this machine."""
    route: str | None = None
    """How it is asked; None takes the family's usual way."""
    concurrency: int | None = None
    """Requests in flight at once; None for the default."""
    allow_phi: bool = False
    """Whether marked problems may go to a server elsewhere."""
    sample: int = 32
    """Traces scored by both before anything is stored."""
    limit: float = 0.02
    """Largest difference of a step score."""

    def refuse_without_server(self, prm: str) -> None:
        """Refuse what only a server can be asked for.

        Raises:
            InputError: an option of a server's, and the PRM runs here.
        """
        given = {
            "--checkpoint": self.checkpoint,
            "--route": self.route,
            "--base-url": self.base_url,
        }
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f'{option} is for a PRM behind a server, and "{prm}" runs on this machine.',
                    remedy="name the served model: --prm openai:MODEL",
                )


def pass_gate(
    store: Store,
    dataset: str,
    labeler: str,
    scorer: ServerScorer,
    chosen: ScorerOptions,
    served: ServerOptions,
    *,
    anew: bool = False,
) -> None:
    """Let the scorer score: by the gate that stands in the labeler's configuration, or by a new one.

    A stored gate holds for the same server, the same model there and the same checkpoint, if it looked
    at as many traces and differed by no more than is asked now.

    `anew` says that another labeler of the name gives way.

    Raises:
        InputError: the labeler is another one.
        PrmError: the server does not score as the checkpoint does; nothing was stored.
    """
    earlier = _stored_gate(store, dataset, labeler, scorer, anew=anew)
    if earlier is not None and _holds(earlier, scorer, served):
        scorer.reading, scorer.parity = earlier["reading"], earlier
        return
    sample = _sample(store, dataset, scorer, served.sample)
    local = open_scorer(_on_this_machine(chosen, served, scorer))
    found = _compare(sample, scorer, local, served)
    # The figures of the first gate stay: they are part of what the labeler is.
    scorer.parity = found if earlier is None else earlier


def _stored_gate(
    store: Store, dataset: str, name: str, scorer: ServerScorer, *, anew: bool
) -> Mapping[str, Any] | None:
    """What an earlier gate of this very labeler found; None where there is none.

    Raises:
        InputError: the name belongs to another labeler, which does not give way.
    """
    for row in store.labels.labelers(dataset):
        if row.labeler.name != name:
            continue
        if _without(row.labeler.config) != _without(scorer.config()):
            if anew:
                return None
            # Before the weights are loaded for a gate that could store nothing.
            config = scorer.config()
            store.labels.declare(
                dataset, Labeler(name, LabelerKind.PRM, config, scorer.server.spec)
            )
        gate = row.labeler.config.get(PARITY_KEY)
        return gate if isinstance(gate, Mapping) else None
    return None


def _holds(gate: Mapping[str, Any], scorer: ServerScorer, served: ServerOptions) -> bool:
    same = gate["server"] == scorer.server.root and gate["resolved_model"] == scorer.resolved_model
    return bool(same and gate["asked"] >= served.sample and gate["max_difference"] <= served.limit)


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _APART}


def _on_this_machine(
    chosen: ScorerOptions, served: ServerOptions, scorer: ServerScorer
) -> ScorerOptions:
    """The options under which the checkpoint scores the same traces here."""
    return replace(
        chosen,
        prm=str(served.checkpoint),
        family=chosen.family or scorer.family.name,
        max_tokens=scorer.rules.max_tokens,
    )


def _sample(store: Store, dataset: str, scorer: ServerScorer, most: int) -> list[TraceInContext]:
    """Traces of the dataset that can be sent, drawn by a fixed seed; a pilot's are those of the whole run.

    Raises:
        PrmError: there is none.
    """
    ids = sorted(
        context.trace.id for context in store.traces.contexts(dataset, with_evidence=False)
    )
    order = random.Random(0).sample(ids, len(ids))
    found: list[TraceInContext] = []
    for start in range(0, len(order), most):
        chunk = order[start : start + most]
        found += filter(scorer.is_comparable, store.traces.contexts(dataset, trace_ids=chunk))
        if len(found) >= most:
            break
    if not found:
        raise PrmError(
            "No trace of the dataset can be sent, so the server cannot be held against the checkpoint.",
            remedy="raise --max-tokens, or see what --allow-phi is for",
        )
    return found[:most]


def _compare(
    sample: Sequence[TraceInContext],
    scorer: ServerScorer,
    local: Scorer,
    served: ServerOptions,
) -> dict[str, Any]:
    """Score the sample on both sides and choose how the server's rows are read.

    Raises:
        PrmError: they differ by too much.
    """
    from scoring.server.parity import refusal

    note(f"holding the server against the checkpoint on {len(sample)} traces")
    answers = list(scorer.answers(sample))
    here = {label.trace_id: label for label in local.score(sample)}
    compared = list(_readings(scorer, answers, here))
    reading, best = min(compared, key=lambda each: each[1].max_difference)
    if not best.passes(served.limit):
        raise refusal(scorer.server.spec, best, served.limit)
    note(
        f"step scores differ by at most {best.max_difference:.2g}, first errors agree on"
        f" {best.agreement:.1%} of them"
    )
    scorer.reading = reading
    return {
        **best.as_dict(),
        "asked": served.sample,
        "limit": served.limit,
        "reading": reading,
        "server": scorer.server.root,
        "resolved_model": scorer.resolved_model,
    }


def _readings(
    scorer: ServerScorer,
    answers: Sequence[tuple[Fitted, list[Row]] | TraceLabel],
    here: Mapping[str, TraceLabel],
) -> Iterator[tuple[str, Parity]]:
    """For each way in which the server's rows may be read, how they compare."""
    from scoring.server.parity import compare
    from scoring.server.routes import probabilities

    given = [each for each in answers if not isinstance(each, TraceLabel)]
    without = [each for each in answers if isinstance(each, TraceLabel)]
    for reading in scorer.route.readings:
        scores = [probabilities(rows, reading) for _, rows in given]
        if None in scores:
            continue
        labels = [
            *without,
            *(
                each.label(read)
                for (each, _), read in zip(given, scores, strict=True)
                if read is not None
            ),
        ]
        yield reading, compare(here, {label.trace_id: label for label in labels})


# --- A PRM behind a server for `score` and `retry`: joined to its checkpoint, and held against


def open_server_scorer(
    spec: ModelSpec, chosen: ScorerOptions, served: ServerOptions, closing: ExitStack
) -> ServerScorer:
    """A scorer over a server, not yet held against its checkpoint.

    Raises:
        InputError: no checkpoint, a mode that is this machine's only, or options that do not fit.
        PrmError: the checkpoint cannot be read.
        ModelError: the server does not serve the model.
    """
    from inference.openai.json_calls import JsonServer
    from scoring.engine.fit import Overflow
    from scoring.server.scorer import load_server_scorer

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
