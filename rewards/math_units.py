"""Units and descriptive words after a number: `15 \\text{ cm}^2`, `12 minutes`, `28%`, `192公斤`."""

import re
from collections.abc import Sequence

from rewards.math_text import FUNCTION_WORDS
from rewards.text import VAGUE

_ALIASES = {
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "km": "km kilometer kilometers kilometre kilometres",
    "ft": "ft foot feet",
    "in": "in inch inches",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "kg": "kg kilogram kilograms kilo kilos",
    "g": "g gram grams gm",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "l": "L liter liters litre litres",
    "ml": "ml mL milliliter milliliters",
    "n": "N newton newtons",
    "j": "J joule joules",
    "kj": "kJ kilojoule kilojoules",
    "w": "W watt watts",
    "kw": "kW kilowatt kilowatts",
    "v": "V volt volts",
    "ohm": "\\Omega Ω ohm ohms",
    "pa": "Pa pascal pascals",
    "kpa": "kPa",
    "mpa": "MPa",
    "hz": "Hz hertz",
    "khz": "kHz",
    "mhz": "MHz",
    "celsius": "°C celsius Celsius",
    "fahrenheit": "°F fahrenheit Fahrenheit",
    "mol": "mol moles",
    "deg": "° degree degrees",
    "dollar": "dollar dollars USD usd bucks",
    "cent": "cent cents",
    "mph": "mph",
    "unit": "unit units",
}
_UNIT = {word: unit for unit, words in _ALIASES.items() for word in words.split()}
NAMES = dict(_UNIT)
"""Spelling -> unit."""
_PHYSICAL = set(_ALIASES) - {"deg", "unit"}
_NEUTRAL = {"square", "cubic", "sq", "cu", "per", "of", "total", "approximately", "about", "each"}
_OPERATORS = {
    "times", "plus", "minus", "over", "to", "or", "and", "not", "hundred", "thousand", "million", "billion", "trillion",
    "dozen", "percent", "half", "twice", "squared", "cubed", "if", "for", "when", "where", "but", "mod", "modulo",
    "with", "factorial", "choose", "below", "above", "zero", "pi", "undefined", "none", "infinity", "is", "are",
}  # fmt: skip
"""Words after a number that change its value or its meaning: such text is no quantity."""


def split_unit(tokens: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Split the tokens of a scalar into value and unit.

    Returns:
        The tokens of the value, and the unit in one spelling: `%`, `cm^2`, other words joined by spaces, or empty.
    """
    rest = [token for token in _lead(list(tokens)) if token != "$"]
    unit: list[str] = []
    while len(rest) > 1 and not (rest[-1] == "°" and any(token.lstrip("\\") in FUNCTION_WORDS for token in rest)):
        taken = _last_unit(rest)
        if taken is None:
            break
        unit.insert(0, taken[0])
        rest = rest[: taken[1]]
    if unit and rest[-1] in ("/", "^", "*", "\\cdot", "-", "+", "_"):
        return tuple(tokens), ""
    if unit and not _is_number(rest) and not (len(rest) == 1 and _marked(tokens, unit)):
        return tuple(tokens), ""  # no number in it: words, not a quantity
    return tuple(rest), " ".join(unit).strip()


def _is_number(tokens: Sequence[str]) -> bool:
    return "\\pi" in tokens or any(char.isdigit() for token in tokens for char in token)


def _marked(tokens: Sequence[str], unit: Sequence[str]) -> bool:
    """Return whether a unit after a lone symbol is written as one: `x%`, `x \\text{ cm}`."""
    return "".join(unit) in ("%", "°") or any(token.startswith("\\text{") for token in tokens)


def _lead(tokens: list[str]) -> list[str]:
    """Drop `about`, `approximately`, `\\approx`, a text box or a currency in front of a number."""
    while (
        len(tokens) > 1
        and not VAGUE.search(tokens[0])
        and (
            tokens[0].lower() in ("about", "approximately", "roughly", "exactly", "\\approx", "usd", "\\sim")
            or (tokens[0].startswith("\\text{") and tokens[1][:1].isdigit())
        )
    ):
        tokens = tokens[1:]
    return tokens


def _last_unit(rest: list[str]) -> tuple[str, int] | None:
    """Return the unit at the end and where it starts."""
    end, power = len(rest), ""
    if end > 3 and rest[-4] == "^" and rest[-3] == "{" and rest[-1] == "}" and rest[-2] in ("2", "3"):
        end, power = end - 4, f"^{rest[-2]}"
    elif end > 2 and rest[-2] == "^" and rest[-1] in ("2", "3"):
        end, power = end - 2, f"^{rest[-1]}"
    if end < 2:
        return None
    token, before = rest[end - 1], rest[end - 2]
    start = end - 1
    if before in ("/", "per") and end > 2:
        start = end - 2
    word = _unit_word(token, before if start == end - 1 else rest[start - 1])
    if word is None:
        return None
    return (("/" if start != end - 1 else "") + word + power, start)


def _unit_word(token: str, before: str) -> str | None:
    if token in ("%", "°"):
        return token
    if token.startswith("\\text{"):
        inner = re.sub(r"[().,:*]", " ", token[6:-1]).split()
        if any(word.lower() in _OPERATORS for word in inner) or re.search(
            r"\d", re.sub(r"\^?[23]\b", "", " ".join(inner))
        ):
            return None
        return " ".join(_UNIT.get(word, word) for word in inner) or ""
    if token in _UNIT and ((len(token) > 1 and token[0] != "\\") or before[-1:].isdigit()):
        # one letter is a unit only right after a number: `3m`, but not `2\\pi m`
        return _UNIT[token]
    if token in _NEUTRAL:
        return token
    if token.isalpha() and not token.isascii():
        return token
    if token.isalpha() and len(token) > 3 and token.lower() not in _OPERATORS:
        return token.lower()
    return None


def units_differ(first: str, second: str) -> bool:
    """Return whether both units are physical and not the same: 5 cm is not 5 m, but 5 may be 5 cm."""
    one, two = _physical(first), _physical(second)
    return bool(one and two and one != two)


def _physical(unit: str) -> str:
    words = unit.replace("/", " / ").split()
    square = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
    power = next((square[word] for word in words if word in square), "")
    known = [word for word in words if word.partition("^")[0] in _PHYSICAL]
    return "/".join(word + (power if "^" not in word else "") for word in known)
