"""Tiny random vision-language models of other families, and prompts with what their processors would return."""

from pathlib import Path
from typing import Any

import torch

from base_model.packing import TokenGroup

IMAGE, VIDEO, START, END = 190, 191, 192, 193
TEXT = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
}
PATCH = 4
TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}


def qwen_config(kind: str) -> Any:
    """The configuration of a tiny Qwen2-VL, Qwen2.5-VL or Qwen3-VL."""
    from transformers import AutoConfig

    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    vision: dict[str, Any] = {
        "depth": 2,
        "num_heads": 2,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "in_channels": 3,
    }
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    elif kind == "qwen2_5_vl":
        vision |= {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "window_size": 16}
        vision |= {"fullatt_block_indexes": [1], "tokens_per_second": 2}
    else:
        vision |= {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "num_position_embeddings": 16}
        vision |= {"deepstack_visual_indexes": [0, 1]}
    vision["initializer_range"] = 0.15
    return AutoConfig.for_model(
        kind, text_config={**TEXT, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=False, **TOKENS
    )


def save_tiny(directory: Path, config: Any) -> Path:
    """A random model of a configuration, as a checkpoint directory."""
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(directory)
    return directory


def qwen_group(grids: list[tuple[int, int, int]], lengths: list[int], seed: int, kind: str) -> TokenGroup:
    """A prompt with an image for every grid of one frame and a video for every other, and responses."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> list[int]:
        return torch.randint(3, 180, (n,), generator=generator).tolist()

    def pixels(chosen: list[tuple[int, int, int]]) -> torch.Tensor:
        return torch.randn(sum(t * h * w for t, h, w in chosen), 3 * 2 * PATCH**2, generator=generator)

    ids, types = draw(4), [0] * 4
    for frames, rows, columns in grids:
        # Qwen3-VL gives every frame of a video a block of its own.
        blocks, each = (frames, 1) if kind == "qwen3_vl" else (1, frames)
        for _ in range(blocks):
            count = each * rows * columns // 4
            ids += [START, *([VIDEO if frames > 1 else IMAGE] * count), END, *draw(2)]
            types += [0, *([2 if frames > 1 else 1] * count), 0, 0, 0]
    images, videos = [g for g in grids if g[0] == 1], [g for g in grids if g[0] > 1]
    inputs: dict[str, Any] = {"mm_token_type_ids": torch.tensor([types])}
    if images:
        inputs |= {"pixel_values": pixels(images), "image_grid_thw": torch.tensor(images)}
    if videos:
        inputs |= {"pixel_values_videos": pixels(videos), "video_grid_thw": torch.tensor(videos)}
    return TokenGroup(prompt=ids, responses=[draw(n) for n in lengths], inputs=inputs if grids else None)


def llava_config() -> Any:
    """The configuration of a tiny LLaVA: 8 x 8 pixels, 4 features of an image."""
    from transformers import AutoConfig

    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4, "initializer_range": 0.15}
    return AutoConfig.for_model(
        "llava",
        text_config={"model_type": "llama", **TEXT},
        vision_config=vision,
        image_token_index=IMAGE,
        tie_word_embeddings=False,
    )


def llava_group(images: int, lengths: list[int], seed: int) -> TokenGroup:
    """A prompt with images, and responses."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> list[int]:
        return torch.randint(3, 180, (n,), generator=generator).tolist()

    ids = draw(3)
    for _ in range(images):
        ids += [*([IMAGE] * 4), *draw(3)]
    pixels = torch.randn(images, 3, 8, 8, generator=generator)
    inputs = {"pixel_values": pixels} if images else None
    return TokenGroup(prompt=ids, responses=[draw(n) for n in lengths], inputs=inputs)
