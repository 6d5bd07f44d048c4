"""Candidate traces for problems: sampled from a policy, split into steps, kept by a stated rule.

Med-PRM keeps solutions with 2 < steps < 10 out of 16 generations (its released sampling script).
Candidates that the rule rejects are reported, and replaced in a bounded number of further rounds.

Solutions are split at numbered lines, blank lines or a given delimiter, never inside prose: "as we
saw in Step 2: ..." in the middle of a line starts no step. No text is lost: a preamble belongs to
the first step, unnumbered lines to the step before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from traces import (
    Abstention,
    Config,
    Evidence,
    InputError,
    Problem,
    ProblemSamples,
    SampledText,
    Trace,
    defaults_of,
    option,
    record_defect,
)
from traces.words import STEP_LINE, step_number

if TYPE_CHECKING:
    from labeling.answers import AnswerChecker

_BLANK = re.compile(r"\n[ \t]*\n\s*")


def split_steps(text: str, delimiter: str | None = None) -> tuple[str, ...]:
    """The steps of a solution, stripped, in order; empty if there is no text.

    Args:
        text: the solution.
        delimiter: the text between two steps; None looks for lines that start with "Step n:" or
            the like in another language ("단계 1:", "1단계:", "步骤1", "第一步", "ステップ1",
            "Schritt 1:"; Markdown heading or bold allowed) and, if there are fewer than two, for
            blank lines.

    Raises:
        InputError: an empty delimiter.
    """
    if delimiter == "":
        raise InputError("The step delimiter is empty.", remedy="leave it out, or give some text")
    if delimiter is not None:
        parts = text.split(delimiter)
    else:
        starts = _numbered_starts(text)
        if len(starts) > 1:
            bounds = [0, *starts[1:], len(text)]
            parts = [text[a:b] for a, b in pairwise(bounds)]
        else:
            parts = _BLANK.split(text)
    return tuple(part.strip() for part in parts if part.strip())


def _numbered_starts(text: str) -> list[int]:
    """Offsets of numbered steps; numbers must increase, a repeated one is a remark in a step."""
    starts: list[int] = []
    last = -1
    for found in STEP_LINE.finditer(text):
        number = step_number(found)
        if number > last:
            starts.append(found.start())
            last = number
    return starts


Asked = tuple[Problem, Sequence[Evidence], range]
"""A problem, the evidence for it, and the numbers of the candidates to sample."""


class Sampler(Protocol):
    """Writes whole solutions; implemented by `LocalSampler` and `ServerSampler` in inference."""

    def sample(self, asked: Iterable[Asked], *, seed: int) -> Iterator[ProblemSamples]:
        """Yield the solutions of every problem as they are done, in any order."""


class CandidateRule(Config):
    """How many candidates are sampled and which are kept; stored with them."""

    n: int = option(
        default=16,
        flags=("-n", "--n"),
        metavar="N",
        between=(1, None),
        help="Candidates per problem.",
    )
    seed: int = option(
        default=0, metavar="N", between=(0, None), help="Seed of the policy's sampling."
    )
    min_steps: int = option(
        default=3, metavar="N", between=(1, None), help="Minimum number of steps of a candidate."
    )
    max_steps: int = option(
        default=9, metavar="N", between=(1, None), help="Maximum number of steps of a candidate."
    )
    rounds: int = option(
        default=3,
        metavar="N",
        between=(1, None),
        help="Maximum sampling rounds; later ones replace rejected candidates.",
    )
    delimiter: str | None = option(
        default=None,
        style="escaped",
        metavar="TEXT",
        help="Text between two steps, \\n is a line break [default: 'Step n:' or blank lines].",
    )
    keep_all: bool = option(
        default=False, help="Keep every candidate that has a step, even an unfinished one."
    )

    def check(self) -> None:
        """Refuse an empty range of steps.

        Raises:
            InputError: the minimum is above the maximum.
        """
        super().check()
        if self.min_steps > self.max_steps:
            raise InputError(
                f"--min-steps {self.min_steps} is more than --max-steps {self.max_steps}.",
                remedy="swap them",
            )

    def as_dict(self) -> dict[str, Any]:
        """The rule as stored."""
        return {name: getattr(self, name) for name in defaults_of(CandidateRule)}

    def refusal(self, text: SampledText, steps: Sequence[str]) -> str | None:
        """Why a solution is rejected, in one sentence; None if it is kept."""
        if not steps:
            return f"no text (finish reason: {text.finish_reason})"
        if self.keep_all:
            return None
        if text.finish_reason != "stop":
            return f"not finished (finish reason: {text.finish_reason})"
        if not self.min_steps <= len(steps) <= self.max_steps:
            plural = "step" if len(steps) == 1 else "steps"
            return f"{len(steps)} {plural}, not {self.min_steps} to {self.max_steps}"
        return None


@dataclass(slots=True)
class ProblemCandidates:
    """All candidates of one problem."""

    problem: Problem
    kept: list[Trace] = field(default_factory=list)
    """Candidates in order of their number, at most `n`."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(candidate id, reason) of the rejected candidates."""
    abstention: Abstention | None = None
    """Set if the policy could not answer this problem at all."""


