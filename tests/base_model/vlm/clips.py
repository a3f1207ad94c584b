"""Clips for tests: every frame shows its own number as black and white blocks, which survive lossy coding."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from base_model.vlm.video import Video, VideoError, VideoSettings, read_video

BITS = 10


def numbered(number: int, size: tuple[int, int] = (80, 48)) -> Image.Image:
    """A frame whose upper half spells the number in 10 blocks, the lowest bit on the left; the lower half is grey."""
    width, height = size
    pixels = np.full((height, width), 128, dtype=np.uint8)
    for bit in range(BITS):
        columns = slice(bit * width // BITS, (bit + 1) * width // BITS)
        pixels[: height // 2, columns] = 255 * (number >> bit & 1)
    return Image.fromarray(pixels).convert("RGB")


def number_of(image: Image.Image) -> int:
    """The number that a frame shows."""
    pixels = np.asarray(image.convert("L"), dtype=float)
    height, width = pixels.shape
    row = pixels[height // 8 : 3 * height // 8]
    middles = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(int(row[:, x - 1 : x + 2].mean() > 128) << bit for bit, x in enumerate(middles))


def write_animation(path: Path, durations_ms: Sequence[int]) -> Path:
    """An animated GIF, WebP or PNG, by the suffix."""
    frames = [numbered(index) for index in range(len(durations_ms))]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(durations_ms), loop=0, **options)
    return path


def write_clip(
    path: Path,
    codec: str = "mpeg4",
    *,
    frames: int = 30,
    fps: int = 10,
    stamps_ms: Sequence[int] | None = None,
    rotation: int = 0,
    b_frames: int | None = None,
    container_format: str | None = None,
) -> Path:
    """A video file by PyAV.

    Args:
        stamps_ms: presentation time of each frame in milliseconds; by default frame / fps.
        rotation: display rotation in degrees counter-clockwise.
        b_frames: frames in a row that refer to later ones; by default as many as the codec chooses.
    """
    import av

    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = 80, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 8
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        tick = Fraction(1, 1000) if stamps_ms is not None else Fraction(1, fps)
        stream.codec_context.time_base = tick
        for index in range(frames):
            frame = av.VideoFrame.from_image(numbered(index))
            frame.pts, frame.time_base = stamps_ms[index] if stamps_ms is not None else index, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_or_sentence(content: bytes) -> Video | str:
    """The clip at 10 frames per second, or the one line in which it was refused."""
    try:
        return read_video(content, VideoSettings(fps=10))
    except VideoError as error:
        sentence = str(error)
    assert len(sentence.splitlines()) == 1
    return sentence
