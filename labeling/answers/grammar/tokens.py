"""An answer as tokens: LaTeX, Unicode and plain spellings of the same signs become one.

Nothing is dropped here but dress: `$`, `\\left`, thin spaces, bold marks, the box. Every other
character ends up in a token, or the text is unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["number", "symbol", "word", "command", "sign"]


class UnreadAnswer(Exception):
    """The text is no answer that the grammar covers; the message says what is left over."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a cleaned answer."""

    kind: Kind
    """number, symbol (one letter), word (several letters, or text), command (`\\frac`) or sign."""
    text: str
    """The token itself; a command without its backslash."""
    start: int
    """Offset in the cleaned text."""
    end: int
    """Offset of the end in the cleaned text."""
    spaced: bool
    """Whether white space comes before it."""
    styled: bool = False
    """Whether LaTeX sets it as text (`\\text`, `\\mathrm`): then it is a word, not variables."""


_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SIGNS = str.maketrans(
    {
        "\u3000": " ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "−": "-", "–": "-", "—": "-",
        "‐": "-", "‑": "-",
        "﹣": "-", "∗": "*", "×": r"\times ", "✕": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": r"\div ",
        "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
        "≡": r"\equiv ",
        "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "√": r"\sqrt ", "∪": r"\cup ", "∩": r"\cap ",
        "∈": r"\in ",
        "∅": r"\emptyset ", "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
        "θ": r"\theta ",
        "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ", "ρ": r"\rho ", "σ": r"\sigma ",
        "δ": r"\delta ",
        "ε": r"\epsilon ", "ℝ": r"\mathbb{R}", "∖": r"\setminus ", "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "、": ",", "。": ".", "「": "(", "」": ")", "『": "(", "』": ")", "【": "(", "】": ")", "〜": "~",
        "∼": "~",
        "µ": "μ", "º": "°", "℃": "°C", "℉": "°F", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"',
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}",
        "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}",
        "⅞": r"\frac{7}{8}",
        "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⁄": "/",
    }
    | {sign: f"_{{{digit}}}" for digit, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")}
    | _FULL_WIDTH
)  # fmt: skip
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", [*"0123456789+-n"], strict=True))
_RAISED = re.compile("[" + "".join(_SUPERSCRIPTS) + "]+")
_DEGREES = re.compile(r"\\?\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree\b|\\circ(?![a-zA-Z])")
_DRESS = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])\.?"
    r"|(?<!\\)\\[,;:!> ]|\\q?quad(?![a-zA-Z])|(?<!\\)~|\\(?:hspace|vspace|phantom)\{[^{}]*\}"
    r"|\*\*|__|\\displaylimits"
)
_FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_STYLES = (
    r"text|mbox|mathrm|textrm|textbf|textit|textsf|hbox|operatorname|rm|bf|it|mathbf|boldsymbol"
    r"|bm|mathit|mathsf|mathcal|mathtt|texttt"
)
_STYLED = re.compile(rf"\\(?:{_STYLES})\*?\s*\{{([^{{}}]*)\}}")
_LINES = re.compile(r"(?<=[^\\])\$[.,;]?[ \t]*(?:\n\s*)+\$")
_PRIMES = re.compile(r"\^\s*(?:\\prime\b|\{\s*(?:\\prime\s*)+\})")
_LETTERS = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|mathit|mathcal|mathsf|bold)\s*\{\s*([A-Za-z])\s*\}"
    r"|\\mathrm\s*\{\s*([eid])\s*\}"
)
_OLD_STYLE = re.compile(r"\{\s*\\(?:rm|bf|it|sf)\s+([^{}\\]*)\}")
_ESCAPED = re.compile(r"\\([%$#&])")
_BOX = re.compile(r"\\f?boxed\s*\{(.*)\}", re.DOTALL)
_MATH = re.compile(
    r"\$\$(.+?)\$\$|\\\((.+?)\\\)|\\\[(.+?)\\\]|(?<!\\)\$(?!\s)([^$]*?[^$\s\\])\$(?![\w])",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<styled>\x02(?P<words>[^\x03]*)\x03)"
    r"|(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?![\d./])"
    r"|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?![\w.]))?|\.\d+)"
    r"|(?P<command>\\(?:[a-zA-Z]+|[{}|\\]))"
    r"|(?P<degree>°\s?[CFcf](?![A-Za-z])|°)"
    r"|(?P<hangul>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\u3131-\u318e]+)"
    r"|(?P<word>[^\W\d_]{2,})"
    r"|(?P<letter>[^\W\d_])"
    r"|(?P<sign><=|>=|!=|==|~=|\S)"
)
_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=\d)|(?<=[a-zμ]) [xX] (?=\d)")


