"""Filling, calling, totals, breakdowns, groups, failures."""

import asyncio
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import RewardError, RewardSet, build
from rewards.binding import BoundReward, Policy
from rewards.registry import Reward


def make(function, *, label="f", weight=1.0, fields=("answer",), optional=(), group=False, policy=None, **options):
    return BoundReward(
        label=label,
        reward=Reward(name=label, function=function, group=group, **options),
        weight=weight,
        constants={},
        fields=tuple(fields),
        optional=frozenset(optional),
        takes_all=False,
        policy=policy or Policy(),
    )


def sample(answer="a", **more):
    return {"answer": answer, **more}


def score_one(function, **options):
    return RewardSet([make(function, **options)]).score([[sample()]])[0][0]


def test_total_is_the_weighted_sum_and_the_breakdown_is_not_weighted():
    rewards = RewardSet(
        [make(lambda answer: 1.0, label="x", weight=2.0), make(lambda answer: -0.5, label="y", weight=0.1)]
    )
    score = rewards.score([[sample()]])[0][0]
    assert score.total == pytest.approx(1.95)
    assert score.breakdown == {"x": 1.0, "y": -0.5}


def test_none_does_not_apply_and_is_not_zero():
    score = RewardSet([make(lambda answer: None, label="x"), make(lambda answer: 1.0, label="y")]).score([[sample()]])[
        0
    ][0]
    assert score.breakdown == {"x": None, "y": 1.0}
    assert score.total == 1.0
    assert score_one(lambda answer: None).total == 0.0


def test_a_dict_is_recorded_by_key():
    score = score_one(lambda answer: {"a": 1.0, "b": 0.5, "c": None}, weight=2.0)
    assert score.breakdown == {"f/a": 1.0, "f/b": 0.5, "f/c": None}
    assert score.total == 3.0
    assert score.value("f") == 1.5


@pytest.mark.parametrize("value", [True, 1, np.float32(1.0), np.array(1.0)])
def test_numbers_of_other_types(value):
    assert score_one(lambda answer: value).total == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1.0", [1.0], object(), {"a": float("nan")}])
def test_bad_values_name_the_reward_and_the_sample(value):
    with pytest.raises(RewardError, match=r"reward 'f(/a)?' returned .* sample 0"):
        score_one(lambda answer: value)


def test_an_exception_names_reward_sample_and_place():
    def fails(answer):
        return 1 / len(answer)

    rewards = RewardSet([make(fails)])
    with pytest.raises(RewardError, match=r"reward 'f' failed on sample 1: ZeroDivisionError.*test_reward_set\.py:\d+"):
        rewards.score([[sample("a"), sample("")]])
    with pytest.raises(RewardError, match="failed on sample 3"):  # counted over all groups
        rewards.score([[sample("a"), sample("b")], [sample("c"), sample("")]])


def test_a_missing_column_falls_back_to_the_default_or_is_named():
    rewards = RewardSet(
        [make(lambda answer, hint="none": float(hint == "none"), fields=("answer", "hint"), optional={"hint"})]
    )
    assert [item.total for item in rewards.score([[sample(), sample(hint="x")]])[0]] == [1.0, 0.0]
    needs = RewardSet([make(lambda hint: 1.0, fields=("hint",))])
    with pytest.raises(RewardError, match="needs 'hint', which this sample lacks"):
        needs.score([[sample()]])


def test_async_rewards_run_concurrently():
    async def slow(answer):
        await asyncio.sleep(0.1)
        return 1.0

    start = time.perf_counter()
    scores = RewardSet([make(slow)]).score([[sample()] * 20])
    assert time.perf_counter() - start < 1.0
    assert [item.total for item in scores[0]] == [1.0] * 20


def test_async_failures_are_named():
    async def fails(answer):
        raise KeyError("x")

    with pytest.raises(RewardError, match="reward 'f' failed on sample 0: KeyError"):
        score_one(fails)


def test_parallel_rewards_use_threads_and_keep_the_order():
    seen = set()

    def slow(answer):
        seen.add(threading.get_ident())
        time.sleep(0.02)
        return float(answer)

    with RewardSet([make(slow, parallel=True)]) as rewards:
        scores = rewards.score([[sample(str(i)) for i in range(3)], [sample(str(i)) for i in range(3, 8)]])
    assert [[item.total for item in group] for group in scores] == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert len(seen) > 1
    assert threading.get_ident() not in seen


