"""Any picture a user has, as plain RGB: turned upright, on white, first frame, decoded as far as it goes."""

import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

_DECODING = threading.Lock()
"""Pillow's switch for truncated files is global to the process."""


def load_image(source: str | Path | bytes, *, strict: bool = False) -> Image.Image:
    """Read an image file as RGB.

    Args:
        source: path, or the file's bytes.
        strict: refuse a truncated file instead of leaving its missing part grey (or black).

    Raises:
        ValueError: the file is no image, or is damaged beyond reading.
    """
    name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.format == "EPS":
                raise ValueError("PostScript is a program, and Pillow would have Ghostscript run it")
            return to_rgb(image, strict=strict)
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image format that Pillow reads; convert it to PNG or JPEG") from None
    except Exception as error:  # decoders fail on damaged files in their own ways: struct, zlib, EOF, index errors
        raise ValueError(f"{name}: the image cannot be read ({error}); repair it or leave it out") from None


def to_rgb(image: Any, *, strict: bool = False) -> Image.Image:
    """The image as a person sees it, in mode RGB; an RGB image that stands upright comes back unchanged.

    Orientation tags are applied, transparency is laid over white, 16-bit grey is reduced to 8, and of an animation the
    first frame is taken. Sizes must be read after this step: it can swap width and height.

    Args:
        image: PIL image, or uint8 array or tensor [H, W], [H, W, 3] or [3, H, W].
        strict: refuse a truncated file instead of leaving its missing part grey (or black).

    Raises:
        ValueError: no image at all.
        OSError: the file behind the image cannot be decoded.
    """
    if not isinstance(image, Image.Image):
        image = _from_array(image)
    _decode(image, strict)
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _decode(image: Image.Image, strict: bool) -> None:
    if getattr(image, "is_animated", False) and image.tell() != 0:
        image.seek(0)
    with _DECODING:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = not strict
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow parses EXIF lazily and fails in many ways; damaged tags do not make a picture unreadable
        return image


def _from_wide(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits; beyond 255 the range is taken to be 16 bits."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode.startswith("I;16") or (values.size and values.max() > 255):
        values /= 257
    return Image.fromarray(np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8)).convert("RGB")


def _from_array(array: Any) -> Image.Image:
    pixels = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(
            f"got {type(array).__name__} of shape {list(pixels.shape)} and type {pixels.dtype} as an image; "
            "give a PIL image, or uint8 pixels [H, W, 3]"
        )
    return Image.fromarray(pixels)
