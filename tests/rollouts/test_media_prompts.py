"""Prompts with images and videos: what the trainer reads, and what the engine takes."""

import pytest

from rollouts import LongMode, ShortMode
from rollouts.prompts import render_media_prompt, render_prompt
from tests.base_model.vlm.small import picture, shared, video

PARTS = [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "What moved?"}]
MODE = ShortMode(instruction="Answer only.")


def test_blocks_are_filled_in_and_the_text_keeps_its_places():
    _, processor = shared()
    images, videos = [picture(100, 120)], [video([3, 2])]
    prompt = render_media_prompt(processor, [{"role": "user", "content": PARTS}], images, videos, MODE)
    assert prompt.media.text.endswith("<think>\n\n</think>\n\n")
    assert prompt.media.text.count("(<image>./</image>)") == prompt.media.text.count("(<video>./</video>)") == 1
    assert (prompt.media.images, prompt.media.videos) == (tuple(images), tuple(videos))
    assert set(prompt.inputs) == {"pixel_values", "tgt_sizes", "temporal_ids", "image_bound"}
    assert prompt.inputs["temporal_ids"] == [[[-1], [0, 4, 8], [12, 16]]]
    bounds = prompt.inputs["image_bound"][0].tolist()
    block = processor.tokenizer.convert_tokens_to_ids("<unk>")
    assert [set(prompt.ids[start:end]) for start, end in bounds] == [{block}] * 3


def test_the_same_text_without_media_has_the_same_ids():
    _, processor = shared()
    messages = [{"role": "user", "content": "What is 3 + 4?"}]
    prompt = render_media_prompt(processor, messages, [], [], LongMode())
    assert prompt.ids == render_prompt(processor.tokenizer, messages, LongMode())
    assert not prompt.inputs


def test_media_that_no_part_names_are_refused():
    _, processor = shared()
    with pytest.raises(ValueError, match=r"0 places .* for 1 images"):
        render_media_prompt(processor, [{"role": "user", "content": "Look."}], [picture(50, 50)], [], MODE)
