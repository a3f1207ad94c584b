"""The mixture: shares, changes along the run, and that any sample can be asked for at any time."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.samples.mixture import BLOCK, Plan, weight_at

WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.floats(0.01, 10), min_size=1)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.integers(0, 9), st.integers(1, 12))
def test_after_every_block_each_source_gave_its_share_to_within_one(weights, seed, blocks):
    plan = Plan(weights, {}, seed)
    found = Counter(plan.pick(index).source for index in range(blocks * BLOCK))
    for name, weight in weights.items():
        assert abs(found[name] - blocks * BLOCK * weight / sum(weights.values())) <= 1.01, name


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.integers(0, 9), st.permutations(range(0, 3 * BLOCK, 37)))
def test_positions_count_up_and_depend_on_nothing_that_was_asked_before(weights, seed, order):
    plan, given_before = Plan(weights, {}, seed), Counter()
    picks = []
    for index in range(3 * BLOCK):
        assert plan.counts(index) == {name: given_before[name] for name in plan.names}
        picks.append(plan.pick(index))
        assert picks[-1].position == given_before[picks[-1].source]
        given_before[picks[-1].source] += 1
    other = Plan(weights, {}, seed)
    assert [other.pick(index) for index in order] == [picks[index] for index in order]


def test_a_share_is_of_all_samples_and_the_others_divide_the_rest():
    plan = Plan({"a": 3, "b": 1}, {"text": 0.1}, seed=0)
    assert plan.counts(40 * BLOCK) == pytest.approx({"a": 6912, "b": 2304, "text": 1024}, abs=1)


def test_a_source_that_comes_in_late_gives_nothing_before_and_its_integral_after():
    total = 100 * BLOCK
    plan = Plan({"a": 1, "late": [(0.8, 0.0), (1.0, 1.0)]}, {}, seed=0, total=total)
    assert plan.counts(80 * BLOCK)["late"] == 0
    expected = sum(BLOCK * w / (1 + w) for w in ((at + 0.5) / 20 for at in range(20)))
    assert plan.counts(total)["late"] == pytest.approx(expected, abs=1)
    gains = [b - a for a, b in pairwise(plan.counts(at * BLOCK)["late"] for at in range(80, 101))]
    assert gains == sorted(gains)


def test_the_rarest_source_gets_its_turn():
    plan = Plan({"a": 1, "rare": 1e-4}, {}, seed=0)
    assert plan.counts(100 * BLOCK)["rare"] == 3  # 2.56 are due


def test_seeds_change_the_order_and_not_the_counts():
    first, second = Plan({"a": 1, "b": 1}, {}, 0), Plan({"a": 1, "b": 1}, {}, 1)
    assert first.counts(5 * BLOCK) == second.counts(5 * BLOCK)
    assert [first.pick(i) for i in range(BLOCK)] != [second.pick(i) for i in range(BLOCK)]


def test_weights_change_evenly_between_points():
    points = [(0.2, 1.0), (0.6, 3.0)]
    assert [weight_at(points, at) for at in (0.0, 0.2, 0.4, 0.6, 1.0)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert weight_at(2, 0.7) == 2.0


@pytest.mark.parametrize(
    ("weights", "shares", "match"),
    [
        ({"a": 1}, {"b": 0.6, "c": 0.6}, "add up to 1.2 at 0% of the run"),
        ({"a": 0}, {"b": 0.5}, "at 0% of the run all weights are 0"),
        ({"a": [(0.5, 1.0), (1.0, 0.0)]}, {}, "at 100% of the run all weights are 0"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(weights, shares, match):
    with pytest.raises(ValueError, match=match):
        Plan(weights, shares, 0, total=1000)


def test_changing_weights_need_the_length_of_the_run():
    with pytest.raises(ValueError, match="number of samples is not known"):
        Plan({"a": [(0.0, 1.0), (1.0, 2.0)]}, {}, 0)