def sample_candidates(
    problems: Iterable[tuple[Problem, Sequence[Evidence]]],
    sampler: Sampler,
    rule: CandidateRule,
    *,
    name: str,
    generator: str,
    checker_factory: Callable[[Problem], AnswerChecker] | None = None,
) -> Iterator[ProblemCandidates]:
    """Sample candidates in rounds; yield each problem once, when it is complete or out of rounds.

    Candidate `i` depends on (seed, problem, i) alone. Its id is `<problem>:<name>:<i>`.

    Args:
        problems: with the evidence that the policy is shown.
        sampler: writes the solutions.
        rule: how many to sample and which to keep.
        name: name of this set of candidates.
        generator: name of the policy, as stored with the traces.
        checker_factory: makes the reader and checker of answers to a problem; None takes
            `AnswerChecker.for_problem`.
    """
    open_ = {problem.id: (ProblemCandidates(problem), evidence) for problem, evidence in problems}
    readers = {id_: _reader(one.problem, checker_factory) for id_, (one, _) in open_.items()}
    sampled = dict.fromkeys(open_, 0)
    for round_ in range(1, rule.rounds + 1):
        asked: list[Asked] = []
        for id_, (one, evidence) in open_.items():
            missing = rule.n - len(one.kept)
            asked.append((one.problem, evidence, range(sampled[id_], sampled[id_] + missing)))
            sampled[id_] += missing
        for samples in sampler.sample(asked, seed=rule.seed):
            one, evidence = open_[samples.problem_id]
            checker = readers[samples.problem_id]
            _add(one, samples, rule, checker=checker, name=name, generator=generator)
            if samples.abstention or len(one.kept) == rule.n or round_ == rule.rounds:
                del open_[samples.problem_id]
                yield one
        if not open_:
            return


def _reader(
    problem: Problem, checker_factory: Callable[[Problem], AnswerChecker] | None
) -> AnswerChecker | None:
    """The checker of the problem's answers; None if the gold answer is missing or unusable."""
    from labeling.answers import AnswerChecker, unusable_gold

    if not (problem.answer or "").strip() or unusable_gold(problem) is not None:
        return None
    return (checker_factory or AnswerChecker.for_problem)(problem)


def _add(
    one: ProblemCandidates,
    samples: ProblemSamples,
    rule: CandidateRule,
    *,
    checker: AnswerChecker | None,
    name: str,
    generator: str,
) -> None:
    """Add the solutions of one round."""
    one.abstention = samples.abstention
    for text in samples.texts:
        candidate_id = f"{one.problem.id}:{name}:{text.index}"
        try:
            steps = split_steps(text.text, rule.delimiter)
            refusal = rule.refusal(text, steps)
        except Exception as fault:
            # No reply of a model may end a run, whatever we forgot about it.
            one.refused.append((candidate_id, record_defect(fault, candidate_id)))
            continue
        if refusal is not None:
            one.refused.append((candidate_id, refusal))
            continue
        finished = text.finish_reason == "stop"
        answer = None if checker is None else checker.extract(text.text, finished=finished)
        meta = {
            "sample_index": text.index,
            "seed": rule.seed,
            "finish_reason": text.finish_reason,
            "tokens": text.tokens,
        }
        if samples.resolved_model is not None:
            meta["resolved_model"] = samples.resolved_model
        correct = None if checker is None or answer is None else checker.is_correct(answer)
        one.kept.append(
            Trace(
                candidate_id,
                one.problem.id,
                steps,
                generator=generator,
                final_answer=answer,
                final_answer_correct=correct,
                meta=meta,
            )
        )
    one.kept.sort(key=lambda trace: int(trace.meta["sample_index"]))
