"""How much of an answer's parts are right: F1 over multisets and over sequences."""

from collections import Counter
from collections.abc import Hashable, Sequence


def f1(right: float, answered: int, wanted: int) -> float:
    """Return 2 * right / (answered + wanted): the harmonic mean of precision and recall; 1.0 where both are empty."""
    return 2 * right / (answered + wanted) if answered + wanted else 1.0


def common(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return how many elements two multisets share."""
    return sum((Counter(first) & Counter(second)).values())


def common_in_order(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence; time is the product of the lengths."""
    row = [0] * (len(second) + 1)
    for item in first:
        diagonal = 0
        for index, other in enumerate(second, start=1):
            above = row[index]
            row[index] = diagonal + 1 if item == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]
