"""A plan's counts are those of the run, its operations those of the formula, its time is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from scoring.engine.cost import LayerWork, expected_work
from scoring.engine.engine import Scorer
from scoring.engine.fit import plan_scoring
from scoring.families.medprm import MedPrm, MedPrmCompat
from tests.tiny_models import tiny_llama, tiny_tokenizer
from traces.problem import Trace, TraceInContext


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    family = MedPrm(tokenizer, tiny_llama(tokenizer, max_position_embeddings=8192))
    return Scorer(family, max_tokens=600)


@pytest.fixture(scope="module")
def pool(contexts: list[TraceInContext]) -> list[TraceInContext]:
    """Four problems with three candidates each, of very different lengths."""
    return [
        replace(one, trace=Trace(f"{one.trace.id}:{i}", one.problem.id, one.trace.steps * 4**i))
        for one in contexts[:4]
        for i in range(3)
    ]


@pytest.mark.slow
def test_counts_are_those_of_the_run(scorer: Scorer, pool: list[TraceInContext]) -> None:
    plan = plan_scoring(scorer, pool, traces=len(pool), sample_seconds=0.01)
    assert (plan.traces, plan.looked_at) == (12, 12)
    assert [at.max_tokens for at in plan.limits] == [600, 1024, 2048, 4096, 8192]
    family = scorer.family
    for at in plan.limits:
        labels = list(Scorer(family, max_tokens=at.max_tokens).score(pool))
        abstained = sum(label.abstention is not None for label in labels)
        shortened = sum(bool(label.meta.get("documents_dropped")) for label in labels)
        assert (at.abstained, at.shortened) == (abstained, shortened)
        assert at.whole == len(labels) - abstained - shortened
    assert plan.limits[0].abstained
    assert plan.limits[0].shortened
    sizes = [len(family.lay_out(one, one.evidence).ids) for one in pool]
    assert plan.longest == max(sizes)


@pytest.mark.slow
def test_counts_are_those_of_the_run_with_the_published_packing(
    scorer: Scorer, pool: list[TraceInContext]
) -> None:
    """Its documents follow from the published window alone: another limit drops none."""
    tokenizer = tiny_tokenizer(extra=[" ки"])
    model = tiny_llama(tokenizer, max_position_embeddings=4096)
    family = MedPrmCompat(tokenizer, model)
    wide = [
        replace(one, evidence=tuple(
            replace(each, passage=replace(each.passage, text=each.passage.text * 12))
            for each in one.evidence
        ))
        for one in pool
    ]  # fmt: skip
    rules: dict[str, Any] = {"packing": "medprm-compat"}
    plan = plan_scoring(
        Scorer(family, max_tokens=2048, **rules), wide, traces=len(wide), sample_seconds=0.01
    )
    counts = set()
    for at in plan.limits:
        labels = list(Scorer(family, max_tokens=at.max_tokens, **rules).score(wide))
        abstained = sum(label.abstention is not None for label in labels)
        shortened = sum(bool(label.meta.get("documents_dropped")) for label in labels)
        assert (at.abstained, at.shortened) == (abstained, shortened), at.max_tokens
        counts.add((at.abstained, at.shortened))
    assert len(counts) > 1
    assert plan.limits[-1].shortened


def test_time_left_weighs_documents_only_where_they_are_shown(
    scorer: Scorer, pool: list[TraceInContext]
) -> None:
    bare = [replace(context, evidence=()) for context in pool]
    shown = expected_work(pool, scorer.work)
    unseen = expected_work(pool, scorer.work, documents=False)
    assert unseen == expected_work(bare, scorer.work)
    assert unseen != shown
    assert scorer.expected_work(pool) == shown


def test_a_reserve_shortens_more(scorer: Scorer, pool: list[TraceInContext]) -> None:
    with_reserve = Scorer(scorer.family, max_tokens=640, reserve=450)
    at = plan_scoring(with_reserve, pool, traces=len(pool), sample_seconds=0.01).limits[0]
    labels = list(with_reserve.score(pool))
    assert at.shortened == sum(bool(label.meta.get("documents_dropped")) for label in labels)
    plain = Scorer(scorer.family, max_tokens=640)
    without = plan_scoring(plain, pool, traces=len(pool), sample_seconds=0.01).limits[0]
    assert at.shortened > without.shortened
    assert at.abstained == without.abstained


def test_a_sample_of_problems_stands_for_all(scorer: Scorer, pool: list[TraceInContext]) -> None:
    alike = [
        replace(one, problem=replace(one.problem, id=str(n))) for n in range(20) for one in pool[:3]
    ]
    whole = plan_scoring(scorer, alike, traces=60, sample_seconds=0.01)
    part = plan_scoring(scorer, alike, traces=60, looked_at=15, sample_seconds=0.01)
    assert (whole.looked_at, part.looked_at) == (60, 15)
    assert part.limits == whole.limits
    assert part.longest == whole.longest


def test_time_is_measured_and_lies_within_its_range(
    scorer: Scorer, pool: list[TraceInContext]
) -> None:
    plan = plan_scoring(scorer, pool, traces=len(pool), sample_seconds=60)
    assert plan.sampled == len(pool)
    assert plan.operations > 0
    assert plan.seconds is not None
    assert plan.seconds_range is not None
    assert 0 < plan.seconds_range[0] <= plan.seconds <= plan.seconds_range[1]
    short = plan_scoring(scorer, pool, traces=len(pool), sample_seconds=0)
    assert short.sampled < len(pool)
    assert json.loads(json.dumps(plan.as_json(), allow_nan=False)) == plan.as_json()


def test_nothing_to_score(scorer: Scorer) -> None:
    plan = plan_scoring(scorer, [], traces=0)
    assert (plan.looked_at, plan.longest, plan.sampled, plan.seconds) == (0, 0, 0, None)
    assert all(at.whole == at.abstained == 0 for at in plan.limits)


def test_operations_by_hand(scorer: Scorer) -> None:
    """Two layers of a Llama 32 wide with 4 heads of 8, 2 for keys and values, 64 between."""
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    work = LayerWork.of(scorer.family.backbone)
    assert work == LayerWork(per_token=2 * 2 * layer, per_pair=2 * 4 * 4 * 8)
    assert work.tokens(3) == 3 * work.per_token + (1 + 2 + 3) * work.per_pair
    split = work.tokens(5) + work.tokens(7, past=5)
    assert split == work.tokens(12), "a prefix and what follows it are the whole"


def test_expected_work_grows_with_the_texts_and_shares_what_is_shared(
    scorer: Scorer, pool: list[TraceInContext]
) -> None:
    work = expected_work(pool, scorer.work)
    assert set(work) == {one.trace.id for one in pool}
    for one in range(0, len(pool), 3):
        candidates = [work[context.trace.id] for context in pool[one : one + 3]]
        assert all(a < b for a, b in pairwise(candidates))
    alone = expected_work(pool[9:10], scorer.work)[pool[9].trace.id]
    assert work[pool[9].trace.id] < alone
