"""Coloured shapes, for scenes and clips: their masks, colours and names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from recipes.render.fonts import crop_to_ink
from recipes.render.words import indefinite, plural

if TYPE_CHECKING:
    from PIL.Image import Image

    from recipes.render.records import Box

COLOURS = {
    "red": (214, 39, 40), "blue": (38, 84, 214), "green": (34, 150, 60), "yellow": (236, 200, 24),
    "orange": (245, 130, 22), "purple": (138, 58, 178), "pink": (244, 130, 186), "brown": (122, 74, 40),
    "black": (20, 20, 20), "cyan": (30, 190, 210),
}  # fmt: skip
GROUNDS = ((255, 255, 255), (246, 242, 230), (226, 232, 240), (216, 224, 214), (204, 204, 208))
SHAPES = ("circle", "square", "triangle", "star", "diamond", "pentagon", "hexagon", "cross", "ring", "heart")
PLAIN_SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
"""Shapes that differ within 20 pixels."""
SIZES = ("small", "large")
_SCALE = 8
"""Shapes are drawn this many times larger and averaged, for smooth edges."""


@lru_cache(maxsize=512)
def shape_mask(shape: str, radius: int) -> Image:
    """A shape as a mask of its ink (greyscale), at most 2 * radius pixels wide and high."""
    from PIL import Image, ImageDraw

    side = 2 * radius * _SCALE
    mask = Image.new("L", (side, side), 0)
    _outline(ImageDraw.Draw(mask), shape, side)
    return crop_to_ink(mask.resize((2 * radius, 2 * radius), Image.Resampling.BOX))[0]


def _outline(draw: Any, shape: str, side: int) -> None:
    """Draws a shape that fills a square."""
    end, half = side - 1, side / 2
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, end, end), fill=255)
        if shape == "ring":
            draw.ellipse((side * 0.25, side * 0.25, side * 0.75, side * 0.75), fill=0)
    elif shape == "square":
        draw.rectangle((0, 0, end, end), fill=255)
    elif shape == "cross":
        draw.rectangle((side * 0.34, 0, side * 0.66, end), fill=255)
        draw.rectangle((0, side * 0.34, end, side * 0.66), fill=255)
    elif shape == "heart":
        draw.polygon([_heart(2 * math.pi * at / 180, side) for at in range(180)], fill=255)
    elif shape == "triangle":
        draw.polygon([(half, 0), (end, end), (0, end)], fill=255)
    elif shape == "diamond":
        draw.polygon([(half, 0), (end, half), (half, end), (0, half)], fill=255)
    else:
        corners = {"star": 10, "pentagon": 5, "hexagon": 6}[shape]
        radii = (half, half * 0.42) if shape == "star" else (half,)
        angles = [2 * math.pi * at / corners - math.pi / 2 for at in range(corners)]
        points = [(radii[at % len(radii)], angle) for at, angle in enumerate(angles)]
        draw.polygon([(half + r * math.cos(a), half + r * math.sin(a)) for r, a in points], fill=255)


def _heart(angle: float, side: int) -> tuple[float, float]:
    """A point of the heart curve, scaled to the square."""
    x = math.sin(angle) ** 3
    y = (13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)) / 17
    return side / 2 * (1 + x), side * (0.42 - y * 0.5)


def paint(image: Image, thing: Mapping[str, Any], centre: Sequence[int], colour: str) -> Box:
    """Draws an object around its centre; returns the box of its ink."""
    mask = shape_mask(thing["shape"], thing["radius"])
    left, top = centre[0] - mask.width // 2, centre[1] - mask.height // 2
    box = (left, top, left + mask.width, top + mask.height)
    image.paste(COLOURS[colour], box, mask)
    return box


def named(thing: Mapping[str, Any], *, size: bool = False) -> str:
    """`red circle`, or with its size `large red circle`."""
    words = (thing["size"], thing["colour"], thing["shape"]) if size else (thing["colour"], thing["shape"])
    return " ".join(words)


def counted(what: str, count: int) -> str:
    """`no red circles`, `one red circle`, `3 red circles`: the last word is the noun."""
    if count == 1:
        return f"one {what}"
    *before, noun = what.split()
    return " ".join([str(count) if count else "no", *before, "crosses" if noun == "cross" else plural(noun, 2)])


def a(what: str) -> str:
    """`a red circle`, `an orange star`."""
    return indefinite(what)
