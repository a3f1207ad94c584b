"""Which frames of a clip are read, and how many share one package: the arithmetic alone, free of any decoder.

The resampler turns a package of 1 to 6 frames into as many tokens as one image, so the package size sets the cost of a
clip and the frame rate what is seen of it (MiniCPM-V 4.5, arXiv 2509.18154, s2.1 and its released inference script).

Deviations from the released script:
1. `package` set by hand may be up to 6 whatever `largest_package` says, and the frames then fill up to
   `package * max_packages`; so the report's 1080 frames are reached. The script caps a forced size at 3.
2. A clip with fewer frames than wanted gives each of them once; the script repeats some.
3. The native frame rate is not rounded, so a clip below half a frame per second still gives frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from base_model.video_settings import VideoSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePlan:
    """The moments to look at, and the package size.

    Example:
        A clip of 6 s at 2 fps with packages of 6: ``FramePlan(package=6, targets=(0.25, 0.75, ..., 5.75))``.
    """

    package: int
    targets: tuple[float, ...]
    """Seconds since the clip's start, ascending: the midpoints of as many equal segments."""


def plan_frames(duration: float, frame_count: int, settings: VideoSettings) -> FramePlan:
    """The plan for one clip (arXiv 2509.18154, released inference script).

    With P = max_packages and D = duration: if fps * int(D) <= P, packages of 1 and round(min(fps, native) * min(P, D))
    frames; else packages of ceil(D * fps / P) and round(D * fps) frames, or, where that is more than largest_package,
    packages of that size and P * largest_package frames.

    Args:
        duration: length of the clip in seconds, from its first frame to the end of its last; 0 for a single frame of
            unknown length.
        frame_count: frames that the clip holds.
        settings: rate, sizes and limits.
    """
    native = frame_count / duration if duration > 0 else math.inf
    rate = min(settings.fps, native)
    limit = settings.max_packages
    if settings.package is not None:
        package, wanted = settings.package, min(round(rate * duration), limit * settings.package)
    elif settings.fps * int(duration) <= limit:
        package, wanted = 1, round(rate * min(limit, duration))
    else:
        needed = math.ceil(duration * settings.fps / limit)
        package = min(needed, settings.largest_package)
        wanted = round(duration * settings.fps) if needed == package else limit * package
    count = max(1, min(wanted, frame_count))
    return FramePlan(package=package, targets=tuple((k + 0.5) * duration / count for k in range(count)))


def fitting_size(width: int, height: int, frames: int, max_bytes: int) -> tuple[int, int]:
    """The largest size of the same aspect ratio, never above the given one, at which so many RGB frames fit."""
    scale = math.sqrt(max_bytes / (3 * frames * width * height))
    if scale >= 1:
        return width, height
    return max(1, int(width * scale)), max(1, int(height * scale))