def test_group_rewards_get_lists_and_the_scores_so_far():
    calls = []

    def best(answer, scores):
        calls.append((answer, scores))
        return [float(row["len"] == max(r["len"] for r in scores)) for row in scores]

    rewards = RewardSet(
        [
            make(best, label="best", group=True, fields=("answer", "scores")),
            make(lambda answer: float(len(answer)), label="len"),
        ]
    )
    scores = rewards.score([[sample("a"), sample("bb")], [sample("c")], []])
    assert [[item.breakdown["best"] for item in group] for group in scores] == [[0.0, 1.0], [1.0], []]
    assert calls[0][0] == ["a", "bb"]
    assert list(scores[0][0].breakdown) == ["best", "len"]


@pytest.mark.parametrize("value", [[1.0], 1.0, None, "ab"])
def test_group_rewards_of_the_wrong_length(value):
    with pytest.raises(RewardError, match=r"group reward 'f' returned .* for group 0 of 2 responses"):
        RewardSet([make(lambda answer: value, group=True)]).score([[sample(), sample()]])


def test_async_group_reward():
    async def ranks(answer):
        return [float(i) for i in range(len(answer))]

    scores = RewardSet([make(ranks, group=True)]).score([[sample(), sample()]])
    assert [item.total for item in scores[0]] == [0.0, 1.0]


def test_gold_answers_must_score_full_marks():
    with build(["math", "format"]) as rewards:
        assert rewards.is_verifier
        rewards.check_gold([{"reference": "\\frac{1}{2}"}, {"reference": 3}, {"reference": "$x+1$"}])
        with pytest.raises(
            RewardError, match=r"'math' does not accept its own reference in 2 of 3 rows.*row 1, reference None"
        ):
            rewards.check_gold([{"reference": "1"}, {"reference": None}, {"reference": "  "}])


def test_check_gold_uses_columns():
    with build([{"name": "choice"}], columns=["choices"]) as rewards:
        rewards.check_gold(
            [{"reference": "Paris", "choices": ["Rome", "Paris"]}, {"reference": "B", "choices": ["a", "b"]}]
        )


def test_variable_keywords_get_every_field():
    def all_of(answer, **rest):
        return float(sorted(rest) == ["mode", "prompt"])

    bound = BoundReward(
        label="f",
        reward=Reward(name="f", function=all_of),
        weight=1.0,
        constants={},
        fields=("answer",),
        optional=frozenset(),
        takes_all=True,
    )
    assert RewardSet([bound]).score([[{"answer": "", "prompt": "", "mode": "short"}]])[0][0].total == 1.0


finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5), st.lists(st.integers(0, 4), max_size=5))
def test_totals_for_any_weights_and_shapes(pairs, sizes):
    rewards = RewardSet([make(lambda answer, v=value: v, label=str(i), weight=w) for i, (value, w) in enumerate(pairs)])
    scores = rewards.score([[sample()] * size for size in sizes])
    assert [len(group) for group in scores] == sizes
    expected = sum(value * weight for value, weight in pairs)
    assert all(item.total == pytest.approx(expected, abs=1e-3) for group in scores for item in group)


def test_columns_that_are_not_known_yet(tmp_path):
    (tmp_path / "m.py").write_text("def hinted(answer, hint, extra=5.0):\n    return float(hint) + extra\n")
    with build(["m.py:hinted", {"name": "length", "args": {"correct": "hinted"}}], None, tmp_path) as rewards:
        assert rewards.needs == {"answer": "hinted", "hint": "hinted", "response_ids": "length"}
        assert rewards.group_names == ["length"]
        sample = {"answer": "a", "hint": 1, "response_ids": [1]}
        assert rewards.score([[sample]])[0][0].breakdown == {"hinted": 6.0, "length": 0.0}
        assert rewards.score([[{**sample, "extra": 0.5}]])[0][0].value("hinted") == 1.5
        with pytest.raises(RewardError, match=r"'hinted' needs 'hint', which this sample lacks \(it has answer"):
            rewards.score([[{"answer": "a", "response_ids": [1]}]])


@pytest.mark.parametrize("label", ["total", "a/b", ""])
def test_labels_that_would_hide_other_figures_are_refused(label):
    with pytest.raises(ValueError, match="a label must be a name"):
        build([{"name": "format", "label": label}])
