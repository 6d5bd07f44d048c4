"""Reading the answer a solution ends with, and comparing it with the gold answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from labeling.choices import NoOption, option_letter, plain, read_letter, read_word
from labeling.free_text import same_text
from labeling.math_process import MathProcess, shared_math_process
from labeling.mentions import Mention, find_mentions, last_line
from labeling.quantities import read_quantity, same_quantity, without_latex
from traces import InputError, Problem

WORDS = ("yes", "no", "maybe")
"""Gold answers that are read as words (PubMedQA)."""
MAX_ANSWER_CHARACTERS = 500
"""A longer "answer" is prose."""

_MATH = re.compile(r"[\\^_{}=<>√π∞≤≥∪]|^[\d\s()\[\],.;:+*/|a-zA-Z-]*$")
_LONG_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
_EITHER = re.compile(r"\d[^.;]*\s(?:or|versus|vs\.?)\s[^.;]*\d")
_MATH_SEGMENT = re.compile(r"\$([^$]+)\$")


@dataclass(frozen=True, slots=True)
class AnswerChecker:
    """Reads and checks answers to one problem; made by `for_problem`."""

    kind: str
    """How answers are read: choice, word, number, math or text."""
    gold: str
    """The gold answer in the form that `extract` returns."""
    _read: Callable[[Mention], str | None]
    """Reads one mention; None where it names nothing readable."""
    _equal: Callable[[str], bool | None]
    """Compares a read answer with the gold one; None where that is undecided."""

    @classmethod
    def for_problem(
        cls,
        problem: Problem,
        math: MathProcess | None = None,
        means_same: Callable[[Problem, str], bool | None] | None = None,
    ) -> AnswerChecker:
        """The checker for a problem, chosen by its options and its gold answer.

        Args:
            problem: with a gold answer; options make it multiple choice.
            math: where LaTeX is compared; None takes the shared worker, started when needed.
            means_same: asked of free-text answers that spelling leaves apart
                (`labeling.answer_judge`); None takes them for different.

        Raises:
            InputError: there is no gold answer, or it is none of the options.
        """
        gold = (problem.answer or "").strip()
        if not gold:
            raise InputError("The problem has no gold answer.", where=problem.id)
        if problem.options:
            return cls._for_options(problem, gold)
        if plain(gold) in WORDS:
            word = plain(gold)
            return cls("word", word, lambda m: read_word(m.text, WORDS), lambda a: a == word)
        if _is_number(gold):
            return cls("number", gold, _read_math, _equals_number(gold, math))
        if _is_math(gold):
            return cls("math", gold, _read_math, _equals_math(gold, math))
        if means_same is None:
            return cls("text", gold, _read_text, lambda answer: same_text(gold, answer))
        asked = means_same
        return cls(
            "text", gold, _read_text, lambda text: same_text(gold, text) or asked(problem, text)
        )

    @classmethod
    def _for_options(cls, problem: Problem, gold: str) -> AnswerChecker:
        letter = option_letter(gold, problem.options)
        if letter is None:
            raise InputError(
                f"The gold answer '{gold[:80]}' is none of the {len(problem.options)} options.",
                where=problem.id,
            )
        options = problem.options
        return cls(
            "choice",
            letter,
            lambda m: read_letter(m.text, options, boxed=m.boxed),
            lambda answer: answer == letter,
        )

    def extract(self, text: str, *, finished: bool = True) -> str | None:
        """The answer a solution ends with; None if it names none that can be read.

        The last readable mention wins ("the answer is ..", a box, `#### ..`); one that names
        something beyond the options is no answer at all. Without any mention, a last line that
        is nothing but an answer counts.

        Args:
            text: the solution, or its end.
            finished: False for a text cut at the token limit; then a mention at its very end,
                which may be half an answer, does not count.
        """
        mentions = find_mentions(text)
        try:
            for mention in reversed(mentions):
                answer = self._read(mention) if finished or mention.closed else None
                if answer is not None:
                    return answer
            return self._read_bare(last_line(text)) if finished else None
        except NoOption:
            return None

    def is_correct(self, answer: str) -> bool | None:
        """Whether an extracted answer is the gold answer.

        None if that cannot be decided: mathematics that hangs, or that nobody can read.
        """
        return self._equal(answer)

    def _read_bare(self, line: str) -> str | None:
        """The answer that a line consists of; None if there is other text in it."""
        bare = line.strip(" *_.$()[]")
        if self.kind == "choice":
            alone = len(bare) == 1 or (len(bare) > 1 and line.strip().startswith("\\boxed"))
            return self._read(Mention(bare, 0, boxed=True, closed=True)) if alone else None
        if self.kind == "word":
            return bare.casefold() if bare.casefold() in WORDS else None
        if self.kind in {"number", "math"}:
            read = read_quantity(line)
            alone = read is not None and "=" not in line and _rest_is_words(line, read[1], most=0)
            return read[1] if read is not None and alone else None
        return None


def unusable_gold(problem: Problem, math: MathProcess | None = None) -> str | None:
    """Why the gold answer cannot be checked against, in one sentence; None if it can be.

    Meant to be asked before any token is spent. A problem without a gold answer is not unusable,
    it has none: that gives None too.
    """
    if not (problem.answer or "").strip():
        return None
    try:
        checker = AnswerChecker.for_problem(problem, math)
    except InputError as fault:
        return fault.what
    if checker.kind == "math":
        ruling = (math or shared_math_process()).rule(checker.gold, "1")
        if ruling not in {"equal", "different"}:
            return f"The gold answer '{checker.gold[:80]}' cannot be read as mathematics."
    return None


# The kinds ---------------------------------------------------------------------------------------


def _is_number(gold: str) -> bool:
    """Whether a gold answer is a number, perhaps with a unit or a word (`12 apples`)."""
    read = read_quantity(gold)
    return (
        read is not None
        and "\\" not in gold.replace("\\%", "").replace("\\$", "")
        and (_rest_is_words(gold, read[1], most=3))
    )


def _rest_is_words(text: str, number: str, *, most: int) -> bool:
    """Whether nothing but a few words stands behind the number that begins a text."""
    rest = without_latex(text).rpartition("=")[2].replace(number, "", 1)
    words = re.findall(r"[^\W\d_]+", rest)
    return len(words) <= most and not re.search(r"[\d\\^(){}<>|]", rest)


def _is_math(gold: str) -> bool:
    has_math = _MATH.search(gold) is not None and re.search(r"[\d\\^=]", gold) is not None
    single_variable = len(gold) == 1
    return single_variable or (has_math and not _LONG_WORD.search(re.sub(r"\\[a-zA-Z]+", "", gold)))


def _read_math(mention: Mention) -> str | None:
    """A number with its unit if there is one, else the mathematics of the mention."""
    text = mention.text.strip()
    if not text or len(text) > MAX_ANSWER_CHARACTERS:
        return None
    if _EITHER.search(text):
        return None
    read = read_quantity(text)
    if read is not None and (not mention.boxed or _rest_is_words(text, read[1], most=6)):
        return read[1]
    if not mention.boxed:
        segments = _MATH_SEGMENT.findall(text)
        text = segments[-1] if segments else text
    readable = mention.boxed or re.search(r"[\d\\^]", text) or len(text.strip(". ")) == 1
    return text.strip(" .$") or None if readable else None


def _equals_number(gold: str, math: MathProcess | None) -> Callable[[str], bool | None]:
    wanted = read_quantity(gold)
    if wanted is None:
        raise ValueError(f"not a number: {gold!r}")

    def equal(answer: str) -> bool | None:
        read = read_quantity(answer)
        if read is not None and _rest_is_words(answer, read[1], most=6):
            return same_quantity(wanted[0], read[0])
        return _equals_math(gold, math)(answer)

    return equal


def _equals_math(gold: str, math: MathProcess | None) -> Callable[[str], bool | None]:
    def equal(answer: str) -> bool | None:
        if "".join(answer.split()) == "".join(gold.split()):
            return True
        ruling = (math or shared_math_process()).rule(gold, answer)
        return {"equal": True, "different": False}.get(ruling or "")

    return equal


def _read_text(mention: Mention) -> str | None:
    text = mention.text.strip()
    return text if 0 < len(text) <= MAX_ANSWER_CHARACTERS else None
