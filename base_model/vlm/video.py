"""The video front end: from a file to packages of frames with their times.

Each package becomes the tokens of one image in the resampler, whose temporal ids are the times in ticks of 0.1 s
(MiniCPM-V 4.5, arXiv 2509.18154, s2.1). What a clip lost on the way is kept beside the frames.

    video = read_video("clip.mp4")                                   # as in evaluation
    video = read_video("clip.mp4", VideoSettings().drawn(seed, 17))  # training sample 17: random rate and package size
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from base_model.video_settings import VideoSettings
from base_model.vlm.animated_image import AnimatedImage, is_animated_format
from base_model.vlm.frame_choice import Losses, TimedFrame, VideoError, choose_frames
from base_model.vlm.frame_plan import fitting_size, plan_frames
from base_model.vlm.video_file import VideoFile

__all__ = ["Losses", "Video", "VideoError", "VideoSettings", "read_video"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A clip as the processor takes it.

    Example:
        12 frames of a 6 s clip in packages of 6: ``packages`` is 2 lists of 6 images, ``times[0]`` is
        [0.2, 0.7, 1.2, 1.7, 2.2, 2.7]. The processor takes ``PackedVideo(video.packages, video.times)``.
    """

    packages: list[list[Image.Image]]
    """Upright RGB frames; every package but the last has `package` of them. Sizes may differ within a clip."""
    times: list[list[float]]
    """Seconds since the clip's start, one per frame, ascending."""
    package: int
    duration: float
    """Seconds; of what could be read."""
    frame_count: int
    """Frames of the clip, chosen or not."""
    losses: Losses


def read_video(source: str | Path | bytes, settings: VideoSettings | None = None) -> Video:
    """Reads a clip, plans its frames and packs them.

    A damaged clip gives the frames that could be read, with the facts in `losses`. Nothing is random here.

    Args:
        source: a path, or the content of a file.
        settings: rate, package size and limits; by default those of the report.

    Raises:
        VideoError: one sentence, where not a single frame can be had.
        ImportError: PyAV is needed and not installed.
    """
    settings = settings or VideoSettings()
    with _open(source) as clip:
        plan = plan_frames(clip.duration, clip.frame_count, settings)
        frames = []
        for frame in choose_frames(clip, plan.targets):
            image = _converted(frame, len(plan.targets), settings.max_bytes, clip.losses)
            if image is not None:
                frames.append((frame.time, image))
        if not frames:
            raise VideoError(f"{_name(source)} has no frame that can be decoded{_why(clip.losses)}: leave it out.")
        groups = [frames[start : start + plan.package] for start in range(0, len(frames), plan.package)]
        return Video(
            packages=[[image for _, image in group] for group in groups],
            times=[[time for time, _ in group] for group in groups],
            package=plan.package,
            duration=clip.duration,
            frame_count=clip.frame_count,
            losses=clip.losses,
        )


def _open(source: str | Path | bytes) -> VideoFile | AnimatedImage:
    name = _name(source)
    if isinstance(source, bytes):
        content: Path | bytes = source
        head = source[:12]
    else:
        content = Path(os.path.abspath(source))  # an absolute path is never taken for a URL
        head = _head(content, name)
    if not head:
        raise VideoError(f"{name} is empty: leave it out.")
    return AnimatedImage(content, name) if is_animated_format(head) else VideoFile(content, name)


def _head(path: Path, name: str) -> bytes:
    if path.is_dir():
        raise VideoError(f"{name} is a directory, and a video file is needed.")
    if path.exists() and not path.is_file():
        raise VideoError(f"{name} is not a regular file, and a video file is needed.")  # a pipe would never end
    try:
        with path.open("rb") as file:
            return file.read(12)
    except FileNotFoundError:
        raise VideoError(f"{name}: there is no such file.") from None
    except (OSError, ValueError) as error:
        raise VideoError(f"{name} cannot be opened ({getattr(error, 'strerror', None) or error}).") from None


def _converted(frame: TimedFrame, frames: int, max_bytes: int, losses: Losses) -> Image.Image | None:
    """The frame in RGB at a size at which so many of them fit; None if it cannot be converted."""
    try:
        image = frame.picture()
    except VideoError:
        losses.corrupt_frames += 1
        losses.missing_frames += 1
        return None
    size = fitting_size(*image.size, frames, max_bytes)
    if size == image.size:
        return image
    losses.scaled_from = losses.scaled_from or image.size
    return image.resize(size, Image.Resampling.BICUBIC)


def _name(source: str | Path | bytes) -> str:
    """What to call a source in a message; a name with line breaks would tear the sentence apart."""
    if isinstance(source, bytes):
        return f"the video of {len(source)} bytes"
    text = str(source)
    return text if text.isprintable() else repr(text)


def _why(losses: Losses) -> str:
    sentence = losses.sentence()
    return f" ({sentence})" if sentence else ""
