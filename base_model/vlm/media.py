"""Images and videos of a data row, opened: whatever form the row has them in, what the processor takes comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from base_model.video_settings import VideoSettings
from base_model.vlm.frame_plan import plan_frames
from base_model.vlm.images import load_image, to_rgb
from base_model.vlm.processing import PackedVideo
from base_model.vlm.video import read_video


def open_image(handle: Any) -> Image.Image:
    """An image in mode RGB.

    Args:
        handle: path, content of a file, PIL image, or uint8 pixels.

    Raises:
        ValueError: it cannot be read.
    """
    return load_image(handle) if isinstance(handle, str | Path | bytes) else to_rgb(handle)


def open_video(handle: Any, settings: VideoSettings | None = None) -> PackedVideo:
    """A video in packages of frames.

    Args:
        handle: path, content of a file, or a mapping of `frames` (images in any form that `open_image` takes) and
            `times` (seconds, ascending).
        settings: rate, package size and limits; by default those of the report.

    Raises:
        ValueError: it cannot be read, or frames and times do not match.
    """
    settings = settings or VideoSettings()
    if isinstance(handle, Mapping):
        return _from_frames(handle, settings)
    video = read_video(handle, settings)
    return PackedVideo(video.packages, video.times)


def _from_frames(clip: Mapping[str, Any], settings: VideoSettings) -> PackedVideo:
    """Frames that are opened already: those nearest to the planned moments, each at most once."""
    frames, times = list(clip.get("frames") or ()), [float(time) for time in clip.get("times") or ()]
    ascending = all(a < b for a, b in pairwise(times))
    if not frames or len(frames) != len(times) or not ascending or not all(0 <= t < math.inf for t in times):
        raise ValueError(
            f"a video has {len(frames)} frames and {len(times)} times; give as many of each, the times in seconds and "
            "ascending from 0 on"
        )
    step = times[-1] / (len(times) - 1) if len(times) > 1 else 1.0
    plan = plan_frames(times[-1] + step, len(frames), settings)
    chosen = sorted({_nearest(times, target) for target in plan.targets})
    groups = [chosen[start : start + plan.package] for start in range(0, len(chosen), plan.package)]
    return PackedVideo(
        [[open_image(frames[index]) for index in group] for group in groups],
        [[times[index] for index in group] for group in groups],
    )


def _nearest(times: Sequence[float], target: float) -> int:
    """The frame shown at a moment: the last one that began by then."""
    return max((index for index, time in enumerate(times) if time <= target + 1e-9), default=0)
