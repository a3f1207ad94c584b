"""Numbers with units as people write them: `1,234.5 kg`, `3.2\\times10^{-4}\\ \\mathrm{m/s^2}`, `5 ft 3 in`, `€12`.

Pure string work in linear time. What is more than a number (`2\\pi`, `\\sqrt{2}`) is left to the sandbox (number.py).
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.math_text import clean, without_thousands
from rewards.number_words import SCALES, number_of_words
from rewards.text import VAGUE, is_changed
from rewards.units import Unit, read_unit

MAX_CHARS = 400
MAX_EXPONENT = 400
_CURRENCIES = {"€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee", "\\euro": "euro", "\\pounds": "gbp"}
_CURRENCY = re.compile(r"€|£|¥|₹|\\euro\b|\\pounds\b")
_DOLLAR = re.compile(r"\\\$\s*(?=[-+.\d])|(?<![\d\\])\$(?=\d[\d,.]*(?:[^$]*)$)")
_LEAD = re.compile(
    r"(?:about|approximately|roughly|around|exactly|only|just|a total of|total of|approx\.?|\\approx|\\sim|~|≈|=|:)\s*"
    r"(?=\S)",
    re.IGNORECASE,
)
_MANTISSA = r"(?:\d+(?:\.\d*)?|\.\d+)"
_POWER_OF_TEN = r"(?:\\cdot|\\times|\*|x|X)?\s*10\s*\^\s*(?:\{\s*([-+]?\s*\d{1,4})\s*\}|([-+]?\d{1,4}))"
_NUMBER = re.compile(
    r"([-+]?)\s*(?:"
    rf"(?P<mixed>\d{{1,15}})\s*\\frac\s*\{{(?P<mtop>\d{{1,15}})\}}\s*\{{(?P<mbottom>\d{{1,15}})\}}"
    rf"|(?P<mixed2>\d{{1,15}})\s+(?P<mtop2>\d{{1,15}})/(?P<mbottom2>\d{{1,15}})(?!\d)"
    rf"|\\frac\s*\{{\s*(?P<top>[-+]?{_MANTISSA})\s*\}}\s*\{{\s*(?P<bottom>{_MANTISSA})\s*\}}"
    rf"|(?P<top2>{_MANTISSA})\s*/\s*(?P<bottom2>{_MANTISSA})(?!\s*/)"
    rf"|(?P<plain>{_MANTISSA})"
    rf"|(?=10\s*\^)"
    r")"
)
_TIMES_TEN = re.compile(r"\s*" + _POWER_OF_TEN)
_TAIL = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|[.,;:()!*'\"]|\s+")
_REFUSED = {
    "or", "and", "to", "plus", "minus", "times", "over", "half", "halves", "third", "thirds", "quarter", "quarters",
    "twice", "squared", "cubed", "if", "mod", "modulo", "undefined", "infinity", "dozen", "through", "versus", "vs",
    "either", "maybe", "perhaps", "power", "factorial", "e", "i", "x", "y", "z", "n", "k", *SCALES,
}  # fmt: skip
"""Words after a number that make it another number, or none."""
_LABEL = re.compile(r"\s*(?:=|\\approx|\\simeq|≈|\\equiv)\s*")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number and its unit."""

    value: Fraction
    unit: Unit | None = None
    percent: bool = False
    decimals: int | None = None
    """Digits written after the decimal point; None where the number is no plain decimal."""


class Contradiction(ValueError):
    """A chain such as `8 = 9`: two values for one."""


def read_quantity(text: str) -> Quantity | None:
    """Return the quantity that a text states, or None where it states none, several, or more than a quantity.

    Raises:
        Contradiction: the sides of an equals sign are different numbers.

    Example:
        >>> read_quantity(r"v = 12\\,\\mathrm{km/h}").value
        Fraction(12, 1)
    """
    if len(text) > MAX_CHARS:
        return None
    parts = _LABEL.split(_in_one_spelling(text))
    found = [_read(part) for part in parts]
    last = found[-1]
    if last is None:
        return None
    for other in found[:-1]:
        if other is not None and not _restates(other, last):
            raise Contradiction(text)
    return last


def _restates(first: Quantity, second: Quantity) -> bool:
    """Return whether two sides of `=` or `\\approx` may be one value, the second perhaps rounded or in another unit."""
    one, two = base(first), base(second)
    return abs(one - two) <= Fraction(1, 50) * max(abs(one), abs(two)) or first.value == second.value


def base(quantity: Quantity) -> Fraction:
    """Return the value in base units."""
    unit = quantity.unit or Unit()
    return unit.factor * (quantity.value + unit.offset)


