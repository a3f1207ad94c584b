"""The edit distance of two texts, bounded in time.

Myers' bit-vector algorithm (JACM 46(3), 1999; Hyyrö 2003) on Python integers: one pass over the longer text with a few
operations on integers of as many bits as the shorter has characters.
"""

MAX_CHARS = 20_000
"""Of longer texts what lies beyond counts as wrong: 20 000 against 20 000 characters take a fraction of a second."""


def edit_distance_of(first: str, second: str) -> int:
    """Return the least number of inserted, deleted and replaced characters that turn one text into the other.

    Of texts beyond MAX_CHARS an upper bound is returned: the distance of their beginnings plus the longer remainder.

    Example:
        >>> edit_distance_of("kitten", "sitting")
        3
    """
    if first == second:
        return 0
    rest = max(len(first) - MAX_CHARS, len(second) - MAX_CHARS, 0)
    first, second = _without_common_ends(first[:MAX_CHARS], second[:MAX_CHARS])
    if len(first) > len(second):
        first, second = second, first
    return rest + (_myers(first, second) if first else len(second))


def similarity(first: str, second: str) -> float:
    """Return 1 - distance / length of the longer text; 1.0 for two empty texts."""
    longest = max(len(first), len(second))
    return 1.0 - edit_distance_of(first, second) / longest if longest else 1.0


def _without_common_ends(first: str, second: str) -> tuple[str, str]:
    start, limit = 0, min(len(first), len(second))
    while start < limit and first[start] == second[start]:
        start += 1
    first, second = first[start:], second[start:]
    end, limit = 0, min(len(first), len(second))
    while end < limit and first[-1 - end] == second[-1 - end]:
        end += 1
    return (first[: len(first) - end], second[: len(second) - end])


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
