"""`number`: 1.0 if the final answer is the reference's number, in any unit of its dimension and within a tolerance.

- `1.2 km` = `1200 m` = `1,200 metres`; units of different dimensions never match. A unit that only one side gives is
  passed over, unless `unit_required` asks for it (then an answer must give a unit where the reference has one).
- Right within `max(abs_tol, rel_tol * |reference|)`, in the reference's unit. Both are 0 by default: equal exactly, or
  up to the rounding visible in a long decimal (math_text.REFERENCE_DIGITS, ANSWER_DIGITS).
- Scientific notation, thousands separators, percent, fractions, mixed numbers, number words, LaTeX. `20%` is 20 per
  cent, 0.2, or 20 where the reference says so. `2\\pi`, `\\sqrt{2}` and the like are worked out in the sandbox.
- The final answer is extract.py's; of its readings the widest that is a quantity counts, so that `12 km` is not 12 m.
  Several values (`12 or 13`, `5-7`) are none. A reference that is no number matches only its own text.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from rewards import arguments
from rewards.exact import first, references
from rewards.extract import final_answer
from rewards.math import reference_text
from rewards.math_text import ANSWER_DIGITS, REFERENCE_DIGITS
from rewards.quantity import Contradiction, Quantity, base, read_quantity
from rewards.registry import reward
from rewards.sandbox import shared
from rewards.text import normalise

_CHECKS: dict[str, arguments.Check] = {
    "rel_tol": arguments.amount,
    "abs_tol": arguments.amount,
    "unit_required": arguments.flag,
}
MAX_CHARS = 400


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return f"\\boxed{{{reference_text(first(reference))}}}"


@reward("number", parallel=True, gold=gold_answer, validate=arguments.validator(**_CHECKS))
def number(
    *,
    answer: str | None,
    reference: Any,
    rel_tol: float | None = 0.0,
    abs_tol: float | None = 0.0,
    unit_required: bool | None = False,
) -> float | None:
    """Return 1.0 if the answer's number is the reference's within the tolerance, else 0.0; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right number with or without a unit; a list gives several, any of which is right.
        rel_tol: accepted difference as a share of the reference (0.05 is ChartQA's relaxed accuracy, arXiv 2203.10244).
        abs_tol: accepted difference in the reference's unit.
        unit_required: refuse an answer without a unit where the reference has one.

    Example:
        >>> number(answer="The distance is 1,200 m.", reference="1.2 km")
        1.0
    """
    targets = [text for text in map(reference_text, references(reference)) if text]
    if not targets:
        return None
    tolerance = (arguments.amount("rel_tol", rel_tol or 0.0), arguments.amount("abs_tol", abs_tol or 0.0))
    strict = arguments.flag("unit_required", unit_required)
    if not isinstance(answer, str):
        return 0.0
    readings = final_answer(answer).readings
    known = _worked_out([*readings, *targets])
    found = _widest(readings, known)
    return float(
        any(_right(found, readings, target, _widest([target], known), tolerance, strict) for target in targets)
    )


def _widest(readings: Sequence[str], known: Mapping[str, Quantity]) -> Quantity | None:
    """Return the quantity of the widest reading that is one; none where an equals sign joins two values."""
    try:
        for reading in readings:
            found = read_quantity(reading) or known.get(reading)
            if found is not None:
                return found
    except Contradiction:
        return None
    return None


def _worked_out(texts: Sequence[str]) -> dict[str, Quantity]:
    """Return the values of expressions without unknowns, from one call of the sandbox: one time limit for all."""
    asked = [text for text in dict.fromkeys(texts) if _is_expression(text)]
    outcome = shared().call("rewards.math_compare:numbers_of", asked) if asked else None
    if outcome is None or outcome.status != "ok":
        return {}
    found = {}
    for text, value in zip(asked, outcome.value, strict=True):
        if value is not None:
            unit = read_quantity(f"1 {value[1]}") if value[1] else None
            percent = unit is not None and unit.percent
            found[text] = Quantity(value=Fraction(value[0]), unit=unit.unit if unit else None, percent=percent)
    return found


def _is_expression(text: str) -> bool:
    """Return whether a text may be more than a plain number, and mathematics."""
    if len(text) > MAX_CHARS or not any(mark in text for mark in ("\\", "^", "*", "+", "π", "√", "(")):
        return False
    try:
        return read_quantity(text) is None
    except Contradiction:
        return False


def _right(
    found: Quantity | None,
    readings: Sequence[str],
    target: str,
    wanted: Quantity | None,
    tolerance: tuple[float, float],
    strict: bool,
) -> bool:
    if wanted is None:
        return any(normalise(reading) == normalise(target) for reading in readings)
    if found is None:
        return False
    if strict and found.unit is None and not found.percent and (wanted.unit is not None or wanted.percent):
        return False
    return any(within(value, wanted, found, tolerance) for value in _in_unit_of(found, wanted))


def _in_unit_of(found: Quantity, wanted: Quantity) -> list[Fraction]:
    """Return the answer's value as it may be read in the reference's unit; none where the dimensions differ."""
    if found.percent != wanted.percent:
        return [found.value, found.value / 100 if found.percent else found.value * 100]
    if found.unit is None or wanted.unit is None:
        return [found.value]
    if found.unit.dimension != wanted.unit.dimension:
        return []
    return [base(found) / wanted.unit.factor - wanted.unit.offset]


def within(value: Fraction, wanted: Quantity, found: Quantity, tolerance: tuple[float, float]) -> bool:
    """Return whether a value is the wanted one within the tolerance, or its rounding to the digits written."""
    gap = abs(value - wanted.value)
    relative, absolute = (Fraction(item) for item in tolerance)
    if gap <= max(absolute, relative * abs(wanted.value)):
        return True
    if _digits(wanted) >= REFERENCE_DIGITS and (found.decimals is None or _digits(found) >= ANSWER_DIGITS):
        return gap <= _half_place(wanted)
    return wanted.decimals is None and _digits(found) >= ANSWER_DIGITS and gap <= _half_place(found)


def _digits(quantity: Quantity) -> int:
    """Return how many significant digits a decimal is written with; 0 for an integer or anything else."""
    if not quantity.decimals:
        return 0
    scaled = abs(quantity.value.numerator * 10**quantity.decimals // quantity.value.denominator)
    return 0 if scaled % 10**quantity.decimals == 0 else len(str(scaled).rstrip("0"))


def _half_place(quantity: Quantity) -> Fraction:
    return Fraction(1, 2 * 10 ** (quantity.decimals or 0))
