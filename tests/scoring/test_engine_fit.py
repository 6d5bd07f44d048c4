"""The window: nothing is cut, nobody pays for another's length, the rules are followed."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from scoring.engine.engine import Scorer
from scoring.engine.fit import FitRules, Fitted, Overflow, fit
from scoring.families.likelihood import Likelihood
from scoring.families.medprm import MedPrm
from tests.tiny_models import tiny_llama, tiny_tokenizer
from traces.errors import InputError
from traces.evidence import Evidence, Passage
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import Problem, Trace, TraceInContext


@pytest.fixture(scope="module")
def family() -> MedPrm:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    return MedPrm(tokenizer, tiny_llama(tokenizer, max_position_embeddings=2048))


@pytest.fixture(scope="module")
def pool() -> list[TraceInContext]:
    """Twenty candidates of one problem with six documents; every fifth is far longer."""
    draw = random.Random(4)
    evidence = tuple(
        Evidence(Passage("c", f"d{r}", 0, 0, 0, "The cap is 300 mg a day. " * (2 + r % 3)), None, r)
        for r in range(6)
    )
    problem = Problem("p", "Which single dose?")
    made = []
    for number in range(20):
        words = 140 if number % 5 == 0 else draw.randint(4, 12)
        steps = tuple(f"Step {i + 1}: {'6 mg per kg ' * words}" for i in range(3))
        made.append(TraceInContext(problem, Trace(f"t{number}", "p", steps), evidence))
    return made


def size(family: MedPrm, context: TraceInContext, documents: int) -> int:
    return len(family.lay_out(context, context.evidence[:documents]).ids)


def by_id(labels: Any) -> dict[str, TraceLabel]:
    return {label.trace_id: label for label in labels}


def scores(label: TraceLabel) -> list[float | None]:
    return [step.score for step in label.step_labels]


def window(family: MedPrm, pool: list[TraceInContext]) -> int:
    """Enough for all short ones whole, and for the long ones with some of their documents."""
    short = max(size(family, one, 6) for one in pool if not one.trace.id.endswith(("0", "5")))
    long = [one for one in pool if one.trace.id.endswith(("0", "5"))]
    assert max(size(family, one, 0) for one in long) > short
    return size(family, long[0], 3)


def test_a_fifth_of_over_long_traces_is_shortened_named_and_changes_no_other_score(
    family: MedPrm, pool: list[TraceInContext]
) -> None:
    limit = window(family, pool)
    found = by_id(Scorer(family, max_tokens=limit).score(pool))
    assert set(found) == {one.trace.id for one in pool}
    short = [one for one in pool if not one.trace.id.endswith(("0", "5"))]
    alone = by_id(Scorer(family, max_tokens=limit).score(short))
    for one in pool:
        label = found[one.trace.id]
        assert label.abstention is None
        assert len(label.step_labels) == len(one.trace.steps)
        assert None not in scores(label)
        assert (label.meta["documents_dropped"] > 0) == (one.trace.id not in alone)
        assert label.meta["tokens"] <= limit
    for name, label in alone.items():
        assert scores(found[name]) == pytest.approx(scores(label), abs=1e-5)
        assert found[name].meta == label.meta


@pytest.mark.parametrize("reserve", [0, 400])
def test_a_traces_documents_follow_from_itself_alone(
    family: MedPrm, pool: list[TraceInContext], reserve: int
) -> None:
    scorer = Scorer(family, max_tokens=window(family, pool), reserve=reserve)
    together = by_id(scorer.score(random.Random(1).sample(pool, len(pool))))
    for one in pool[::6]:
        [alone] = scorer.score([one])
        assert together[one.trace.id].meta == alone.meta
        assert scores(together[one.trace.id]) == pytest.approx(scores(alone), abs=1e-5)


def test_a_reserve_gives_all_traces_up_to_it_the_same_documents(
    family: MedPrm, pool: list[TraceInContext]
) -> None:
    short = [one for one in pool if not one.trace.id.endswith(("0", "5"))]
    longest = max(size(family, one, 0) for one in short)
    limit = longest + 100
    seen = {
        reserve: {
            found.documents
            for one in short
            if isinstance(found := fit(family, one, FitRules(limit, reserve=reserve)), Fitted)
        }
        for reserve in (0, longest)
    }
    assert len(seen[0]) > 1, "without one, short traces see more"
    assert len(seen[longest]) == 1
    assert max(seen[longest]) == min(seen[0])


def test_the_reserve_leaves_longer_traces_what_they_need(
    family: MedPrm, pool: list[TraceInContext]
) -> None:
    rules = FitRules(window(family, pool), reserve=100)
    for one in pool:
        found = fit(family, one, rules)
        assert isinstance(found, Fitted)
        assert len(found.laid_out.ids) <= rules.max_tokens


@pytest.mark.parametrize("room", range(0, 260, 13))
def test_as_many_documents_as_fit(family: MedPrm, pool: list[TraceInContext], room: int) -> None:
    """In the order of rank; the next one that was left out would not have fitted."""
    one = pool[1]
    limit = size(family, one, 0) + room
    found = fit(family, one, FitRules(limit))
    assert isinstance(found, Fitted)
    assert len(found.laid_out.ids) <= limit
    assert found.documents + found.dropped == 6
    if found.dropped:
        kept = max(n for n in range(7) if n == 0 or size(family, one, n) <= limit)
        assert found.documents >= kept - 1, "a document's place in the text may cost a token"


def test_documents_go_in_whole_or_not_at_all(family: MedPrm, pool: list[TraceInContext]) -> None:
    one = pool[1]
    subsets = (s for n in range(7) for s in combinations(one.evidence, n))
    whole = {family.lay_out(one, subset).ids for subset in subsets}
    for room in (30, 90, 150):
        found = fit(family, one, FitRules(size(family, one, 0) + room))
        assert isinstance(found, Fitted)
        assert found.laid_out.ids in whole


def test_abstain(family: MedPrm, pool: list[TraceInContext]) -> None:
    limit = window(family, pool)
    found = by_id(Scorer(family, max_tokens=limit, overflow=Overflow.ABSTAIN).score(pool))
    for one in pool:
        label = found[one.trace.id]
        if size(family, one, 6) <= limit:
            assert label.meta["documents"] == 6
        else:
            assert label.abstention is not None
            assert label.abstention.reason is AbstentionReason.OVER_LENGTH
            assert str(size(family, one, 6)) in label.abstention.detail


def test_error_names_the_traces_before_anything_is_scored(
    family: MedPrm, pool: list[TraceInContext]
) -> None:
    scorer = Scorer(family, max_tokens=window(family, pool), overflow=Overflow.ERROR)
    with pytest.raises(InputError) as caught:
        scorer.refuse_over_length(pool)
    assert "4 traces" in caught.value.what
    assert caught.value.where == '"t0", "t5", "t10" and 1 more'
    scorer.refuse_over_length([one for one in pool if not one.trace.id.endswith(("0", "5"))])
    Scorer(family, max_tokens=600).refuse_over_length(pool)


def test_a_reserve_of_the_whole_window_is_refused(family: MedPrm) -> None:
    with pytest.raises(InputError, match="reserve"):
        Scorer(family, max_tokens=100, reserve=100)


def test_the_configuration_says_how_traces_are_made_to_fit(family: MedPrm) -> None:
    one = Scorer(family, max_tokens=100, reserve=7, overflow=Overflow.ABSTAIN).config()
    assert (one["overflow"], one["reserve"]) == ("abstain", 7)


def test_a_step_at_the_very_end_of_the_window_is_read(
    family: MedPrm, pool: list[TraceInContext]
) -> None:
    """A window of exactly the trace's length: no step is lost at the end, one token less drops."""
    one = replace(pool[1], evidence=())
    exact = size(family, one, 0)
    [label] = Scorer(family, max_tokens=exact).score([one])
    assert None not in scores(label)
    [label] = Scorer(family, max_tokens=exact - 1).score([one])
    assert label.abstention is not None


def test_families_whose_markers_end_the_sequence(pool: list[TraceInContext]) -> None:
    """The likelihood reads the last token from the one before; nothing is read behind the end."""
    tokenizer = tiny_tokenizer()
    family = Likelihood(tokenizer, tiny_llama(tokenizer, max_position_embeddings=2048))
    [label] = Scorer(family, max_tokens=1024).score([pool[1]])
    assert len(label.step_labels) == 3
    assert all(0 <= float(step.score or 0) <= 1 for step in label.step_labels)