@lru_cache(maxsize=4096)
def cleaned(text: str) -> str:
    """The text without dress; styled text is between \\x02 and \\x03."""
    text = text.strip()
    if text.isalnum() and text.isascii():
        return text
    box = _BOX.fullmatch(text.strip("$ ."))
    if box is not None:
        text = box[1]
    if text.startswith("$") and text.endswith("$") and text.count("$") == 2:
        text = text[1:-1]
    text = _LINES.sub("$, $", text)
    text = _RAISED.sub(_raised, text).translate(_SIGNS)
    text = _PRIMES.sub(lambda found: "'" * found[0].count("prime"), text).replace(r"\$", "\x04")
    text = _MATH.sub(lambda found: f" {found[1] or found[2] or found[3] or found[4]} ", text)
    text = _LETTERS.sub(lambda found: f" {found[1] or found[2]} ", text)
    text = _DEGREES.sub("°", text)
    text = text.replace(r"\%", "%").replace(r"\{,}", ",").replace("{,}", ",").replace(r",\!", ",")
    text = _DRESS.sub(" ", _FRACTIONS.sub(r"\\frac", text))
    text = _ESCAPED.sub(r"\1", text).replace("\x04", "$")
    text = _STYLED.sub(_marked, _OLD_STYLE.sub(r"\\text{\1}", text))
    text = _TIMES.sub(r" \\times ", text)
    return " ".join(text.split()).strip().rstrip(".").rstrip() if text.strip() != "." else ""


def _raised(found: re.Match[str]) -> str:
    return "^{" + "".join(_SUPERSCRIPTS[sign] for sign in found[0]) + "}"


def _marked(found: re.Match[str]) -> str:
    """Styled text between the marks that make it words."""
    inside = found[1].strip()
    lead = " " if found[1][:1].isspace() else ""
    return f"{lead}\x02{inside}\x03" if inside else " "


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned text.

    Raises:
        UnreadAnswer: the text is empty or longer than anything the grammar looks at.
    """
    if not text:
        raise UnreadAnswer("nothing there")
    tokens: list[Token] = []
    spaced = False
    for found in _TOKEN.finditer(text):
        kind = str(found.lastgroup)
        if kind == "space":
            spaced = True
            continue
        if kind in {"styled", "words"}:
            tokens += _styled_tokens(found, spaced=spaced)
        else:
            tokens.append(_token(kind, found, spaced=spaced))
        spaced = False
    return tokens


_KINDS: dict[str, Kind] = {
    "number": "number", "command": "command", "degree": "word", "hangul": "word", "word": "word",
    "letter": "symbol", "sign": "sign",
}  # fmt: skip


def _token(kind: str, found: re.Match[str], *, spaced: bool) -> Token:
    text = found[0]
    if kind == "command":
        text = text[1:]
    elif kind == "degree":
        text = text.replace(" ", "")
    return Token(_KINDS[kind], text, found.start(), found.end(), spaced=spaced)


def _styled_tokens(found: re.Match[str], *, spaced: bool) -> list[Token]:
    """Words of a styled text; its numbers and signs are what they are elsewhere."""
    start = found.start("words")
    tokens = []
    inner_space = spaced
    for each in _TOKEN.finditer(found["words"]):
        kind = str(each.lastgroup)
        if kind == "space":
            inner_space = True
            continue
        settled: Kind = "word" if kind == "letter" else _KINDS.get(kind, "sign")
        text = each[0].replace(" ", "") if kind == "degree" else each[0]
        tokens.append(
            Token(
                settled,
                text.lstrip("\\"),
                start + each.start(),
                start + each.end(),
                spaced=inner_space,
                styled=True,
            )
        )
        inner_space = False
    return tokens


# Brackets ----------------------------------------------------------------------------------------

_OPEN = frozenset({"(", "[", "{", "lfloor", "lceil", "langle", "begin"})
_CLOSE = frozenset({")", "]", "}", "rfloor", "rceil", "rangle", "end"})


def at_top(tokens: Sequence[Token]) -> list[tuple[int, Token]]:
    """The tokens outside of all brackets, with their places."""
    depth, found = 0, []
    for place, token in enumerate(tokens):
        if token.kind in {"sign", "command"}:
            if token.text in _CLOSE:
                depth -= 1
            if depth == 0:
                found.append((place, token))
            if token.text in _OPEN:
                depth += 1
        elif depth == 0:
            found.append((place, token))
    return found


def split_at(
    tokens: tuple[Token, ...], separates: Callable[[Token], bool]
) -> list[tuple[Token, ...]]:
    """The parts between separators outside of all brackets; one part if there is none."""
    places = [place for place, token in at_top(tokens) if separates(token)]
    bounds = zip([0, *(place + 1 for place in places)], [*places, len(tokens)], strict=True)
    return [tokens[a:b] for a, b in bounds]


def closing_place(tokens: Sequence[Token]) -> int:
    """The place of the bracket that closes the first token's; -1 if there is none."""
    depth = 0
    for place, token in enumerate(tokens):
        if token.kind in {"sign", "command"}:
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
            if depth == 0:
                return place
    return -1


def place_of(tokens: Sequence[Token], text: str, start: int) -> int:
    """The place of the first token with that text from `start` on.

    Raises:
        UnreadAnswer: there is none.
    """
    for place in range(start, len(tokens)):
        if tokens[place].text == text:
            return place
    raise UnreadAnswer(f"'{text}' is missing")
