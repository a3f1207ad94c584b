"""Which worker answers what: balance, groups that stay together, nothing lost or doubled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.routing import PREFILL_COST, SLACK, Item, LengthPredictor, round_robin, route

items_ = st.lists(
    st.builds(
        Item,
        group=st.integers(0, 8),
        prompt_tokens=st.just(50),
        response_tokens=st.integers(1, 4000).map(float),
    ),
    max_size=80,
)


def load(items, indices, prefill_cost=PREFILL_COST):
    prompts = {items[i].group: items[i].prompt_tokens for i in indices}
    return sum(items[i].response_tokens for i in indices) + prefill_cost * sum(prompts.values())


@given(items_, st.integers(1, 20))
def test_every_request_goes_to_exactly_one_worker(items, workers):
    routes = route(items, workers)
    assert len(routes) == workers
    assert sorted(index for indices in routes for index in indices) == list(range(len(items)))
    assert routes == route(items, workers)


@given(items_, st.integers(1, 20))
def test_no_worker_is_loaded_above_the_mean_and_one_piece(items, workers):
    """Each piece goes to the least loaded worker, and is either one response or fits under the limit."""
    routes = route(items, workers)
    mean = sum(load(items, [i for i, item in enumerate(items) if item.group == g]) for g in {i.group for i in items})
    mean /= workers
    longest = max((item.response_tokens for item in items), default=0.0)
    pieces = sum(len({items[i].group for i in indices}) for indices in routes)
    splits = pieces - len({item.group for item in items})
    prompts = 50 * PREFILL_COST * splits / workers  # a split group's prompt is read once more: the mean rises by that
    assert all(
        load(items, indices) <= (mean + prompts) * (1 + SLACK) + longest + 50 * PREFILL_COST + 1e-6
        for indices in routes
    )


@given(st.integers(1, 6), st.integers(1, 5), st.integers(2, 8))
def test_equal_groups_stay_whole_when_their_prompts_are_long(per_worker, workers, size):
    items = [Item(g, 4000, 100.0) for g in range(per_worker * workers) for _ in range(size)]
    routes = route(items, workers)
    assert all(len(indices) == per_worker * size for indices in routes)
    assert all(len({items[i].group for i in indices}) == per_worker for indices in routes)


def test_a_group_is_split_when_there_are_more_workers_than_groups():
    items = [Item("only", 40, 100.0) for _ in range(8)]
    assert [len(indices) for indices in route(items, 4)] == [2, 2, 2, 2]
    assert sum(map(len, route(items, 16))) == 8


def test_one_long_group_gets_a_worker_of_its_own():
    items = [Item("long", 10, 1000.0)] + [Item(f"short {i}", 10, 100.0) for i in range(10)]
    assert sorted(map(sorted, route(items, 2))) == [[0], list(range(1, 11))]


def test_the_groups_of_both_modes_are_spread():
    items = [Item(row, 2000, 1000.0 if row % 2 else 100.0) for row in range(8) for _ in range(4)]
    for indices in route(items, 4):
        assert len({items[i].group for i in indices}) == 2
        assert {items[i].response_tokens for i in indices} == {100.0, 1000.0}


def test_few_large_groups_are_spread_so_that_one_hard_prompt_slows_nobody_alone():
    items = [Item(row, 40, 1000.0) for row in range(4) for _ in range(8)]
    assert [len({items[i].group for i in indices}) for indices in route(items, 2)] == [4, 4]


def test_the_example():
    items = [Item("a", 120, 100), Item("a", 120, 100), Item("b", 120, 200)]
    assert route(items, 2) == [[0, 1], [2]]


def test_without_requests_and_without_workers():
    assert route([], 3) == [[], [], []]
    with pytest.raises(ValueError, match="0 workers"):
        route([], 0)


def test_round_robin():
    assert round_robin(5, 2) == [[0, 2, 4], [1, 3]]


def test_lengths_are_the_budget_at_first_and_then_a_running_mean():
    predictor = LengthPredictor(weight=0.25)
    assert predictor.predict("long", 1024) == 1024
    predictor.observe({"long": [300, 500], "short": []})
    assert predictor.predict("long", 1024) == 400
    assert predictor.predict("long", 64) == 64
    assert predictor.predict("short", 32) == 32
    predictor.observe({"long": [800]})
    assert predictor.predict("long", 1024) == 500
    assert LengthPredictor(predictor.means).predict("long", 1024) == 500
