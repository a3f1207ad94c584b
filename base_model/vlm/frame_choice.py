"""Chooses frames from a source that is read in order, holding two frames at a time however long the clip is.

The frame of a moment is the one that is on the screen then: the last whose time is not later. For a constant frame rate
this is the frame int(i * N / n + N / (2 n)) of the released script (arXiv 2509.18154); for a variable one it is still
what a viewer would see.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

MAX_PIXELS = 2**26
"""Pixels of one frame that are decoded; 8K has half as many."""
SEEK_FRAMES = 16
"""Frames that a jump to a keyframe must skip to be worth it."""


class VideoError(ValueError):
    """A clip that cannot be used, in one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedFrame:
    """A decoded frame, not yet converted to RGB."""

    time: float
    """Seconds since the start of the clip."""
    picture: Callable[[], Image.Image]
    """Converts it: upright RGB with square pixels. Raises VideoError."""


@dataclass(kw_only=True, slots=True)
class Losses:
    """What a clip lost on the way; all zero for a sound one."""

    unreadable_packets: int = 0
    """Compressed frames that could not be decoded."""
    corrupt_frames: int = 0
    """Frames that were decoded with visible damage, and passed over."""
    repaired_times: int = 0
    """Frames whose time stamp was missing or not later than the one before; they got one by the frame rate."""
    missing_frames: int = 0
    """Planned frames that were not there, or were the frame already taken."""
    ended_early: str = ""
    """Why reading stopped before the end; empty = it did not."""
    scaled_from: tuple[int, int] | None = None
    """Width and height of the first frame that was scaled down to fit the memory."""

    def sentence(self) -> str:
        """Everything in one line; empty if nothing was lost."""
        parts = [
            (self.unreadable_packets, f"{self.unreadable_packets} packets could not be decoded"),
            (self.corrupt_frames, f"{self.corrupt_frames} damaged frames were passed over"),
            (
                self.repaired_times,
                f"{self.repaired_times} frames had no usable time stamp and got one by the frame rate",
            ),
            (self.missing_frames, f"{self.missing_frames} planned frames were not there"),
            (self.ended_early, f"reading ended early ({self.ended_early})"),
            (
                self.scaled_from,
                "frames of {} x {} were scaled down to fit the memory".format(*self.scaled_from or (0, 0)),
            ),
        ]
        return "; ".join(text for present, text in parts if present)


class FrameSource(Protocol):
    """An open clip."""

    duration: float
    """Seconds from the first frame to the end of the last."""
    frame_count: int
    tick: float
    """Resolution of its time stamps in seconds: they are rounded to multiples of it."""
    keyframes: Sequence[float]
    """Times, ascending, that decoding can start from; empty = only from the start."""
    losses: Losses

    def frames(self, start: float | None = None) -> Iterator[TimedFrame]:
        """Frames in ascending time, from a keyframe or (None) from the start; ends where the clip cannot be read any
        further."""
        ...


def choose_frames(source: FrameSource, targets: Sequence[float]) -> Iterator[TimedFrame]:
    """Yields the frame shown at each target, each frame at most once, and counts the missing ones in
    `source.losses`.

    Args:
        source: the clip.
        targets: seconds since its start, ascending.
    """
    cursor = _Cursor(source)
    taken = -math.inf
    for target in targets:
        frame = cursor.shown_at(target)
        if frame is None or frame.time <= taken:
            source.losses.missing_frames += 1
            continue
        taken = frame.time
        yield frame


@dataclass(slots=True)
class _Cursor:
    """Reads a source one frame ahead, since only the next frame tells that this one is still shown."""

    source: FrameSource
    current: TimedFrame | None = None
    ahead: TimedFrame | None = None
    _frames: Iterator[TimedFrame] = field(init=False)
    _gain: float = field(init=False)
    """Seconds that a jump must skip."""
    _slack: float = field(init=False)
    """A stamp may be rounded up by half a tick, past the moment at which its frame is due. Where ticks are not much
    finer than frames nothing was rounded: in AVI and IVF a tick is one frame."""
    _may_seek: bool = True

    def __post_init__(self) -> None:
        period = self.source.duration / self.source.frame_count
        self._slack = 1e-9 + (self.source.tick / 2 if self.source.tick < period / 4 else 0.0)
        self._gain = SEEK_FRAMES * period
        self._start(None)

    def shown_at(self, target: float) -> TimedFrame | None:
        """The last frame not later than the target; targets must ascend."""
        self._jump_towards(target)
        while self.ahead is not None and self.ahead.time <= target + self._slack:
            self.current, self.ahead = self.ahead, next(self._frames, None)
        return self.current

    def _start(self, time: float | None) -> None:
        self._frames = self.source.frames(time)
        self.current, self.ahead = None, next(self._frames, None)

    def _jump_towards(self, target: float) -> None:
        index = bisect_right(self.source.keyframes, target + self._slack) - 1
        if not self._may_seek or index < 0 or self.ahead is None:
            return
        keyframe = self.source.keyframes[index]
        if keyframe < self.ahead.time + self._gain:
            return
        self._start(keyframe)
        if self.ahead is None or self.ahead.time > keyframe + self._slack:
            # The container seeks inexactly, or the keyframe is damaged: from here on, read everything.
            self._may_seek = False
            self._start(None)
