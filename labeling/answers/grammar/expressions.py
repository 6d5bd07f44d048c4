"""Scalar expressions: a parser that leaves nothing over, and the tree it builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from labeling.answers.grammar.tokens import Token, UnreadAnswer
from labeling.answers.grammar.units import unit_named

MAX_DEPTH = 40
"""Deeper nesting is unread rather than a stack overflow."""


@dataclass(frozen=True, slots=True)
class Expr:
    """A node of an expression."""

    op: str
    """num, sym, add, mul, div, pow, neg, pm, root, fact, binom, abs, floor, ceil or a function."""
    args: tuple[Expr, ...] = ()
    """Operands in order."""
    name: str = ""
    """Of a symbol."""
    value: Fraction = Fraction(0)
    """Of a number."""
    decimal: bool = False
    """Whether a number was written with a decimal point, and so may be rounded."""

    def walk(self) -> list[Expr]:
        """The node and everything below it."""
        found, waiting = [], [self]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting += node.args
        return found

    @property
    def symbols(self) -> frozenset[str]:
        """The variables in it."""
        return frozenset(node.name for node in self.walk() if node.op == "sym")

    @property
    def rounded(self) -> bool:
        """Whether it contains a decimal."""
        return any(node.decimal for node in self.walk())


def number(value: Fraction | int, *, decimal: bool = False) -> Expr:
    """A number as an expression."""
    return Expr("num", value=Fraction(value), decimal=decimal)


def symbol(name: str) -> Expr:
    """A variable or constant as an expression."""
    return Expr("sym", name=name)


_FUNCTION_NAMES = """
sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log lg exp sqrt max min gcd
lcm sgn det sign
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
"""Functions with a name of several letters; they are read in plain text too."""
CONSTANTS = frozenset({"pi", "e", "i"})
"""Symbols that are numbers."""
_SYMBOL_COMMANDS = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho
sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell
hbar infty partial nabla emptyset varnothing ldots cdots dots
"""
GREEK = frozenset(_SYMBOL_COMMANDS.split())
"""Commands that are symbols."""
_ALIKE = {
    "varepsilon": "epsilon",
    "vartheta": "theta",
    "varphi": "phi",
    "varnothing": "emptyset",
    "cdots": "ldots",
    "dots": "ldots",
    "lg": "log",
}
_OPENING = {"(": ")", "[": "]", "{": "}", "lfloor": "rfloor", "lceil": "rceil", "langle": "rangle"}
_ACCENTS = frozenset(
    {"vec", "hat", "bar", "overline", "overrightarrow", "tilde", "dot", "mathbb", "underline"}
)
_BIG = frozenset({"sum", "prod", "int", "iint", "oint", "lim"})
"""Operators with bounds; what they give is compared as it is written."""
_FACTORS = FUNCTIONS | GREEK | _ACCENTS | _BIG | {"frac", "sqrt", "binom", "lfloor", "lceil"}
"""Commands that may begin a factor without an operator before it."""
_TIMES = frozenset({"cdot", "times", "ast"})
_PLAIN_NAMES = {"pi": "pi", "infinity": "infty", "theta": "theta", "alpha": "alpha", "beta": "beta",
                "inf": "infty", "lambda": "lambda", "omega": "omega", "phi": "phi"}  # fmt: skip
_VARIABLE_RUN = frozenset("abcdfghjklmnpqrstvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Parser:
    """Reads one expression from a list of tokens."""

    def __init__(
        self, tokens: Sequence[Token], *, tight: bool = False, whole: bool = False
    ) -> None:
        """Nothing is read yet.

        Args:
            tokens: of a cleaned text.
            tight: whether `1/2x` is `1/(2x)`; else it is `(1/2)x`.
            whole: whether short runs of letters (`xy`) are products everywhere.
        """
        self.tokens = tokens
        self.at = 0
        self.tight = tight
        self.whole = whole
        self.loose = False
        """Whether `tight` makes a difference."""
        self._depth = 0

    # Tokens ------------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> Token | None:
        """The next token, or one further on; None at the end."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def next_is(self, *texts: str) -> bool:
        """Whether the next token is one of these signs or commands."""
        token = self.peek()
        return token is not None and token.kind in {"sign", "command"} and token.text in texts

    def take(self, *texts: str) -> bool:
        """Skip the next token if it is one of these signs or commands."""
        if self.next_is(*texts):
            self.at += 1
            return True
        return False

    def need(self, text: str) -> None:
        """Skip the next token, which has to be this one."""
        if not self.take(text):
            token = self.peek()
            raise UnreadAnswer(f"'{text}' is missing before '{token.text if token else 'the end'}'")

    # Grammar -----------------------------------------------------------------------------------

    def expression(self) -> Expr:
        """A sum of terms, as far as one can be read."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadAnswer("nested too deeply")
        total = self._term()
        while self.next_is("+", "-", "pm", "mp"):
            sign = self.tokens[self.at].text
            self.at += 1
            term = self._term()
            if sign == "+":
                total = Expr("add", (total, term))
            elif sign == "-":
                total = Expr("add", (total, Expr("neg", (term,))))
            else:
                total = Expr("pm", (total, term) if sign == "pm" else (total, Expr("neg", (term,))))
        self._depth -= 1
        return total

    def _term(self) -> Expr:
        left = self._signed()
        divided = False
        while True:
            if self.take("*", *_TIMES):
                left = Expr("mul", (left, self._signed()))
            elif self.take("/", "div"):
                right = self._signed()
                left, divided = Expr("div", (left, right)), True
            elif self._starts_factor():
                right = self._power()
                if divided and left.op == "div":
                    self.loose = True
                    if self.tight:
                        top, bottom = left.args
                        left = Expr("div", (top, Expr("mul", (bottom, right))))
                        continue
                left = _juxtaposed(left, right)
            else:
                return left

    def _signed(self) -> Expr:
        if self.take("-"):
            return Expr("neg", (self._signed_term(),))
        if self.take("+"):
            return self._signed_term()
        if self.take("pm", "mp"):
            return Expr("pm", (number(0), self._signed_term()))
        return self._power()

    def _degrees(self, angle: Expr) -> Expr:
        """The argument of a function in radians, where it is written in degrees."""
        token = self.peek()
        if token is None or token.text != "°":
            return angle
        self.at += 1
        return Expr("mul", (angle, Expr("div", (symbol("pi"), number(180)))))

    def _signed_term(self) -> Expr:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadAnswer("nested too deeply")
        inner = self._signed()
        self._depth -= 1
        return inner

    def _starts_factor(self) -> bool:
        """Whether a factor without an operator before it follows."""
        token = self.peek()
        if token is None or token.styled:
            return False
        if token.kind == "number":
            before = self.tokens[self.at - 1]
            return before.text in {")", "]"} or (before.kind == "command" and before.text in GREEK)
        if token.kind == "symbol":
            return True
        if token.kind == "word":
            named = token.text.casefold() in FUNCTIONS | _PLAIN_NAMES.keys()
            return (named and not self._is_unit(token)) or self._is_run(token)
        if token.kind == "command":
            return token.text in _FACTORS
        return token.text in {"(", "{"}

    def _is_unit(self, token: Token) -> bool:
        """Whether a word right after a number is a unit (`min`, `sec`) and no function."""
        if self.whole or not self.at:
            return False
        before = self.tokens[self.at - 1]
        if before.kind != "number" and not (token.spaced and before.text in {"pi", "}", ")"}):
            return False
        following = self.peek(1)
        applied = token.text.casefold() in FUNCTIONS and following is not None
        known = unit_named(token.text) is not None or token.text.casefold() in {"sq", "cu"}
        return known and not applied

    def _is_run(self, token: Token) -> bool:
        """Whether a short run of letters is a product of variables and no noun."""
        if token.styled or len(token.text) > 3 or not token.text.isascii():
            return False
        if self._is_unit(token) or token.text in {"st", "nd", "rd", "th"}:
            return False
        before = self.tokens[self.at - 1] if self.at else token
        counted = before.kind == "number" or before.text in {"}", ")"}
        if token.spaced and counted and self.peek(1) is None and not self.whole:
            return False  # `5 pts`: a noun or a unit, as nothing follows
        return set(token.text) <= _VARIABLE_RUN | ({*"eiou"} if not token.spaced else set())

    def _power(self) -> Expr:
        base = self._postfix(self._base())
        if self.take("^"):
            base = Expr("pow", (base, self._exponent()))
            base = self._postfix(base)
        return base

    def _exponent(self) -> Expr:
        if self.take("{"):
            inner = self.expression()
            self.need("}")
            return inner
        if self.take("-"):
            return Expr("neg", (self._base(),))
        base = self._base()
        if self.take("^"):
            return Expr("pow", (base, self._exponent()))
        return base

    def _postfix(self, base: Expr) -> Expr:
        while True:
            if self.next_is("!"):
                self.at += 1
                base = Expr("fact", (base,))
            elif self.next_is("'") and base.op == "sym":
                self.at += 1
                base = symbol(base.name + "'")
            elif self.next_is("_") and base.op == "sym":
                self.at += 1
                base = symbol(f"{base.name}_{self._subscript()}")
            else:
                return base

    def _subscript(self) -> str:
        """The text of a subscript, whatever it is."""
        if not self.take("{"):
            token = self.peek()
            if token is None:
                raise UnreadAnswer("a subscript is missing")
            self.at += 1
            return token.text
        parts: list[str] = []
        depth = 1
        while (token := self.peek()) is not None:
            self.at += 1
            depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind == "sign" else 0
            if depth == 0:
                return "".join(parts)
            parts.append(token.text)
        raise UnreadAnswer("a subscript is not closed")

    def _base(self) -> Expr:
        token = self.peek()
        if token is None:
            raise UnreadAnswer("something is missing at the end")
        if token.styled and token.kind != "number" and not _is_styled_symbol(token):
            raise UnreadAnswer(f"'{token.text}' is left over")
        self.at += 1
        if token.kind == "number":
            return self._number(token)
        if token.kind == "symbol":
            return symbol(token.text)
        if token.kind == "word":
            return self._word(token)
        if token.kind == "command":
            return self._command(token)
        if token.text in {"(", "{", "["}:
            inner = self._degrees(self.expression())
            self.need(_OPENING[token.text])
            return inner
        if token.text == "|":
            inner = self.expression()
            self.need("|")
            return Expr("abs", (inner,))
        raise UnreadAnswer(f"'{token.text}' is left over")

    def _number(self, token: Token) -> Expr:
        text = token.text.replace(",", "").replace(" ", "")
        value = number(Fraction(text), decimal="." in text or "e" in text.lower())
        if self.take("_"):
            return self._based(value)
        return self._repeating(text) or self._mixed(value) or value

    def _based(self, digits: Expr) -> Expr:
        """`1011_2`; its digits have to be digits of that base."""
        base = int(self._subscript().strip("()"))
        if not 2 <= base <= 36:
            raise UnreadAnswer(f"no base {base}")
        int(str(digits.value), base)  # ValueError: no digits of this base
        return Expr("based", (digits, number(base)))

    def _repeating(self, text: str) -> Expr | None:
        r"""`0.1\overline{6}` exactly; None where no digits repeat."""
        begin = self.at
        pointed = "." in text
        if not pointed and self.take("."):
            pointed, text = True, text + "."
        if not pointed or not self.take("overline", "dot", "bar"):
            self.at = begin
            return None
        inner = self._argument()
        digits = str(inner.value)
        places = len(text.partition(".")[2])
        if inner.op != "num" or not digits.isdigit():
            raise UnreadAnswer("only digits can repeat")
        if self.at and self.tokens[self.at - 1].text == "}":
            digits = self.tokens[self.at - 2].text
        repeated = Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)
        return number(Fraction(text.rstrip(".") or "0") + repeated)

    def _mixed(self, whole: Expr) -> Expr | None:
        r"""`2\frac{1}{3}` and `2 1/3`; None where no proper fraction follows a whole number."""
        if whole.value.denominator != 1 or whole.decimal:
            return None
        begin = self.at
        following = self.peek()
        if following is None:
            return None
        if following.kind == "command" and following.text == "frac":
            self.at += 1
            top, bottom = self._argument(), self._argument()
        elif following.kind == "number" and following.spaced and self._slash_after_number():
            top, bottom = (
                number(Fraction(following.text)),
                number(Fraction(self.tokens[self.at + 2].text)),
            )
            self.at += 3
        else:
            return None
        proper = top.op == bottom.op == "num" and 0 <= top.value < bottom.value
        if not proper or top.decimal or bottom.decimal or top.value.denominator != 1:
            self.at = begin
            if following.kind == "number":
                raise UnreadAnswer("two numbers side by side")
            return None
        return number(whole.value + top.value / bottom.value)

    def _slash_after_number(self) -> bool:
        one, slash, other = self.peek(0), self.peek(1), self.peek(2)
        return (
            one is not None and slash is not None and other is not None
            and one.text.isdigit() and slash.text == "/"
            and other.text.isdigit() and other.text.strip("0") != ""
        )  # fmt: skip

    def _word(self, token: Token) -> Expr:
        name = token.text.casefold()
        if name in FUNCTIONS:
            return self._function(name)
        if name in _PLAIN_NAMES:
            return symbol(_PLAIN_NAMES[name])
        if len(name) == 1 and name.isascii():
            return symbol(token.text)
        self.at -= 1
        run = self._is_run(token) or (self.whole and len(token.text) <= 3 and token.text.isascii())
        self.at += 1
        if not run:
            raise UnreadAnswer(f"'{token.text}' is left over")
        product = symbol(token.text[0])
        for letter in token.text[1:-1]:
            product = Expr("mul", (product, symbol(letter)))
        last = self._raised(self._postfix(symbol(token.text[-1])))
        return Expr("mul", (product, last))

    def _raised(self, base: Expr) -> Expr:
        return Expr("pow", (base, self._exponent())) if self.take("^") else base

    def _command(self, token: Token) -> Expr:
        name = token.text
        if name == "frac":
            return self._fraction()
        if name == "sqrt":
            return self._root()
        if name in {"binom", "dbinom", "tbinom"}:
            return Expr("binom", (self._argument(), self._argument()))
        if name in {"lfloor", "lceil"}:
            inner = self.expression()
            self.need(_OPENING[name])
            return Expr("floor" if name == "lfloor" else "ceil", (inner,))
        if name in {"lvert", "vert", "mid", "|"}:
            inner = self.expression()
            if not self.take("rvert", "vert", "mid", "|"):
                raise UnreadAnswer("an absolute value is not closed")
            return Expr("abs", (inner,))
        if name in _BIG:
            return self._bounded(name)
        if name in FUNCTIONS:
            return self._function(_ALIKE.get(name, name))
        if name in GREEK:
            return symbol(_ALIKE.get(name, name))
        if name in _ACCENTS:
            return symbol(f"{name}({_spelled(self._argument())})")
        raise UnreadAnswer(f"'\\{name}' is left over")

    def _bounded(self, name: str) -> Expr:
        r"""`\sum_{n=1}^{k} n^2` with its bounds and everything it is applied to."""
        below = self._subscript() if self.take("_") else ""
        above = self._exponent() if self.take("^") else None
        body = self._term()
        return Expr(name, (body,) if above is None else (body, above), name=below)

    def _fraction(self) -> Expr:
        derivative = self._derivative()
        return derivative or Expr("div", (self._argument(), self._argument()))

    def _derivative(self) -> Expr | None:
        r"""`\frac{dy}{dx}` as one symbol; None if it is another fraction."""
        shown = [each.text for each in self.tokens[self.at : self.at + 6]]
        if len(shown) == 6 and shown[0] == shown[3] == "{" and shown[2] == shown[5] == "}":
            top, bottom = shown[1], shown[4]
            if len(top) == len(bottom) == 2 and top[0] == bottom[0] == "d":
                self.at += 6
                return symbol(f"{top}/{bottom}")
        return None

    def _root(self) -> Expr:
        degree: Expr | None = None
        if self.take("["):
            degree = self.expression()
            self.need("]")
        inner = self._argument()
        return Expr("root", (inner, number(2) if degree is None else degree))

    def _argument(self) -> Expr:
        r"""What a command takes: a group, or the next single sign (`\frac12`)."""
        if self.take("{"):
            inner = self.expression()
            self.need("}")
            return inner
        token = self.peek()
        if token is None:
            raise UnreadAnswer("an argument is missing")
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            return self._digit(token)
        return self._base()

    def _digit(self, token: Token) -> Expr:
        r"""The first digit of a number (`\frac12` is one token, 12)."""
        previous = self.tokens[self.at - 1] if self.at else None
        if previous is not None and previous.text == "sqrt" and token.spaced:
            self.at += 1  # "√ 12" from a plain radical sign
            return number(int(token.text))
        rest = Token("number", token.text[1:], token.start + 1, token.end, spaced=False)
        self.tokens = [*self.tokens[: self.at], rest, *self.tokens[self.at + 1 :]]
        return number(int(token.text[0]))

    def _function(self, name: str) -> Expr:
        if name == "sqrt":
            return Expr("root", (self._function_argument(), number(2)))
        base: Expr | None = None
        exponent: Expr | None = None
        for _ in range(2):
            if base is None and name in {"log", "ln"} and self.take("_"):
                base = self._argument()
            if exponent is None and self.take("^"):
                exponent = self._exponent()
        if name in {"max", "min", "gcd", "lcm"}:
            raise UnreadAnswer(f"'{name}' is not compared")
        argument = self._function_argument()
        if (
            exponent is not None
            and exponent == Expr("neg", (number(1),))
            and name in {"sin", "cos", "tan", "cot"}
        ):
            return Expr("arc" + name, (argument,))
        args = (argument,) if base is None else (argument, base)
        applied = Expr("log" if name == "log" else name, args)
        return applied if exponent is None else Expr("pow", (applied, exponent))

    def _function_argument(self) -> Expr:
        if self.next_is("(", "[", "{"):
            return self._base()
        product = self._signed()
        while (token := self.peek()) is not None and self._starts_factor():
            if token.text in {"(", "{"} or token.text.casefold() in FUNCTIONS:
                break
            product = _juxtaposed(product, self._power())
        if self.next_is("/") and product.op in {"sym", "num"} and self._number_after_slash():
            self.at += 1
            product = Expr("div", (product, self._base()))
        return self._degrees(product)

    def _number_after_slash(self) -> bool:
        token = self.peek(1)
        return token is not None and token.kind == "number"


def _juxtaposed(left: Expr, right: Expr) -> Expr:
    return Expr("mul", (left, right))


def _is_styled_symbol(token: Token) -> bool:
    """A styled single letter (`\\mathrm{e}`, `\\mathbf{i}`) or function is no text."""
    return len(token.text) == 1 or token.text.casefold() in FUNCTIONS


def _spelled(expr: Expr) -> str:
    if expr.op == "sym":
        return expr.name
    if expr.op == "num":
        return str(expr.value)
    return f"{expr.op}({','.join(map(_spelled, expr.args))})"
