"""Reading the answer a solution ends with, and comparing it with the gold answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from labeling.answers.equality import Equality
from labeling.answers.grammar.evaluation import NotExact, exact
from labeling.answers.grammar.expressions import Expr
from labeling.answers.grammar.reader import prepared, read
from labeling.answers.grammar.readings import Answer, Named, Value
from labeling.answers.grammar.tokens import UnreadAnswer
from labeling.answers.grammar.units import Unit
from labeling.answers.mathematics import MathProcess, shared_math_process
from labeling.answers.mentions import (
    MAX_NAMED,
    Mention,
    find_mentions,
    last_line,
    with_digits,
    yes_no_maybe,
)
from labeling.answers.scalars import TOLERANCE, Scalars
from labeling.answers.words import (
    NoOption,
    option_letter,
    plain,
    read_letter,
    read_word,
    same_text,
)
from traces import InputError, Problem, ToolkitError, record_defect

MAX_SOLUTION_CHARACTERS = 100_000
"""Of a longer solution only the end is searched for its answer."""
MAX_GOLD_CHARACTERS = 20_000
"""A longer gold answer is no answer."""
_MAX_CLAUSES = 8
MAX_ANSWER_CHARACTERS = 500
"""A longer "answer" is prose."""

MAX_FACTORIAL = 20
"""A larger number with an exclamation mark after it is no factorial."""

_LONG_WORD = re.compile(r"(?<!\\)[^\W\d_]{2,}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_TEXT_COMMANDS = re.compile(r"\\(?:text|textbf|mathrm|mbox|textit|rm|mathbf)\s*\{([^{}]*)\}")
_CLAUSE = re.compile(
    r"(?:\s*[,;:.!]\s*|\s+[-–—]+\s+|\s+|\s*\((?=because|since|as\b))(?:because|since|as|so"
    r"|which|where|hence|thus|therefore|who|that|"
    r"is|are|was|were|making|giving|meaning|i\.e|not|rather\s+than|instead\s+of"
    r"|and\s+not)\b.*$|\s*!\s*$",
    re.IGNORECASE | re.DOTALL,
)
"""A clause that explains an answer and is no part of it."""
_BARE_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_LETTER_GOLD = re.compile(r"\(?([A-Z])\)?[.)]?")
_JOYFUL = re.compile(r"(?:[^\d]*\s)?(\d{1,9})!")
_CIRCLES = re.compile(r"[①-⑩]")
_MATH_WORDS = re.compile(
    r"\b(?:pi|sqrt|ln|sin|cos|tan|log|infinity|negative|minus|zero|one|two|three|four|five|six"
    r"|seven|eight|nine|ten|eleven|twelve)\b"
)
_QUOTED = " \t*_\"'`“”"


@dataclass(frozen=True, slots=True)
class AnswerChecker:
    """Reads and checks answers to one problem; made by `for_problem`."""

    kind: str
    """How answers are read: choice, word, number, math or text."""
    gold: str
    """The gold answer in the form that `extract` returns."""
    _read: Callable[[Mention], str | None]
    """Reads one mention; None where it names nothing readable.

    Raises NoOption where it does name something, and nothing that can be compared.
    """
    _equal: Callable[[str], bool | None]
    """Compares a read answer with the gold one; None where that is undecided."""

    @classmethod
    def for_problem(
        cls,
        problem: Problem,
        math: MathProcess | None = None,
        means_same: Callable[[Problem, str], bool | None] | None = None,
        *,
        tolerance: float = TOLERANCE,
    ) -> AnswerChecker:
        """The checker for a problem, chosen by its options and its gold answer.

        Args:
            problem: with a gold answer; options make it multiple choice.
            math: confirms that expressions are equal; None takes the shared worker, started when
                needed.
            means_same: asked of free-text answers that spelling leaves apart (`AnswerJudge.same`);
                None takes them for different.
            tolerance: relative difference up to which a decimal equals another number.

        Raises:
            InputError: there is no gold answer, it is none of the options, or it looks like
                mathematics that cannot be read as a whole.
        """
        gold = (problem.answer or "").strip()
        if not gold:
            raise InputError("The problem has no gold answer.", where=problem.id)
        if len(gold) > MAX_GOLD_CHARACTERS:
            raise InputError(
                f"The gold answer has {len(gold)} characters; the limit is {MAX_GOLD_CHARACTERS}.",
                where=problem.id,
            )
        if problem.options:
            return cls._for_options(problem, gold)
        word = gold_word(gold)
        if word is not None:
            return cls("word", word, _read_word, lambda a: a == word)
        readings = _gold_readings(gold, problem.id)
        if readings is not None:
            return cls._for_mathematics(gold, readings, math, tolerance)
        lettered = _LETTER_GOLD.fullmatch(plain_text(gold))
        if lettered is not None:
            letter = lettered[1]
            return cls("text", letter, _read_any_letter, lambda answer: answer == letter)
        if means_same is None:
            return cls("text", gold, _read_text, lambda answer: _same_words(gold, answer))
        asked = means_same
        return cls(
            "text", gold, _read_text, lambda text: _same_words(gold, text) or asked(problem, text)
        )

    @classmethod
    def _for_options(cls, problem: Problem, gold: str) -> AnswerChecker:
        letter = option_letter(gold, problem.options)
        if letter is None:
            raise InputError(
                f"The gold answer '{gold[:80]}' is not one of the {len(problem.options)} options.",
                where=problem.id,
            )
        options = problem.options
        return cls(
            "choice",
            letter,
            lambda m: read_letter(m.text, options, boxed=m.boxed, foreign=m.foreign),
            lambda answer: answer == letter,
        )

    @classmethod
    def _for_mathematics(
        cls, gold: str, readings: tuple[Answer, ...], math: MathProcess | None, tolerance: float
    ) -> AnswerChecker:
        def confirm(one: Expr, other: Expr) -> bool | None:
            return (math or shared_math_process()).same(one, other)

        reader = _MathReader(readings)
        equality = Equality(Scalars(confirm, tolerance))
        squeezed = "".join(gold.split())
        exact_gold = _exact(readings[0]) if len(readings) == 1 else None

        def equal(answer: str) -> bool | None:
            if exact_gold is not None and _BARE_NUMBER.fullmatch(answer):
                return _same_number(exact_gold, answer, tolerance)
            try:
                return equality.same(readings, read(with_digits(answer)))
            except UnreadAnswer:
                return True if "".join(answer.split()) == squeezed else None

        return cls("number" if _is_number(readings[0]) else "math", gold, reader.read, equal)

    def extract(self, text: str, *, finished: bool = True) -> str | None:
        """The answer a solution ends with; None if it names none that can be read.

        The last mention that names something counts ("the answer is ..", a box, `#### ..`); where
        part of it is left over, or it is beyond the options, that is no answer at all. Without any
        mention, a last line that is nothing but an answer counts.

        Args:
            text: the solution, or its end.
            finished: False for a text cut at the token limit; then a mention at its very end,
                which may be half an answer, does not count.
        """
        try:
            return self._extracted(text[-MAX_SOLUTION_CHARACTERS:], finished=finished)
        except Exception as fault:  # no solution of a model may end a run
            record_defect(fault, f"a solution whose answer should be '{self.gold[:80]}'")
            return None

    def _extracted(self, text: str, *, finished: bool) -> str | None:
        mentions = find_mentions(text)
        if self.kind == "math" and len(mentions) > 1:
            mentions = _joined(text, mentions)
        try:
            for mention in reversed(mentions):
                answer = self._read(mention) if finished or mention.closed else None
                if answer is not None:
                    return answer
            last = last_line(text)
            return self._read_bare(last) if finished and len(last) <= MAX_NAMED else None
        except NoOption:
            return None

    def is_correct(self, answer: str) -> bool | None:
        """Whether an extracted answer is the gold answer.

        None if that cannot be decided: an answer that is not read as a whole, another word for
        what is counted, mathematics that hangs.
        """
        if len(answer) > MAX_ANSWER_CHARACTERS:
            return True if answer == self.gold else None
        try:
            return self._equal(answer)
        except ToolkitError:
            raise  # from the model that decides whether two texts mean the same
        except Exception as fault:  # no answer of a model may end a run
            record_defect(fault, f"the answer '{answer[:80]}' beside '{self.gold[:80]}'")
            return None

    def _read_bare(self, line: str) -> str | None:
        """The answer that a line consists of; None if there is other text in it."""
        bare = line.strip(" *_.$()[]。")
        if self.kind == "choice":
            alone = len(bare) == 1 or (len(bare) > 1 and line.strip().startswith("\\boxed"))
            return self._read(Mention(bare, 0, boxed=True, closed=True)) if alone else None
        if self.kind == "word":
            return gold_word(bare)
        if self.kind in {"number", "math"} and "=" not in line and len(line) < 80:
            try:
                readings = read(line.strip(_QUOTED))
            except UnreadAnswer:
                return None
            number = next((one for one in readings if _is_number(one)), None)
            alone = (
                isinstance(number, Value) and not number.noun and re.search(r"\d", line) is not None
            )
            return (
                self._read(Mention(line.strip(_QUOTED), 0, boxed=True, closed=True))
                if alone
                else None
            )
        return None


@dataclass(frozen=True, slots=True)
class UnusableGold:
    """A gold answer that answers cannot be compared with."""

    problem_id: str
    """The problem."""
    answer: str
    """Its gold answer as given."""
    reason: str
    """Why not, in one sentence."""


def check_golds(problems: Iterable[Problem], math: MathProcess | None = None) -> list[UnusableGold]:
    """The gold answers that do not equal themselves when they are read; ask before spending.

    Problems without a gold answer are left out: there is nothing to compare with. Every problem
    and answer is listed once, every answer (among the same options) is checked once.
    """
    found: list[UnusableGold] = []
    seen: set[tuple[str, str | None]] = set()
    reasons: dict[tuple[str | None, tuple[str, ...]], str | None] = {}
    for problem in problems:
        if (problem.id, problem.answer) in seen:
            continue
        seen.add((problem.id, problem.answer))
        key = (problem.answer, problem.options)
        if key not in reasons:
            reasons[key] = unusable_gold(problem, math)
        reason = reasons[key]
        if reason is not None:
            found.append(UnusableGold(problem.id, (problem.answer or "").strip(), reason))
    return found


def unusable_gold(problem: Problem, math: MathProcess | None = None) -> str | None:
    """Why the gold answer cannot be checked against, in one sentence; None if it can be.

    Meant to be asked before any token is spent. A problem without a gold answer is not unusable,
    it has none: that gives None too.
    """
    gold = (problem.answer or "").strip()
    if not gold:
        return None
    try:
        checker = AnswerChecker.for_problem(problem, math)
    except InputError as fault:
        return fault.what
    except Exception as fault:  # no gold answer of a dataset may end a run
        return record_defect(fault, f"the gold answer of problem '{problem.id}'")
    if checker.kind in {"number", "math"}:
        named = checker._read(Mention(gold, 0, boxed=True, closed=True))
        if (
            named is None
            or checker.is_correct(named) is not True
            or checker.is_correct(gold) is not True
        ):
            return f"The gold answer '{gold[:80]}' cannot be compared, not even with itself."
    elif checker.kind == "text" and checker.is_correct(checker.gold) is not True:
        return f"The gold answer '{gold[:80]}' cannot be compared, not even with itself."
    return None


# Gold answers ------------------------------------------------------------------------------------


def gold_word(text: str) -> str | None:
    """`yes`, `no` or `maybe` where that is all of the text; else None."""
    bare = plain(text)
    if bare in {"yes", "no", "maybe"}:
        return bare
    return None if text.isascii() or len(text) > 12 else yes_no_maybe(bare)


def plain_text(text: str) -> str:
    """The text without LaTeX's text commands."""
    return _TEXT_COMMANDS.sub(r"\1", text).strip(" $.")


