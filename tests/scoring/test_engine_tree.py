"""The tree of token sequences: nothing lost, nothing twice, every parent right before its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.engine.forward import Node, plant
from scoring.family import LaidOutTrace

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@st.composite
def traces(draw: st.DrawFn) -> list[LaidOutTrace]:
    """Sequences that often begin alike, each read at one or more positions, in steps of any number."""
    starts = draw(st.lists(tokens, min_size=1, max_size=3))
    made = []
    for number in range(draw(st.integers(1, 8))):
        ids = (*draw(st.sampled_from(starts)), *draw(tokens))
        places = draw(
            st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=4, unique=True).map(sorted)
        )
        cut = draw(st.integers(0, len(places)))
        made.append(LaidOutTrace(str(number), ids, (tuple(places[:cut]), tuple(places[cut:]))))
    return made


def path(node: Node) -> list[Node]:
    return [*reversed(list(node.above())), node]


@pytest.mark.slow
@settings(max_examples=25)
@given(traces(), st.booleans())
def test_every_trace_can_be_read_back(found: list[LaidOutTrace], share: bool) -> None:
    nodes = plant(found, share=share)
    ends = {node.trace: node for node in nodes if node.trace is not None}
    assert sorted(ends) == list(range(len(found)))
    for number, trace in enumerate(found):
        end = ends[number]
        assert sum((node.ids for node in path(end)), ()) == trace.ids
        places = [place for positions in trace.read_at for place in positions]
        assert [end.start + place for place in end.read_at] == places
        assert all(0 <= place < len(end.ids) for place in end.read_at)


@settings(max_examples=25)
@given(traces())
def test_nodes_come_in_the_order_of_the_tree(found: list[LaidOutTrace]) -> None:
    """What stands behind a node follows it without a gap: a pack's views are slices."""
    nodes = plant(found, share=True)
    for shared in nodes:
        below = [place for place, node in enumerate(nodes) if shared in node.above()]
        first = nodes.index(shared) + 1
        assert below == list(range(first, first + len(below)))
        assert (shared.trace is None) == bool(below)
        assert all(node.ids for node in nodes)


@settings(max_examples=25)
@given(traces())
def test_sharing_never_computes_more_tokens(found: list[LaidOutTrace]) -> None:
    whole = sum(len(trace.ids) for trace in found)
    assert sum(len(node.ids) for node in plant(found, share=True)) <= whole
    assert sum(len(node.ids) for node in plant(found, share=False)) == whole


def test_documents_that_only_some_candidates_see_are_shared_among_those() -> None:
    head, more = tuple(range(100)), tuple(range(100, 160))
    few = [LaidOutTrace(str(i), (*head, 900 + i, 1), ((101,),)) for i in range(3)]
    many = [LaidOutTrace(str(i), (*head, *more, 800 + i, 1), ((161,),)) for i in range(3)]
    shared = [node.ids for node in plant([*few, *many], share=True) if node.trace is None]
    assert shared == [head, more] or shared == [head, (*more,)]


def test_a_short_common_beginning_is_not_worth_a_node() -> None:
    alike = [LaidOutTrace(str(i), (7, 7, *([i] * 200)), ((150,),)) for i in range(4)]
    assert all(node.trace is not None for node in plant(alike, share=True))


def test_many_nested_beginnings() -> None:
    """Deeper than Python would recurse."""
    nested = [LaidOutTrace(str(i), (*range(i + 1), 5, 6), ((i + 2,),)) for i in range(1100)]
    ends = {node.trace for node in plant(nested, share=True)}
    assert ends - {None} == set(range(1100))
