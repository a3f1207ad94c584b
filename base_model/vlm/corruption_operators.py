"""The operators of document corruption, on the pixels of one region alone.

Legend: H, W height and width of the region in pixels; 3 = red, green, blue. Pixels are float32 in 0..1. `line` is the
height of a line of text in pixels. Each operator is a pure function of its arguments and the generator's state, and at
strength 0 changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.float32]
Operator = Callable[[Pixels, float, float, np.random.Generator], Pixels]


def noise(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of standard deviation `strength` (1 = black to white) on every pixel."""
    added = rng.standard_normal(pixels_HW3.shape, dtype=np.float32) * np.float32(strength)
    return np.clip(pixels_HW3 + added, 0, 1)


def speckle(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """A share `strength` of the pixels becomes black or white."""
    height, width, _ = pixels_HW3.shape
    hit_HW1 = rng.random((height, width, 1)) < strength
    value_HW1 = rng.integers(0, 2, (height, width, 1)).astype(np.float32)
    return np.where(hit_HW1, value_HW1, pixels_HW3)


def blur(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """Gaussian blur of standard deviation `strength * line` pixels."""
    return _filtered(pixels_HW3, ImageFilter.GaussianBlur(strength * line))


def pixelate(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """Blocks of `strength * line` pixels become their mean."""
    height, width, _ = pixels_HW3.shape
    block = max(1.0, strength * line)
    small = max(1, round(width / block)), max(1, round(height / block))
    image = _image(pixels_HW3).resize(small, Image.Resampling.BOX)
    return _pixels(image.resize((width, height), Image.Resampling.NEAREST))


def contrast(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """The distance of every pixel from the region's mean colour shrinks by the share `strength`."""
    mean_3 = pixels_HW3.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return mean_3 + (pixels_HW3 - mean_3) * np.float32(1 - strength)


def erode(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """Strokes lose a pixel on each side, mixed in with the share `strength`."""
    return _thinned(pixels_HW3, strength, lighter=_on_light(pixels_HW3))


def dilate(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """Strokes gain a pixel on each side, mixed in with the share `strength`."""
    return _thinned(pixels_HW3, strength, lighter=not _on_light(pixels_HW3))


def mask(pixels_HW3: Pixels, strength: float, line: float, rng: np.random.Generator) -> Pixels:
    """A share `strength` of cells, each about one character in size, becomes flat grey, black or white."""
    height, width, _ = pixels_HW3.shape
    rows, columns = max(1, round(height / line)), max(1, round(width / (0.6 * line)))
    hidden = np.zeros(rows * columns, dtype=bool)
    hidden[rng.permutation(rows * columns)[: round(strength * rows * columns)]] = True
    row_H = np.arange(height) * rows // height
    column_W = np.arange(width) * columns // width
    hidden_HW1 = hidden.reshape(rows, columns)[row_H[:, None], column_W[None, :]][:, :, None]
    return np.where(hidden_HW1, np.float32(rng.choice([0.0, 0.5, 1.0])), pixels_HW3)


OPERATORS: dict[str, Operator] = {
    "noise": noise,
    "speckle": speckle,
    "blur": blur,
    "pixelate": pixelate,
    "contrast": contrast,
    "erode": erode,
    "dilate": dilate,
    "mask": mask,
}


def _on_light(pixels_HW3: Pixels) -> bool:
    """Whether the background, which is most of a region, is light."""
    return float(np.median(pixels_HW3.mean(axis=2))) >= 0.5


def _thinned(pixels_HW3: Pixels, strength: float, *, lighter: bool) -> Pixels:
    height, width, _ = pixels_HW3.shape
    if min(height, width) < 3:
        return pixels_HW3
    kind = ImageFilter.MaxFilter if lighter else ImageFilter.MinFilter
    changed_HW3 = _filtered(pixels_HW3, kind(3))
    return pixels_HW3 + np.float32(strength) * (changed_HW3 - pixels_HW3)


def _filtered(pixels_HW3: Pixels, kernel: ImageFilter.Filter) -> Pixels:
    return _pixels(_image(pixels_HW3).filter(kernel))


def _image(pixels_HW3: Pixels) -> Image.Image:
    return Image.fromarray(to_bytes(pixels_HW3))


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def to_bytes(pixels_HW3: Pixels) -> NDArray[np.uint8]:
    """Pixels as 0..255, rounded."""
    return np.rint(np.clip(pixels_HW3, 0, 1) * 255).astype(np.uint8)