def _gold_readings(gold: str, problem_id: str) -> tuple[Answer, ...] | None:
    """The readings of a gold answer as mathematics; None if it is free text.

    Raises:
        InputError: it is mathematics that is not read as a whole.
    """
    worded = plain_text(gold)
    if _LETTER_GOLD.fullmatch(worded) and (worded != gold.strip("$ .") or worded.startswith("(")):
        return None
    try:
        readings = read(with_digits(gold))
    except UnreadAnswer as fault:
        if _is_free_text(gold):
            return None
        raise InputError(
            f"The gold answer '{gold[:80]}' cannot be read as a whole: {fault}.", where=problem_id
        ) from fault
    return None if _reads_as_words(readings, gold) else readings


def _is_free_text(gold: str) -> bool:
    """Whether words are all that there is to it."""
    unwrapped = _TEXT_COMMANDS.sub(r"\1", gold)
    return re.search(r"[\\=<>^{}$]|^[\W\d]+$", _CIRCLES.sub("x", unwrapped)) is None


def _reads_as_words(readings: tuple[Answer, ...], gold: str) -> bool:
    """Whether a text of words only happens to be read as a product of variables or a list."""
    if gold.startswith("$") and not _TEXT_COMMANDS.search(gold):
        return False
    if re.search(r"[\d\\=<>^+*/_|]", _TEXT_COMMANDS.sub(r"\1", gold)):
        return False
    return _LONG_WORD.search(_TEXT_COMMANDS.sub(r"\1", gold)) is not None and not any(
        isinstance(one, Value) and one.expr.symbols & {"pi"} for one in readings
    )


