"""AUC, its interval and kappa against brute force, published values and simulation."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.agreement import auc, cohen_kappa
from recipes.evaluation import Z95, wilson_interval

scores = st.lists(st.integers(-3, 3).map(lambda n: n / 2), min_size=1, max_size=12)


def brute(positive: list[float], negative: list[float]) -> tuple[float, float]:
    """AUC and DeLong's variance straight from their definition, over all pairs."""

    def wins(a: float, b: float) -> float:
        return 1.0 if a > b else 0.5 if a == b else 0.0

    def variance(parts: list[float]) -> float:
        mean = sum(parts) / len(parts)
        return sum((part - mean) ** 2 for part in parts) / (len(parts) - 1) if len(parts) > 1 else 0.0

    above = [sum(wins(a, b) for b in negative) / len(negative) for a in positive]
    below = [sum(wins(a, b) for a in positive) / len(positive) for b in negative]
    spread = variance(above) / len(positive) + variance(below) / len(negative)
    return sum(above) / len(above), spread


@given(scores, scores, st.randoms())
def test_auc_and_interval_equal_a_count_of_all_pairs(positive: list[float], negative: list[float], rng) -> None:
    cases = [(value, True) for value in positive] + [(value, False) for value in negative]
    rng.shuffle(cases)
    found = auc([value for value, _ in cases], [right for _, right in cases])
    assert found is not None
    value, variance = brute(positive, negative)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert (found.positives, found.negatives) == (len(positive), len(negative))
    assert 0.0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1.0
    if variance > 1e-12:
        half = Z95 * math.sqrt(variance)
        expected = (max(0.0, value - half), min(1.0, value + half))
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_a_worked_example() -> None:
    """Six pairs: 2 > 1, 2 < 3, 4 > 1, 4 > 3, 3 > 1, 3 = 3, so 4.5 of 6."""
    found = auc([2, 4, 3, 1, 3], [True, True, True, False, False])
    assert found is not None
    assert found.value == pytest.approx(4.5 / 6)


def test_one_class_alone_has_no_auc() -> None:
    assert auc([], []) is None
    assert auc([0.1, 0.2], [True, True]) is None
    assert auc([0.1, 0.2], [False, False]) is None


def test_separated_classes_are_no_certainty() -> None:
    """DeLong's variance is 0 there; three against a hundred must stay a wide interval."""
    found = auc([2.0] * 3 + [1.0] * 100, [True] * 3 + [False] * 100)
    assert found is not None
    assert (found.value, found.low, found.high) == (1.0, *wilson_interval(3, 3))
    reverse = auc([0.0] * 3 + [1.0] * 100, [True] * 3 + [False] * 100)
    assert reverse is not None
    assert (reverse.value, reverse.low) == (0.0, 0.0)
    assert reverse.high > 0.5


def test_the_interval_covers_the_true_value_as_often_as_it_says() -> None:
    """Normal scores one deviation apart: the true AUC is Phi(1 / sqrt 2) = 0.7602."""
    rng = random.Random(5)
    true = 0.5 * (1 + math.erf(0.5))
    covered = 0
    for _ in range(400):
        values = [rng.gauss(1, 1) for _ in range(40)] + [rng.gauss(0, 1) for _ in range(60)]
        found = auc(values, [True] * 40 + [False] * 60)
        assert found is not None
        covered += found.low <= true <= found.high
    assert 0.91 <= covered / 400 <= 0.98


def test_kappa_equals_a_textbook_example() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, by chance 0.5, so kappa 0.4."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen_kappa(*zip(*pairs, strict=True)) == pytest.approx(0.4)
    assert cohen_kappa([True, False], [True, False]) == 1.0
    assert cohen_kappa([True, False], [False, True]) == -1.0
    assert cohen_kappa([True, True], [True, True]) is None
    assert cohen_kappa([], []) is None
