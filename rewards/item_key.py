"""One key per value of a list, a cell or a leaf: two values are the same where their keys are equal.

A number is its exact value (`1,234.50` = `1234.5` = `$1,234.50` = `\\frac{2469}{2}`), `20%` stays apart from 20,
anything else is its text up to case, articles and punctuation (text.normalise).
"""

import re
from fractions import Fraction
from typing import Any

from rewards.math_text import clean, plain_number, without_thousands
from rewards.text import normalise

MAX_CHARS = 2000
"""Longer values are compared as text only."""
_CURRENCY = re.compile(r"^([-+(]?)\s*(?:\\?\$|€|£|¥|₹|USD|EUR|GBP)\s*(?=[-+.\d])|(?<=\d)\s*(?:€|£|¥|₹|USD|EUR|GBP|\$)$")
Key = tuple[str, Fraction | str]


def item_key(value: Any) -> Key:
    """Return the key of a value: a number, a text, a boolean or null.

    Example:
        >>> item_key("$1,200.00") == item_key(1200)
        True
    """
    if value is None:
        return ("null", "")
    if isinstance(value, bool):
        return ("text", str(value).casefold())
    text = str(value).strip()
    if len(text) > MAX_CHARS or not any(char.isdigit() for char in text):
        return ("text", normalise(text) or text)
    bare = _CURRENCY.sub(r"\1", text)
    cleaned = without_thousands(clean(bare))
    percent = cleaned.endswith("%")
    number = plain_number(cleaned.removesuffix("%").strip())
    if number is not None:
        return ("percent" if percent else "number", number)
    return ("text", normalise(text) or text)
