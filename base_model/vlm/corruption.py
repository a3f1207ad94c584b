"""Unified document and OCR learning: regions of a page are corrupted on the fly, the target is their original text.

One task takes in OCR (the text is legible), OCR with context (single characters are not) and knowledge (nothing is
left), and needs no external parser (MiniCPM-V 4.5, arXiv 2509.18154, s2.2). What the levels do is in
base_model.corruption_settings.

    page = corrupt_page(image, regions, CorruptionSettings(), seed=0, sample=17)
    page.image, [(target.box, target.text) for target in page.targets]

Guarantees: a pure function of its arguments; outside the boxes of the targets every pixel is as before; a region at the
high level depends on nothing that was inside its box, however regions overlap, since such boxes are emptied before any
operator reads a pixel.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from base_model.corruption_settings import CorruptionSettings, LevelName, LevelSettings
from base_model.vlm.corruption_operators import OPERATORS, to_bytes

Box = tuple[int, int, int, int]
_GREY = 128
_RING = 3
"""Pixels around a box whose median colour is its surround."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRegion:
    """A region of a page with its text.

    Example:
        ``TextRegion(box=(40, 60, 420, 96), text="Invoice no. 2041")``
    """

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the page; a pixel that the box touches belongs to it."""
    text: str
    """Its text; lines separated by newlines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A corrupted region, and what the model is to answer."""

    region: int
    """Position in the list of regions."""
    box: Box
    """Left, top, right, bottom in whole pixels, right and bottom excluded, within the page."""
    text: str
    level: LevelName
    operators: tuple[tuple[str, float], ...]
    """(operator, strength) in the order applied; at the high level the fill, with strength 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptedPage:
    """A page for training."""

    image: Image.Image
    """RGB, of the page's size."""
    targets: tuple[Target, ...]
    """In the order of the regions."""


def corrupt_page(
    image: Image.Image, regions: Sequence[TextRegion], settings: CorruptionSettings, *, seed: int, sample: int | str
) -> CorruptedPage:
    """Corrupts some regions of a page.

    What happens to a region is drawn from (seed, sample, its position) alone, so other regions do not change it (but
    for `min_regions`, which looks at all of them). Regions without text are never chosen.

    Args:
        image: the page, of any mode.
        regions: its regions; they may overlap.
        settings: probabilities, levels and strengths.
        seed: of the run.
        sample: which training sample this is.

    Raises:
        ValueError: a box is not four finite numbers, is empty, or lies outside the page.
    """
    page_HW3 = np.array(image.convert("RGB"))
    boxes = [_whole_pixels(index, region, image.size) for index, region in enumerate(regions)]
    generators = {index: _generator(seed, sample, index) for index, region in enumerate(regions) if region.text.strip()}
    chosen = _choose(generators, settings)
    levels = {index: _level(settings, generators[index]) for index in chosen}
    hidden = [index for index in chosen if levels[index] == "high"]
    for index in hidden:
        _view(page_HW3, boxes[index])[:] = _GREY
    surrounds = {index: _surround(page_HW3, boxes[index]) for index in hidden}
    targets = {}
    for index in sorted(chosen, key=lambda index: (levels[index] != "high", index)):
        region, level, rng = regions[index], levels[index], generators[index]
        view_HW3 = _view(page_HW3, boxes[index])
        if level == "high":
            applied = _fill(view_HW3, settings.high.fills, surrounds[index], rng)
        else:
            line = _line_height(boxes[index], region.text)
            applied = _degrade(view_HW3, settings.low if level == "low" else settings.moderate, line, rng)
        targets[index] = Target(region=index, box=boxes[index], text=region.text, level=level, operators=applied)
    return CorruptedPage(image=Image.fromarray(page_HW3), targets=tuple(targets[index] for index in sorted(targets)))


