"""Worked solutions for tasks of reasoning-gym, which has answers only: the texts a warm-up teaches long mode with.

A maker takes an entry (`question`, `answer`, `metadata`) and works the answer out in the small steps a small model
can copy; it must not look at `answer`. The tests check what it arrives at with the dataset's own verifier.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """How an answer is reached."""

    steps: str
    """The work, a short line for each step."""
    answer: str
    """What the work arrives at."""


Maker = Callable[[Mapping[str, Any]], Solution | None]
_makers: dict[str, Maker] = {}


def solution(name: str) -> Callable[[Maker], Maker]:
    """Registers the maker of worked solutions for a reasoning-gym dataset."""

    def register(maker: Maker) -> Maker:
        if name in _makers:
            raise ValueError(f"a maker of solutions for {name!r} exists already: give this one another name.")
        _makers[name] = maker
        return maker

    return register


def make_solution(name: str, entry: Mapping[str, Any]) -> Solution | None:
    """The worked solution of an entry, or None for a dataset without a maker and an entry without an honest one."""
    maker = _makers.get(name)
    return maker(entry) if maker else None


def solvable() -> list[str]:
    """Names of the datasets with a maker."""
    return sorted(_makers)


# ---- arithmetic ----


@solution("chain_sum")
def chain_sum(entry: Mapping[str, Any]) -> Solution:
    """`4 - 1 - 7`: `4 - 1 = 3`, `3 - 7 = -4`."""
    first, *rest = re.findall(r"[-+]|\d+", entry["metadata"]["expression"].replace(" ", ""))
    if first in "+-":
        first, rest = first + rest[0], rest[1:]
    return _running(Decimal(first), rest)


@solution("decimal_chain_sum")
def decimal_chain_sum(entry: Mapping[str, Any]) -> Solution:
    """As chain_sum, with decimals."""
    first, *rest = re.findall(r"(?:^-)?\d+(?:\.\d+)?|[-+]", entry["metadata"]["expression"].replace(" ", ""))
    return _running(Decimal(first), rest)


def _running(total: Decimal, rest: list[str]) -> Solution:
    """Running total over `sign, number, sign, number ...`; a second sign before a number belongs to the number."""
    lines, position = [], 0
    while position < len(rest):
        sign, number = rest[position], rest[position + 1]
        position += 2
        if number in "+-":
            number, position = number + rest[position], position + 1
        after = total + Decimal(number) if sign == "+" else total - Decimal(number)
        lines.append(f"{total} {sign} {number} = {after}")
        total = after
    return Solution(steps="\n".join(lines) or f"{total}", answer=str(total))


@solution("basic_arithmetic")
def basic_arithmetic(entry: Mapping[str, Any]) -> Solution | None:
    """`2 * (3 + 4) - 5`: `3 + 4 = 7`, `2 * 7 = 14`, `14 - 5 = 9`.

    None where a division leaves a remainder or has no result: the dataset rounds those in its own way, and no honest
    step leads there.
    """
    lines: list[str] = []
    try:
        value = _work_out(ast.parse(entry["metadata"]["expression"].strip(), mode="eval").body, lines)
    except _NotWhole:
        return None
    return Solution(steps="\n".join(lines) or str(value), answer=str(value))


class _NotWhole(Exception):
    """A division with a remainder, or by zero."""


_OPERATIONS: dict[type, tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.Div: ("/", lambda a, b: a / b),
}


def _work_out(node: ast.expr, lines: list[str]) -> Fraction:
    """The value of an arithmetic expression; each operation becomes a line, innermost first."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_work_out(node.operand, lines)
    assert isinstance(node, ast.BinOp), f"not an arithmetic expression: {ast.dump(node)}"
    left, right = _work_out(node.left, lines), _work_out(node.right, lines)
    sign, operation = _OPERATIONS[type(node.op)]
    if sign == "/" and (right == 0 or (left / right).denominator != 1):
        raise _NotWhole
    value = operation(left, right)
    lines.append(f"{left} {sign} {right} = {value}")
    return value


@solution("products")
def products(entry: Mapping[str, Any]) -> Solution:
    """`23 * 45`: `20 * 40 = 800`, `20 * 5 = 100`, `3 * 40 = 120`, `3 * 5 = 15`, then their running total."""
    first, *rest = [int(number) for number in re.findall(r"-?\d+", entry["metadata"]["expression"])]
    lines: list[str] = []
    total = first
    for factor in rest:
        total = _multiply(total, factor, lines)
    return Solution(steps="\n".join(lines) or str(total), answer=str(total))


def _multiply(left: int, right: int, lines: list[str]) -> int:
    parts = []
    for high in _places(left):
        for low in _places(right):
            parts.append(high * low)
            lines.append(f"{high} * {low} = {high * low}")
    total = parts[0]
    for part in parts[1:]:
        lines.append(f"{total} + {part} = {total + part}")
        total += part
    return total


def _places(number: int) -> list[int]:
    """`345` as `[300, 40, 5]`; zeros left out."""
    sign, digits = (-1 if number < 0 else 1), str(abs(number))
    return [sign * int(digit) * 10 ** (len(digits) - 1 - at) for at, digit in enumerate(digits) if digit != "0"] or [0]


