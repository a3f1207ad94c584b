"""`repetition`: -1.0 for text that runs in circles, 0.0 for any other.

The penalty R_rep of MiniCPM-V 4.5 (arXiv 2509.18154 s2.4, whose values are not published); RLPR's code gives -1 when a
word 10-gram occurs 10 times. That rule alone misses loops without spaces and punishes tables and worked cases, so two
detectors share the work, both linear in the length of the text:

- Loops: the same stretch of characters over and over, back to back. It needs no words, so it works in every script.
  Rulers, blanks and runs of digits may be longer before they count.
- Templates: word 10-grams that recur, where hardly anything new stands between them. `Case n = 7: ... = 97, which is
  prime` repeats too, but its numbers are news; in `Step 7: we simplify and obtain the same result` nothing is.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rewards.registry import reward

SEED_CHARS = 12
"""A loop is followed from the second occurrence of so many characters on."""
SHORT_PERIOD = 40
"""Characters; a shorter unit must be repeated more often, since lists and matrices hold such."""
GRAM_WORDS = 10
GRAM_CHARS = 16
"""Tokens of an n-gram in a text of words, and in a script without spaces (one character each)."""
RECURS = 5
"""An n-gram counts as recurring from this many occurrences on."""
OFTEN = 10
LOOSE_SHARE = 0.5
"""Share of the whole text that recurring n-grams may cover."""
DENSE_SHARE = 0.75
"""Share of the stretch between the first and the last of them, where one occurs OFTEN times."""
MIN_TOKENS = 80

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What the detectors found in a text."""

    degenerate: bool
    reason: str
    """`loop`, `template` or empty."""


@reward("repetition")
def repetition(*, response: str, penalty: float = 1.0) -> float:
    """Return -penalty if the response is degenerate, else 0.0.

    Args:
        response: the whole response, thinking included.
        penalty: what a degenerate response costs, at least 0.

    Example:
        >>> repetition(response="The cat sat. " * 50)
        -1.0
    """
    return -abs(penalty) if inspect(response or "").degenerate else 0.0


def inspect(text: str) -> Repetition:
    """Return whether a text is degenerate, and by which detector."""
    compact = re.sub(r"[ \t]+", " ", text)
    if any(_is_degenerate_loop(compact, start, end, period) for start, end, period in loops(compact)):
        return Repetition(degenerate=True, reason="loop")
    if _is_template(tokens(text)):
        return Repetition(degenerate=True, reason="template")
    return Repetition(degenerate=False, reason="")


def loops(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, period) of stretches in which each character equals the one a period before.

    Linear: each position looks up the last occurrence of the seed that starts there, and checks the period that is
    being followed first.
    """
    last: dict[str, int] = {}
    period = start = 0
    for place in range(len(text) - SEED_CHARS + 1):
        seed = text[place : place + SEED_CHARS]
        before = last.get(seed)
        last[seed] = place
        if period and text.startswith(seed, place - period):
            continue
        if period:
            yield start, place + SEED_CHARS - 1, period
            period = 0
        if before is not None:
            period, start = place - before, before
    if period:
        yield start, len(text), period


def _is_degenerate_loop(text: str, start: int, end: int, period: int) -> bool:
    length = end - start
    repeats = length / period
    if repeats < 4:
        return False
    unit = text[start : start + period]
    if not _LETTER.search(unit):
        # Digits and punctuation: long numbers, matrices, rulers. Other symbols (emoji) have no such excuse.
        plain = re.search(r"[\d\s\-=_.,|*#~+:&/\\]", unit)
        return repeats >= 8 and length >= (500 if plain else 60)
    if _UNSPACED.search(unit):
        return repeats >= 5 and length >= 100
    if period < SHORT_PERIOD:
        return repeats >= 10 and length >= (100 if period <= 2 else 240)
    return repeats >= 4 and length >= 240


def tokens(text: str) -> list[str]:
    """Split a text at blanks, and runs of an unspaced script into characters."""
    found: list[str] = []
    for word in text.split():
        found.extend(word if _UNSPACED.search(word) else (word,))
    return found


def _is_template(words: list[str]) -> bool:
    if len(words) < MIN_TOKENS:
        return False
    unspaced = sum(len(word) == 1 and bool(_UNSPACED.match(word)) for word in words) > len(words) / 2
    size = GRAM_CHARS if unspaced else GRAM_WORDS
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    counts = Counter(gram for gram in grams if any(_LETTER.search(word) for word in gram))
    starts = [index for index, gram in enumerate(grams) if counts[gram] >= RECURS]
    if not starts:
        return False
    covered = _covered(starts, size)
    if covered >= LOOSE_SHARE * len(words):
        return True
    often = [index for index in starts if counts[grams[index]] >= OFTEN]
    return bool(often) and _covered(often, size) >= DENSE_SHARE * (often[-1] + size - often[0])


def _covered(starts: list[int], size: int) -> int:
    """Return how many tokens lie in an n-gram that starts at one of these places (ascending)."""
    total = reached = 0
    for start in starts:
        total += start + size - max(start, reached)
        reached = start + size
    return total
