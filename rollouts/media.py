"""Images and videos on their way to vLLM: packed once by the client for all requests that share them, unpacked once by
the worker.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollouts.records import PromptMedia
from rollouts.wire import WireItem, WireMedia


class MediaPacker:
    """Packs the media of one call; a group's shared object, and an image that several prompts share, only once."""

    def __init__(self) -> None:
        self._media: dict[int, WireMedia] = {}
        self._items: dict[int, WireItem] = {}
        self._contents: dict[str, WireItem] = {}
        self._alive: list[Any] = []  # while they live, their numbers are no others'

    def pack(self, media: PromptMedia) -> WireMedia:
        """The media as they are sent.

        Raises:
            ValueError: An image or video cannot be sent to another process.
        """
        if id(media) not in self._media:
            images = tuple(self._item("image", image) for image in media.images)
            videos = tuple(self._item("video", video) for video in media.videos)
            self._media[id(media)] = WireMedia(media.text, images, videos)
            self._alive.append(media)
        return self._media[id(media)]

    def _item(self, kind: str, item: Any) -> WireItem:
        if id(item) not in self._items:
            packed = _packed(kind, item)
            self._items[id(item)] = self._contents.setdefault(packed.uuid, packed)
            self._alive.append(item)
        return self._items[id(item)]


def _packed(kind: str, item: Any) -> WireItem:
    try:
        content = pickle.dumps(_plain(item) if kind == "video" else item, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # a lazily read file can be damaged in as many ways as there are decoders
        raise ValueError(
            f"{kind} {item!r:.80} cannot be sent to the engine ({error}); open it with base_model.vlm.media first"
        ) from error
    return WireItem(f"{kind}-{hashlib.sha256(content).hexdigest()}", content)


def _plain(video: Any) -> Any:
    """A pair of packages and times as lists, without a class that the worker would have to import."""
    if not _is_packed(video):
        return video
    packages, times = video
    return [list(package) for package in packages], [[float(time) for time in package] for package in times]


def _is_packed(video: Any) -> bool:
    """Whether a video is a pair of packages and times (and not frames, or frames with vLLM's metadata)."""
    return isinstance(video, tuple) and len(video) == 2 and not isinstance(video[1], Mapping)


def vllm_prompt(media: WireMedia, packed_videos: bool) -> dict[str, Any]:
    """The prompt as vLLM takes it: text, media, and their names in its caches.

    Args:
        media: As sent by the client, which this process trusts: it is its parent.
        packed_videos: Whether the model takes packages of frames with times; others get the frames in one array.
    """
    images = [pickle.loads(item.content) for item in media.images]
    videos = [pickle.loads(item.content) for item in media.videos]
    if not packed_videos:
        videos = [frames_with_metadata(*video) if _is_packed(video) else video for video in videos]
    given = {"image": (images, media.images), "video": (videos, media.videos)}
    return {
        "prompt": media.text,
        "multi_modal_data": {name: data for name, (data, _) in given.items() if data},
        "multi_modal_uuids": {name: [item.uuid for item in items] for name, (data, items) in given.items() if data},
    }


def frames_with_metadata(
    packages: Sequence[Sequence[Any]], times: Sequence[Sequence[float]]
) -> tuple[np.ndarray, dict[str, Any]]:
    """A packed video as models without packages take it: pixels [T, H, W, 3] of all frames, and when they were shown.

    Raises:
        ValueError: The frames differ in size.
    """
    frames = [np.asarray(frame) for package in packages for frame in package]
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"a video has frames of sizes {sizes}, and this model takes one size; resize them")
    seconds = [time for package in times for time in package]
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
    metadata = {
        "fps": 1 / step if step else 1.0,
        "duration": seconds[-1] + (step or 1.0),
        "total_num_frames": len(frames),
        "frames_indices": list(range(len(frames))),
        "video_backend": "tandem",
        "do_sample_frames": False,
    }
    return np.stack(frames), metadata
