"""Texts that are the same, or nearly so, found among many without comparing each with each.

A text is taken as the set of its runs of three words (shingles; characters where a script has no spaces). Two texts
are near duplicates when they share most of these (Jaccard similarity) and hold the same numbers and operators in the
same order: "12 + 7" and "12 + 8" are different questions in the same words. Candidates come from locality-sensitive
hashing (MinHash, Broder 1997), so that a set is compared with few others; time and memory are bounded per text.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHINGLE = 3
SKETCH = 512
"""Most shingles kept of a text: those with the smallest hashes, a fair draw from both of two texts."""
BANDS, BAND_ROWS = 12, 4
"""Two texts of similarity s become candidates with probability 1 - (1 - s^4)^12: 96 % at 0.7, over 99.9 % at 0.85."""
LOWEST_THRESHOLD = 0.7
MOST_CANDIDATES = 32
"""Texts remembered for one band's value; more would make templated data quadratic."""

_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts without spaces (and Hangul, whose words are short): one character is one word."""
_WORDS = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+|[^\w\s]")
_PUNCTUATION = frozenset(".,;:!?'\"()[]{}“”‘’…¿¡、。，；：！？（）「」")
_MULTIPLIERS = np.random.default_rng(1).integers(0, 2**63, size=(3, BANDS * BAND_ROWS), dtype=np.uint64) | np.uint64(1)


def normalised(text: str) -> str:
    """A text with case, blanks and ways of composing an accent evened out; nothing that can matter is taken away."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketch:
    """What is remembered of a text."""

    numbers: int
    """Hash of its numbers and operators, in order."""
    shingles_S: NDArray[np.uint32]
    """(S,) hashes of its shingles, ascending, S <= SKETCH."""


def sketch(text: str) -> Sketch:
    """The sketch of a normalised text."""
    words = _WORDS.findall(text)
    numbers = [word for word in words if _is_number_or_operator(word)]
    hashes_W = np.fromiter((_hash(word) for word in words), dtype=np.uint64, count=len(words))
    width = min(SHINGLE, max(len(words), 1))
    size = len(words) - width + 1
    runs = np.zeros(max(size, 1), dtype=np.uint64)
    for offset in range(width if size > 0 else 0):
        runs = _mix(runs + hashes_W[offset : offset + size])
    shingles = np.unique((runs >> np.uint64(32)).astype(np.uint32))
    return Sketch(numbers=_hash("\0".join(numbers)), shingles_S=shingles[:SKETCH])


def _is_number_or_operator(word: str) -> bool:
    if any(character.isdigit() for character in word):
        return True
    return len(word) == 1 and not word.isalnum() and word not in _PUNCTUATION


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A one-to-one scrambling of 64 bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def similarity(first: Sketch, second: Sketch) -> float:
    """Jaccard similarity of two texts' shingles, exact where neither has more than SKETCH of them.

    Beyond that it is estimated from the smallest hashes of the union (bottom-k sketch), within about 0.02.
    """
    union = np.union1d(first.shingles_S, second.shingles_S)
    if max(len(first.shingles_S), len(second.shingles_S)) == SKETCH:
        union = union[:SKETCH]
    shared = np.intersect1d(first.shingles_S, second.shingles_S, assume_unique=True)
    return int((shared <= union[-1]).sum()) / len(union)


class NearIndex:
    """Texts seen so far, to be asked for one that is near another.

    Example::

        index = NearIndex(threshold=0.85)
        index.add(0, sketch("how many apples has tom if he buys 3 more"))
        index.find(sketch("how many apples has tom if he buys 3 more today"))  # (0, 0.88...)
    """

    def __init__(self, threshold: float) -> None:
        """Raises ValueError for a threshold at which candidates would be missed too often."""
        if not LOWEST_THRESHOLD <= threshold <= 1:
            raise ValueError(f"the threshold is {threshold}, and must lie between {LOWEST_THRESHOLD} and 1.")
        self.threshold = threshold
        self._sketches: dict[int, Sketch] = {}
        self._bands: dict[int, list[int]] = {}

    def find(self, text: Sketch, context: int = 0) -> tuple[int, float] | None:
        """Number and similarity of the nearest text of the same context, or None when none is near enough."""
        candidates = {number for key in _band_keys(text, context) for number in self._bands.get(key, ())}
        scored = [(similarity(text, self._sketches[number]), -number) for number in candidates]
        best = max(scored, default=(0.0, 0))
        return (-best[1], best[0]) if best[0] >= self.threshold else None

    def add(self, number: int, text: Sketch, context: int = 0) -> None:
        """Remember a text under a number; `context` tells apart texts that are never duplicates of one another."""
        self._sketches[number] = text
        for key in _band_keys(text, context):
            place = self._bands.setdefault(key, [])
            if len(place) < MOST_CANDIDATES:
                place.append(number)


def _band_keys(text: Sketch, context: int) -> list[int]:
    """One key per band: equal for two texts whose smallest hashes agree there, and whose numbers and context do."""
    scrambled = _mix(text.shingles_S.astype(np.uint64)[:, None] * _MULTIPLIERS[0] + _MULTIPLIERS[1])
    smallest = scrambled.min(axis=0).reshape(BANDS, BAND_ROWS)
    return [hash((band, text.numbers, context, *smallest[band].tolist())) for band in range(BANDS)]
