"""Adaptive slicing: the known cases, an independent implementation on random sizes, and what is refused."""

import math
import random
from fractions import Fraction

import pytest

from base_model.vlm.slicing import SlicePlan, plan_slices

GOLDEN = [
    ((448, 448), None, (448, 448), None),
    ((300, 200), None, (546, 364), None),
    ((449, 448), (2, 1), (448, 448), (322, 630)),
    ((640, 480), (2, 1), (518, 392), (364, 546)),
    ((800, 600), (2, 2), (518, 392), (518, 392)),
    ((1280, 720), (3, 2), (602, 336), (490, 406)),
    ((1344, 1344), (3, 3), (448, 448), (448, 448)),
    ((1920, 1080), (4, 2), (602, 336), (420, 476)),
    ((1080, 1920), (2, 4), (336, 602), (476, 420)),
    ((4000, 500), (8, 1), (1260, 154), (448, 448)),
]


@pytest.mark.parametrize(("size", "grid", "overview", "cell"), GOLDEN)
def test_known_sizes(
    size: tuple[int, int], grid: tuple[int, int] | None, overview: tuple[int, int], cell: tuple[int, int] | None
) -> None:
    assert plan_slices(*size) == SlicePlan(overview=overview, grid=grid, cell=cell)


def _independent(width: int, height: int, scale: int, most: int) -> SlicePlan:
    """The same rules on exact ratios: grids are compared by quotients instead of logarithms."""
    blocks = -(-width * height // scale**2)
    blocks = min(blocks, most)
    if blocks <= 1:
        return SlicePlan(overview=_view(Fraction(width), Fraction(height), scale, grow=True))
    grids = []
    for count in range(max(2, blocks - 1), min(most, blocks + 1) + 1):
        grids += [(columns, count // columns) for columns in range(1, count + 1) if count % columns == 0]
    ratio = Fraction(width, height)

    def misfit(grid: tuple[int, int]) -> Fraction:
        quotient = ratio / Fraction(*grid)
        return max(quotient, 1 / quotient)

    columns, rows = grid = min(grids, key=misfit)
    cell = Fraction(max(round(Fraction(width, columns)), 1)), Fraction(max(round(Fraction(height, rows)), 1))
    return SlicePlan(
        overview=_view(Fraction(width), Fraction(height), scale, grow=False),
        grid=grid,
        cell=_view(*cell, scale, grow=True),
    )


def _view(width: Fraction, height: Fraction, scale: int, *, grow: bool) -> tuple[int, int]:
    if grow or width * height > scale**2:
        ratio = width / height
        tall = math.isqrt(int(Fraction(scale**2) / ratio))  # floor(scale / sqrt(ratio)), exactly
        width, height = Fraction(int(tall * float(ratio))), Fraction(tall)
    return max(round(width / 14), 1) * 14, max(round(height / 14), 1) * 14


@pytest.mark.parametrize(("scale", "most"), [(448, 9), (112, 9), (448, 4), (336, 2)])
def test_random_sizes_equal_an_independent_implementation(scale: int, most: int) -> None:
    rng = random.Random(scale + most)
    for _ in range(2000):
        width, height = (round(math.exp(rng.uniform(math.log(4), math.log(4000)))) for _ in range(2))
        found = plan_slices(width, height, scale=scale, max_slices=most)
        assert found == _independent(width, height, scale, most), (width, height)


def test_random_sizes_equal_the_grids_of_transformers() -> None:
    """A later model of the same family, in transformers, still chooses grids and views by these rules."""
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    theirs = MiniCPMV4_6ImageProcessorPil()
    rng = random.Random(0)
    for _ in range(3000):
        width, height = (round(math.exp(rng.uniform(math.log(5), math.log(5000)))) for _ in range(2))
        plan = plan_slices(width, height)
        grid = theirs.get_sliced_grid((height, width), 9, 448)
        assert (plan.grid is None) == (grid is None)
        unit = 14 / 4  # that model rounds to four of its patches
        overview = theirs.find_best_resize((height, width), 448, unit, allow_upscale=grid is None)
        assert plan.overview == overview[::-1], (width, height)
        if plan.grid is not None and plan.cell is not None:
            assert plan.grid == tuple(grid[::-1])
            whole = theirs.get_refine_size((height, width), grid, 448, unit, allow_upscale=True)
            assert (plan.cell[0] * plan.grid[0], plan.cell[1] * plan.grid[1]) == whole[::-1]


def test_views_are_whole_patches_of_bounded_area() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        width, height = rng.randint(1, 6000), rng.randint(1, 6000)
        if max(width, height) > 100 * min(width, height):
            continue
        plan = plan_slices(width, height)
        assert 1 <= plan.views <= 10
        for view in filter(None, (plan.overview, plan.cell)):
            assert view[0] % 14 == view[1] % 14 == 0
            assert min(view) >= 14
            assert view[0] * view[1] <= 448**2 * 1.3


def test_one_pixel_and_frames_are_not_cut() -> None:
    assert plan_slices(1, 1) == SlicePlan(overview=(448, 448))
    assert plan_slices(4000, 3000, max_slices=1).views == 1


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (1025, 1), (1, 2000)])
def test_no_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels"):
        plan_slices(*size)
