"""The moments of a video that a claim is about, and the frames that show them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from base_model.vlm.processing import PackedVideo

_NUMBER = r"(\d{1,5}(?:\.\d{1,3})?)"
_UNIT = r" ?(?:s|secs?|seconds?)\b"
_SPAN = re.compile(rf"\b(?:from|between) {_NUMBER}(?:{_UNIT})? (?:to|and|until) {_NUMBER}{_UNIT}", re.IGNORECASE)
_MOMENT = re.compile(rf"\b(?:at|after|before|around|by|until) (?:about )?{_NUMBER}{_UNIT}", re.IGNORECASE)


class Span(NamedTuple):
    """Seconds from the start of a video."""

    first: float
    last: float


def claim_span(text: str) -> Span | None:
    """From the first to the last moment that a claim or question names; None where it names none.

    Example::

        claim_span("At 1.5 seconds the red circle turns blue.")  # Span(1.5, 1.5)
        claim_span("The circle is red for 2 seconds.")  # None: how long, and not when
    """
    found = [float(number) for match in _SPAN.finditer(text) for number in match.groups()]
    found += [float(match[1]) for match in _MOMENT.finditer(text)]
    return Span(min(found), max(found)) if found else None


def frames_around(video: PackedVideo, span: Span, window: float) -> PackedVideo:
    """The frames of a video within `window` seconds of a span, in their packages.

    The nearest frame before the span and the nearest one after it are always among them, so that a change shows
    however far apart the frames are; of a span outside the video, the frame at that end.

    Example::

        video = PackedVideo([[a, b], [c, d]], [[0.0, 1.0], [2.0, 3.0]])
        frames_around(video, Span(1.0, 1.0), 0.5)  # PackedVideo([[a, b], [c]], [[0.0, 1.0], [2.0]])
    """
    times = [time for package in video.times for time in package]
    before = max((time for time in times if time < span.first), default=times[0])
    after = min((time for time in times if time > span.last), default=times[-1])
    first, last = min(before, span.first - window), max(after, span.last + window)
    return _between(video, first, last)


def _between(video: PackedVideo, first: float, last: float) -> PackedVideo:
    packages: list[list[object]] = []
    times: list[Sequence[float]] = []
    for frames, moments in zip(video.packages, video.times, strict=True):
        kept = [at for at, moment in enumerate(moments) if first <= moment <= last]
        if kept:
            packages.append([frames[at] for at in kept])
            times.append([moments[at] for at in kept])
    return PackedVideo(packages, times)
