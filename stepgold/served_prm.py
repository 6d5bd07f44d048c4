"""PRMs elsewhere: on the actors of a cluster, or on a server.

A server's scores must match those of its checkpoint before labels are stored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.images import ImageOptions
from stepgold.labeling_run import EVIDENCE_KEY, LabelStage, Reading, Units
from stepgold.models import only_server, parse_spec, tell_destination
from stepgold.scoring_run import (
    PARITY_KEY,
    PrmFacts,
    ScoreOptions,
    ScoreStage,
    open_scorer,
    refuse_changed,
    stored_options,
)
from traces import LabeledTrace, Labeler, LabelerKind, PrmError, TraceLabel

if TYPE_CHECKING:
    from scoring import Fitted, Parity, Scorer, ServerRow, ServerScorer
    from stepgold.clusters import Cluster
    from storage import Store
    from traces import TraceInContext


_APART = frozenset({PARITY_KEY, EVIDENCE_KEY})
"""Keys of a configuration that do not describe the server or how its scores are read."""


def pass_gate(
    store: Store, scorer: ServerScorer, options: ScoreOptions, images: ImageOptions
) -> None:
    """Allow the server to score if its scores match the checkpoint's, by a stored or a new check.

    A stored check is reused for the same server, model and checkpoint, if it compared at least as
    many traces, and found no larger difference, than the options ask for.

    Args:
        store: where the traces are.
        scorer: the server.
        options: the labeler and the limits of the check; its checkpoint scores the sample.
        images: where the images of problems are.

    Raises:
        InputError: the name belongs to another labeler.
        PrmError: the server's scores differ from the checkpoint's; nothing was stored.
    """
    earlier = _stored_gate(store, scorer, options)
    if earlier is not None and _holds(earlier, scorer, options):
        scorer.reading, scorer.parity = earlier["reading"], earlier
        return
    sample = _sample(store, options, scorer)
    local = open_scorer(_on_this_machine(options, scorer), images)
    found = _compare(sample, scorer, local, options)
    # Keep the figures of the first check: they are part of the labeler's configuration.
    scorer.parity = found if earlier is None else earlier


def _stored_gate(
    store: Store, scorer: ServerScorer, options: ScoreOptions
) -> Mapping[str, Any] | None:
    """The result of an earlier check of this labeler; None if there is none.

    Raises:
        InputError: the name belongs to another labeler, which is not replaced.
    """
    for row in store.labels.labelers(options.dataset):
        if row.labeler.name != options.name:
            continue
        if _without(row.labeler.config) != _without(scorer.config()):
            if options.replace:
                return None
            # Refuse before the weights are loaded.
            labeler = Labeler(
                options.name, LabelerKind.PRM, scorer.config(), model=scorer.server.spec
            )
            store.labels.declare(options.dataset, labeler)
        gate = row.labeler.config.get(PARITY_KEY)
        return gate if isinstance(gate, Mapping) else None
    return None


def _holds(gate: Mapping[str, Any], scorer: ServerScorer, options: ScoreOptions) -> bool:
    same = gate["server"] == scorer.server.root and gate["resolved_model"] == scorer.resolved_model
    enough = gate["asked"] >= options.parity_sample
    return bool(same and enough and gate["max_difference"] <= options.parity_limit)


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _APART}


def _on_this_machine(options: ScoreOptions, scorer: ServerScorer) -> ScoreOptions:
    """The options with which the checkpoint scores the same traces on this machine."""
    return options.but(
        prm=str(options.checkpoint),
        family=options.family or scorer.family.name,
        max_tokens=scorer.rules.max_tokens,
    )


def _sample(store: Store, options: ScoreOptions, scorer: ServerScorer) -> list[TraceInContext]:
    """A sample of traces that can be sent, by a fixed seed and independent of --limit.

    Raises:
        PrmError: there is none.
    """
    dataset, most = options.dataset, options.parity_sample
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
            "No trace of the dataset can be sent, so server and checkpoint cannot be compared.",
            remedy="raise --max-tokens, or add --allow-phi if problems may be sent to the server",
        )
    return found[:most]


def _compare(
    sample: Sequence[TraceInContext],
    scorer: ServerScorer,
    local: Scorer,
    options: ScoreOptions,
) -> dict[str, Any]:
    """Score the sample with both, and choose how the server's rows are read.

    Raises:
        PrmError: the scores differ by more than the limit.
    """
    from scoring import parity_error

    note(f"comparing the server with the checkpoint on {len(sample)} traces")
    answers = list(scorer.answers(sample))
    here = {label.trace_id: label for label in local.score(sample)}
    compared = list(_readings(scorer, answers, here))
    reading, best = min(compared, key=lambda each: each[1].max_difference)
    if not best.passes(options.parity_limit):
        raise parity_error(scorer.server.spec, best, options.parity_limit)
    note(
        f"step scores differ by at most {best.max_difference:.2g}; first errors agree on"
        f" {best.agreement:.1%} of the traces"
    )
    scorer.reading = reading
    return {
        **best.as_dict(),
        "asked": options.parity_sample,
        "limit": options.parity_limit,
        "reading": reading,
        "server": scorer.server.root,
        "resolved_model": scorer.resolved_model,
    }


def _readings(
    scorer: ServerScorer,
    answers: Sequence[tuple[Fitted, list[ServerRow]] | TraceLabel],
    here: Mapping[str, TraceLabel],
) -> Iterator[tuple[str, Parity]]:
    """For each way to read the server's rows, how its scores compare."""
    from scoring import compare_scores, row_scores

    given = [each for each in answers if not isinstance(each, TraceLabel)]
    without = [each for each in answers if isinstance(each, TraceLabel)]
    for reading in scorer.route.readings:
        scores = [row_scores(rows, reading) for _, rows in given]
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
        yield reading, compare_scores(here, {label.trace_id: label for label in labels})


