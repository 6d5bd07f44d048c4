"""The engine: batches change nothing, documents are dropped whole and counted, nothing is ever cut."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from scoring.engine.engine import Scorer
from scoring.families.likelihood import Likelihood
from scoring.families.medprm import MedPrm
from traces.evidence import Evidence
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import TraceInContext


@pytest.fixture(scope="module")
def family(medprm_folder: Path) -> MedPrm:
    model: Any = AutoModelForCausalLM.from_pretrained(medprm_folder)
    return MedPrm(AutoTokenizer.from_pretrained(medprm_folder), model)


def scores(label: TraceLabel) -> list[float | None]:
    return [step.score for step in label.step_labels]


def run(scorer: Scorer, contexts: list[TraceInContext]) -> dict[str, TraceLabel]:
    return {label.trace_id: label for label in scorer.score(contexts)}


@pytest.fixture(scope="module")
def alone(family: MedPrm, contexts: list[TraceInContext]) -> dict[str, TraceLabel]:
    """Every trace scored by a call of its own."""
    scorer = Scorer(family, max_tokens=1024)
    return {key: label for one in contexts for key, label in run(scorer, [one]).items()}


@pytest.mark.parametrize("batch_tokens", [1, 700, 1400, 100_000])
def test_batches_change_no_score(
    family: MedPrm, contexts: list[TraceInContext], alone: dict[str, TraceLabel], batch_tokens: int
) -> None:
    found = run(Scorer(family, max_tokens=1024, batch_tokens=batch_tokens), contexts)
    assert set(found) == set(alone)
    for name, label in alone.items():
        assert scores(found[name]) == pytest.approx(scores(label), abs=1e-5)


def test_each_score_goes_to_its_trace_and_step_in_any_order(
    family: MedPrm, contexts: list[TraceInContext], alone: dict[str, TraceLabel]
) -> None:
    shuffled = random.Random(0).sample(contexts, len(contexts))
    found = run(Scorer(family, max_tokens=1024), shuffled)
    for context in contexts:
        name = context.trace.id
        assert len(found[name].step_labels) == len(context.trace.steps)
        assert scores(found[name]) == pytest.approx(scores(alone[name]), abs=1e-5)


@pytest.mark.parametrize(("most", "taken_at_first"), [(2048, 7), (5, 6)])
def test_problems_are_read_ahead_whole(
    family: MedPrm, contexts: list[TraceInContext], monkeypatch: pytest.MonkeyPatch,
    most: int, taken_at_first: int,
) -> None:  # fmt: skip
    """Problems of three candidates: the window ends behind a problem, or where it is full."""
    monkeypatch.setattr("traces.records.READ_AHEAD", 4)
    monkeypatch.setattr("traces.records.READ_AHEAD_MOST", most)
    taken = []

    def stream() -> Any:
        for number, context in enumerate(contexts):
            taken.append(context.trace.id)
            yield replace(context, problem=contexts[number // 3].problem)

    labels = Scorer(family, max_tokens=1024).score(stream())
    next(labels)
    assert len(taken) == taken_at_first, "the first of the next window shows that this one is whole"
    assert len(list(labels)) == len(contexts) - 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_is_of_no_concern(
    family: MedPrm, contexts: list[TraceInContext], alone: dict[str, TraceLabel], side: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(family.tokenizer, "padding_side", side)
    found = run(Scorer(family, max_tokens=1024), contexts)
    for name, label in alone.items():
        assert scores(found[name]) == pytest.approx(scores(label), abs=1e-5)


def test_one_forward_reads_all_steps_of_a_batch(
    family: MedPrm, contexts: list[TraceInContext]
) -> None:
    shapes: list[tuple[int, ...]] = []
    scorer = Scorer(family, max_tokens=1024, batch_tokens=100_000)
    handle = family.backbone.register_forward_hook(
        lambda _, __, options, ___: shapes.append(tuple(options["input_ids"].shape)),
        with_kwargs=True,
    )
    run(scorer, contexts)
    handle.remove()
    whole = sum(len(family.lay_out(one, one.evidence).ids) for one in contexts)
    assert len(shapes) == 1
    assert shapes[0][0] == 1, "one row, no padding"
    assert shapes[0][1] < whole, "what traces begin with in common is there once"


def test_a_batch_stays_within_its_tokens(family: MedPrm, contexts: list[TraceInContext]) -> None:
    sizes: list[int] = []
    handle = family.backbone.register_forward_hook(
        lambda _, __, options, ___: sizes.append(options["input_ids"].numel()), with_kwargs=True
    )
    run(Scorer(family, max_tokens=1024, batch_tokens=1300), contexts)
    handle.remove()
    assert max(sizes) <= 1300
    assert len(sizes) < len(contexts)


def with_evidence(context: TraceInContext, order: tuple[int, ...]) -> TraceInContext:
    evidence = tuple(
        Evidence(context.evidence[i].passage, None, rank) for rank, i in enumerate(order)
    )
    return replace(context, evidence=evidence)


@pytest.mark.parametrize(("order", "kept"), [((0, 1, 2), (1, 2)), ((1, 0, 2), (1, 2))])
def test_documents_that_do_not_fit_are_left_out_whole_and_counted(
    family: MedPrm, contexts: list[TraceInContext], order: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    """The long passage goes, wherever it stands; shorter ones behind it stay."""
    context, wanted = with_evidence(contexts[3], order), with_evidence(contexts[3], kept)
    room = len(family.lay_out(wanted, wanted.evidence).ids) + 20
    [label] = Scorer(family, max_tokens=room).score([context])
    [expected] = Scorer(family, max_tokens=1024).score([wanted])
    tokens = len(family.lay_out(wanted, wanted.evidence).ids)
    assert label.meta == {"tokens": tokens, "documents": 2, "documents_dropped": 1}
    assert scores(label) == pytest.approx(scores(expected), abs=1e-5)


def test_the_wording_with_documents_counts_too(
    family: MedPrm, contexts: list[TraceInContext]
) -> None:
    """Whatever the window, what is fed to the model stays within it."""
    context = contexts[3]
    fed: list[int] = []
    handle = family.backbone.register_forward_hook(
        lambda _, __, options, ___: fed.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    bare = len(family.lay_out(context, ()).ids)
    for room in range(bare, bare + 200, 7):
        [label] = Scorer(family, max_tokens=room).score([context])
        assert label.meta["documents"] + label.meta["documents_dropped"] == 3
        assert fed.pop() <= room
    handle.remove()


def test_a_trace_that_does_not_fit_without_documents_is_abstained_from(
    family: MedPrm, contexts: list[TraceInContext], alone: dict[str, TraceLabel]
) -> None:
    bare = {one.trace.id: len(family.lay_out(one, ()).ids) for one in contexts}
    room = sorted(bare.values())[4]
    found = run(Scorer(family, max_tokens=room), contexts)
    assert set(found) == set(bare)
    for name, label in found.items():
        if bare[name] > room:
            assert label.abstention is not None
            assert label.abstention.reason is AbstentionReason.OVER_LENGTH
            assert label.step_labels == ()
            assert str(bare[name]) in label.abstention.detail
        else:
            assert label.abstention is None
            assert None not in scores(label)
    fits = [one for one in contexts if bare[one.trace.id] <= room and not one.evidence]
    assert fits
    for one in fits:
        assert scores(found[one.trace.id]) == pytest.approx(scores(alone[one.trace.id]), abs=1e-5)


def test_a_step_without_tokens_is_not_measured(family: MedPrm) -> None:
    """An empty line under the likelihood has no token to be read; it gets a reason, not a number."""
    from traces.problem import Problem, Trace

    model: Any = AutoModelForCausalLM.from_pretrained(str(family.tokenizer.name_or_path))
    scorer = Scorer(Likelihood(family.tokenizer, model), max_tokens=512)
    empty = TraceInContext(Problem("p", "Dose?"), Trace("t", "p", ("",)))
    half = TraceInContext(Problem("p", "Dose?"), Trace("u", "p", ("", "6 mg")))
    found = run(scorer, [empty, half])
    [step] = found["t"].step_labels
    assert step.abstention is not None
    assert (step.score, step.abstention.reason) == (None, AbstentionReason.NOT_MEASURED)
    assert scores(found["u"])[0] is None
    assert scores(found["u"])[1] is not None


def test_the_configuration_is_strict_json_without_paths(
    medprm_folder: Path, family: MedPrm
) -> None:
    config = Scorer(family, max_tokens=99, weights="sha256:x").config()
    assert json.loads(json.dumps(config, allow_nan=False)) == config
    assert config == {
        "family": "medprm",
        "mode": "strict",
        "max_tokens": 99,
        "overflow": "drop-documents",
        "reserve": 0,
        "prefix": "shared",
        "dtype": "float32",
        "weights": "sha256:x",
    }
    assert str(medprm_folder) not in json.dumps(config)