def _exact(reading: Answer) -> Value | None:
    """A reading that is one rational number, with that number as its expression."""
    return reading if isinstance(reading, Value) and reading.expr.op == "num" else None


def _is_number(reading: Answer) -> bool:
    """Whether a reading is a rational number, perhaps with a unit or a word (`12 apples`)."""
    if not isinstance(reading, Value):
        return False
    try:
        exact(reading.expr)
    except NotExact:
        return False
    return True


def _same_number(gold: Value, answer: str, tolerance: float) -> bool:
    """A gold number and a bare number, without any reading."""
    value = _number_of(answer)
    wanted = gold.expr.value
    if value == wanted:
        return True
    percent = gold.unit is not None and gold.unit.above == (("percent", 1),)
    if percent and value * 100 == wanted:
        return True
    if not (gold.expr.decimal or "." in answer):
        return False
    slack = Fraction(tolerance)
    return abs(value - wanted) <= slack * abs(wanted) or (
        percent and abs(value * 100 - wanted) <= slack * abs(wanted)
    )


@lru_cache(maxsize=4096)
def _number_of(text: str) -> Fraction:
    return Fraction(text)


# Reading mentions --------------------------------------------------------------------------------


class _MathReader:
    """Reads mentions of numbers and mathematics for one gold answer."""

    def __init__(self, gold: tuple[Answer, ...]) -> None:
        first = gold[0]
        value = first.value if isinstance(first, Named) else first
        self._keeps_name = isinstance(first, Named) or not isinstance(value, Value)
        self._keeps_noun = isinstance(value, Value) and (bool(value.noun) or _is_rate(value.unit))

    def read(self, mention: Mention) -> str | None:
        """The answer in its shortest spelling; None where the mention is prose.

        Raises:
            NoOption: it is an answer of which part is left over.
        """
        text = mention.text.strip(_QUOTED)
        if not text or len(text) > MAX_ANSWER_CHARACTERS:
            return None
        if _BARE_NUMBER.fullmatch(text):
            return text
        if not text.isascii():
            text = with_digits(text)
        for candidate in self._candidates(text, boxed=mention.boxed):
            try:
                readings = read(candidate)
            except UnreadAnswer:
                continue
            if not mention.boxed and not _says_something(candidate):
                continue
            return self._short(candidate, readings)
        if mention.boxed or _is_answer_like(text):
            raise NoOption(text[:200])
        return None

    def _candidates(self, text: str, *, boxed: bool) -> Iterable[str]:
        """The text, and without clauses that only explain it."""
        if not boxed and (joyful := _JOYFUL.fullmatch(text)) is not None:
            if int(joyful[1]) <= MAX_FACTORIAL:
                raise NoOption(text)  # "4!" at the end of a sentence may be 24, and may be joy
            text = text[:-1]
        yield text
        if boxed:
            return
        shorter = text
        for _ in range(_MAX_CLAUSES):
            clause = _first_clause(shorter)
            if clause is None:
                return
            shorter = shorter[: clause.start()].strip(_QUOTED)
            yield shorter

    def _short(self, text: str, readings: Sequence[Answer]) -> str:
        """The number and unit of an answer, without what the gold answer does not say either."""
        first = readings[0]
        if isinstance(first, Named) and self._keeps_name:
            return _presentable(text)
        value = first.value if isinstance(first, Named) else first
        if not isinstance(value, Value) or not _is_number(value) or value.end < 0:
            return _presentable(text)
        if value.noun and self._keeps_noun:
            return _presentable(text)
        return _presentable(prepared(text)[value.start : value.end])


