"""Units of measurement: what a written unit is worth in base units, so that 1.2 km equals 1200 m.

A unit is a product of powers: `m/s^2`, `kg m^{-3}`, `km per hour`, `square feet`, `cm³`. Its dimension is a mapping
from base units (metre, kilogram, second, ampere, kelvin, mole, candela, radian, bit, and one per currency) to
powers. Names are those of math_units, and more; symbols may carry SI prefixes. Exact: factors are fractions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from rewards.math_units import NAMES

Dimension = Mapping[str, int]
MAX_POWER = 9


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit as factor, offset (temperatures only) and dimension: base value = factor * (value + offset)."""

    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    dimension: Dimension = field(default_factory=dict)


def _unit(factor: str, dimension: Dimension | None = None, *, offset: str = "0", **powers: int) -> Unit:
    return Unit(factor=Fraction(factor), offset=Fraction(offset), dimension=dimension or powers)


_ENERGY = {"kg": 1, "m": 2, "s": -2}
_PRESSURE = {"kg": 1, "m": -1, "s": -2}
# Radians to a degree, to 30 digits: a rational cannot be exact here.
_DEGREE = "0.017453292519943295769236907684886"
_PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "d": -1, "c": -2, "m": -3, "µ": -6,
    "u": -6, "n": -9, "p": -12, "f": -15,
}  # fmt: skip
_LONG_PREFIXES = {
    "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9,
    "pico": -12,
}  # fmt: skip

_PREFIXED = {
    "m": _unit("1", m=1), "g": _unit("1/1000", kg=1), "s": _unit("1", s=1), "A": _unit("1", A=1),
    "K": _unit("1", K=1), "mol": _unit("1", mol=1), "cd": _unit("1", cd=1), "rad": _unit("1", rad=1),
    "L": _unit("1/1000", m=3), "l": _unit("1/1000", m=3), "N": _unit("1", kg=1, m=1, s=-2), "J": _unit("1", _ENERGY),
    "W": _unit("1", kg=1, m=2, s=-3), "V": _unit("1", kg=1, m=2, s=-3, A=-1), "C": _unit("1", A=1, s=1),
    "F": _unit("1", kg=-1, m=-2, s=4, A=2), "Ω": _unit("1", kg=1, m=2, s=-3, A=-2), "Hz": _unit("1", s=-1),
    "Pa": _unit("1", _PRESSURE), "bar": _unit("100000", _PRESSURE), "T": _unit("1", kg=1, s=-2, A=-1),
    "Wb": _unit("1", kg=1, m=2, s=-2, A=-1), "H": _unit("1", kg=1, m=2, s=-2, A=-2),
    "S": _unit("1", kg=-1, m=-2, s=3, A=2),
    "eV": _unit("1.602176634e-19", _ENERGY), "cal": _unit("4.184", _ENERGY), "Wh": _unit("3600", _ENERGY),
    "B": _unit("8", bit=1), "bit": _unit("1", bit=1), "b": _unit("1", bit=1), "M": _unit("1000", mol=1, m=-3),
}  # fmt: skip
"""Symbols that take SI prefixes."""
_NOT_PREFIXED = {"am", "pm", "fm", "hm", "pH", "pb", "dB", "us"}
"""Prefix and symbol that read as another thing: times of day, words."""
_PLAIN = {
    "t": _unit("1000", kg=1), "min": _unit("60", s=1), "h": _unit("3600", s=1), "day": _unit("86400", s=1),
    "week": _unit("604800", s=1), "month": _unit("1", month=1), "year": _unit("12", month=1),
    "in": _unit("0.0254", m=1), "ft": _unit("0.3048", m=1), "yd": _unit("0.9144", m=1), "mi": _unit("1609.344", m=1),
    "lb": _unit("0.45359237", kg=1), "oz": _unit("0.028349523125", kg=1), "mph": _unit("0.44704", m=1, s=-1),
    "kph": _unit("5/18", m=1, s=-1), "gal": _unit("0.003785411784", m=3), "qt": _unit("0.000946352946", m=3),
    "pt": _unit("0.000473176473", m=3), "cup": _unit("0.0002365882365", m=3), "ha": _unit("10000", m=2),
    "acre": _unit("4046.8564224", m=2), "atm": _unit("101325", _PRESSURE),
    "mmHg": _unit("133.322387415", _PRESSURE),
    "psi": _unit("6894.757293168", _PRESSURE), "Å": _unit("1e-10", m=1), "deg": _unit(_DEGREE, rad=1),
    "°C": _unit("1", offset="273.15", K=1), "°F": _unit("5/9", offset="459.67", K=1), "°K": _unit("1", K=1),
    "rpm": _unit("1/60", s=-1), "dollar": _unit("1", dollar=1), "cent": _unit("1/100", dollar=1),
    "euro": _unit("1", euro=1), "gbp": _unit("1", gbp=1), "yen": _unit("1", yen=1), "rupee": _unit("1", rupee=1),
    "%": _unit("1/100"), "amu": _unit("1.66053906660e-27", kg=1), "ly": _unit("9460730472580800", m=1),
}  # fmt: skip
_WORDS = {
    "litre": "L", "liter": "L", "newton": "N", "joule": "J", "watt": "W", "volt": "V", "ampere": "A", "amp": "A",
    "ohm": "Ω", "hertz": "Hz", "pascal": "Pa", "mole": "mol", "kelvin": "K", "radian": "rad", "tonne": "t", "ton": "t",
    "coulomb": "C", "farad": "F", "tesla": "T", "calorie": "cal", "byte": "B", "electronvolt": "eV", "gallon": "gal",
    "quart": "qt", "pint": "pt", "hectare": "ha", "atmosphere": "atm", "angstrom": "Å", "percent": "%", "euro": "euro",
    "meter": "m", "metre": "m", "gram": "g", "second": "s", "day": "day", "celsius": "°C", "fahrenheit": "°F",
    "yen": "yen", "rupee": "rupee", "acre": "acre", "cup": "cup", "bar": "bar", "bit": "bit",
}  # fmt: skip
_NAMES = {**{name: unit for name, unit in NAMES.items() if unit in _PLAIN or unit in _PREFIXED}, "°": "deg"}
_NAMES |= {"℃": "°C", "℉": "°F", "°c": "°C", "eur": "euro", "EUR": "euro", "€": "euro", "£": "gbp", "GBP": "gbp"}
_NAMES |= {"¥": "yen", "JPY": "yen", "₹": "rupee", "INR": "rupee", "kmh": "kph", "Km": "km", "KM": "km"}
_NAMES |= {"Kg": "kg", "KG": "kg", "kilo": "kg", "kilos": "kg", "CM": "cm", "Cm": "cm", "hz": "Hz", "u": "amu"}
_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_AFTER = {"squared": 2, "cubed": 3}

