"""Small pictures of images and videos for pages that stand alone."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from base_model.video_settings import VideoSettings

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 200
"""Longest side of an image in pixels, and height of a strip of frames at most."""
FRAMES = 4
"""Frames of a video that are shown, from its first to its last one."""
_HEAD = "data:image/jpeg;base64,"


def image_thumbnail(handle: Any) -> str:
    """An image as a data URI.

    Args:
        handle: See `base_model.vlm.media.open_image`.

    Raises:
        ValueError: it cannot be read.
    """
    from base_model.vlm.media import open_image

    return _uri(_small(open_image(handle)))


def video_thumbnail(handle: Any, settings: VideoSettings | None = None) -> str:
    """Frames of a video side by side, as a data URI.

    Args:
        handle: See `base_model.vlm.media.open_video`.
        settings: How it is read.

    Raises:
        ValueError: it cannot be read.
    """
    from PIL import Image

    from base_model.vlm.media import open_video

    frames = [frame for package in open_video(handle, settings).packages for frame in package]
    count = min(FRAMES, len(frames))
    small = [_small(frames[round(at * (len(frames) - 1) / max(1, count - 1))]) for at in range(count)]
    strip = Image.new("RGB", (sum(frame.width for frame in small), max(frame.height for frame in small)))
    left = 0
    for frame in small:
        strip.paste(frame, (left, 0))
        left += frame.width
    return _uri(strip)


def is_thumbnail(value: Any) -> bool:
    """Whether a value read from a file is such a data URI."""
    return isinstance(value, str) and value.startswith(_HEAD)


def _small(image: Image) -> Image:
    copy = image.copy()
    copy.thumbnail((SIDE, SIDE))
    return copy


def _uri(image: Image) -> str:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return _HEAD + base64.b64encode(data.getvalue()).decode()
