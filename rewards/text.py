"""Words: one spelling for text answers."""

import re
import unicodedata

VAGUE = re.compile(
    r"\b(?:not|n't|isn't|neither|nor|more than|less than|fewer|greater|larger|smaller|at least|at most|above|below|"
    r"under|between|except|other than|rather than|unless|wrong|incorrect|cannot)\b|不是|不",
    re.IGNORECASE,
)
"""Words next to a number that make it another statement than `it is this number`."""

_CHANGED_BEFORE = re.compile(
    r"\b(?:(?:negative|minus|plus|times|twice|double|triple|thrice|log|ln|sin|cos|tan|sqrt|choose|mod|modulo|almost|"
    r"nearly|up to|and|over|per|from)|(?:half|thirds?|fourths?|quarters?|fifths?|sixths?|eighths?|tenths?|roots?|"
    r"squares?|cubes?|reciprocal|inverse|power|logarithm|multiples?|factorial|negative|opposite|percent|%)\s+of(?:\s+the)?"
    r")\s*$",
    re.IGNORECASE,
)
_CHANGED_AFTER = re.compile(
    r"\s*(?:(?:hundred|thousand|million|billion|trillion|dozen|squared|cubed|factorial|pi|plus|minus|modulo|mod|choose|over|"
    r"divided|multiplied|to the|through|or|and an? (?:half|third|quarter|fifth)|below zero)\b|"
    r"(?-i:[b-fi-kn-rt-z])(?![\w'])|times\s+(?:[a-z]\b|\d|\())",
    re.IGNORECASE,
)


def is_changed(before: str, behind: str) -> bool:
    """Return whether the words beside a number make it another: `negative 5`, `half of 5`, `5 thousand`.

    Args:
        before: the text up to the number.
        behind: the text after it.
    """
    alone = re.match(r"\s*a\b", behind)  # `5 a day`
    after = _CHANGED_AFTER.match(behind)
    return bool(_CHANGED_BEFORE.search(before[-60:])) or bool(after and not alone)


_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = re.compile(r"[^\w\s+\-*/=<>^.,%]|(?<!\d)[.,]|[.,](?!\d)|_", re.UNICODE)
MAX_CHARS = 20_000


def normalise(text: str) -> str:
    """Return the text case-folded, without accents' encodings, articles, punctuation and doubled spaces.

    Decimal points, thousands commas, signs and operators stay: `1.5` is not `15`, `-3` is not `3`.

    Example:
        >>> normalise("  The Eiffel-Tower! ")
        'eiffel-tower'
    """
    text = unicodedata.normalize("NFKC", text[:MAX_CHARS]).casefold()
    text = text.replace("−", "-").replace("’", "'").replace("'", "")
    words = _PUNCTUATION.sub(" ", text).split()
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(kept or words)


def same_words(first: str, second: str) -> bool:
    """Return whether two texts of words are the same text; symbols (`x`, `AB`, `ac+b`) keep their case."""
    one, two = normalise(first), normalise(second)
    if not one or one != two:
        return False
    if re.search(r"[\d\\^=<>+*/]", first + second) or _symbols(first) != _symbols(second):
        return False
    return any(len(word) > 1 for word in one.split()) or first.strip(" .()") == second.strip(" .()")


def _symbols(text: str) -> list[str]:
    """Return the words of two letters with a capital that does not start a word: `AB`, `aC`."""
    return [word for word in re.findall(r"[A-Za-z]+", text) if len(word) == 2 and word[1].isupper() and word != "NO"]
