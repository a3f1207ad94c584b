"""Which prompt gets which mode, and what a mode may be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts import LongMode, Mode, ModeSampler, ModesConfig, ShortMode

shares = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1 / 3, 1.0])


def long_count(sampler: ModeSampler, step: int, count: int) -> int:
    return sum(mode.name == "long" for mode in sampler.mode_batch(step, count))


@given(share=shares, seed=st.integers(0, 2**40), step=st.integers(0, 10**6), count=st.integers(0, 70))
def test_share_of_every_step_is_as_near_as_possible(share, seed, step, count):
    sampler = ModeSampler(ModesConfig(long_share=share), seed)
    assert math.floor(share * count - 1e-6) <= long_count(sampler, step, count) <= math.ceil(share * count + 1e-6)


@given(seed=st.integers(0, 2**40), step=st.integers(0, 10**6), index=st.integers(0, 200))
def test_mode_is_a_pure_function_of_seed_step_and_index(seed, step, index):
    config = ModesConfig(long_share=0.4)
    first, second = ModeSampler(config, seed), ModeSampler(config, seed)
    second.mode_batch(step + 1, 3)  # what was asked before must not matter
    assert first.mode(step, index) == second.mode(step, index) == second.mode_batch(step, index + 1)[index]


@pytest.mark.parametrize(("share", "count"), [(0.5, 7), (0.3, 4), (0.1, 1), (1 / 3, 8)])
def test_remainder_is_rounded_without_bias(share, count):
    sampler = ModeSampler(ModesConfig(long_share=share), seed=1)
    steps = 4000
    mean = sum(long_count(sampler, step, count) for step in range(steps)) / steps
    assert mean == pytest.approx(share * count, abs=5 * 0.5 / math.sqrt(steps))  # one step deviates by at most 0.5


@pytest.mark.parametrize("index", [0, 1, 5])
def test_every_position_is_long_with_the_share(index):
    sampler = ModeSampler(ModesConfig(long_share=0.3), seed=2)
    steps = 4000
    mean = sum(sampler.mode(step, index).name == "long" for step in range(steps)) / steps
    assert mean == pytest.approx(0.3, abs=5 * 0.46 / math.sqrt(steps))


def test_half_of_an_even_step_is_long_and_steps_differ():
    sampler = ModeSampler(ModesConfig(), seed=0)
    assert {long_count(sampler, step, 8) for step in range(100)} == {4}
    assert len({tuple(mode.name for mode in sampler.mode_batch(step, 8)) for step in range(100)}) == 2


@pytest.mark.parametrize("name", ["short", "long"])
def test_single_mode_runs_ignore_the_share(name):
    sampler = ModeSampler(ModesConfig(mode=name, long_share=0.5), seed=0)
    assert {mode.name for mode in sampler.mode_batch(3, 20)} == {name}


def test_overriding_one_field_keeps_the_other_defaults():
    config = ModesConfig.model_validate({"long": {"max_tokens": 77}, "short": Mode(name="brief", max_tokens=5)})
    assert (config.long.max_tokens, config.long.prefill, config.long.thinks) == (77, "<think>\n", True)
    assert (config.short.name, config.short.max_tokens, config.short.prefill) == ("brief", 5, ShortMode().prefill)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mode(name="x", prefill="<think>\n"), "leaves a think block open"),
        (lambda: LongMode(prefill="<think></think>"), "closes the think block"),
        (lambda: ModesConfig.model_validate({"long": {"name": "short"}}), "both modes are named 'short'"),
        (lambda: ModesConfig(long_share=1.5), "less than or equal to 1"),
        (lambda: LongMode(max_tokens=0), "greater than or equal to 1"),
        (lambda: LongMode(maxtokens=3), "Extra inputs"),
    ],
)
def test_impossible_modes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
