"""What callers of vLLM may pass as image or video, brought into the form that the processor takes.

    {"image": image or [image, ...]}            PIL images or uint8 pixels [H, W, 3]
    {"video": video or [video, ...]}            PackedVideo(packages, times), or the plain pair
    {"video": (pixels [T, H, W, 3], metadata)}  as vLLM's own video reader gives: packed by the report's rule
    {"video": [image, ...]}                     frames without times: each is a package of its own

Sizes count after `to_rgb`, so images go through it here, before vLLM asks for their sizes or hashes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import ImageProcessorItems, MultiModalDataParser, ProcessorBatchItems

from base_model.vlm.images import to_rgb
from base_model.vlm.processing import MAX_PACKAGE, PackedVideo, check_video, ticks_of

MAX_PACKAGES = 180
"""Packages that a clip of many frames is packed into (arXiv 2509.18154, section 2.2)."""


class RgbImages(ImageProcessorItems):
    """Images in mode RGB; the hash is of the pixels alone, which is all that the model sees."""

    def get_item_for_hash(self, index: int) -> Any:
        """The pixels."""
        image = self.get(index)
        return None if image is None else np.asarray(image)


class PackedVideos(ProcessorBatchItems[Any]):
    """Videos in packages. The hash covers frames, packages and times: the same frames at other times differ."""

    def __init__(self, videos: Sequence[PackedVideo | None]) -> None:
        super().__init__(videos, "video")

    def get_item_for_hash(self, index: int) -> Any:
        """The pixels of each package's frames, and their times in ticks."""
        video = self.get(index)
        if video is None:
            return None
        return {
            "frames": [[np.asarray(frame) for frame in package] for package in video.packages],
            "ticks": ticks_of(video),
        }


class MediaParser(MultiModalDataParser):
    """Brings media into the form of `RgbImages` and `PackedVideos`; what it has brought there, it leaves alone.

    None stands for an item that is in vLLM's cache already and was given by its identifier alone.
    """

    def _parse_image_data(self, data: Any) -> RgbImages | None:
        if data is None:
            return None
        items = list(data) if _is_several_images(data) else [data]
        return RgbImages([None if item is None else to_rgb(_bare(item)) for item in items])

    def _parse_video_data(self, data: Any) -> PackedVideos | None:
        if data is None:
            return None
        items = data if _is_several_videos(data) else [data]
        return PackedVideos([None if item is None else packed(_bare(item)) for item in items])


def packed(video: Any) -> PackedVideo:
    """A video in any of the accepted forms as packages of RGB frames.

    Raises:
        ValueError: It is in none of them.
    """
    if isinstance(video, tuple) and len(video) == 2 and isinstance(video[1], Mapping):
        return _from_reader(_bare(video[0]), video[1])
    if isinstance(video, np.ndarray | Tensor) or (isinstance(video, list) and all(map(_is_picture, video))):
        frames = [to_rgb(frame) for frame in video]
        return check_video(PackedVideo([[frame] for frame in frames], [[0.0]] * len(frames)))
    packages, times = check_video(video)
    return PackedVideo([[to_rgb(frame) for frame in package] for package in packages], times)


def _from_reader(pixels: Any, metadata: Mapping[str, Any]) -> PackedVideo:
    """Frames [T, H, W, 3] that vLLM's reader chose, packed as many as needed for 180 packages."""
    frames = [to_rgb(frame) for frame in pixels]
    rate = metadata.get("fps") or 1.0
    indices = metadata.get("frames_indices")
    indices = range(len(frames)) if indices is None or len(indices) != len(frames) else indices
    times = [float(index) / rate for index in indices]
    size = min(MAX_PACKAGE, -(-len(frames) // MAX_PACKAGES) or 1)
    starts = range(0, len(frames), size)
    return check_video(PackedVideo([frames[at : at + size] for at in starts], [times[at : at + size] for at in starts]))


def _bare(item: Any) -> Any:
    """The medium without the file content that vLLM's reader keeps beside it."""
    return item.media if isinstance(item, MediaWithBytes) else item


def _is_picture(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, np.ndarray | Tensor) and item.ndim == 3)


def _is_several_images(data: Any) -> bool:
    return isinstance(data, list | tuple) or (isinstance(data, np.ndarray | Tensor) and data.ndim == 4)


def _is_several_videos(data: Any) -> bool:
    """A list is several videos, unless it is the frames of one; a tuple is always one."""
    return isinstance(data, list) and not (data and all(map(_is_picture, data)))
