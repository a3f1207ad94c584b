"""Prompts of data rows as the learner takes them: token ids, and images and videos that are opened when they are used.

They are rendered exactly as rollouts render them, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from recipes.pairs import GivenPrompt
from recipes.samples import Rejected
from recipes.tasks import Row
from rl.disk_cache import content_key
from rl.media_content import media_hash

if TYPE_CHECKING:
    from rl.prompts import PromptMaker
    from rollouts.modes import Mode


class EncodedPrompt(NamedTuple):
    """A prompt as token ids."""

    ids: tuple[int, ...]
    """The mode's prefill included, blocks of images and videos in place."""
    load_inputs: Callable[[], Mapping[str, Any]] | None
    """Makes the model's further arguments for the images and videos; None = there are none."""
    media_key: str
    """A hash of the contents of the images and videos, and of how videos are read; empty = there are none."""


def encode_prompt(maker: PromptMaker, prompt: GivenPrompt, mode: Mode, *, index: int, place: str) -> EncodedPrompt:
    """A row's prompt in a mode; its images and videos are opened once, to be seen to be readable.

    Args:
        maker: Renders it.
        prompt: With its media.
        mode: See `rollouts.prompts.render_prompt`.
        index: Of the row, unlike that of any other row of the same maker.
        place: Where the row stands, for errors.

    Raises:
        Rejected: Its images or videos are missing, unreadable, or not such as the model's processor takes.
        ValueError: The model is a language model and the prompt has media, or a prompt of text cannot be rendered.
    """
    if prompt.problem is not None:
        raise prompt.problem
    row = Row(index=index, messages=prompt.messages, images=prompt.images, videos=prompt.videos, columns={})
    if not (row.images or row.videos):
        return EncodedPrompt(maker.prompt(row, mode).ids, None, "")
    if maker.processor is maker.tokenizer:
        raise ValueError(
            f"{place} has images or videos, but the model is a language model: use a vision-language model, or leave "
            "such rows out"
        )
    return EncodedPrompt(_rendered(maker, row, mode, place), maker.inputs(row, mode), _media_key(maker, row))


def _rendered(maker: PromptMaker, row: Row, mode: Mode, place: str) -> tuple[int, ...]:
    from rl.prompts import UnreadableMediaError

    try:
        return maker.prompt(row, mode).ids
    except UnreadableMediaError as error:
        raise Rejected("media_unreadable", f"{place}: {error.__cause__}") from None
    except ValueError as error:
        raise Rejected("malformed", f"{place}: {error.__cause__ or error}") from None


def _media_key(maker: PromptMaker, row: Row) -> str:
    video = maker.video.model_dump(mode="json") if row.videos else None
    return content_key(list(map(media_hash, row.images)), list(map(media_hash, row.videos)), video)
