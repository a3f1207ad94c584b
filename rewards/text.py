"""Words: one spelling for text answers."""

import re
import unicodedata

VAGUE = re.compile(
    r"\b(?:not|n't|isn't|neither|nor|more than|less than|fewer|greater|larger|smaller|at least|at most|above|below|"
    r"under|between|except|other than|rather than|unless|wrong|incorrect|cannot)\b|不是|不",
    re.IGNORECASE,
)
"""Words next to a number that make it another statement than `it is this number`."""

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
    """Return whether two texts of words are the same text; single letters keep their case, being symbols."""
    one, two = normalise(first), normalise(second)
    if not one or one != two:
        return False
    if re.search(r"[\d\\^=<>]", first + second):
        return False
    return any(len(word) > 1 for word in one.split()) or first.strip(" .()") == second.strip(" .()")
