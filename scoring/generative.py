"""Generative PRMs: families that are data (FILE.toml), and the engine that asks them.

turns = "per-step"     # or "whole": one turn for the whole solution
read = "token"         # P(correct) at one token, or "generate": verdicts from the text
history = "own"        # what earlier turns were answered: "own" text, "none" (each turn is its own
                       # conversation), or a fixed answer such as "+"

A vote is one conversation per trace. Its turns go out one after the other, each beginning with the
turns before it, so that servers and local models find them in their prefix caches. A step's score
is the mean of its readable votes; a vote that cannot be read is missing, never 0.5. What a model
writes is read, never executed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from inference import OVER_LENGTH, GenerationRequest, Message, Runner
from judge import PromptProtocol, UnreadableReply, first_token_probability, run_tasks, without_turns
from scoring.names import Aggregation
from traces import (
    Abstention,
    AbstentionReason,
    InputError,
    LabeledTrace,
    ModelError,
    ModelReply,
    Problem,
    StepLabel,
    TraceInContext,
    TraceLabel,
    Verdict,
    refuse_phi,
)

_FIELD = re.compile(r"\{(question|steps|previous|step|number)\}")
_LISTED = 20
"""Candidates of the verdict's token: the most that OpenAI's API and vLLM list."""
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "turns": ("whole", "per-step"),
    "read": ("generate", "token"),
    "reader": ("boxed-verdict", "yes-no", "regex"),
    "aggregation": get_args(Aggregation),
}


@dataclass(frozen=True, slots=True)
class GenerativeFamily:
    """How a generative PRM is asked and read; the content of its TOML file."""

    name: str
    """Stored as the family."""
    turns: Literal["whole", "per-step"]
    first: str
    """The user turn of the first step, or of the whole solution: {question}, {step}, {steps},
    {previous}, {number}."""
    read: Literal["generate", "token"] = "generate"
    later: str = ""
    """The user turn of later steps; empty for the same as the first."""
    system: str = ""
    history: str = "none"
    """`none`, `own`, or the fixed answer of earlier turns."""
    thoughts: bool = False
    """Whether the model writes before its token is read."""
    step: str = "{step}"
    """How a step is written in {steps} and {previous}."""
    separator: str = "\n"
    """Between two of them."""
    number: int = 1
    """Number of the first step."""
    no_previous: str = ""
    """{previous} of the first step."""
    strip: bool = False
    """Whether blanks around steps are dropped."""
    opening: str = ""
    """Beginning of the assistant's turn, written for the model."""
    stop: tuple[str, ...] = ()
    """Strings that end its text."""
    decide_at: str = ""
    """The text is cut after this, and the verdict's token is read there."""
    decide: str = ""
    """Written after the text if it has no `decide_at`; then the token is read."""
    closing: str = ""
    """Follows the verdict in the conversation (history `own`)."""
    reader: Literal["boxed-verdict", "yes-no", "regex"] = "boxed-verdict"
    """How a text is read (read `generate`)."""
    pattern: str = ""
    """For the reader `regex`."""
    correct: tuple[str, ...] = ("correct",)
    """Tokens, or words, for a correct step."""
    incorrect: tuple[str, ...] = ("incorrect",)
    trace_correct: tuple[str, ...] = ()
    """Tokens for a correct solution, read after `decide` (turns `whole`); empty for none."""
    trace_incorrect: tuple[str, ...] = ()
    votes: int = 1
    temperature: float = 0.0
    top_p: float | None = None
    max_tokens: int = 2048
    aggregation: Aggregation = "min"

    @classmethod
    def parse(cls, table: Mapping[str, Any], *, where: str) -> GenerativeFamily:
        """Check the content of a family's file.

        Raises:
            InputError: a key is unknown, missing, or of another type, or a value is not allowed.
        """
        kinds = {field.name: str(field.type) for field in fields(cls)}
        needed = {"name", "turns", "first"}
        for what, keys in (("an unknown", set(table) - set(kinds)), ("no", needed - set(table))):
            if keys:
                raise _fault(f'has {what} key "{min(keys)}"', where, f"use {', '.join(kinds)}")
        family = cls(**{key: _typed(key, value, kinds[key], where) for key, value in table.items()})
        family._check(where)
        return family

    def _check(self, where: str) -> None:
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise _fault(f'has "{key}" = {getattr(self, key)!r}', where, ", ".join(allowed))
        place = "{steps}" if self.turns == "whole" else "{step}"
        if place not in self.first or "{question}" not in self.first:
            raise _fault(f'has a "first" without {{question}} or {place}', where)
        if self.turns == "whole" and self.read == "token":
            raise _fault('reads one "token" for the "whole" solution', where, 'read = "generate"')
        if self.votes < 1 or self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise _fault("has votes, max_tokens or temperature out of range", where)
        if self.votes > 1 and (self.temperature == 0 or not self.writes):
            raise _fault("has several votes that would all be equal", where, "votes = 1")
        self.protocol.check(where)

    @property
    def writes(self) -> bool:
        """Whether the model writes text before it is read."""
        return self.read == "generate" or self.thoughts

    @property
    def is_one_pass(self) -> bool:
        """Whether all scores of a trace can be read in one forward pass."""
        alone = self.opening or self.decide or self.history in ("none", "own")
        return self.turns == "per-step" and not self.writes and not alone

    @property
    def protocol(self) -> PromptProtocol:
        """How its texts are read."""
        return PromptProtocol(
            reader=self.reader,
            step=self.step,
            separator=self.separator,
            first=self.number,
            correct=self.correct,
            incorrect=self.incorrect,
            pattern=self.pattern,
        )

    def as_dict(self) -> dict[str, Any]:
        """The family as stored with a labeler: everything that its scores depend on."""
        settings = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}

    def users(self, question: str, steps: Sequence[str]) -> list[str]:
        """The user turns on a trace: one, or one per step."""
        if self.strip:
            steps = [step.strip() for step in steps]
        if self.turns == "whole":
            return [_filled(self.first, question=question, steps=self.protocol.shown(steps))]
        return [
            _filled(
                self.first if t == 0 or not self.later else self.later,
                question=question,
                steps=self.protocol.shown(steps[: t + 1]),
                previous=self.protocol.shown(steps[:t]) if t else self.no_previous,
                step=step,
                number=str(t + self.number),
            )
            for t, step in enumerate(steps)
        ]