@solution("gcd")
def gcd(entry: Mapping[str, Any]) -> Solution:
    """Euclid's algorithm, one remainder a line."""
    lines: list[str] = []
    value = reduce(lambda a, b: _euclid(a, b, lines), entry["metadata"]["numbers"])
    return Solution(steps="\n".join(lines), answer=str(value))


def _euclid(left: int, right: int, lines: list[str]) -> int:
    left, right = max(left, right), min(left, right)
    while right:
        lines.append(f"{left} mod {right} = {left % right}")
        left, right = right, left % right
    return left


@solution("lcm")
def lcm(entry: Mapping[str, Any]) -> Solution:
    """The greatest common divisor, then one number divided by it, times the other."""
    lines: list[str] = []
    value = reduce(lambda a, b: _least_multiple(a, b, lines), entry["metadata"]["numbers"])
    return Solution(steps="\n".join(lines), answer=str(value))


def _least_multiple(left: int, right: int, lines: list[str]) -> int:
    common = _euclid(left, right, lines)
    quotient = left // common
    lines += [f"{left} / {common} = {quotient}", f"{quotient} * {right} = {quotient * right}"]
    return quotient * right


@solution("leg_counting")
def leg_counting(entry: Mapping[str, Any]) -> Solution:
    """`13 tigers: 13 * 4 = 52, total 52`, one animal a line."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    lines, total = [], 0
    for animal, count in entry["metadata"]["animals"].items():
        total += count * ANIMALS[animal]
        lines.append(f"{animal}: {count} * {ANIMALS[animal]} = {count * ANIMALS[animal]}, total {total}")
    return Solution(steps="\n".join(lines), answer=str(total))


@solution("simple_geometry")
def simple_geometry(entry: Mapping[str, Any]) -> Solution:
    """The angle sum of the polygon, then the known angles taken off one by one."""
    sides, angles = entry["metadata"]["n_sides"], entry["metadata"]["known_angles"]
    rest = 180 * (sides - 2)
    lines = [f"({sides} - 2) * 180 = {rest}"]
    for angle in angles:
        assert angle == int(angle), "the dataset's angles are whole degrees"
        lines.append(f"{rest} - {int(angle)} = {rest - int(angle)}")
        rest -= int(angle)
    return Solution(steps="\n".join(lines), answer=str(rest))


# ---- letters and words ----


@solution("letter_counting")
def letter_counting(entry: Mapping[str, Any]) -> Solution:
    """Each word with its count, and the running total: `hundred 1, total 1`."""
    letter, lines, total = entry["metadata"]["target_letter"], [], 0
    for word in entry["metadata"]["span"]:
        count = word.lower().count(letter)
        total += count
        lines.append(f"{' '.join(word.lower())}: {count}, total {total}")
    return Solution(steps="\n".join(lines), answer=str(total))


@solution("spell_backward")
def spell_backward(entry: Mapping[str, Any]) -> Solution:
    """The word's letters apart, then from the last to the first."""
    word = entry["metadata"]["word"]
    return Solution(steps=f"{' '.join(word)}\n{' '.join(reversed(word))}", answer=word[::-1])


@solution("word_sequence_reversal")
def word_sequence_reversal(entry: Mapping[str, Any]) -> Solution:
    """The words numbered, then called from the last number to the first."""
    words = entry["metadata"]["words"]
    numbered = [f"{number} {word}" for number, word in enumerate(words, start=1)]
    steps = ", ".join(numbered) + "\n" + ", ".join(reversed(numbered))
    return Solution(steps=steps, answer=", ".join(reversed(words)))


@solution("word_sorting")
def word_sorting(entry: Mapping[str, Any]) -> Solution:
    """The next word in order, and those left, one a line."""
    meta = entry["metadata"]
    ordered = sorted(meta["transformed_words"], reverse=meta["direction"] == "descending")
    return Solution(steps=_selection(meta["transformed_words"], ordered), answer=", ".join(ordered))


@solution("number_sorting")
def number_sorting(entry: Mapping[str, Any]) -> Solution:
    """The next number in order, and those left, one a line."""
    meta = entry["metadata"]
    ordered = sorted(meta["original_numbers"], key=Decimal, reverse=meta["direction"] == "descending")
    return Solution(steps=_selection(meta["original_numbers"], ordered), answer=str(ordered))


def _selection(items: list[str], ordered: list[str]) -> str:
    left, lines = list(items), []
    for item in ordered:
        left.remove(item)
        lines.append(f"{item}, left: {' '.join(left)}" if left else item)
    return "\n".join(lines)


@solution("number_filtering")
def number_filtering(entry: Mapping[str, Any]) -> Solution:
    """Each number against the limit, yes or no."""
    meta = entry["metadata"]
    limit = Decimal(meta["filter_value"])
    verb, _, side = meta["operation"].partition("_")
    lines, kept = [], []
    for number in meta["original_numbers"]:
        hit = Decimal(number) > limit if side == "larger" else Decimal(number) < limit
        keep = hit == (verb == "keep")
        sign = ">" if Decimal(number) > limit else "<" if Decimal(number) < limit else "="
        lines.append(f"{number} {sign} {limit}: {'keep' if keep else 'drop'}")
        kept += [number] if keep else []
    return Solution(steps="\n".join(lines), answer=str(kept))
