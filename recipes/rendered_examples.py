"""Rendered items as training examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from base_model.video_settings import VideoSettings
from recipes.render import RenderSource
from recipes.sources import Split

if TYPE_CHECKING:
    from base_model.training_example import TrainingExample
    from recipes.render.records import Item
    from rollouts.modes import Mode

_TRIES = 64


class RenderedSource(BaseModel):
    """Rendered pages, charts, scenes and clips."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["rendered"] = "rendered"
    """rendered: made on the fly."""
    render: RenderSource = RenderSource()
    """What is rendered."""
    asked: tuple[str, ...] = ()
    """Kinds of questions taken, such as caption or transcribe; empty = all."""

    def item(self, split: Split, seed: int, number: int) -> Item:
        """The number-th item whose question is of a wanted kind."""
        for attempt in range(_TRIES):
            item = self.render.item(split, seed, number * _TRIES + attempt)
            if not self.asked or item.asked.kind in self.asked:
                return item
        raise ValueError(f"none of {_TRIES} rendered items asks for {', '.join(self.asked)}: check `asked`")


def encode_item(processor: Any, item: Item, mode: Mode, video: VideoSettings) -> TrainingExample:
    """An item as token ids, its answer as the target."""
    from base_model.training_example import TrainingExample
    from base_model.vlm.media import open_video
    from rollouts.prompts import render_media_prompt

    clips = [open_video({"frames": item.images, "times": item.times}, video)] if item.times else []
    prompt = render_media_prompt(processor, item.messages, () if clips else item.images, clips, mode)
    text = f"{item.solution}\n{mode.think_close}\n\n{item.reference}" if mode.thinks else item.reference
    tokenizer = processor.tokenizer
    response = (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    start = len(prompt.ids)
    return TrainingExample(
        ids=(*prompt.ids, *response), target_spans=((start, start + len(response)),), inputs=prompt.inputs
    )
