"""Opens the media of a row within limits; whatever is wrong with them refuses the row and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from base_model.video_settings import VideoSettings
from recipes.row_media import MissingMedia, PathRefused, media_path
from recipes.samples.sample import Rejected

if TYPE_CHECKING:
    from PIL.Image import Image


class MediaSettings(BaseModel):
    """Which images and videos of files are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    min_side: int = Field(14, ge=1)
    """Shortest side of an image in pixels."""
    max_side: int = Field(10_000, ge=1)
    """Longest side of an image in pixels; larger files are refused before their pixels are decoded."""
    max_pixels: int = Field(50_000_000, ge=1)
    """Most pixels of an image; larger files are refused before their pixels are decoded."""
    max_aspect: float = Field(20.0, ge=1)
    """Largest ratio of the longer to the shorter side."""
    take_truncated: bool = False
    """Whether image files that end too early are taken, with their missing part grey."""
    max_images: int = Field(32, ge=1)
    """Most images and videos of one sample."""


def open_image(handle: Any, settings: MediaSettings, place: str) -> Image:
    """The image behind a path (or PIL image), RGB. Raises Rejected."""
    from PIL import Image

    from base_model.vlm.images import load_image, to_rgb

    try:
        if isinstance(handle, Image.Image):
            image = to_rgb(handle, strict=not settings.take_truncated)
        else:
            _check_size(_header_size(handle), settings, place)
            image = load_image(handle, strict=not settings.take_truncated)
    except Rejected:
        raise
    except (ValueError, OSError) as error:
        raise Rejected("media_unreadable", f"{place}: {error}.") from None
    _check_size(image.size, settings, place)
    return image


def _header_size(path: Path) -> tuple[int, int]:
    """(width, height) as the file says, without decoding it."""
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # sizes have limits of their own here
        try:
            with Image.open(path) as image:
                return image.size
        except Exception as error:  # decoders fail on damaged files in their own ways
            raise ValueError(f"{path}: the image cannot be read ({error}); repair it or leave it out") from None


def _check_size(size: tuple[int, int], settings: MediaSettings, place: str) -> None:
    short, long = sorted(size)
    if short < settings.min_side or long > settings.max_side or short * long > settings.max_pixels:
        raise Rejected(
            "image_size",
            f"{place}: the image has {size[0]} x {size[1]} pixels, outside sides of {settings.min_side} to "
            f"{settings.max_side} and {settings.max_pixels} pixels in all.",
        )
    if long > settings.max_aspect * short:
        raise Rejected(
            "image_shape",
            f"{place}: the image has {size[0]} x {size[1]} pixels, longer than {settings.max_aspect:g} : 1.",
        )


def open_video(handle: Any, settings: VideoSettings, place: str) -> Any:
    """The video behind a path (or frames with times), in packages. Raises Rejected."""
    from base_model.vlm.media import open_video as opened

    try:
        return opened(handle, settings)
    except (ValueError, OSError) as error:
        raise Rejected("media_unreadable", f"{place}: {error}") from None


def found(value: Any, folder: Path, *, outside: bool, place: str) -> Path:
    """The file that a row names. Raises Rejected."""
    value = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(value, str):
        raise Rejected("malformed", f"{place}: {str(value)[:60]!r} is not the path of a file.")
    try:
        return media_path(value, folder, outside=outside)
    except PathRefused as error:
        raise Rejected("path_refused", f"{place}: {error}.") from None
    except MissingMedia as error:
        raise Rejected("media_missing", f"{place}: {error}.") from None
