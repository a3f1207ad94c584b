"""Tags of the mode; the smooth length reward."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.format import format
from rewards.length import length


@pytest.mark.parametrize(
    ("response", "mode", "expected"),
    [
        ("4", "short", 1.0),
        (" \n", "short", 0.0),
        ("", "short", 0.0),
        ("a</think>4", "short", 0.0),
        ("<think></think>4", "short", 0.0),
        ("a</think>4", "long", 1.0),
        ("</think>4", "long", 1.0),
        ("a</think> \n", "long", 0.0),
        ("4", "long", 0.0),
        ("<think>a</think>4", "long", 0.0),
        ("a</think>b</think>4", "long", 0.0),
        ("a</think><think>4", "long", 0.0),
        (None, "short", 0.0),
    ],
)
def test_think_tags(response, mode, expected):
    assert format(response=response, mode=mode) == expected


@pytest.mark.parametrize(
    ("response", "mode", "expected"),
    [
        ("<answer>4</answer>", "short", 1.0),
        ("\n<answer> 4 </answer>\n", "short", 1.0),
        ("a</think>\n<answer>4</answer>", "long", 1.0),
        ("4", "short", 0.0),
        ("<answer></answer>", "short", 0.0),
        ("<answer> </answer>", "short", 0.0),
        ("<answer>4", "short", 0.0),
        ("</answer>4<answer>", "short", 0.0),
        ("so <answer>4</answer>", "short", 0.0),
        ("<answer>4</answer><answer>5</answer>", "short", 0.0),
        ("<answer>4</answer></think>5", "long", 0.0),
        ("<answer>3</answer></think><answer>4</answer>", "long", 0.0),
    ],
)
def test_answer_tag(response, mode, expected):
    assert format(response=response, mode=mode, answer_tag="answer") == expected


def test_other_tags_and_modes():
    tags = {"think_open": "[THINK]", "think_close": "[/THINK]", "thinking_modes": ["deep"]}
    assert format(response="a[/THINK]b", mode="deep", **tags) == 1.0
    assert format(response="a</think>b", mode="deep", **tags) == 0.0
    assert format(response="b", mode="long", **tags) == 1.0


def scores(*right: bool) -> list[dict[str, float | None]]:
    return [{"accuracy": float(item)} for item in right]


def test_length_by_hand():
    # l = 10, 60, 110: s = 0.5, 0, -0.5, times min(1, 100 / 200) = 0.5
    ids = [[0] * 10, [0] * 60, [0] * 110]
    assert length(response_ids=ids, scores=scores(True, True, True), tau=200) == pytest.approx([0.25, 0.0, -0.25])
    assert length(response_ids=ids, scores=scores(False, True, False), tau=200) == pytest.approx([0.0, 0.0, -0.25])
    assert length(response_ids=ids, scores=scores(True, True, True), tau=50) == pytest.approx([0.5, 0.0, -0.5])
    assert length(response_ids=ids[:1] * 3, scores=scores(True, True, True)) == [0.0, 0.0, 0.0]
    assert length(response_ids=ids, scores=[{"accuracy": None}] * 3, tau=50) == pytest.approx([0.0, 0.0, -0.5])


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=8))
def test_length_is_bounded_and_falls_with_length(group):
    values = length(response_ids=[[0] * size for size, _ in group], scores=scores(*(right for _, right in group)))
    assert all(-0.5 <= value <= 0.5 for value in values)
    assert all(value <= 0 for value, (_, right) in zip(values, group, strict=True) if not right)
    ranked = sorted((size, value) for value, (size, right) in zip(values, group, strict=True) if right)
    assert all(one[1] >= two[1] - 1e-12 for one, two in pairwise(ranked))