def _filled(template: str, **values: str) -> str:
    return _FIELD.sub(lambda found: values.get(found[1], ""), template)


def read_table(path: Path) -> dict[str, Any]:
    """The content of a family's file.

    Raises:
        InputError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise InputError(f"Cannot read the family file: {fault}.", where=str(path)) from fault


@cache
def packaged_family(name: str) -> GenerativeFamily:
    """A family that StepGold ships as data."""
    text = files("scoring").joinpath("families", f"{name}.toml").read_text("utf-8")
    return GenerativeFamily.parse(tomllib.loads(text), where=f"scoring/families/{name}.toml")


def _fault(what: str, where: str, remedy: str | None = None) -> InputError:
    return InputError(f"The family file {what}.", where=where, remedy=remedy)


def _typed(key: str, value: Any, wanted: str, where: str) -> Any:
    if wanted.startswith("tuple"):
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list | tuple) and all(isinstance(each, str) for each in texts):
            return tuple(texts)
        raise _fault(f'has a "{key}" that is not a list of strings', where)
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "bool": (bool,),
        "float": (int, float),
        "float | None": (int, float, type(None)),
    }
    allowed = kinds.get(wanted, (str,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise _fault(f'has a "{key}" of another type ({type(value).__name__})', where)
    return value


Heard = float | Abstention
"""What one vote says of one step: a probability in [0, 1], or why it says nothing."""


@dataclass(slots=True)
class _Vote:
    """One vote on one trace."""

    steps: list[Heard]
    texts: dict[int, str]
    """What the model wrote, by step."""
    trace_score: float | None = None


Script = Generator[GenerationRequest, ModelReply, _Vote]


class _Unheard(Exception):
    def __init__(self, why: Abstention) -> None:
        super().__init__(why.detail)
        self.why = why


class _ScoredTrace:
    """The votes on one trace: a task of `judge.run_tasks`."""

    def __init__(
        self,
        context: TraceInContext,
        family: GenerativeFamily,
        *,
        refusal: TraceLabel | None,
        first_sample: int,
    ) -> None:
        self.context, self._family, self.refusal = context, family, refusal
        self.is_done = refusal is not None
        self.versions: set[str] = set()
        self.votes: list[_Vote | None] = [None] * family.votes
        self._scripts = [self._vote(number, first_sample) for number in range(family.votes)]

    @property
    def trace_id(self) -> str:
        """The trace."""
        return self.context.trace.id

    def start(self) -> Sequence[GenerationRequest]:
        """The first request of each vote."""
        return [] if self.is_done else [next(script) for script in self._scripts]

    def receive(
        self, request: GenerationRequest, outcome: ModelReply | ModelError
    ) -> Sequence[GenerationRequest]:
        """Continue the vote that was answered."""
        number = request.meta["vote"]
        script = self._scripts[number]
        try:
            if isinstance(outcome, ModelError):
                why = Abstention(AbstentionReason.MODEL_ERROR, outcome.what)
                return [script.throw(_Unheard(why))]
            if outcome.resolved_model is not None:
                self.versions.add(outcome.resolved_model)
            return [script.send(outcome)]
        except StopIteration as end:
            self.votes[number] = end.value
            self.is_done = None not in self.votes
            return []

    def _vote(self, vote: int, first_sample: int) -> Script:
        """One vote: its requests go out, replies come in."""
        family, steps = self._family, self.context.trace.steps
        question = without_turns(_question(self.context.problem))
        users = family.users(question, [without_turns(step) for step in steps])
        heard = _Vote([], {})
        turns: list[Message] = [Message("system", family.system)] if family.system else []
        for t, user in enumerate(users):
            asked = [*turns, Message("user", user)]
            try:
                said = yield from self._turn(asked, t, heard, vote=vote, sample=vote + first_sample)
            except _Unheard as fault:
                left = len(steps) - len(heard.steps)
                if family.history == "none" and family.turns == "per-step":
                    heard.steps.append(fault.why)
                    continue
                # The turns after it would follow a conversation that has a hole.
                heard.steps += [fault.why, *[_after(fault.why)] * (left - 1)][:left]
                break
            if family.history == "own":
                turns = [*asked, Message("assistant", said)]
            elif family.history != "none":
                turns = [*asked, Message("assistant", family.history)]
        return heard

    def _turn(
        self, asked: list[Message], t: int, heard: _Vote, *, vote: int, sample: int
    ) -> Generator[GenerationRequest, ModelReply, str]:
        """One turn: the text, then the verdict's token; returns the whole assistant turn."""
        family = self._family

        def request(written: str, stage: str) -> GenerationRequest:
            by_token = stage == "token"
            seeded = family.votes > 1 and not by_token
            return GenerationRequest(
                messages=(*asked, *([Message("assistant", written)] if written else [])),
                max_tokens=1 if by_token else family.max_tokens,
                temperature=0.0 if by_token else family.temperature,
                top_p=None if by_token else family.top_p,
                stop=() if by_token else family.stop,
                seed=sample if seeded else None,
                # Equal texts of several votes share one reading; a retry reads again.
                sample_index=sample - vote if by_token else sample,
                logprobs=_LISTED if by_token else 0,
                meta={
                    "purpose": "score",
                    "trace_id": self.trace_id,
                    "step_index": t,
                    "vote": vote,
                    "stage": stage,
                },
            )

        text = _filled(family.opening, number=str(t + family.number))
        if family.writes:
            reply = yield request(text, "text")
            text += _written(reply)
            heard.texts[t] = text
        if family.read == "generate":
            heard.steps += _verdicts(family, text, len(self.context.trace.steps), t)
            if not family.trace_correct:
                return text
        text = _up_to_verdict(family, text)
        reply = yield request(text, "token")
        words = (family.correct, family.incorrect)
        if family.read == "generate":
            words = (family.trace_correct, family.trace_incorrect)
        score = first_token_probability(reply.raw, *words) if _is_heard(reply) else None
        if family.read == "generate":
            heard.trace_score = score
            return text
        if score is None:
            why = f"neither {words[0][0]!r} nor {words[1][0]!r} is among the listed tokens"
            raise _Unheard(Abstention(AbstentionReason.UNREADABLE, why))
        heard.steps.append(score)
        return text + (words[0] if score >= 0.5 else words[1])[0] + family.closing

    def label(self) -> TraceLabel:
        """The mean of the readable votes on each step."""
        if self.refusal is not None:
            return self.refusal
        votes = [vote for vote in self.votes if vote is not None]
        steps = tuple(_mean(t, votes) for t in range(len(self.context.trace.steps)))
        readable = [
            sum(isinstance(vote.steps[t], float) for vote in votes) for t in range(len(steps))
        ]
        meta: dict[str, Any] = {"votes": {"cast": len(votes), "readable": readable}}
        whole = [vote.trace_score for vote in votes if vote.trace_score is not None]
        if whole:
            meta["trace_score"] = sum(whole) / len(whole)
        if not any(readable):
            return TraceLabel(self.trace_id, abstention=steps[0].abstention, meta=meta)
        return TraceLabel(self.trace_id, steps, meta=meta)


