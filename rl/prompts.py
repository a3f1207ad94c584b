"""Rows as prompts: text alone, or with images and videos that are opened when they are used.

What the model reads of media (pixels) is many times their files' size. So the trainer keeps no more of it than a fixed
amount, and makes the rest again when the learner comes to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from base_model.video_settings import VideoSettings
from rollouts.modes import Mode
from rollouts.prompts import MediaPrompt, render_media_prompt, render_text
from rollouts.records import PromptMedia

Inputs = Mapping[str, Any]
"""What a processor returns for the media of one prompt; see ``base_model.packing.PackedMedia``."""

KEPT_BYTES = 2**31
"""Pixels that are kept from the request to the update."""


class Conversation(Protocol):
    """The part of a data row that a prompt is made of."""

    @property
    def index(self) -> int:
        """Position in the dataset."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """Chat messages."""

    @property
    def images(self) -> Sequence[Any]:
        """Images in the order of the messages' parts."""

    @property
    def videos(self) -> Sequence[Any]:
        """Videos in the order of the messages' parts."""


class UnreadableMediaError(ValueError):
    """A row's images or videos cannot be read."""


class Prompt(NamedTuple):
    """A prompt as the engine takes it."""

    ids: tuple[int, ...]
    """Token ids, blocks of media included."""
    media: PromptMedia | None = None
    """Opened images and videos."""


class PromptMaker:
    """Renders rows in a mode with one tokenizer or processor."""

    def __init__(self, processor: Any, video: VideoSettings | None = None, *, kept_bytes: int = KEPT_BYTES) -> None:
        """Args:
        processor: tokenizer of a language model, or processor of a vision-language model.
        video: how clips are sampled and packed; the defaults if None.
        kept_bytes: bound of the pixels that are kept.
        """
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.video = video or VideoSettings()
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[int, str], Inputs] = OrderedDict()

    def prompt(self, row: Conversation, mode: Mode) -> Prompt:
        """The row in a mode.

        Raises:
            UnreadableMediaError: an image or video cannot be read.
            ValueError: the model takes no media, or parts and media do not match.
        """
        if not has_media(row):
            return Prompt(tuple(self.tokenizer(render_text(self.processor, row.messages, mode), **_PLAIN)["input_ids"]))
        made = self._render(row, mode)
        return Prompt(made.ids, made.media)

    def inputs(self, row: Conversation, mode: Mode) -> Callable[[], Inputs] | None:
        """A function that gives what the model reads of the row's media; None for a row without any."""
        return partial(self._inputs, row, mode) if has_media(row) else None

    def _inputs(self, row: Conversation, mode: Mode) -> Inputs:
        known = self._kept.get((row.index, mode.name))
        return self._render(row, mode).inputs if known is None else known

    def _render(self, row: Conversation, mode: Mode) -> MediaPrompt:
        if self.processor is self.tokenizer:
            raise ValueError(
                f"row {row.index} has images or videos, but the model is a language model: use a vision-language "
                "model, or rows without media"
            )
        images, videos = opened_media(row, self.video)
        try:
            made = render_media_prompt(self.processor, row.messages, images, videos, mode)
        except ValueError as error:
            raise ValueError(f"row {row.index}: {error}") from error
        self._keep((row.index, mode.name), made.inputs)
        return made

    def _keep(self, key: tuple[int, str], inputs: Inputs) -> None:
        self._kept[key] = inputs
        self._kept.move_to_end(key)
        while sum(map(_bytes, self._kept.values())) > self._kept_bytes:
            self._kept.popitem(last=False)


_PLAIN = {"add_special_tokens": False}


def has_media(row: Conversation) -> bool:
    """Whether the row has images or videos."""
    return bool(row.images or row.videos)


def opened_media(row: Conversation, video: VideoSettings) -> tuple[list[Any], list[Any]]:
    """The row's images and videos, opened.

    Raises:
        UnreadableMediaError: one of them cannot be read; the message names the row.
    """
    from base_model.vlm.media import open_image, open_video

    try:
        return [open_image(handle) for handle in row.images], [open_video(handle, video) for handle in row.videos]
    except (ValueError, OSError) as error:
        raise UnreadableMediaError(f"row {row.index}: {error}") from error


def prompt_text(row: Conversation) -> str:
    """The last message as text, with a marker where an image or video stands: what rewards and records show."""
    return content_text(row.messages[-1]["content"])


def content_text(content: Any) -> str:
    """A message's content as text; parts of type image and video become markers on lines of their own."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content)


def _bytes(value: Any) -> int:
    """Memory of the tensors in a processor's result."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0
