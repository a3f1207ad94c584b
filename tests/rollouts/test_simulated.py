"""Simulated time against hand-computed values."""

import pytest

from rollouts.simulated import Latency, busy_seconds, fit_latency

SPEED = Latency(step_s=1.0, sequence_s=0.5, prompt_token_s=0.01)


def test_all_at_once():
    # 2 steps with three responses, 3 with two, 5 with one; 100 prompt tokens
    assert busy_seconds([2, 5, 10], 100, SPEED) == pytest.approx(1.0 + 2 * 2.5 + 3 * 2.0 + 5 * 1.5)


def test_the_order_does_not_matter_when_all_run_at_once():
    assert busy_seconds([10, 2, 5], 0, SPEED) == busy_seconds([2, 5, 10], 0, SPEED)


def test_the_next_one_starts_when_one_ends():
    # two at a time: [4, 6] for 4 steps, [6, 3] for 2 more, then 3 alone for 1
    assert busy_seconds([4, 6, 3], 0, SPEED, max_num_seqs=2) == pytest.approx(4 * 2 + 2 * 2 + 1 * 1.5)
    assert busy_seconds([4, 6, 3], 0, SPEED, max_num_seqs=1) == pytest.approx(13 * 1.5)


def test_nothing_to_do():
    assert busy_seconds([], 0, SPEED) == 0


def test_a_line_through_points_on_a_line():
    fitted = fit_latency({n: 0.02 + 0.003 * n for n in (1, 8, 64)}, prompt_token_s=0.1)
    assert fitted.step_s == pytest.approx(0.02)
    assert fitted.sequence_s == pytest.approx(0.003)
    assert fitted.prompt_token_s == 0.1
    with pytest.raises(ValueError, match="two measured batch sizes"):
        fit_latency({1: 1.0})
