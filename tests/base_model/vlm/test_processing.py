"""Texts with places for media become token ids, blocks and patches."""

import pytest
import torch

from base_model.vlm import MiniCPMVImageProcessor, MiniCPMVProcessor, PackedVideo, add_vision_tokens
from tests.base_model.vlm.small import picture, shared, video
from tests.tiny import make_tiny_tokenizer

IMAGE, VIDEO = "(<image>./</image>)", "(<video>./</video>)"


def test_the_expanded_text_is_the_official_one() -> None:
    _, processor = shared()
    inputs = processor(f"See {IMAGE}\nand {IMAGE}.", images=[picture(100, 100), picture(300, 150)])
    block = "<unk>" * 4
    cell = f"<slice>{block}</slice>"
    columns, rows = processor.image_processor.get_sliced_grid((300, 150))
    cells = "\n".join([cell * columns] * rows)
    text = f"See <image_id>0</image_id><image>{block}</image>\nand <image_id>1</image_id><image>{block}</image>{cells}."
    assert processor.decode(inputs["input_ids"][0]) == text
    assert inputs["input_ids"][0].tolist() == processor.tokenizer.encode(text, add_special_tokens=False)
    unk = processor.tokenizer.convert_tokens_to_ids("<unk>")
    for start, end in inputs["image_bound"][0].tolist():
        assert (inputs["input_ids"][0, start:end] == unk).all()
    assert len(inputs["image_bound"][0]) == len(inputs["pixel_values"][0]) == 2 + columns * rows
    assert inputs["temporal_ids"] == [[[-1]] * (2 + columns * rows)]


def test_a_video_is_one_block_per_package_with_ticks_of_a_tenth_of_a_second() -> None:
    _, processor = shared()
    clip = PackedVideo([[picture(90, 60), picture(30, 60)], [picture(90, 60)]], [[0.0, 0.34], [1.26]])
    inputs = processor(f"{VIDEO} what?", videos=[clip])
    block = f"<image>{'<unk>' * 4}</image>"
    assert processor.decode(inputs["input_ids"][0]) == f"{block}\n{block} what?"
    assert inputs["temporal_ids"] == [[[0, 3], [13]]]
    assert len(inputs["pixel_values"][0]) == 3
    assert len(inputs["image_bound"][0]) == 2


def test_a_clip_of_six_seconds_is_128_tokens() -> None:
    """The report's example: 12 frames at 2 a second; 2D tokens would be 768, Qwen2.5-VL takes 1536."""
    tokenizer = make_tiny_tokenizer()
    add_vision_tokens(tokenizer)
    processor = MiniCPMVProcessor(MiniCPMVImageProcessor(), tokenizer)
    inputs = processor(VIDEO, videos=[video([6, 6], (448, 448), step=0.5)])
    unk = tokenizer.convert_tokens_to_ids("<unk>")
    assert (inputs["input_ids"] == unk).sum() == 128
    assert sum(view.shape[2] // 14 for view in inputs["pixel_values"][0]) == 12 * 1024
    single = processor(VIDEO, videos=[video([6], (448, 448))])
    assert (single["input_ids"] == unk).sum() == 64


def test_media_stand_in_the_order_of_the_text() -> None:
    _, processor = shared()
    inputs = processor(
        f"{VIDEO}{IMAGE}{VIDEO}", images=[picture(28, 28)], videos=[video([2], (56, 28)), video([1], (28, 56))]
    )
    assert [grid[0] > grid[1] for grid in inputs["tgt_sizes"][0].tolist()] == [False, False, False, True]
    assert inputs["temporal_ids"] == [[[0, 4], [-1], [0]]]
    assert "<image_id>0</image_id>" in processor.decode(inputs["input_ids"][0])  # only images are numbered


def test_bounds_move_with_left_padding() -> None:
    _, processor = shared()
    texts, images = [f"{IMAGE} a", "a much longer text than the other one"], [[picture(30, 30)], []]
    left, right = (processor(texts, images=images, padding_side=side) for side in ("left", "right"))
    shift = int(left["attention_mask"].shape[1] - left["attention_mask"][0].sum())
    assert torch.equal(left["image_bound"][0], right["image_bound"][0] + shift)
    assert left["image_bound"][1].shape == (0, 2)
    assert left["attention_mask"].sum(1).tolist() == right["attention_mask"].sum(1).tolist()


def test_text_alone_has_no_media_fields() -> None:
    _, processor = shared()
    assert set(processor("Hello")) == {"input_ids", "attention_mask"}


def test_messages_with_parts() -> None:
    _, processor = shared()
    image, clip = picture(50, 50), video([2])
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": image},
                {"type": "video", "video": clip},
                {"type": "text", "text": "What is it?"},
            ],
        }
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    assert text == (
        f"<|im_start|>user\n{IMAGE}\n{VIDEO}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    inputs = processor.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False, tokenize=True)
    wanted = processor(text, images=[image], videos=[clip])
    assert torch.equal(inputs["input_ids"], wanted["input_ids"])
    assert (
        processor.apply_chat_template([messages, messages], tokenize=False)
        == [processor.apply_chat_template(messages)] * 2
    )


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        (IMAGE, {}, "1 places .* for 0 images"),
        ("none", {"images": [picture(9, 9)]}, "0 places .* for 1 images"),
        ([IMAGE], {"images": [picture(9, 9)]}, "not a list for each"),
        (VIDEO, {"videos": [[picture(9, 9)]]}, "as a video; give PackedVideo"),
        (VIDEO, {"videos": [video([7])]}, "of 1 to 6 frames"),
        (VIDEO, {"videos": [PackedVideo([[picture(9, 9)]], [[0.0, 1.0]])]}, "a time for every frame"),
        (VIDEO, {"videos": [PackedVideo([], [])]}, "at least one package"),
        (VIDEO, {"videos": [PackedVideo([[picture(9, 9)]], [[-1.0]])]}, "negative or not finite"),
        ("a", {"truncation": True}, "shorten the text"),
        ("a", {"return_tensors": "np"}, "torch tensors"),
        ("a", {"max_lenght": 3}, "unknown options max_lenght"),
        ([], {}, "got no text"),
    ],
)
def test_what_does_not_fit_is_refused(text: object, media: dict, message: str) -> None:
    _, processor = shared()
    with pytest.raises(ValueError, match=message):
        processor(text, **media)


def test_a_tokenizer_without_the_special_tokens_is_refused() -> None:
    tokenizer = make_tiny_tokenizer()
    with pytest.raises(ValueError, match="no <unk>, <image>"):
        MiniCPMVProcessor(MiniCPMVImageProcessor(), tokenizer)
    assert add_vision_tokens(tokenizer) == 7
    assert add_vision_tokens(tokenizer) == 0
    MiniCPMVProcessor(MiniCPMVImageProcessor(), tokenizer)