def _question(problem: Problem) -> str:
    from scoring.layout import question_inline  # loads transformers

    return question_inline(problem)


def _after(why: Abstention) -> Abstention:
    return Abstention(AbstentionReason.NOT_MEASURED, f"an earlier turn has no reply: {why.reason}")


def _is_heard(reply: ModelReply) -> bool:
    return reply.finish_reason in ("stop", "length")


_UNHEARD: Mapping[str, Abstention] = {
    "length": Abstention(AbstentionReason.TRUNCATED, "the reply was cut at the token limit"),
    "blocked": Abstention(AbstentionReason.BLOCKED, "the service refused to answer"),
    OVER_LENGTH: Abstention(
        AbstentionReason.OVER_LENGTH, "the prompt does not fit into the model's window"
    ),
}


def _written(reply: ModelReply) -> str:
    """The text of a finished reply.

    Raises:
        _Unheard: it was cut, blocked or is empty.
    """
    if reply.finish_reason in _UNHEARD:
        raise _Unheard(_UNHEARD[reply.finish_reason])
    if reply.finish_reason != "stop" or not (reply.text or "").strip():
        why = f"the reply is empty or ended with '{reply.finish_reason}'"
        raise _Unheard(Abstention(AbstentionReason.UNREADABLE, why))
    return reply.text or ""


