"""Animated images (GIF, WebP, APNG) as clips, through Pillow.

FFmpeg decodes no animated WebP, and Pillow applies the disposal rules of all three. A frame without a usable duration
is shown for a tenth of a second, as browsers do.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from PIL import Image

from base_model.vlm.frame_choice import MAX_PIXELS, Losses, TimedFrame, VideoError

MAGIC = (b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF")
MAX_DECODED = 2**32
"""Pixels that are decoded in one pass, over all frames: a small file can hold many large ones."""
SHORTEST_MS, DEFAULT_MS = 11, 100
"""Browsers show a frame that asks for 10 ms or less for 100 ms."""


def is_animated_format(head: bytes) -> bool:
    """Whether a file that starts with these (at least 12) bytes is a GIF, PNG or WebP."""
    return head.startswith(MAGIC[:3]) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


class AnimatedImage:
    """An open animated image; a FrameSource, to be used in a `with` statement. A still image is a clip of one frame.

    Args:
        source: a path, or the file's content.
        name: what to call it in messages.

    Raises:
        VideoError: not an image, or not one frame of it can be decoded.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self.losses = Losses()
        self.keyframes: Sequence[float] = ()
        self.tick = 0.0
        try:
            self._image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except Exception as error:  # the content decides what Pillow's readers raise
            raise VideoError(f"{name} is not an image that can be read ({_reason(error)}): leave it out.") from None
        if self._image.width * self._image.height > MAX_PIXELS:
            self._image.close()
            raise VideoError(
                f"{name} has frames of {self._image.width} x {self._image.height} pixels, and {MAX_PIXELS} pixels is "
                "the limit: scale it down first."
            )
        self._times: list[float] = []
        self.duration = self._scan()
        self.frame_count = len(self._times)
        if not self.frame_count:
            self._image.close()
            raise VideoError(f"{name} holds no frame that can be decoded ({self.losses.ended_early}): leave it out.")

    def __enter__(self) -> AnimatedImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._image.close()

    def frames(self, start: float | None = None) -> Iterator[TimedFrame]:
        """See FrameSource; decoding always starts from the first frame."""
        for index, time in enumerate(self._times):
            try:
                self._image.seek(index)
                picture = on_white(self._image)
            except Exception as error:  # as in _scan
                self.losses.ended_early = _reason(error)
                return
            yield TimedFrame(time=time, picture=lambda picture=picture: picture)  # type: ignore[misc]

    def _scan(self) -> float:
        """Decodes every frame once for its duration, which Pillow knows only then; returns the sum in seconds."""
        total_ms = 0.0
        limit = MAX_DECODED // (self._image.width * self._image.height)
        for index in range(limit):
            try:
                self._image.seek(index)
                self._image.load()
            except EOFError:
                break
            except Exception as error:  # damaged files raise struct.error, KeyError and others from within Pillow
                self.losses.ended_early = _reason(error)
                break
            self._times.append(total_ms / 1000)
            stated = self._image.info.get("duration")
            total_ms += stated if isinstance(stated, int | float) and stated >= SHORTEST_MS else DEFAULT_MS
        else:
            self.losses.ended_early = f"only the first {limit} frames of such a size are read"
        return total_ms / 1000


def on_white(image: Image.Image) -> Image.Image:
    """A copy in RGB; what is transparent becomes white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    return page.convert("RGB")


def _reason(error: BaseException) -> str:
    """The cause in few words; a file object's representation, which Pillow adds, says nothing."""
    text = str(error).partition(" <_io.")[0].splitlines()
    return text[0][:200] if text else type(error).__name__
