"""Every tricky pair gets the right decision, in threads and in processes, and none hangs."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from labeling.answers import AnswerChecker, MathProcess, shared_math_process
from labeling.answers.words import same_text
from tests.labeling.answers.tricky_pairs import Pair, tricky_pairs
from traces.problem import Problem

_HOSTILE = Pair(r"\frac{1}{2}", r"\boxed{10^{10^{10^{10}}}}", None)


def decide(pair: Pair, math: MathProcess | None = None) -> bool | None:
    checker = AnswerChecker.for_problem(Problem("p", "q", pair.options, pair.gold), math)
    answer = checker.extract(pair.solution)
    return None if answer is None else checker.is_correct(answer)


def wrong(decisions: list[bool | None]) -> list[tuple[Pair, bool | None]]:
    pairs = tricky_pairs()
    return [
        (pair, decision)
        for pair, decision in zip(pairs, decisions, strict=True)
        if decision is not pair.right
    ]


def test_there_are_two_hundred_different_ones() -> None:
    assert len(set(tricky_pairs())) >= 200


@pytest.mark.slow
def test_right_decisions_from_many_threads() -> None:
    with MathProcess(timeout_s=20) as process, ThreadPoolExecutor(8) as pool:
        assert process.rule("1", "1") == "equal"  # started, with patience for a busy machine
        process.timeout_s = 5
        assert wrong(list(pool.map(lambda pair: decide(pair, process), tricky_pairs()))) == []


@pytest.mark.slow
def test_right_decisions_from_several_processes_each_with_its_own_worker() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert wrong(list(pool.map(decide, tricky_pairs(), chunksize=65))) == []


@pytest.mark.slow
def test_hostile_answer_costs_its_own_time_and_nothing_else() -> None:
    with MathProcess(timeout_s=1) as process, ThreadPoolExecutor(4) as pool:
        assert process.rule("1", "1") == "equal"
        began = time.monotonic()
        hostile = pool.submit(decide, _HOSTILE, process)
        plain = [pool.submit(decide, pair, process) for pair in tricky_pairs() if pair.options]
        assert [one.result(timeout=60) for one in plain] == [
            pair.right for pair in tricky_pairs() if pair.options
        ]
        assert hostile.result(timeout=60) is None
        assert process.kills == 0  # a number that large never reaches the process
        assert time.monotonic() - began < 30
    assert shared_math_process().kills == 0


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("Ménière's disease", "Meniere disease", True),
        ("stage IV lymphoma", "Stage 4 lymphoma", True),
        ("stage IV lymphoma", "stage VI lymphoma", False),
        ("type I error", "type II error", False),
        ("oesophageal stricture", "esophageal stricture", True),
        ("Kawasaki disease (M30.3)", "M30.3", False),
        ("ARDS (acute respiratory distress syndrome)", "acute respiratory distress syndrome", True),
        ("acute respiratory distress syndrome (ARDS)", "ARDS", True),
        ("pancreatitis (acute)", "acute", False),
        ("", "", False),
        ("()", "()", False),
    ],
)
def test_free_text_undoes_spelling_and_guesses_nothing(gold: str, answer: str, same: bool) -> None:
    assert same_text(gold, answer) is same
    assert same_text(answer, gold) is same
