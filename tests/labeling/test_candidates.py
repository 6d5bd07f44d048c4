"""Candidates: kept by rule, topped up in bounded rounds, every refusal named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labeling import Asked, CandidateRule, ProblemCandidates, sample_candidates
from traces.labels import Abstention, AbstentionReason
from traces.problem import Problem, ProblemSamples, SampledText

SEVEN = Problem("p", "3+4?", answer="7")
GOOD = "Step 1: 3\nStep 2: 4\nStep 3: The answer is 7."


class Written:
    """Writes what was laid down for each number of each problem."""

    def __init__(self, texts: dict[tuple[str, int], tuple[str, str]]) -> None:
        self.texts = texts
        self.asked: list[tuple[str, range]] = []

    def sample(self, asked: Iterable[Asked], *, seed: int) -> Iterator[ProblemSamples]:
        for problem, _, wanted in asked:
            self.asked.append((problem.id, wanted))
            drawn = [(i, *self.texts.get((problem.id, i), (GOOD, "stop"))) for i in wanted]
            yield ProblemSamples(
                problem.id, tuple(SampledText(i, text, why, 5) for i, text, why in drawn), "m-1"
            )


def draw(written: Written, rule: CandidateRule, *problems: Problem) -> list[ProblemCandidates]:
    pairs = [(problem, ()) for problem in problems or (SEVEN,)]
    return list(sample_candidates(pairs, written, rule, name="s", generator="hf:x"))


def test_candidates_carry_answer_steps_and_where_they_come_from() -> None:
    wrong = "Step 1: 3\nStep 2: 5\nStep 3: The answer is 8."
    (one,) = draw(Written({("p", 1): (wrong, "stop")}), CandidateRule(n=2, seed=9))
    first, second = one.kept
    assert (first.id, second.id) == ("p:s:0", "p:s:1")
    assert first.steps == ("Step 1: 3", "Step 2: 4", "Step 3: The answer is 7.")
    assert (first.final_answer, first.final_answer_correct) == ("7", True)
    assert (second.final_answer, second.final_answer_correct) == ("8", False)
    assert first.generator == "hf:x"
    assert first.meta == {
        "sample_index": 0,
        "seed": 9,
        "finish_reason": "stop",
        "tokens": 5,
        "resolved_model": "m-1",
    }
    assert one.refused == []


def test_what_breaks_the_rule_is_named_and_drawn_again() -> None:
    texts = {
        ("p", 0): ("Step 1: a\nStep 2: b", "stop"),
        ("p", 1): ("Step 1: a\nStep 2: b\nStep 3: c", "length"),
        ("p", 3): ("\n\n".join("abcdefghij"), "stop"),
        ("p", 4): ("", "blocked"),
    }
    written = Written(texts)
    (one,) = draw(written, CandidateRule(n=3))
    assert written.asked == [("p", range(3)), ("p", range(3, 5)), ("p", range(5, 7))]
    assert [trace.id for trace in one.kept] == ["p:s:2", "p:s:5", "p:s:6"]
    assert one.refused == [
        ("p:s:0", "2 steps, not 3 to 9"),
        ("p:s:1", "not finished (finish reason: length)"),
        ("p:s:3", "10 steps, not 3 to 9"),
        ("p:s:4", "no text (finish reason: blocked)"),
    ]


def test_rounds_are_bounded_and_other_problems_are_not_drawn_again() -> None:
    texts = {("bad", i): ("one step", "stop") for i in range(100)}
    written = Written(texts)
    full, short = draw(
        written, CandidateRule(n=4, rounds=2), Problem("good", "?"), Problem("bad", "?")
    )
    assert (full.problem.id, len(full.kept)) == ("good", 4)
    assert (short.problem.id, len(short.kept), len(short.refused)) == ("bad", 0, 8)
    assert written.asked == [("good", range(4)), ("bad", range(4)), ("bad", range(4, 8))]
    assert full.kept[0].final_answer_correct is None


def test_keep_all_keeps_what_has_a_step() -> None:
    texts = {("p", 0): ("one", "length"), ("p", 1): ("", "stop")}
    (one,) = draw(Written(texts), CandidateRule(n=2, rounds=1, keep_all=True))
    assert [trace.steps for trace in one.kept] == [("one",)]
    assert one.kept[0].final_answer is None
    assert [why for _, why in one.refused] == ["no text (finish reason: stop)"]


def test_abstaining_policy_ends_a_problem() -> None:
    class Full(Written):
        def sample(self, asked: Iterable[Asked], *, seed: int) -> Iterator[ProblemSamples]:
            for problem, _, _ in asked:
                why = Abstention(AbstentionReason.OVER_LENGTH, "too long")
                yield ProblemSamples(problem.id, (), abstention=why)

    (one,) = draw(Full({}), CandidateRule(n=2))
    assert one.abstention is not None
    assert one.kept == []