def _generator(seed: int, sample: int | str, index: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"corruption/{seed}/{sample}/{index}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _choose(generators: dict[int, np.random.Generator], settings: CorruptionSettings) -> list[int]:
    """Regions whose draw is below the share; the lowest draws make up for what `min_regions` still lacks."""
    draws = {index: rng.random() for index, rng in generators.items()}
    below = sum(draw < settings.region_share for draw in draws.values())
    return sorted(sorted(draws, key=lambda index: draws[index])[: max(below, settings.min_regions)])


def _level(settings: CorruptionSettings, rng: np.random.Generator) -> LevelName:
    names: tuple[LevelName, ...] = ("low", "moderate", "high")
    weights = np.array(settings.weights)
    return names[int(rng.choice(3, p=weights / weights.sum()))]


def _degrade(
    view_HW3: NDArray[np.uint8], level: LevelSettings, line: float, rng: np.random.Generator
) -> tuple[tuple[str, float], ...]:
    """Applies some of the level's operators in place, in random order."""
    count = int(rng.integers(level.at_least, level.at_most + 1))
    names = [str(name) for name in rng.permutation(sorted(level.operators))[:count]]
    applied = [(name, float(rng.uniform(*level.operators[name]))) for name in names]  # type: ignore[index]
    pixels_HW3 = view_HW3.astype(np.float32) / np.float32(255)
    for name, strength in applied:
        pixels_HW3 = OPERATORS[name](pixels_HW3, strength, line, rng)
    view_HW3[:] = to_bytes(pixels_HW3)
    return tuple(applied)


def _fill(
    view_HW3: NDArray[np.uint8], fills: Sequence[str], surround_3: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[tuple[str, float], ...]:
    """Overwrites the region in place; reads none of its pixels."""
    name = fills[int(rng.integers(len(fills)))]
    if name == "noise":
        view_HW3[:] = rng.integers(0, 256, view_HW3.shape, dtype=np.uint8)
    elif name == "surround":
        view_HW3[:] = surround_3
    else:
        view_HW3[:] = {"grey": _GREY, "white": 255, "black": 0}[name]
    return ((name, 1.0),)


def _surround(page_HW3: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Median colour of a ring around the box; grey where the page ends at the box."""
    left, top, right, bottom = box
    outer_left, outer_top = max(0, left - _RING), max(0, top - _RING)
    around_HW3 = page_HW3[outer_top : bottom + _RING, outer_left : right + _RING]
    outside_HW = np.ones(around_HW3.shape[:2], dtype=bool)
    outside_HW[top - outer_top : bottom - outer_top, left - outer_left : right - outer_left] = False
    if not outside_HW.any():
        return np.full(3, _GREY, dtype=np.uint8)
    return np.median(around_HW3[outside_HW], axis=0).astype(np.uint8)


def _view(page_HW3: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    left, top, right, bottom = box
    return page_HW3[top:bottom, left:right]


def _line_height(box: Box, text: str) -> float:
    """Height of a line of the text in pixels; a narrow box holds small letters however high it is."""
    left, top, right, bottom = box
    lines = max(1, len(text.strip().splitlines()))
    return max(1.0, min((bottom - top) / lines, right - left))


def _whole_pixels(index: int, region: TextRegion, size: tuple[int, int]) -> Box:
    numbers = tuple(region.box)
    if len(numbers) != 4 or not all(isinstance(n, Real) and math.isfinite(n) for n in numbers):
        raise ValueError(
            f"region {index} has the box {region.box!r}, and a box is four numbers: left, top, right, bottom."
        )
    left, top = max(0, math.floor(numbers[0])), max(0, math.floor(numbers[1]))
    right, bottom = min(size[0], math.ceil(numbers[2])), min(size[1], math.ceil(numbers[3]))
    if left >= right or top >= bottom:
        raise ValueError(
            f"region {index} has the box {region.box!r}, which is empty or lies outside the page of "
            f"{size[0]} x {size[1]} pixels: give left, top, right, bottom in pixels of the page."
        )
    return left, top, right, bottom