def _in_one_spelling(text: str) -> str:
    """Return cleaned text with currencies written as unit words after the number."""
    currency = _CURRENCY.search(text)
    dollar = None if currency else _DOLLAR.search(text)
    word = _CURRENCIES[currency[0]] if currency else ("dollar" if dollar else "")
    text = _CURRENCY.sub(" ", text)
    text = without_thousands(clean(text))
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).replace("μ", "µ").replace("\\Omega", "Ω")
    text = re.sub(r"\\mu(?![a-z])\s*", "µ", text)
    text = (
        re.sub(r"°\s*(?:([CFK])\b|([cCfF])(?:elsius|ahrenheit)\b)", _temperature, text)
        .replace("\\cdot m", "*m")
        .replace("\\ldots", "…")
    )
    text = re.sub(r"(?<=[A-Za-zµΩ}\d])\s*\\(?:cdot|times)\s*(?=[A-Za-zµΩ])", " * ", text)
    text = re.sub(r"\s+", " ", text).replace(" ^", "^").strip()
    return f"{text} {word}" if word and re.match(r"[-+]?[\d.]", text) and _no_words(text) else text


def _no_words(text: str) -> bool:
    return re.fullmatch(r"[-+\d.,/\s]+(?:thousand|million|billion|trillion)?", text) is not None


def _read(text: str) -> Quantity | None:
    for _ in range(3):
        lead = _LEAD.match(text)
        text = text[lead.end() :] if lead else text
    first = _one(text)
    if first is None:
        return None
    quantity, rest = first
    for _ in range(2):  # `1 h 20 min 5 s`, `5 ft 3 in`
        more = _one(re.sub(r"^(?:and|,)\s*", "", rest)) if quantity.unit is not None else None
        if more is None or not _continues(quantity, more[0]):
            break
        value = quantity.value + more[0].value * more[0].unit.factor / quantity.unit.factor  # type: ignore[union-attr]
        quantity, rest = Quantity(value=value, unit=quantity.unit), more[1]
    return quantity if _describes(rest) else None


def _continues(larger: Quantity, smaller: Quantity) -> bool:
    if larger.unit is None or smaller.unit is None or larger.unit.offset or smaller.value < 0:
        return False
    same = larger.unit.dimension == smaller.unit.dimension and bool(larger.unit.dimension)
    return (
        same and smaller.unit.factor < larger.unit.factor and smaller.value * smaller.unit.factor < larger.unit.factor
    )


def _one(text: str) -> tuple[Quantity, str] | None:
    """Return the quantity at the start of a text and what follows."""
    match = _NUMBER.match(text)
    if match is None:
        return _written(text)
    value = _value(match)
    if value is None:
        return None
    rest = text[match.end() :]
    power = _TIMES_TEN.match(rest)
    if power is None and match["plain"] is None and match["top"] is None and match.end() == match.end(1):
        return None
    decimals = None
    if power:
        exponent = int((power[1] or power[2]).replace(" ", ""))
        if abs(exponent) > MAX_EXPONENT:
            return None
        value, rest = value * Fraction(10) ** exponent, rest[power.end() :]
    elif match["plain"]:
        decimals = len(match["plain"].partition(".")[2])
    return _with_unit(value, rest, decimals)


def _value(match: re.Match[str]) -> Fraction | None:
    sign = -1 if match[1] == "-" else 1
    whole = match["mixed"] or match["mixed2"]
    if whole:
        top, bottom = int(match["mtop"] or match["mtop2"]), int(match["mbottom"] or match["mbottom2"])
        return sign * (int(whole) + Fraction(top, bottom)) if 0 < top < bottom else None
    top_text, bottom_text = match["top"] or match["top2"], match["bottom"] or match["bottom2"]
    if top_text:
        divisor = Fraction(bottom_text.rstrip("."))
        return sign * Fraction(top_text.rstrip(".")) / divisor if divisor else None
    return sign * Fraction(match["plain"].rstrip(".")) if match["plain"] else Fraction(sign)


def _with_unit(value: Fraction, rest: str, decimals: int | None) -> tuple[Quantity, str]:
    scale = re.match(r"\s*(hundred|thousand|million|billion|trillion)\b", rest, re.IGNORECASE)
    if scale:
        value, rest, decimals = value * SCALES[scale[1].lower()], rest[scale.end() :], None
    unit, tail = read_unit(rest)
    if rest.lstrip().startswith("%"):
        return Quantity(value=value, percent=True, decimals=decimals), rest.lstrip()[1:].strip()
    return Quantity(value=value, unit=unit, decimals=decimals), tail


def _written(text: str) -> tuple[Quantity, str] | None:
    """Read number words: `twenty-five kilometres`."""
    words = text.split(" ", 12)[:12]
    for count in range(min(len(words), 10), 0, -1):
        value = number_of_words(" ".join(words[:count]))
        if value is not None:
            return _with_unit(Fraction(value), " ".join(text.split(" ")[count:]), None)
    return None


def _describes(rest: str) -> bool:
    """Return whether what follows a quantity only describes it: plain words that change nothing."""
    if VAGUE.search(rest) or rest.startswith("!") or is_changed("", rest):
        return False
    place = 0
    while place < len(rest):
        match = _TAIL.match(rest, place)
        if match is None:
            return False
        word = match[0].casefold()
        if word in _REFUSED or (len(word) == 1 and word.isalpha() and word != "a"):
            return False
        place = match.end()
    return True


def _temperature(match: re.Match[str]) -> str:
    return "°" + (match[1] or match[2]).upper()
