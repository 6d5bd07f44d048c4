r"""How a prompt shows steps, and how its replies are read: the head of a prompt file, as TOML.

reader = "boxed-index"
step = "<paragraph_{number}>\n{step}\n</paragraph_{number}>"
separator = "\n\n"
first = 0

Readers return one verdict per step, `None` for a step that the reply does not decide. They never
guess: a reply that says nothing, or two things, raises `UnreadableReply`. Generative PRMs are read
by the same functions.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from traces import InputError, Verdict

Reader = Literal["json", "boxed-index", "boxed-verdict", "yes-no", "regex"]
"""json: grounded verdicts on every step. boxed-index: the last `\\boxed{}` names the first error.
boxed-verdict: one `\\boxed{}` per step. yes-no: one word, or its probability. regex: as given."""
Voting = Literal["agreement", "most-common"]
"""agreement: stop once votes agree, and abstain without a majority. most-common: the most frequent
answer, the earliest of equally frequent ones (ProcessBench's script)."""

_BOXED = re.compile(r"\\boxed\{([^}]*)\}")
_WRAPPING = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{?")
_INTEGER = re.compile(r"[+-]?\d{1,9}")
_LAST_ANSWER = re.compile(r"[:?]\s*")
_FIELD = re.compile(r"\{([a-z]+)\}")


class UnreadableReply(Exception):
    """The reply is not what was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class PromptProtocol:
    """The head of a prompt file; without one, the grounded judge's."""

    reader: Reader = "json"
    step: str = '<step number="{number}">{step}</step>'
    """How a step is shown: `{number}` and `{step}`."""
    separator: str = "\n"
    """Between two steps."""
    first: int = 1
    """Number of the first step, 0 or 1."""
    no_error: str = "-1"
    """The answer of `boxed-index` for a solution without an error."""
    correct: tuple[str, ...] = ()
    """Words for a correct step, in any case; empty for `yes` or `correct`, by reader."""
    incorrect: tuple[str, ...] = ()
    """Words for an incorrect one; empty for `no` or `incorrect`."""
    neutral: tuple[str, ...] = ("neutral",)
    """Words for a step that claims nothing."""
    pattern: str = ""
    """For `regex`: has the group `verdict`, and `step` if replies number their verdicts."""
    read: Literal["text", "token"] = "text"
    """For `yes-no`: the reply's word, or the probabilities of its first token."""
    voting: Voting = "agreement"
    votes_temperature: float | None = None
    """Default temperature of several votes; None for the judge's own."""
    votes_top_p: float | None = None
    """Default nucleus of several votes; None for the service's default."""
    verbatim: bool = False
    """Whether question and steps are filled in unescaped, as in an official template."""

    @classmethod
    def parse(cls, head: str, *, where: str) -> PromptProtocol:
        """Read and check the head of a prompt file; an empty one is the grounded judge's.

        Raises:
            InputError: it is not TOML, or a key is unknown, of another type, or out of range.
        """
        try:
            table = tomllib.loads(head)
        except tomllib.TOMLDecodeError as fault:
            raise InputError(
                "The judge's prompt has wrong sections: there is text before the first section"
                f" that is not TOML ({fault}).",
                where=where,
                remedy="start the file with '--- system ---' or '--- user ---', or with settings"
                ' such as reader = "boxed-index"',
            ) from fault
        known = {field.name: str(field.type) for field in fields(cls)}
        for key, value in table.items():
            if key not in known:
                raise _fault(f'an unknown setting "{key}"', where, f"use {', '.join(known)}")
            table[key] = _typed(key, value, known[key], where)
        protocol = cls(**table)
        protocol.check(where)
        return protocol

    def check(self, where: str) -> None:
        """Refuse values out of range.

        Raises:
            InputError: there is one.
        """
        choices = {
            "reader": (self.reader, get_args(Reader)),
            "voting": (self.voting, get_args(Voting)),
            "read": (self.read, ("text", "token")),
            "first": (self.first, (0, 1)),
        }
        for key, (value, allowed) in choices.items():
            if value not in allowed:
                raise _fault(
                    f'"{key}" = {value!r}', where, f"choose one of {', '.join(map(str, allowed))}"
                )
        if "{step}" not in self.step:
            raise _fault('a "step" without {step}', where, 'write step = "{number}. {step}"')
        if self.reader == "regex":
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as fault:
                raise _fault(
                    f'a "pattern" that is no regular expression ({fault})', where
                ) from None
            if "verdict" not in groups:
                raise _fault(
                    'a "pattern" without the group "verdict"',
                    where,
                    "write pattern = '(?P<step>\\d+): (?P<verdict>\\w+)'",
                )

    @property
    def words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The words for correct and for incorrect steps."""
        by_reader = (("yes", "Yes"), ("no", "No"))
        usual = by_reader if self.reader == "yes-no" else (("correct",), ("incorrect",))
        return self.correct or usual[0], self.incorrect or usual[1]

    def shown(self, steps: Sequence[str]) -> str:
        """The steps as the prompt shows them."""
        written = (
            filled(self.step, {"number": str(number), "step": step})
            for number, step in enumerate(steps, self.first)
        )
        return self.separator.join(written)

    def verdict(self, word: str) -> Verdict | None:
        """The verdict that a word stands for; None if it stands for none."""
        bare = _WRAPPING.sub("", word).strip(" \t\n*_`'\".,;:!{}$()").casefold()
        kinds = (Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL)
        for verdict, words in zip(kinds, (*self.words, self.neutral), strict=True):
            if bare in (each.casefold() for each in words):
                return verdict
        return None

    def answer(self, text: str) -> str | None:
        """What a vote counts under: the text in the last box; None if there is none."""
        found = boxed(text)
        return found[-1] if found else None

    def verdicts(self, text: str, steps: int) -> list[Verdict | None]:
        """One verdict for each of the steps that a reply was asked about.

        Args:
            text: the whole reply.
            steps: number of steps asked about, at least 1. With one step, the last word counts.

        Raises:
            UnreadableReply: it does not say, says two things, or judges other steps.
        """
        read = {
            "boxed-index": self._boxed_index,
            "boxed-verdict": self._boxed_verdicts,
            "yes-no": self._yes_no,
            "regex": self._regex,
        }[self.reader]
        return read(text, steps)

    def _boxed_index(self, text: str, steps: int) -> list[Verdict | None]:
        said = self.answer(text)
        if said is None:
            raise UnreadableReply("the reply has no \\boxed{}")
        if said == self.no_error:
            return [Verdict.CORRECT] * steps
        if not _INTEGER.fullmatch(said):
            raise UnreadableReply(f"the last box holds '{said[:40]}', not a number")
        index = int(said) - self.first
        if not 0 <= index < steps:
            raise UnreadableReply(f"the reply names step {said}, and there is none")
        return [*[Verdict.CORRECT] * index, Verdict.INCORRECT, *[None] * (steps - index - 1)]

    def _boxed_verdicts(self, text: str, steps: int) -> list[Verdict | None]:
        found = [verdict for word in boxed(text) if (verdict := self.verdict(word)) is not None]
        return _in_order(found, steps)

    def _yes_no(self, text: str, steps: int) -> list[Verdict | None]:
        if steps != 1:
            raise UnreadableReply("one word cannot judge several steps")
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            raise UnreadableReply("the reply is empty")
        last = _LAST_ANSWER.split(lines[-1])[-1]
        for place in (last, lines[0]):
            words = re.split(r"[\s.,;!]+", place.strip(), maxsplit=1)
            if (verdict := self.verdict(words[0])) is not None:
                return [verdict]
        named = {
            self.verdict(found[0])
            for words in (*self.words, self.neutral)
            for word in words
            for found in re.finditer(rf"(?<![\w/]){re.escape(word)}(?![\w/])", text, re.IGNORECASE)
        }
        if len(named) != 1:
            raise UnreadableReply("the reply says neither yes nor no" if not named else "both")
        return [named.pop()]

    def _regex(self, text: str, steps: int) -> list[Verdict | None]:
        pattern = re.compile(self.pattern)
        numbered = "step" in pattern.groupindex
        ordered: list[Verdict] = []
        by_step: dict[int, Verdict] = {}
        for found in pattern.finditer(text):
            verdict = self.verdict(found["verdict"] or "")
            if verdict is None:
                raise UnreadableReply(f"'{found['verdict']}' is no verdict"[:100])
            if not numbered:
                ordered.append(verdict)
                continue
            index = int(found["step"]) - self.first if _INTEGER.fullmatch(found["step"]) else -1
            if not 0 <= index < steps or by_step.get(index, verdict) is not verdict:
                raise UnreadableReply(f"the reply judges step '{found['step']}'"[:100])
            by_step[index] = verdict
        if not numbered:
            return _in_order(ordered, steps)
        if not by_step:
            raise UnreadableReply("nothing in the reply matches the pattern")
        return [by_step.get(index) for index in range(steps)]


def boxed(text: str) -> list[str]:
    """The texts in all boxes, in order, as ProcessBench's script finds them."""
    return [found.strip() for found in _BOXED.findall(text)]


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders filled in one pass; braces of other text stay."""
    return _FIELD.sub(lambda found: values.get(found[1], found[0]), template)


def _in_order(found: Sequence[Verdict], steps: int) -> list[Verdict | None]:
    """Verdicts as they stand in the reply; a reply may end after its first error."""
    if not found:
        raise UnreadableReply("the reply holds no verdict")
    if steps == 1:
        return [found[-1]]
    ended = len(found) < steps and Verdict.INCORRECT not in found
    if len(found) > steps or ended:
        raise UnreadableReply(f"the reply holds {len(found)} verdicts on {steps} steps")
    return [*found, *[None] * (steps - len(found))]


def first_token_probability(raw: str, right: Sequence[str], wrong: Sequence[str]) -> float | None:
    """P(right) / (P(right) + P(wrong)) of the reply's first token.

    A word is looked for as it is, then without blanks around word and token. One that is not among
    the tokens that the service lists counts as the least probable of them.

    Args:
        raw: the body that answers a request with `logprobs` above 0.
        right: words for a correct step.
        wrong: words for an incorrect one.

    Returns:
        A probability in [0, 1]; None if neither is listed, or the service lists none.
    """
    listed = _first_logprobs(raw)
    if not listed:
        return None

    def mass(words: Sequence[str]) -> float | None:
        bare = {word.strip() for word in words}
        exact = [value for token, value in listed if token in words]
        found = exact or [value for token, value in listed if token.strip() in bare]
        return max(found) if found else None

    yes, no = mass(right), mass(wrong)
    if yes is None and no is None:
        return None
    least = min(value for _, value in listed)
    yes, no = least if yes is None else yes, least if no is None else no
    return 1 / (1 + math.exp(min(700.0, no - yes)))


def _first_logprobs(raw: str) -> list[tuple[str, float]]:
    """Texts and log-probabilities of the first token's candidates, of either endpoint's body."""
    try:
        choice = json.loads(raw)["choices"][0]
        given: Any = choice["logprobs"]
        if given.get("content"):
            rows = [
                (each["token"], each["logprob"]) for each in given["content"][0]["top_logprobs"]
            ]
        else:
            rows = list(given["top_logprobs"][0].items())
    except (ValueError, LookupError, TypeError, AttributeError):
        return []
    return [
        (token, float(value))
        for token, value in rows
        if isinstance(token, str) and isinstance(value, int | float) and math.isfinite(value)
    ]


GROUNDED = PromptProtocol()
"""How the packaged prompt is read."""


def _fault(what: str, where: str, remedy: str | None = None) -> InputError:
    return InputError(f"The judge's prompt has {what}.", where=where, remedy=remedy)


def _typed(key: str, value: Any, wanted: str, where: str) -> Any:
    """The value as its field holds it."""
    if wanted.startswith("tuple"):
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts):
            return tuple(texts)
        raise _fault(f'a "{key}" that is not a list of strings', where)
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "bool": (bool,),
        "float | None": (int, float),
    }
    allowed = kinds.get(wanted, (str,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise _fault(f'a "{key}" of another type ({type(value).__name__})', where)
    return value
