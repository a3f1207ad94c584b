"""Whether two sympy expressions are the same: exactly for numbers, at random points for expressions with symbols.

Two different analytic expressions agree at a random point with probability zero, so a handful of points at 80 digits
decides identities that `simplify` decides slowly, or not at all, and in bounded time.
"""

from collections.abc import Collection, Iterator
from typing import Any

import sympy as sp

DIGITS = 80
EXACT = 1e-35
"""Relative difference below which two values at 80 digits are one: tight, so that e^{50} + 1 is not e^{50}."""
ROUNDED = 5e-6
"""The same where a number of six or more digits was written as a decimal."""
NEEDED = 3
"""Points at which both expressions must have a value."""

# Primes' roots and fractions without structure, so that no identity holds there by accident.
_POSITIVE = ("0.3719", "1.8273", "2.2911", "0.7307", "2.6457", "1.3183", "3.1231", "0.9147", "1.0539", "2.0166")
_NEGATIVE = (
    "-0.6173",
    "-2.3979",
    "-3.1962",
    "-1.4422",
    "-0.2718",
    "-2.0623",
    "-1.6055",
    "-1.1447",
    "-0.8082",
    "-2.7958",
)


def same_value(first: Any, second: Any, tolerance: float = EXACT) -> bool:
    """Return whether two expressions are equal wherever both are real, and as complex numbers on positive arguments.

    Args:
        first: a sympy expression.
        second: another.
        tolerance: relative difference that counts as equal.
    """
    if first == second:
        return True
    if _infinite(first) or _infinite(second):
        return False
    if isinstance(first, sp.Rational) and isinstance(second, sp.Rational) and tolerance == EXACT:
        return False
    difference = first - second
    if difference.is_Rational and tolerance == EXACT:
        return bool(difference == 0)
    symbols = _symbols(first, second)
    if not symbols:
        return _close(_number(first), _number(second), tolerance)
    found = 0
    for index, point in enumerate(_points(symbols, _under_roots(first) | _under_roots(second))):
        one, two = _number(first, point), _number(second, point)
        if one is None or two is None:
            continue
        if index % 2 and (_imaginary(one) or _imaginary(two)):
            continue  # at a negative point the branch of a root is a convention
        if not _close(one, two, tolerance):
            return False
        found += index % 2 == 0
    return found >= NEEDED


def ratio(first: Any, second: Any) -> float | None:
    """Return the constant c with first = c * second at all points; None if there is none, or either is zero."""
    symbols = _symbols(first, second)
    if not symbols or _symbols(first) != _symbols(second):
        return None
    constant = None
    found = 0
    for index, point in enumerate(_points(symbols)):
        one, two = _number(first, point), _number(second, point)
        if one is None or two is None or (index % 2 and (_imaginary(one) or _imaginary(two))):
            continue
        if abs(one) < EXACT or abs(two) < EXACT:
            return None
        quotient = one / two
        if constant is not None and not _close(constant, quotient, EXACT):
            return None
        constant = quotient
        found += 1
    if constant is None or found < NEEDED or _imaginary(constant):
        return None
    return float(sp.re(constant))


def _symbols(*values: Any) -> tuple[Any, ...]:
    """Return symbols and undefined functions such as f(x), in a fixed order."""
    found = set()
    for value in values:
        applied = value.atoms(sp.core.function.AppliedUndef)
        found |= applied | {
            symbol for symbol in value.free_symbols if not any(symbol in item.free_symbols for item in applied)
        }
        plain = value.xreplace({item: sp.Integer(1) for item in applied})
        found |= plain.free_symbols
    return tuple(sorted(found, key=str))


def _under_roots(value: Any) -> set[Any]:
    """Return the symbols that stand alone under a root: whoever writes \\sqrt{a} means a to be positive."""
    powers = value.atoms(sp.Pow)
    return {item.base for item in powers if item.base.is_Symbol and item.exp.is_Rational and not item.exp.is_Integer}


def _points(symbols: tuple[Any, ...], positive: Collection[Any] = ()) -> Iterator[dict[Any, Any]]:
    """Yield points by turns positive and negative; the later ones are small, where high powers vanish.

    Args:
        symbols: what gets a value.
        positive: those of them that are positive at every point.
    """
    for shift in range(5):
        for values in (_POSITIVE, _NEGATIVE):
            scale = sp.Float("0.043" if shift > 2 else "1", DIGITS)
            point = {
                symbol: scale * sp.Float(values[(3 * shift + 7 * index) % 10], DIGITS) * (1 + index // 10)
                for index, symbol in enumerate(symbols)
            }
            yield {symbol: abs(value) if symbol in positive else value for symbol, value in point.items()}


def _number(value: Any, point: dict[Any, Any] | None = None) -> Any:
    """Return the value as a complex number of 80 digits, or None where there is none."""
    try:
        result = sp.N(value.xreplace(point) if point else value, DIGITS)
    except (ValueError, TypeError, ZeroDivisionError, ArithmeticError, AttributeError):
        return None
    if not result.is_number or _infinite(result) or result.has(sp.nan):
        return None
    real, imaginary = result.as_real_imag()
    return real + sp.I * imaginary if real.is_Float or real.is_Rational else None


def _infinite(value: Any) -> bool:
    return bool(value.has(sp.oo, -sp.oo, sp.zoo))


def _imaginary(value: Any) -> bool:
    return abs(sp.im(value)) > EXACT * max(1, abs(value))


def _close(first: Any, second: Any, tolerance: float) -> bool:
    if first is None or second is None:
        return False
    scale = max(abs(first), abs(second))
    return bool(scale < 1e-60 or abs(first - second) <= tolerance * scale)
