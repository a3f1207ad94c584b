"""A reader of mathematical expressions that builds sympy objects itself.

Recursive descent over tokens: nothing is handed to `sympify` or `eval`, and every power, factorial and binomial is
checked for size before sympy computes it, so that `9^{9^{9}}` is refused at once instead of being worked out. What it
does not know (integrals, sums, limits) is left to latex2sympy2_extended, the parser of math-verify, see math_compare.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from rewards.math_text import MAX_DIGITS
from rewards.math_tree import Unreadable

MAX_BITS = 20_000
"""Integers beyond this size are not worked out."""
MAX_FACTORIAL = 3000
MAX_DEPTH = 40
MAX_TOWER = 3

_FUNCTIONS: dict[str, Callable[..., Any] | None] = {
    "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "cot": sp.cot, "sec": sp.sec, "csc": sp.csc,
    "arcsin": sp.asin, "arccos": sp.acos, "arctan": sp.atan, "arccot": sp.acot, "arcsec": sp.asec, "arccsc": sp.acsc,
    "asin": sp.asin, "acos": sp.acos, "atan": sp.atan, "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh,
    "tg": sp.tan, "ctg": sp.cot, "arctg": sp.atan, "arcctg": sp.acot,
    "coth": sp.coth, "sech": sp.sech, "csch": sp.csch, "arcsinh": sp.asinh, "arccosh": sp.acosh, "arctanh": sp.atanh,
    "asinh": sp.asinh, "acosh": sp.acosh, "atanh": sp.atanh, "arsinh": sp.asinh, "arcosh": sp.acosh,
    "artanh": sp.atanh, "exp": sp.exp, "ln": sp.log, "log": sp.log, "abs": sp.Abs, "sign": sp.sign, "sgn": sp.sign,
    "floor": sp.floor, "ceil": sp.ceiling, "det": None, "lg": None, "sqrt": None, "cbrt": None,
}  # fmt: skip
_MANY = {"gcd": sp.gcd, "lcm": sp.lcm, "max": sp.Max, "min": sp.Min}
_INVERSE = {"sin": sp.asin, "cos": sp.acos, "tan": sp.atan, "sinh": sp.asinh, "cosh": sp.acosh, "tanh": sp.atanh}
_CONSTANTS = {"pi": sp.pi, "infty": sp.oo, "infinity": sp.oo, "inf": sp.oo, "e": sp.E, "i": sp.I, "oo": sp.oo}
_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
}  # fmt: skip
_CALLED = set("fghFGHPQ")
"""Letters that, before a bracket, name a function of the problem: f(x) is not f times x."""
_WORDS_MAX = 3
"""A longer run of letters is a word, not a product of symbols."""
_PRODUCT = {"*", "\\cdot", "\\times"}
_CLOSERS = {")", "]", "}", "\\}", "\\rfloor", "\\rceil"}


def expression(tokens: Sequence[str]) -> Any:
    """Return the sympy expression of the tokens.

    Raises:
        Unreadable: unknown notation, words, or numbers too large to work out.
    """
    reader = _Reader(list(tokens))
    value = reader.infix()
    if reader.place != len(reader.tokens):
        raise Unreadable(f"{reader.peek()!r} is out of place")
    return value


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = 0
        self.bars = 0
        self.in_function = 0

    def peek(self, ahead: int = 0) -> str:
        index = self.place + ahead
        return self.tokens[index] if index < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        if not token:
            raise Unreadable("the expression ends early")
        self.place += 1
        return token

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise Unreadable(f"{token!r} is missing")

    def sum(self) -> Any:
        """sum := [sign] product (sign product)*"""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        total = self.product(self._signs())
        while self.peek() in ("+", "-"):
            total = total + self.product(self._signs())
        self.depth -= 1
        return total

    def _signs(self) -> int:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.next() == "-" else sign
        return sign

    def product(self, sign: int = 1) -> Any:
        """product := factor ((`*` | `/` | `mod` | nothing) factor)*"""
        value = self.mixed()
        while True:
            token = self.peek()
            if token in _PRODUCT:
                self.next()
                value = value * self.power(self._signs())
            elif token == "/":
                self.next()
                value = _divide(value, self.power(self._signs()))
            elif token in ("\\mod", "mod"):
                self.next()
                value = sp.Mod(sign * value, self.power(self._signs()))
                sign = 1
            elif self._starts_factor(token):
                if token[0].isdigit() and self.tokens[self.place - 1][-1].isdigit():
                    raise Unreadable("two numbers side by side")
                value = value * self.power()
            else:
                return sign * value

    def mixed(self) -> Any:
        """Read a first factor; `2 \\frac{1}{3}`, `2 1/3` are mixed numbers, as people write them."""
        token, start = self.peek(), self.place + 1
        value = self.power()
        if not token.isdigit() or self.place != start:
            return value
        if self.peek() == "\\frac":
            part = self.power()
            if isinstance(part, sp.Rational) and 0 < part < 1:
                return value + part
        elif self.peek().isdigit() and self.peek(1) == "/" and self.peek(2).isdigit():
            top, bottom = int(self.peek()), int(self.peek(2))
            if 0 < top < bottom:
                self.place += 3
                return value + sp.Rational(top, bottom)
        self.place = start
        return value

    def _starts_factor(self, token: str) -> bool:
        if (
            not token
            or token in _CLOSERS
            or token in ("+", "-", "^", "_", "!", "%", ",", "&", "\\\\", ":", "\\choose", "\\over")
        ):
            return False
        return token != "|" or self.bars == 0

    def power(self, sign: int = 1) -> Any:
        """power := atom (`!` | `%` | `°` | ^exponent)*"""
        value = self.atom()
        while True:
            token = self.peek()
            if token == "^":
                self.next()
                value = _power(value, self.argument())
            elif token == "!":
                self.next()
                value = _factorial(value)
            elif token == "%":
                self.next()
                value = value / 100
            elif token == "°":
                self.next()
                value = value * sp.pi / 180 if self.in_function else value
            else:
                return sign * value

    def argument(self) -> Any:
        """Read a braced group, or what LaTeX takes without braces: one digit, one letter, one command."""
        token = self.peek()
        if token == "{":
            return self.group("{", "}")
        if token in ("+", "-"):
            return self.argument_signed()
        if token[:1].isdigit() and len(token) > 1 and "." not in token and self._latex_digit():
            self.tokens[self.place] = token[1:]
            return sp.Integer(int(token[0]))
        return self.atom()

    def argument_signed(self) -> Any:
        sign = self._signs()
        return sign * self.argument()

    def _latex_digit(self) -> bool:
        # \\frac12 takes one digit each; x^12 written in plain text means twelve.
        return self.place > 0 and self.tokens[self.place - 1] != "^"

    def group(self, opening: str, closing: str) -> Any:
        self.expect(opening)
        bars, self.bars = self.bars, 0
        value = self.infix()
        self.bars = bars
        self.expect(closing)
        return value

    def infix(self) -> Any:
        """Read a sum, or TeX's `n \\choose k` and `a \\over b`, which take all of their group."""
        value = self.sum()
        if self.peek() == "\\choose":
            self.next()
            return _binomial(value, self.sum())
        if self.peek() == "\\over":
            self.next()
            return _divide(value, self.sum())
        return value

    def atom(self) -> Any:
        token = self.next()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return self.number(token)
        if token in ("(", "[", "{"):
            self.place -= 1
            return self.group(token, {"(": ")", "[": "]", "{": "}"}[token])
        if token == "|":
            return self.absolute()
        if token.startswith("\\"):
            return self.command(token[1:])
        if token.isascii() and token.isalpha():
            return self.word(token)
        raise Unreadable(f"{token!r} is not mathematics")

    def number(self, token: str) -> Any:
        if len(token) > MAX_DIGITS:
            raise Unreadable("too many digits")
        if self.peek() == "_":
            self.next()
            return sp.Symbol(f"{token}_{self.subscript()}")
        if "." not in token:
            return sp.Integer(int(token))
        # A decimal is taken as the exact rational it writes: 0.1 is 1/10.
        return sp.Rational(token)

    def absolute(self) -> Any:
        self.bars += 1
        value = self.sum()
        self.bars -= 1
        self.expect("|")
        return sp.Abs(value)

    def word(self, token: str) -> Any:
        lower = token.lower()
        if token in _MANY or token in ("binom",):
            return self.many(token)
        if token in _FUNCTIONS:
            return self.function(token)
        if token in _CONSTANTS or lower in ("pi", "infinity"):
            return _CONSTANTS[token if token in _CONSTANTS else lower]
        if token in _GREEK:
            return self.symbol(token)
        for name in ("sqrt", "sin", "cos", "tan", "ln", "log", "exp", "pi"):
            if token.endswith(name) and len(token) - len(name) <= 2:
                # `xsin(y)`, `abpi`: letters run into a function's name
                rest = len(token) - len(name)
                self.tokens[self.place - 1 : self.place] = [token[:rest], name]
                return self.word(token[:rest])
        if len(token) > _WORDS_MAX:
            raise Unreadable(f"{token!r} is a word")
        if len(token) > 1:
            self.tokens[self.place - 1 : self.place] = list(token)
            token = token[0]
            if token in _CONSTANTS:
                return _CONSTANTS[token]
        return self.symbol(token)

    def symbol(self, name: str) -> Any:
        if self.peek() == "_":
            self.next()
            name = f"{name}_{self.subscript()}"
        while self.peek() in ("'", "\\prime"):
            self.next()
            name += "'"
        if self.peek() == "(" and (name[0] in _CALLED or name.endswith("'")):
            return sp.Function(name)(self.group("(", ")"))
        return sp.Symbol(name)

    def subscript(self) -> str:
        if self.peek() != "{":
            return self.next()
        self.next()
        inner = []
        while self.peek() != "}":
            inner.append(self.next())
        self.next()
        return "".join(inner)

    def command(self, name: str) -> Any:
        if name == "frac":
            if self.peek(1) in ("d", "\\partial") and self.peek(2) == "}":
                raise Unreadable("a derivative")
            top = self.argument()
            return _divide(top, self.argument())
        if name == "sqrt":
            return self.root()
        if name == "binom":
            top = self.argument()
            return _binomial(top, self.argument())
        if name in ("lfloor", "lceil"):
            value = self.sum()
            self.expect("\\" + name.replace("l", "r", 1))
            return sp.floor(value) if name == "lfloor" else sp.ceiling(value)
        if name in _MANY:
            return self.many(name)
        if name in _FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty"):
            return _CONSTANTS[name]
        if name in ("hat", "bar", "vec", "overline", "tilde", "widehat"):
            return sp.Symbol(f"{name}_{self.argument()}")
        if name in _GREEK:
            return self.symbol(name)
        raise Unreadable(f"\\{name} is not known here")

    def root(self) -> Any:
        degree: Any = sp.Integer(2)
        if self.peek() == "[":
            degree = self.group("[", "]")
        value = self.argument()
        return _power(value, _divide(sp.Integer(1), degree))

    def function(self, name: str) -> Any:
        base = exponent = None
        while self.peek() in ("_", "^"):
            if self.next() == "_":
                base = self.argument()
            else:
                exponent = self.argument()
        self.in_function += 1
        value = self.function_argument()
        self.in_function -= 1
        if exponent == -1 and name in _INVERSE:
            return _INVERSE[name](value)
        result = self._apply(name, value, base)
        return result if exponent is None else _power(result, exponent)

    def _apply(self, name: str, value: Any, base: Any) -> Any:
        if name in ("sqrt", "cbrt"):
            return _power(value, sp.Rational(1, 2 if name == "sqrt" else 3))
        if name == "lg" or (name == "log" and base is not None):
            return _divide(sp.log(value), sp.log(base if base is not None else 10))
        function = _FUNCTIONS[name]
        if function is None or base is not None:
            raise Unreadable(f"{name} is not known here")
        return function(value)

    def function_argument(self) -> Any:
        """Read `(x)`, `{x}`, `|x|` or a bare product: the argument of `\\sin 2x \\cos x` is 2x."""
        if self.peek() in ("(", "[", "{"):
            token = self.peek()
            return self.group(token, {"(": ")", "[": "]", "{": "}"}[token])
        sign = self._signs()
        value = self.power()
        while self._starts_factor(self.peek()) and self.peek().lstrip("\\") not in _FUNCTIONS and self.peek() != "(":
            value = value * self.power()
        if self.peek() == "/" and self.peek(1)[:1].isdigit():
            self.next()
            value = _divide(value, self.power())
        return sign * value

    def many(self, name: str) -> Any:
        opening = self.peek()
        if opening not in ("(", "{", "\\{"):
            raise Unreadable(f"{name} without arguments")
        closing = {"(": ")", "{": "}", "\\{": "\\}"}[opening]
        self.next()
        values = [self.sum()]
        while self.peek() == ",":
            self.next()
            values.append(self.sum())
        self.expect(closing)
        if name == "binom":
            if len(values) != 2:
                raise Unreadable("binom takes two arguments")
            return _binomial(*values)
        if name in ("gcd", "lcm") and not all(isinstance(value, sp.Integer) for value in values):
            raise Unreadable(f"{name} of other things than integers")
        return _MANY[name](*values) if name in ("max", "min") else _fold(_MANY[name], values)


