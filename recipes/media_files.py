"""Images and clips of data rows as files: what stands in memory is written once, losslessly, under its content's hash.

A run keeps what it was shown this way, and every later stage reads the very same pixels from a path that any program
can open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from recipes.tasks import Row
from rl.files import atomic_file, atomic_write_bytes

TICKS_PER_SECOND = 1000
"""Times of a clip's frames are kept to the millisecond."""


def image_file(handle: Any, folder: Path) -> Path:
    """The file of an image; written into `folder` unless it is one already.

    Args:
        handle: A path, the content of an image file, or a PIL image.
        folder: Made when something is written.

    Raises:
        ValueError: It is no image that can be read.
        WriteError: The operating system refused.
    """
    from base_model.vlm.media import open_image

    if isinstance(handle, str | Path):
        open_image(handle)
        return Path(handle).absolute()
    content = BytesIO()
    open_image(handle).save(content, format="PNG", compress_level=1)
    return _kept(content.getvalue(), folder, ".png")


def video_file(handle: Any, folder: Path) -> Path:
    """The file of a video; written into `folder` unless it is one already.

    Args:
        handle: A path, the content of a video file, or a mapping of `frames` and `times` (seconds), which becomes a
            Matroska file of FFV1, a lossless codec.
        folder: Made when something is written.

    Raises:
        ValueError: It is no video that can be read.
        WriteError: The operating system refused.
    """
    from base_model.vlm.media import open_image, open_video

    open_video(handle)
    if isinstance(handle, str | Path):
        return Path(handle).absolute()
    if isinstance(handle, bytes):
        return _kept(handle, folder, ".video")
    frames, times = [open_image(frame) for frame in handle["frames"]], [float(time) for time in handle["times"]]
    name = hashlib.sha256(b"\0".join([repr((f.size, t)).encode() + f.tobytes() for f, t in _zip(frames, times)]))
    path = folder / f"{name.hexdigest()[:32]}.mkv"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            _write_clip(temporary, frames, times)
    return path.absolute()


def media_files(row: Row, folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of all images and of all videos of a row; raises as above."""
    return [image_file(image, folder) for image in row.images], [video_file(video, folder) for video in row.videos]


def _kept(content: bytes, folder: Path, ending: str) -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}{ending}"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, content)
    return path.absolute()


def _zip(frames: Sequence[Any], times: Sequence[float]) -> list[tuple[Any, float]]:
    return list(zip(frames, times, strict=True))


def _write_clip(path: Path, frames: Sequence[Any], times: Sequence[float]) -> None:
    """Frames at their times; those of another size than the first are scaled to it, since a stream has one size."""
    from fractions import Fraction

    import av

    size = frames[0].size
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(1 / step).limit_denominator(TICKS_PER_SECOND))
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        for image, time in _zip(frames, times):
            frame = av.VideoFrame.from_image(image.resize(size) if image.size != size else image).reformat(
                format="bgr0"
            )
            frame.pts, frame.time_base = round(time * TICKS_PER_SECOND), Fraction(1, TICKS_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