def _is_rate(unit: Unit | None) -> bool:
    """Whether a unit is of something in a time: "daily" may then be part of an answer's unit."""
    return unit is not None and any(name == "time" for name, _ in unit.below)


def _first_clause(text: str) -> re.Match[str] | None:
    found = _CLAUSE.search(text)
    return found if found is not None and found.start() > 0 else None


def _presentable(text: str) -> str:
    """An answer without LaTeX that only dresses it up."""
    shown = (
        prepared(text)
        if "\\" in text or "$" in text or "\x02" in text or not text.isascii()
        else text
    )
    shown = (
        shown.replace("\x02", r" \text{").replace("\x03", "} ")
        if r"\begin" in shown
        else shown.replace("\x02", " ").replace("\x03", " ")
    )
    if not re.search(r"\\(?!times|cdot|frac\{\d+\}\{\d+\})", shown):
        shown = re.sub(r"(?<!\d)(?<!\d )\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", shown)
        shown = re.sub(r"\\(?:times|cdot)", "×", shown)
    return " ".join(shown.split()).strip().removesuffix(".")


def _says_something(text: str) -> bool:
    """Whether a sentence's end is an answer and no word that happens to be a product."""
    if re.search(r"[\d\\=+^*/<>|$]| - ", text) is not None or len(text.strip("$. ")) == 1:
        return True
    return re.search(r"[^\W\d_]{2}", _MATH_WORDS.sub("", text)) is None