def _fold(function: Callable[..., Any], values: list[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result


def _divide(top: Any, bottom: Any) -> Any:
    if bottom == 0:
        raise Unreadable("a division by zero")
    return top / bottom


def _power(base: Any, exponent: Any) -> Any:
    """Return base ** exponent, refused where sympy would work out a huge number."""
    if base.is_number and exponent.is_number:
        if _tower(exponent) >= MAX_TOWER:
            raise Unreadable("a tower of powers")
        if isinstance(base, sp.Rational) and isinstance(exponent, sp.Rational) and abs(base) not in (0, 1):
            size = math.log2(max(abs(base.p), abs(base.q), 2))
            if size * abs(exponent.p) / max(exponent.q, 1) > MAX_BITS:
                raise Unreadable("a number too large to work out")
        if base == 0 and (exponent.is_negative or exponent == 0):
            raise Unreadable("a power of zero")
    return sp.Pow(base, exponent)


def _tower(value: Any) -> int:
    """Return how many powers are stacked in an exponent."""
    if not isinstance(value, sp.Pow | sp.exp):
        return max((_tower(item) for item in value.args), default=0)
    return 1 + _tower(value.exp)


def _factorial(value: Any) -> Any:
    if isinstance(value, sp.Integer) and not 0 <= value <= MAX_FACTORIAL:
        raise Unreadable("a factorial too large to work out")
    if value.is_number and not isinstance(value, sp.Integer):
        raise Unreadable("a factorial of something else than an integer")
    return sp.factorial(value)


def _binomial(top: Any, bottom: Any) -> Any:
    if (
        top.is_number
        and bottom.is_number
        and not (isinstance(top, sp.Integer) and isinstance(bottom, sp.Integer) and 0 <= bottom <= top <= MAX_FACTORIAL)
    ):
        raise Unreadable("a binomial too large to work out")
    return sp.binomial(top, bottom)
