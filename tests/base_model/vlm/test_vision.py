"""Vision tower and resampler against a second implementation, and what must not change their results."""

import random

import pytest
import torch

from base_model.vlm import MiniCPMV, resampler, vision_attention
from base_model.vlm.resampler import sincos
from base_model.vlm.vision import batches, table_positions
from tests.base_model.vlm.reference import features
from tests.base_model.vlm.small import shared, tiny

GRIDS = [(8, 8), (3, 7), (8, 8), (1, 12), (5, 5), (3, 7)]


def _views(grids: list[tuple[int, int]], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 14, rows * columns * 14, generator=generator) for rows, columns in grids]


def _tokens(model: MiniCPMV, views: list, grids: list, packages: list | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model.image_features([views], [torch.tensor(grids)], None if packages is None else [packages])


@pytest.mark.parametrize(
    "packages", [[[-1]] * 6, [[0, 4, 9], [12], [3, 40]], [[0, 1, 2, 3, 4, 5]], [[-1], [7, 9, 900], [-1], [0]]]
)
def test_features_equal_a_padded_and_masked_implementation(packages: list[list[int]]) -> None:
    model, _ = shared()
    views = _views(GRIDS)
    wanted = features(
        dict(model.state_dict()), views, GRIDS, packages, tower_heads=2, resampler_heads=model.resampler.attn.num_heads
    )
    torch.testing.assert_close(_tokens(model, views, GRIDS, packages), wanted, atol=2e-4, rtol=1e-4)


def test_features_do_not_depend_on_order_or_company() -> None:
    model, _ = shared()
    views, packages = _views(GRIDS), [[3, 4], [-1], [0, 5, 9]]
    whole = _tokens(model, views, GRIDS, packages)
    at = 0
    for number, package in enumerate(packages):
        span = slice(at, at + len(package))
        alone = _tokens(model, views[span], GRIDS[span], [package])
        torch.testing.assert_close(alone[0], whole[number], atol=1e-5, rtol=1e-5)
        at += len(package)
    order = list(range(6))
    random.Random(0).shuffle(order)
    images = _tokens(model, views, GRIDS)
    shuffled = _tokens(model, [views[i] for i in order], [GRIDS[i] for i in order])
    torch.testing.assert_close(shuffled, images[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("time", [0, 1, 17, 600])
def test_a_package_of_one_frame_is_an_image(time: int) -> None:
    """The same constant on every key of a package moves all scores alike, so softmax does not see it.

    What is left is the rounding of the scores, which are of the order of 100 here.
    """
    model, _ = shared()
    views = _views(GRIDS)
    image = _tokens(model, views, GRIDS)
    torch.testing.assert_close(_tokens(model, views, GRIDS, [[time]] * 6), image, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("most", [1, 64, 150, 10**6])
def test_a_long_video_in_runs_is_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = shared()
    views, packages = _views(GRIDS), [[3, 4], [-1], [0, 5], [9]]
    whole = _tokens(model, views, GRIDS, packages)
    monkeypatch.setattr(resampler, "MAX_PATCHES", most)
    runs = list(resampler._runs(packages, [rows * columns for rows, columns in GRIDS]))
    assert [number for (first, last), _ in runs for number in range(first, last)] == [0, 1, 2, 3]
    assert [view for _, (first, last) in runs for view in range(first, last)] == [0, 1, 2, 3, 4, 5]
    assert len(runs) == {1: 4, 64: 3, 150: 2, 10**6: 1}[most]
    torch.testing.assert_close(_tokens(model, views, GRIDS, packages), whole, atol=1e-5, rtol=1e-5)


def test_times_within_a_package_count() -> None:
    model, _ = shared()
    views, grids = _views([(4, 4)] * 3), [(4, 4)] * 3
    first = _tokens(model, views, grids, [[0, 1, 2]])
    for other in ([[0, 1, 20]], [[2, 1, 0]], [[-1, -1, -1]]):
        assert (_tokens(model, views, grids, other) - first).abs().max() > 1e-4


def test_gradients_reach_every_vision_weight() -> None:
    model, _ = tiny()
    views = _views(GRIDS)
    model.image_features([views], [torch.tensor(GRIDS)], [[[0, 3], [-1], [5, 6, 7]]]).square().sum().backward()
    missing = [
        name
        for name, weight in model.named_parameters()
        if not name.startswith("llm.") and (weight.grad is None or not weight.grad.isfinite().all())
    ]
    assert not missing


def test_tables_made_under_inference_serve_training() -> None:
    model, _ = tiny()
    views, grids = _views([(2, 9)], seed=5), [(2, 9)]
    with torch.inference_mode():
        model.image_features([views], [torch.tensor(grids)], [[[77]]])
    model.image_features([views], [torch.tensor(grids)], [[[77]]]).sum().backward()
    assert model.vpm.embeddings.position_embedding.weight.grad is not None


@pytest.mark.parametrize("side", [8, 16, 70])
def test_table_is_read_at_the_relative_place(side: int) -> None:
    """As fractional coordinates in floating point (vLLM's tower), on boundaries too."""
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    for count in range(1, 4 * side):
        wanted = torch.bucketize(torch.arange(count) / count, boundaries, right=True)
        assert torch.equal(table_positions(1, count, side), wanted)
        assert torch.equal(table_positions(count, 1, side), wanted * side)
    assert table_positions(2, 3, side).tolist() == [
        (y * side // 2) * side + x * side // 3 for y in range(2) for x in range(3)
    ]
    assert torch.equal(table_positions(side, side, side), torch.arange(side**2))


def test_sincos_is_the_published_table() -> None:
    import math

    table = sincos(torch.arange(5).numpy(), 8)
    for position in range(5):
        angles = [position / 10000 ** (i / 4) for i in range(4)]
        wanted = [*map(math.sin, angles), *map(math.cos, angles)]
        assert table[position].tolist() == pytest.approx(wanted, abs=1e-6)


def test_batches_put_equal_items_together() -> None:
    assert batches("abacaa", 2) == [[0, 2], [4, 5], [1], [3]]


@pytest.mark.parametrize("packages", [[[0, 1]], [[0, 1, 2], []], [[0], [1], [2], [3]]])
def test_packages_that_do_not_cover_the_views_are_refused(packages: list[list[int]]) -> None:
    model, _ = shared()
    with pytest.raises(ValueError, match="exactly one package"):
        _tokens(model, _views([(2, 2)] * 3), [(2, 2)] * 3, packages)


def test_views_that_do_not_fit_their_sizes_are_refused() -> None:
    model, _ = shared()
    with pytest.raises(ValueError, match="2 x 3 RGB patches"):
        _tokens(model, _views([(2, 2)]), [(2, 3)])


def test_widths_that_do_not_divide_are_refused() -> None:
    from base_model.vlm.resampler import Resampler

    with pytest.raises(ValueError, match="hidden_size 402"):
        Resampler(4, 402, 64)
    assert Resampler(4, 576, 384).attn.num_heads == 4  # SmolLM2's width


def test_the_last_layer_can_be_left_out() -> None:
    model, _ = tiny(drop_vision_last_layer=True)
    assert len(model.vpm.encoder.layers) == 3
    assert model.config.vision_config.num_hidden_layers == 4


@pytest.mark.parametrize("scaling", [None, 0.3])
def test_plain_products_are_the_fused_attention(scaling: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 2, 20, 8, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    outputs, gradients = [], []
    for most in (vision_attention.MAX_SCORES, 0):
        monkeypatch.setattr(vision_attention, "MAX_SCORES", most)
        out, _ = vision_attention.vision_attention(torch.nn.Identity(), *inputs, None, scaling=scaling)
        outputs.append(out)
        gradients.append(torch.autograd.grad(out.square().sum(), inputs))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for ours, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, fused, rtol=1e-10, atol=1e-10)