_TOKEN = re.compile(r"°[CFKc]?(?![A-Za-z])|[^\W\d_]+|[%€£¥₹℃℉]|\^\s*\{?\s*([-+]?\d)\s*\}?|[-+]?\d|[*/·⋅.()]|\S")
_POWER = re.compile(r"\^\s*\{?\s*([-+]?\d)\s*\}?")


def named(word: str) -> Unit | None:
    """Return the unit of one word or symbol, with its prefix; None for a word that is none."""
    word = _NAMES.get(word) or _NAMES.get(word.casefold() if len(word) > 2 else word, word)
    if word in _PLAIN:
        return _PLAIN[word]
    if word in _PREFIXED:
        return _PREFIXED[word]
    if len(word) > 3:
        return _long(word.casefold())
    if word not in _NOT_PREFIXED and word[1:] in _PREFIXED and word[0] in _PREFIXES:
        return _scaled(_PREFIXED[word[1:]], _PREFIXES[word[0]])
    return None


def _long(word: str) -> Unit | None:
    """Return the unit of a written-out name: `kilometres`, `millilitres`, `mmHg`."""
    for name in (word, word.removesuffix("s"), word.removesuffix("es")):
        if name in _WORDS:
            return named(_WORDS[name])
    for prefix, power in _LONG_PREFIXES.items():
        if word.startswith(prefix):
            inner = word[len(prefix) :]
            symbol = _WORDS.get(inner) or _WORDS.get(inner.removesuffix("s"), "")
            return _scaled(_PREFIXED[symbol], power) if symbol in _PREFIXED else None
    return _scaled(_PREFIXED[word[1:]], _PREFIXES[word[0]]) if word[1:] in ("mol", "cal", "bar") else None


def _scaled(unit: Unit, power: int) -> Unit:
    return Unit(factor=unit.factor * Fraction(10) ** power, dimension=unit.dimension)


def read_unit(text: str) -> tuple[Unit | None, str]:
    """Return the unit at the start of a text, and the text that follows it.

    Example:
        >>> read_unit("km/h on average")[1]
        'on average'
    """
    factor, dimension, offset = Fraction(1), dict[str, int](), Fraction(0)
    place = end = 0
    sign, square, found = 1, 1, 0
    while match := _TOKEN.match(text, _blanks(text, place)):
        token = match[0]
        if token in ("/", "per") and found and sign * square != 0:
            sign, place = -1, match.end()
            continue
        if token in ("*", "·", "⋅", ".") and found and text[match.end() : match.end() + 1].strip():
            place = match.end()
            continue
        if token in _BEFORE:
            square, place = _BEFORE[token], match.end()
            continue
        unit = named(token)
        if unit is None or (token == "in" and _blanks(text, match.end()) < len(text)):
            break
        power, place = _power_after(text, match.end())
        power = sign * power * square
        if abs(power) > MAX_POWER:
            break
        # `kg/m s` is kg/(m s) to most writers only with brackets: a slash holds for the next unit alone.
        sign = square = 1
        factor *= unit.factor**power
        offset = unit.offset
        for base, count in unit.dimension.items():
            dimension[base] = dimension.get(base, 0) + power * count
        found += 1
        end = place
    if not found:
        return None, text.strip()
    kept = {base: count for base, count in sorted(dimension.items()) if count}
    return Unit(factor=factor, offset=offset if found == 1 else Fraction(0), dimension=kept), text[end:].strip()


def _blanks(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _power_after(text: str, place: int) -> tuple[int, int]:
    match = _POWER.match(text, place)
    if match:
        return int(match[1]), match.end()
    if text[place : place + 1] in ("2", "3") and not text[place + 1 : place + 2].isdigit():
        return int(text[place]), place + 1
    if re.match(r"-[1-4](?!\d)", text[place : place + 3]):
        return int(text[place : place + 2]), place + 2
    word = re.match(r"\s+(squared|cubed)\b", text[place : place + 20])
    return (_AFTER[word[1]], place + word.end()) if word else (1, place)
