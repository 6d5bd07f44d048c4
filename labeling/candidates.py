"""Candidate traces for problems: what a policy writes, split into steps, kept by a stated rule.

Med-PRM keeps solutions with 2 < steps < 10 out of 16 generations (its released sampling script,
facts in docs/decisions.md). What the rule turns away is named, and drawn again in bounded rounds.

A solution as a list of steps: by numbered lines, by blank lines, or by a given delimiter.

Never inside prose: "as we saw in Step 2: ..." in the middle of a line starts no step. Nothing is
lost: a preamble belongs to the first step, unnumbered lines to the step before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from labeling.answers import AnswerChecker, unusable_gold
from traces.errors import InputError
from traces.evidence import Evidence
from traces.labels import Abstention
from traces.problem import Problem, ProblemSamples, SampledText, Trace

_NUMBERED = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*)?(?:\*\*|__)?Step[ \t]+(\d+)\b[ \t]*[:.)]", re.M | re.I
)
_BLANK = re.compile(r"\n[ \t]*\n\s*")


def split_steps(text: str, delimiter: str | None = None) -> tuple[str, ...]:
    """The steps of a solution, stripped, in order; empty if there is no text.

    Args:
        text: the solution.
        delimiter: what stands between two steps; None looks for lines that start with "Step n:"
            (Markdown heading or bold allowed) and, where there are fewer than two, for blank lines.

    Raises:
        InputError: an empty delimiter.
    """
    if delimiter == "":
        raise InputError("The step delimiter is empty.", remedy="leave it out, or name a text")
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
    """Where numbered steps begin: the numbers must go up, a repeated one is a remark in a step."""
    starts: list[int] = []
    last = -1
    for found in _NUMBERED.finditer(text):
        if int(found[1]) > last:
            starts.append(found.start())
            last = int(found[1])
    return starts


# --- Candidate traces for problems: what a policy writes, split into steps, kept by a stated rule


Asked = tuple[Problem, Sequence[Evidence], range]
"""A problem, what is known about it, and the numbers of the candidates wanted."""


class Sampler(Protocol):
    """Writes whole solutions; implemented by `inference.local.policy` and `.server_sampler`."""

    def sample(self, asked: Iterable[Asked], *, seed: int) -> Iterator[ProblemSamples]:
        """Yield the texts of every problem as they are done, in any order."""


@dataclass(frozen=True, slots=True)
class CandidateRule:
    """How many candidates, and which ones are kept; stored with them."""

    n: int = 16
    """Candidates a problem."""
    seed: int = 0
    """Seed of the sampling."""
    min_steps: int = 3
    """Fewest steps of a candidate."""
    max_steps: int = 9
    """Most steps of a candidate."""
    rounds: int = 3
    """Draws of at most `n`; those after the first only fill what was turned away."""
    delimiter: str | None = None
    """What stands between two steps; None looks for "Step n:" lines and blank lines."""
    keep_all: bool = False
    """Keep what the rule would turn away, as long as it has a step."""

    def as_dict(self) -> dict[str, Any]:
        """The rule as it is stored."""
        return asdict(self)

    def refusal(self, text: SampledText, steps: Sequence[str]) -> str | None:
        """Why a text is no candidate, in one sentence; None if it is one."""
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
class Candidates:
    """All candidates of one problem."""

    problem: Problem
    """The problem."""
    kept: list[Trace] = field(default_factory=list)
    """Candidates by number, at most `n`."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(candidate id, why) of what was drawn and turned away."""
    abstention: Abstention | None = None
    """Set if the policy could not write for this problem at all."""


def sample_candidates(
    problems: Iterable[tuple[Problem, Sequence[Evidence]]],
    sampler: Sampler,
    rule: CandidateRule,
    *,
    name: str,
    generator: str,
    checker_factory: Callable[[Problem], AnswerChecker] = AnswerChecker.for_problem,
) -> Iterator[Candidates]:
    """Draw candidates in rounds; yield each problem once, when it is full or its rounds are over.

    Candidate `i` depends on (seed, problem, i) alone. Its id is `<problem>:<name>:<i>`.

    Args:
        problems: with the evidence the policy may see.
        sampler: who writes.
        rule: how many and which.
        name: of this set of candidates.
        generator: the policy as the traces name it.
        checker_factory: reads and checks the final answer.
    """
    open_ = {problem.id: (Candidates(problem), evidence) for problem, evidence in problems}
    readers = {id_: _reader(one.problem, checker_factory) for id_, (one, _) in open_.items()}
    drawn = dict.fromkeys(open_, 0)
    for round_ in range(1, rule.rounds + 1):
        asked: list[Asked] = []
        for id_, (one, evidence) in open_.items():
            missing = rule.n - len(one.kept)
            asked.append((one.problem, evidence, range(drawn[id_], drawn[id_] + missing)))
            drawn[id_] += missing
        for samples in sampler.sample(asked, seed=rule.seed):
            one, evidence = open_[samples.problem_id]
            _take(one, samples, rule, readers[samples.problem_id], name, generator)
            if samples.abstention or len(one.kept) == rule.n or round_ == rule.rounds:
                del open_[samples.problem_id]
                yield one
        if not open_:
            return


def _reader(
    problem: Problem, checker_factory: Callable[[Problem], AnswerChecker]
) -> AnswerChecker | None:
    """What reads the problem's final answers; None where the gold answer is missing or unusable."""
    if not (problem.answer or "").strip() or unusable_gold(problem) is not None:
        return None
    return checker_factory(problem)


def _take(
    one: Candidates,
    samples: ProblemSamples,
    rule: CandidateRule,
    checker: AnswerChecker | None,
    name: str,
    generator: str,
) -> None:
    """Enter what was drawn in one round."""
    one.abstention = samples.abstention
    for text in samples.texts:
        candidate_id = f"{one.problem.id}:{name}:{text.index}"
        steps = split_steps(text.text, rule.delimiter)
        refusal = rule.refusal(text, steps)
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
        one.kept.append(
            Trace(
                candidate_id,
                one.problem.id,
                steps,
                generator=generator,
                final_answer=answer,
                final_answer_correct=None
                if checker is None or answer is None
                else checker.is_correct(answer),
                meta=meta,
            )
        )
    one.kept.sort(key=lambda trace: int(trace.meta["sample_index"]))