def _is_answer_like(text: str) -> bool:
    """Whether a sentence's end begins as an answer does, so that what is unread is no prose."""
    return (
        re.match(r"[-+$(\[{]?\s*(?:[\d\\.]|[a-zA-Z]\b\s*[=^+*/<>-]|[a-zA-Z]?\$)", text) is not None
    )


def _joined(text: str, mentions: list[Mention]) -> list[Mention]:
    """Boxes of one line as one list: `\\boxed{3}` and `\\boxed{5}`."""
    last = mentions[-1]
    line = text.rfind("\n", 0, last.position) + 1
    boxes = [one for one in mentions if one.boxed and one.position >= line]
    if not last.boxed or len(boxes) < 2:
        return mentions
    between = text[boxes[-2].position : last.position]
    if not re.search(
        r"\}\$?\s*(?:,|and|or|,\s*and|,\s*or|\\text\{\s*(?:and|or)\s*\})\s*[^.]{0,12}$", between
    ):
        return mentions
    joined = Mention(", ".join(box.text for box in boxes), last.position, boxed=True, closed=True)
    return [*mentions, joined]


def _read_word(mention: Mention) -> str | None:
    return read_word(mention.text, boxed=mention.boxed)


def _read_any_letter(mention: Mention) -> str | None:
    """The letter that a mention names where the options are part of the question."""
    options = ("",) * 26
    return read_letter(
        plain_text(mention.text), options, boxed=mention.boxed, foreign=mention.foreign
    )


def _read_text(mention: Mention) -> str | None:
    text = mention.text.strip()
    if mention.boxed:
        text = plain_text(text)
    return text if 0 < len(text) <= MAX_ANSWER_CHARACTERS else None


def _same_words(gold: str, answer: str) -> bool | None:
    """Free texts, with and without a clause that only explains the answer."""
    decided = same_text(plain_text(gold), plain_text(answer))
    clause = _first_clause(answer)
    if decided is False and clause is not None and not _first_clause(gold):
        decided = same_text(plain_text(gold), plain_text(answer[: clause.start()]))
    return decided


# Votes -------------------------------------------------------------------------------------------


def normal_answer(answer: str) -> str:
    r"""An answer in the form in which equal answers are equal strings.

    Numbers are compared exactly and as numbers, with a unit in the base unit of its dimension; all
    else by its letters: one case, single spaces, no edge punctuation, brackets or LaTeX text.
    Unlike `AnswerChecker` it needs no gold answer, and knows no algebra.

    >>> normal_answer("5.00") == normal_answer("\\$5") == normal_answer("5")
    True
    >>> normal_answer("0.9 g") == normal_answer("900 mg"), normal_answer("(B)")
    (True, 'b')
    """
    try:
        first = read(answer)[0]
    except UnreadAnswer:
        return plain(answer.strip().strip("()[]"))
    value = first.value if isinstance(first, Named) else first
    if not isinstance(value, Value) or value.noun:
        return plain(answer.strip().strip("()[]"))
    try:
        number = exact(value.expr)
    except NotExact:
        return plain(answer.strip().strip("()[]"))
    unit = value.unit
    converted = {"mass", "length", "amount", "time", "months"}
    if unit is None or not {name for name, _ in (*unit.above, *unit.below)} <= converted:
        return str(number)
    dimensions = " ".join(f"{name}{power}" for name, power in unit.above)
    below = " ".join(f"{name}{power}" for name, power in unit.below)
    return f"{unit.in_base(number)} {dimensions}/{below}"