def open_server_scorer(options: ScoreOptions, closing: ExitStack) -> ServerScorer:
    """A scorer over a server, not yet compared with its checkpoint.

    Raises:
        PrmError: the checkpoint cannot be read.
        ModelError: the server does not serve the model.
    """
    from inference import JsonClient
    from scoring import load_server_scorer

    spec = parse_spec(options.prm)
    server = JsonClient(
        spec.name,
        base_url=only_server(spec, options.base_url),
        insecure_http=options.insecure_http,
        concurrency=options.concurrency,
    )
    tell_destination(spec, server.server)
    return load_server_scorer(
        closing.enter_context(server),
        str(options.checkpoint),
        family=options.family,
        options=options.fit_options(),
        route=options.route,
        allow_phi=options.allow_phi,
    )


def serve_again(
    store: Store, closing: ExitStack, labeler: Labeler, dataset: str, **changed: Any
) -> ScoreStage:
    """The stage of a stored labeler on a server, to retry traces that failed.

    Args:
        store: where the traces are.
        closing: closes the connections.
        labeler: as stored.
        dataset: the dataset that it scored.
        **changed: window, base URL, concurrency and permissions; the rest is as stored.

    Raises:
        InputError: the checkpoint or its family has changed.
        PrmError: the server's scores differ from the checkpoint's.
        ModelError: the server cannot be reached.
    """
    config = labeler.config
    gate, how = config[PARITY_KEY], config["server"]
    options = stored_options(
        labeler,
        dataset,
        checkpoint=how["checkpoint"],
        route=how["route"],
        parity_sample=gate["asked"],
        parity_limit=gate["limit"],
        **changed,
    )
    scorer = open_server_scorer(options, closing)
    refuse_changed(labeler, {**scorer.config(), PARITY_KEY: gate})
    # The check uses the labeler's own window, not the one of the retried traces.
    rules = scorer.rules
    scorer.rules = replace(rules, max_tokens=config["max_tokens"])
    pass_gate(store, scorer, options, ImageOptions())
    scorer.rules = rules
    return ScoreStage(scorer, batched=False)


def score_on_cluster(
    store: Store, cluster: Cluster, options: ScoreOptions, images: ImageOptions
) -> tuple[PrmFacts, LabelStage, Reading]:
    """A PRM on the actors of a cluster.

    Raises:
        InputError: some traces do not fit, and `--overflow error` was given.
    """
    pool = cluster.pool(partial(PrmOnActor, options, images))
    facts: PrmFacts = pool.ask("facts")
    reading = Units.of_windows(store, options, regrouped=True)
    if options.overflow == "error":
        units = (list(store.traces.contexts(options.dataset, trace_ids=u)) for u in reading.units)
        for _ in pool.map(units, method="refuse_over_length", expected=len(reading.units)):
            pass
    return facts, reading.stage(pool), reading


class PrmOnActor:
    """A PRM on an actor of a cluster."""

    def __init__(self, options: ScoreOptions, images: ImageOptions) -> None:
        """Load the model."""
        self._scorer = open_scorer(options, images)

    def facts(self) -> PrmFacts:
        """What it is."""
        return PrmFacts.of(self._scorer)

    def refuse_over_length(self, contexts: Sequence[TraceInContext]) -> None:
        """Refuse traces that do not fit with all their documents."""
        self._scorer.refuse_over_length(contexts)

    def __call__(self, contexts: Sequence[TraceInContext]) -> list[LabeledTrace]:
        """The labels of a unit."""
        return list(ScoreStage(self._scorer)(contexts))
