"""The standard-deviation filter walked through by hand, with RLPR's numbers and with smaller ones."""

import json
import math

import pytest
from pydantic import ValidationError

from rl.filtering import StdFilter, StdFilterConfig

# Mean standard deviation of each of the steps 1-10. Steps 6-10 average 0.3: the average starts there.
WARMUP = [9.0, 9.0, 9.0, 9.0, 9.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def after_warmup(config: StdFilterConfig | None = None) -> StdFilter:
    std_filter = StdFilter(config or StdFilterConfig())
    for step, mean in enumerate(WARMUP, start=1):
        assert std_filter.threshold(step) is None
        assert std_filter.keep(step, 0.0)
        std_filter.update(step, [mean - 0.05, mean + 0.05])
    return std_filter


def test_fifteen_steps_by_hand() -> None:
    std_filter = after_warmup()
    ema = 0.3
    for step, stds in enumerate([[0.3, 0.3], [0.5, 0.1], [0.0], [1.0, 0.0, 0.5], [0.3]], start=11):
        assert std_filter.threshold(step) == pytest.approx(0.5 * ema)
        assert std_filter.keep(step, 0.5 * ema + 1e-9)
        assert not std_filter.keep(step, 0.5 * ema - 1e-9)
        std_filter.update(step, stds)
        ema = 0.99 * ema + 0.01 * sum(stds) / len(stds)
    # By hand: 0.3, 0.3, 0.99 * 0.3 + 0 = 0.297, 0.99 * 0.297 + 0.01 * 0.5 = 0.29903, 0.99 * 0.29903 + 0.003 = 0.2990397
    assert std_filter.threshold(16) == pytest.approx(0.5 * 0.2990397)


def test_a_standard_deviation_at_the_threshold_is_kept() -> None:
    std_filter = StdFilter(StdFilterConfig(beta=1.0, warmup_steps=1, init_steps=1))
    std_filter.update(1, [0.25])
    assert std_filter.keep(2, 0.25)
    assert not std_filter.keep(2, math.nextafter(0.25, 0))


def test_the_first_five_steps_do_not_count() -> None:
    # Steps 1-5 are at 9.0: were they part of it, the average would be 4.65.
    assert after_warmup().threshold(11) == pytest.approx(0.15)


@pytest.mark.parametrize("stop", [3, 7, 10, 12])
def test_resuming_changes_nothing(stop: int) -> None:
    means = [*WARMUP, 0.7, 0.2, 0.9, 0.1]
    straight, first = StdFilter(StdFilterConfig()), StdFilter(StdFilterConfig())
    for step, mean in enumerate(means, start=1):
        straight.update(step, [mean])
    for step, mean in enumerate(means[:stop], start=1):
        first.update(step, [mean])
    second = StdFilter(StdFilterConfig())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step, mean in enumerate(means[stop:], start=stop + 1):
        second.update(step, [mean])
    assert second.state_dict() == straight.state_dict()
    assert second.threshold(15) == straight.threshold(15)


def test_steps_without_groups_leave_the_average_alone() -> None:
    std_filter = after_warmup()
    std_filter.update(11, [])
    assert std_filter.threshold(12) == pytest.approx(0.15)


def test_without_any_group_in_the_warmup_the_average_starts_with_the_first_seen() -> None:
    std_filter = StdFilter(StdFilterConfig(warmup_steps=2, init_steps=1))
    for step in (1, 2, 3):
        std_filter.update(step, [])
        assert std_filter.keep(step + 1, 0.0)
    std_filter.update(4, [0.4])
    assert std_filter.threshold(5) == pytest.approx(0.2)


def test_a_step_reported_twice_is_a_bug() -> None:
    std_filter = after_warmup()
    with pytest.raises(AssertionError, match="step 10 reported after step 10"):
        std_filter.update(10, [0.1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_steps": 11}, r"init_steps \(11\) must not exceed warmup_steps \(10\)"),
        ({"beta": 0}, "greater than 0"),
        ({"beta": math.inf}, "finite"),
        ({"decay": 1.0}, "less than 1"),
        ({"max_generation_rounds": 0}, "greater than or equal to 1"),
        ({"betta": 1}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StdFilterConfig(**options)
