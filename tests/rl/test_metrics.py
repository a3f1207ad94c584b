"""Reductions are exact: no mean of means, no maximum erased by an empty part."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.metrics import Max, Mean, Sum, merge, to_floats

VALUES = st.lists(st.integers(-1000, 1000).map(float), max_size=12)


def test_a_mean_is_weighted_by_its_observations() -> None:
    merged = merge({"x": Mean(1.0, 4)}, {"x": Mean(0.0, 12)})
    assert to_floats(merged) == {"x": 0.0625}  # 1 / 16; the mean of the means would be 0.125


@given(VALUES, st.lists(st.integers(0, 12), max_size=3))
def test_any_split_reduces_to_the_same_numbers(values: list[float], cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [values[a:b] for a, b in pairwise(bounds)]
    merged = merge(
        *({"mean": Mean.of(part), "sum": Sum(sum(part)), "max": Max(max(part, default=-math.inf))} for part in parts)
    )
    expected = {"sum": sum(values)}
    if values:
        expected |= {"mean": sum(values) / len(values), "max": max(values)}
    assert to_floats(merged) == expected


def test_nothing_observed_is_left_out_and_does_not_erase() -> None:
    assert to_floats({"mean": Mean(0.0, 0), "max": Max()}) == {}
    assert to_floats(merge({"max": Max(-3.0)}, {"max": Max()}, {"other": Mean(2.0, 1)})) == {"max": -3.0, "other": 2.0}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_nan_stays_visible_in_a_maximum(order: tuple[int, int]) -> None:
    parts = [{"x": Max(math.nan)}, {"x": Max(1.0)}]
    assert math.isnan(to_floats(merge(*(parts[i] for i in order)))["x"])


def test_two_kinds_under_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="'x' is a Mean in one part and a Max in another"):
        merge({"x": Mean(1.0, 1)}, {"x": Max(1.0)})
