"""How well two verdicts, or a graded score and a label, go together.

Legend: P positives (right responses), N negatives, of which each has one score; higher should mean right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipes.evaluation import Z95, wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Auc:
    """Area under the ROC curve with its 95 % interval."""

    value: float
    low: float
    high: float
    positives: int
    negatives: int


def auc(scores: Sequence[float], labels: Sequence[bool]) -> Auc | None:
    """The share of (right, wrong) pairs in which the right response has the higher score; a tie counts a half.

    The interval is DeLong's (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837), with the variance from
    midranks (Sun & Xu 2014, IEEE SPL 21:1389), in O(n log n). Where the classes do not overlap at all that variance is
    0 whatever their sizes; then the largest one possible, auc (1 - auc) / min(P, N) (van Dantzig 1951), is put into
    Wilson's interval instead.

    Args:
        scores: (P + N,) finite numbers, in any unit.
        labels: (P + N,) whether each response is right.

    Returns:
        None unless both classes occur.
    """
    import numpy as np

    values, right = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    positive_P, negative_N = values[right], values[~right]
    p, n = len(positive_P), len(negative_N)
    if not p or not n:
        return None
    ranks = _midranks(np.concatenate([positive_P, negative_N]))
    wins_P = (ranks[:p] - _midranks(positive_P)) / n  # share of the negatives below each positive
    losses_N = 1.0 - (ranks[p:] - _midranks(negative_N)) / p  # share of the positives above each negative
    value = float(wins_P.mean())
    variance = _variance(wins_P) / p + _variance(losses_N) / n
    if variance < 1e-12:
        trials = min(p, n)
        low, high = wilson_interval(round(value * trials), trials)
    else:
        half = Z95 * math.sqrt(variance)
        low, high = max(0.0, value - half), min(1.0, value + half)
    return Auc(value=value, low=low, high=high, positives=p, negatives=n)


def _midranks(values: NDArray) -> NDArray:
    """Ranks from 1; equal values share the mean of theirs."""
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _variance(values: NDArray) -> float:
    """Unbiased; 0 for a single value."""
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    """Agreement of two verdicts beyond chance, (p_o - p_e) / (1 - p_e) (Cohen 1960); 1 = always, 0 = as by chance.

    Returns:
        None for no verdicts, and where both always say the same, so that chance alone would agree always.
    """
    n = len(first)
    if not n:
        return None
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    yes_first, yes_second = sum(first) / n, sum(second) / n
    chance = yes_first * yes_second + (1 - yes_first) * (1 - yes_second)
    return None if chance == 1.0 else (observed - chance) / (1 - chance)
