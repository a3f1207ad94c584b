"""The edit distance of two texts, bounded in time.

Myers' bit-vector algorithm (JACM 46(3), 1999; Hyyrö 2003) on Python integers: one pass over the longer text with a few
operations on integers of as many bits as the shorter has characters.
"""

from collections.abc import Callable

MAX_CHARS = 20_000
"""Of longer texts, common beginning and end apart, what lies beyond counts as wrong: 20 000 against 20 000 characters
take a fraction of a second."""


def edit_distance_of(first: str, second: str) -> int:
    """Return the least number of inserted, deleted and replaced characters that turn one text into the other.

    Where more than MAX_CHARS lie between the common beginning and the common end, an upper bound is returned: the
    distance of the first MAX_CHARS of each plus the longer remainder.

    Example:
        >>> edit_distance_of("kitten", "sitting")
        3
    """
    if first == second:
        return 0
    first, second = _without_common_ends(first, second)
    rest = max(len(first) - MAX_CHARS, len(second) - MAX_CHARS, 0)
    first, second = first[:MAX_CHARS], second[:MAX_CHARS]
    if len(first) > len(second):
        first, second = second, first
    return rest + (_myers(first, second) if first else len(second))


def similarity(first: str, second: str) -> float:
    """Return 1 - distance / length of the longer text; 1.0 for two empty texts."""
    longest = max(len(first), len(second))
    return 1.0 - edit_distance_of(first, second) / longest if longest else 1.0


def _without_common_ends(first: str, second: str) -> tuple[str, str]:
    start = _largest(min(len(first), len(second)), lambda size: first[:size] == second[:size])
    first, second = first[start:], second[start:]
    end = _largest(min(len(first), len(second)), lambda size: not size or first[-size:] == second[-size:])
    return first[: len(first) - end], second[: len(second) - end]


def _largest(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the largest size up to the limit for which a property holds that holds for all smaller ones."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _myers(pattern: str, text: str) -> int:
    """Return the distance; `plus` and `minus` hold the signs of the differences down one column of the table."""
    size = len(pattern)
    mask, last = (1 << size) - 1, 1 << (size - 1)
    places: dict[str, int] = {}
    for index, char in enumerate(pattern):
        places[char] = places.get(char, 0) | (1 << index)
    plus, minus, distance = mask, 0, size
    for char in text:
        equal = places.get(char, 0)
        vertical = equal | minus
        horizontal = (((equal & plus) + plus) ^ plus) | equal
        up = minus | (~(horizontal | plus) & mask)
        down = plus & horizontal
        if up & last:
            distance += 1
        elif down & last:
            distance -= 1
        up = (up << 1) | 1
        down <<= 1
        plus = (down | ~(vertical | up)) & mask
        minus = up & vertical & mask
    return distance