def _verdicts(family: GenerativeFamily, text: str, steps: int, t: int) -> list[Heard]:
    """The verdicts that a text gives, as probabilities.

    Raises:
        _Unheard: it cannot be read.
    """
    asked = steps if family.turns == "whole" else 1
    try:
        given = family.protocol.verdicts(text, asked)
    except UnreadableReply as fault:
        raise _Unheard(Abstention(AbstentionReason.UNREADABLE, str(fault))) from None
    unsaid = Abstention(AbstentionReason.NOT_MEASURED, "the reply stops at the first error")
    return [
        unsaid if verdict is None else 0.0 if verdict is Verdict.INCORRECT else 1.0
        for verdict in given
    ]


def _up_to_verdict(family: GenerativeFamily, text: str) -> str:
    """The assistant's turn up to where the verdict's token is read."""
    before, found, _ = text.partition(family.decide_at) if family.decide_at else (text, "", "")
    return before + found if found else text + family.decide


def _mean(t: int, votes: Sequence[_Vote]) -> StepLabel:
    scores = [heard for vote in votes if isinstance(heard := vote.steps[t], float)]
    texts = [vote.texts[t] for vote in votes if t in vote.texts]
    said = texts[0] if texts else None
    if scores:
        return StepLabel(score=sum(scores) / len(scores), reasoning=said)
    why = next(heard for vote in votes if isinstance(heard := vote.steps[t], Abstention))
    return StepLabel(abstention=why, reasoning=said)


class GenerativeScorer:
    """Scores traces with a generative PRM on any back end."""

    def __init__(
        self,
        runner: Runner,
        family: GenerativeFamily,
        *,
        allow_phi: bool = False,
        first_sample: int = 0,
    ) -> None:
        """Nothing is sent yet.

        Args:
            runner: sends and records the calls.
            family: how to ask and read.
            allow_phi: whether problems marked `phi_removed: false` may go to a hosted model.
            first_sample: sample index of the first vote; above 0 it asks again what is stored.
        """
        self._runner, self.family = runner, family
        self._allow_phi, self._first_sample = allow_phi, first_sample

    def score(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """Yield one label per trace, in any order.

        Raises:
            ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; what was yielded stays
                valid.
        """
        for task in run_tasks(self._runner, map(self._task, contexts)):
            resolved = ", ".join(sorted(task.versions)) or None
            label = task.label()
            if resolved is not None:
                label = replace(label, meta={**label.meta, "resolved_model": resolved})
            yield LabeledTrace(label, resolved_model=resolved)

    def _task(self, context: TraceInContext) -> _ScoredTrace:
        hosted = self._runner.model.hosted
        refusal = refuse_phi(context, hosted=hosted, allow_phi=self._allow_phi)
        return _ScoredTrace(context, self.family, refusal=refusal, first_sample=self._first_sample)
