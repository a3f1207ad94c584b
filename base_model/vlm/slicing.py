"""Adaptive slicing: how an image of any size is cut into views that the vision tower sees at its own scale.

Source: MiniCPM-V (arXiv 2408.01800, section 3.2) and LLaVA-UHD (arXiv 2403.11703); numbers as in MiniCPM-V 4.5. Only
sizes are computed here, in pixels, always as (width, height); no image is touched.
"""

import math
from dataclasses import dataclass

MAX_ASPECT_RATIO = 1024
"""Longest side over shortest; beyond it a strip one patch high is longer than a whole 448-pixel image has patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlicePlan:
    """How one image is shown: an overview, and the cells of a grid if it is cut.

    Example:
        ``plan_slices(640, 480)`` gives ``SlicePlan(overview=(518, 392), grid=(2, 1), cell=(364, 546))``.
    """

    overview: tuple[int, int]  # the whole image, resized
    grid: tuple[int, int] | None = None  # (columns, rows); None = not cut
    cell: tuple[int, int] | None = None  # size of every cell; the image is resized to grid x cell and cut

    @property
    def views(self) -> int:
        """Images that the vision tower sees, each of which becomes one block of tokens."""
        return 1 if self.grid is None else 1 + self.grid[0] * self.grid[1]


def plan_slices(width: int, height: int, *, scale: int = 448, patch: int = 14, max_slices: int = 9) -> SlicePlan:
    """Choose overview, grid and cells for an image.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        scale: side of the square whose area a view should have.
        patch: side of a patch; the sides of every view are multiples of it.
        max_slices: most cells; 1 = never cut (video frames).

    Raises:
        ValueError: the image is empty, or too long and thin.
    """
    _check_size(width, height)
    grid = choose_grid(width, height, scale=scale, max_slices=max_slices)
    if grid is None:
        return SlicePlan(overview=_fit(width, height, scale, patch, enlarge=True))
    columns, rows = grid
    cell_width, cell_height = _multiple(width, columns) / columns, _multiple(height, rows) / rows
    return SlicePlan(
        overview=_fit(width, height, scale, patch, enlarge=False),
        grid=grid,
        cell=_fit(cell_width, cell_height, scale, patch, enlarge=True),
    )


def choose_grid(width: int, height: int, *, scale: int = 448, max_slices: int = 9) -> tuple[int, int] | None:
    """(columns, rows) of the grid whose shape is nearest to the image's; None = the image is not cut.

    The number of cells is the image's area in units of ``scale`` squared, rounded up, or one less or one more; among
    grids equally near the first wins, fewer cells and then fewer columns first.
    """
    wanted = min(math.ceil(width * height / scale**2), max_slices)
    if wanted <= 1:
        return None
    shape = math.log(width / height)
    grids = [
        (columns, count // columns)
        for count in (wanted - 1, wanted, wanted + 1)
        if 1 < count <= max_slices
        for columns in range(1, count + 1)
        if count % columns == 0
    ]
    return min(grids, key=lambda grid: abs(shape - math.log(grid[0] / grid[1])))


def _fit(width: float, height: float, scale: int, patch: int, *, enlarge: bool) -> tuple[int, int]:
    """The size of area ``scale`` squared at most (exactly, if it may be enlarged), in whole patches, aspect kept."""
    if enlarge or width * height > scale**2:
        aspect = width / height
        height = int(scale / math.sqrt(aspect))
        width = int(height * aspect)
    return _multiple(width, patch), _multiple(height, patch)


def _multiple(length: float, unit: int) -> int:
    return max(round(length / unit) * unit, unit)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the image is {width}x{height} pixels; it needs at least one pixel each way")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"the image is {width}x{height} pixels, longer than {MAX_ASPECT_RATIO} times its other side; "
            "crop it or leave it out"
        )
