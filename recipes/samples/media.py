"""Opens the media of a row within limits; whatever is wrong with them refuses the row and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from base_model.video_settings import VideoSettings
from recipes.row_media import MissingMedia, PathRefused, media_handle
from recipes.samples.sample import Rejected
from recipes.sources import Split

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How a source is opened."""

    split: Split
    seed: int
    """Of the source."""
    media: MediaSettings = field(default_factory=MediaSettings)
    """Which images of files are taken."""
    video: VideoSettings = field(default_factory=VideoSettings)
    """How clips are read."""
    random_video: bool = True
    """Whether each training clip gets a frame rate and a package size of its own."""

    def clip(self, sample: int | str) -> VideoSettings:
        """How the clip of one sample is read."""
        drawn = self.random_video and self.split == "train"
        return self.video.drawn(self.seed, sample) if drawn else self.video


def open_image(handle: Any, settings: MediaSettings, place: str) -> Image:
    """The image behind a path, file content or PIL image, RGB. Raises Rejected."""
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


def _header_size(source: Path | bytes) -> tuple[int, int]:
    """(width, height) as the file says, without decoding it."""
    import warnings
    from io import BytesIO

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # sizes have limits of their own here
        try:
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
                return image.size
        except Exception as error:  # decoders fail on damaged files in their own ways
            raise ValueError(f"the image cannot be read ({error}); repair it or leave it out") from None


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


def found(value: Any, folder: Path | None, *, outside: bool, place: str) -> Any:
    """The file (or frames with times) that a row names. Raises Rejected."""
    try:
        return media_handle(value, folder, outside=outside)
    except PathRefused as error:
        raise Rejected("path_refused", f"{place}: {error}.") from None
    except MissingMedia as error:
        raise Rejected("media_missing", f"{place}: {error}.") from None
    except ValueError as error:
        raise Rejected("malformed", f"{place}: {error}.") from None
