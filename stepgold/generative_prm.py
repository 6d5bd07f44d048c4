"""Generative PRMs: a family that is data, asked turn by turn on this machine or on a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import GenerativeFamily
from stepgold.console import note
from stepgold.labeling_run import LabelStage, label_missing
from stepgold.models import RunTerms, dispatcher, parse_spec
from stepgold.options import open_cluster
from stepgold.outcome import Tally
from stepgold.versions import ModelTruth
from traces import InputError, LabeledTrace, Labeler, LabelerKind

if TYPE_CHECKING:
    from stepgold.scoring_run import ScoreOptions
    from storage import Store
    from traces import TraceInContext

ENGINE_KEY = "asked"
"""Key of a labeler's configuration: whether it was asked in words, turn by turn."""


def asked_family(options: ScoreOptions) -> GenerativeFamily | None:
    """The family if it is asked in words; None if it is read in single passes.

    Raises:
        InputError: the model cannot be asked in words.
    """
    family = options.family
    if not isinstance(family, GenerativeFamily):
        return None
    kind = parse_spec(options.prm).kind
    if family.is_one_pass and (kind == "hf" or options.checkpoint is not None):
        return None
    if kind not in ("openai", "hf"):
        raise InputError(
            f"The family {family.name} needs a model that lists token probabilities.",
            where="--prm",
            remedy="use openai:MODEL or hf:PATH",
        )
    changed: dict[str, Any] = {}
    if options.votes is not None:
        changed["votes"] = options.votes
    if options.max_tokens is not None:
        changed["max_tokens"] = options.max_tokens
    return GenerativeFamily.parse(family.as_dict() | changed, where="--family")


def generative_config(family: GenerativeFamily) -> dict[str, Any]:
    """What the labels depend on besides the model."""
    return {"family": family.name, ENGINE_KEY: True, "generative": family.as_dict()}


def score_by_asking(
    store: Store, closing: ExitStack, options: ScoreOptions, family: GenerativeFamily
) -> Tally:
    """Score the traces that have no label yet; every reply is stored.

    Raises:
        InputError: the model or its server cannot be used.
    """
    from inference import Purse

    if store.traces.has_images(options.dataset):
        note("The PRM is not shown the images of problems: their steps are scored as text.")
    truth = ModelTruth(allow_mixed=options.allow_mixed)
    cluster = open_cluster(options, closing)
    terms = RunTerms(store, closing, truth, Purse(options.budget), cluster=cluster)
    model = str(parse_spec(options.prm))
    labeler = Labeler(options.name, LabelerKind.PRM, generative_config(family), model=model)
    tally = Tally("score", options.dataset, options.name)
    stage = asking_stage(options, family, terms)
    return label_missing(store, tally, labeler, stage, options=options, truth=truth)


def asking_stage(
    options: ScoreOptions, family: GenerativeFamily, terms: RunTerms, *, first_sample: int = 0
) -> LabelStage:
    """The stage that asks; with `first_sample` above 0, new replies are requested."""
    from scoring import GenerativeScorer

    model = terms.open(
        parse_spec(options.prm),
        base_url=options.base_url,
        insecure_http=options.insecure_http,
        template=None if options.template is None else Path(options.template),
        concurrency=options.concurrency,
    )
    scorer = GenerativeScorer(
        dispatcher(model, terms), family, allow_phi=options.allow_phi, first_sample=first_sample
    )

    def stage(contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        return scorer.score(contexts)

    return stage


def stored_family(config: Mapping[str, Any], max_tokens: int | None = None) -> GenerativeFamily:
    """The family that a labeler was made with, with another limit if one is given."""
    family = GenerativeFamily.parse(config["generative"], where="the labeler's configuration")
    return family if max_tokens is None else replace(family, max_tokens=max_tokens)
