"""Checks of a run's prompts before any model is loaded: they fit the context, and their media can be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base_model.video_settings import VideoSettings

if TYPE_CHECKING:
    from recipes.tasks import Row
    from rollouts.modes import Mode

LONGEST = 64
"""Rows with the longest texts that are rendered in every mode."""
OPENED = 64
"""Rows with images or videos that are opened, spread evenly over the data."""


def check_context(model_path: Path, max_model_len: int) -> None:
    """Refuse a context that the model was not made for; vLLM would refuse it after the run has begun."""
    config = json.loads((model_path / "config.json").read_text())
    limit = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    if limit and max_model_len > limit:
        raise ValueError(
            f"engine.max_model_len is {max_model_len}, but the model {model_path.name} takes {limit} tokens: lower it"
        )


def check_prompts(
    rows: Sequence[Row],
    modes: Sequence[Mode],
    processor: Any,
    max_model_len: int,
    kind: str = "",
    video: VideoSettings | None = None,
) -> None:
    """Refuse prompts that leave no room for a response, and media that cannot be read or that the model does not take.

    Args:
        rows: the data; ``LONGEST`` rows are rendered, and ``OPENED`` rows with images or videos are opened.
        modes: modes that they are rendered in.
        processor: tokenizer or processor of the model.
        max_model_len: tokens of prompt and response together.
        kind: which rows these are, for errors.
        video: how clips are sampled and packed.

    Raises:
        ValueError: one sentence that names the row.
    """
    from rl.prompts import PromptMaker

    prompts = PromptMaker(processor, video, kept_bytes=0)
    for row in _checked(rows):
        for mode in modes:
            try:
                tokens = len(prompts.prompt(row, mode).ids)
            except ValueError as error:
                raise ValueError(f"{kind}{error}") from error
            if tokens >= max_model_len:
                raise ValueError(
                    f"{kind}row {row.index}: its prompt takes {tokens} tokens in {mode.name} mode, which leaves no "
                    f"room in engine.max_model_len {max_model_len}: raise that, or leave the row out of the data"
                )


def _checked(rows: Sequence[Row]) -> list[Row]:
    with_media = [row for row in rows if row.images or row.videos]
    without = [row for row in rows if not (row.images or row.videos)]
    longest = sorted(without, key=lambda row: sum(len(str(m["content"])) for m in row.messages))[-LONGEST:]
    step = max(1, -(-len(with_media) // OPENED))
    return [*longest, *with_media[::step]]
