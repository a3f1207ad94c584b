"""Drawing from categorical distributions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollouts.inverse_cdf import WIDTH, draw


def plain_draw(weights_V: torch.Tensor, uniform: float) -> int:
    """The first category whose cumulative sum, in float64, exceeds the target."""
    cdf_V = weights_V.double().cumsum(0)
    return int((cdf_V <= uniform * cdf_V[-1]).sum())


@settings(deadline=None)
@given(
    size=st.sampled_from([1, 2, 255, 256, 257, 385, 512, 1000]), seed=st.integers(0, 2**31), zeros=st.floats(0, 0.95)
)
def test_equals_a_plain_cumulative_sum(size, seed, zeros):
    generator = torch.Generator().manual_seed(seed)
    weights_BV = torch.randn(16, size, generator=generator).mul(4).softmax(-1)
    weights_BV *= torch.rand(16, size, generator=generator) >= zeros
    weights_BV[:, size // 2] += 0.01  # a positive sum
    uniforms_B = torch.rand(16, generator=generator, dtype=torch.float64)
    drawn = draw(weights_BV, uniforms_B).tolist()
    for row, index in enumerate(drawn):
        # float32 block sums may move a border by about 1e-7 of the total: then a neighbouring category is right too
        near = {plain_draw(weights_BV[row], float(uniforms_B[row]) + shift) for shift in (-1e-6, 0.0, 1e-6)}
        assert min(near) <= index <= max(near)


@pytest.mark.parametrize("uniform", [0.0, 1e-300, 0.5, 1 - 2.0**-53])
@pytest.mark.parametrize("hot", [0, 1, WIDTH - 1, WIDTH, 2 * WIDTH + 3])
def test_weight_zero_is_never_drawn(uniform, hot):
    weights_BV = torch.zeros(1, 2 * WIDTH + 4)
    weights_BV[0, hot] = 1e-30
    assert draw(weights_BV, torch.tensor([uniform], dtype=torch.float64)).tolist() == [hot]


def test_frequencies_on_a_grid_are_the_probabilities():
    weights_V = torch.randn(600, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)
    points = 200_000
    grid_B = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    counts = torch.cat([draw(weights_V.expand(len(part), -1), part) for part in grid_B.split(20_000)]).bincount(
        minlength=600
    )
    assert (counts / points - weights_V).abs().max() < 2 / points + 1e-6
