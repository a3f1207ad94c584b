"""A tiny vision-language model with its processor, and random pictures, for tests."""

from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from base_model.vlm import MiniCPMV, MiniCPMVProcessor, PackedVideo
from base_model.vlm.presets import build
from tests.tiny import QWEN3_CHAT_TEMPLATE, make_tiny_tokenizer

SHRUNK: dict[str, Any] = {"num_hidden_layers": 2, "intermediate_size": 128, "query_num": 4}


def tiny(**changes: Any) -> tuple[MiniCPMV, MiniCPMVProcessor]:
    """A fresh model of the smallest preset, shrunk further, with weights spread enough for differences to show."""
    tokenizer = make_tiny_tokenizer(chat_template=QWEN3_CHAT_TEMPLATE)
    model, processor = build("tiny", tokenizer, **(SHRUNK | changes))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(2)
    return model.eval(), processor


@cache
def shared() -> tuple[MiniCPMV, MiniCPMVProcessor]:
    """One model for all tests that do not change it."""
    return tiny()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Random colours in blocks, so that resizing does not average them away."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def video(shape: list[int], size: tuple[int, int] = (100, 120), step: float = 0.4, seed: int = 0) -> PackedVideo:
    """Packages of the given numbers of random frames, ``step`` seconds apart."""
    frames = iter(range(sum(shape)))
    numbers = [[next(frames) for _ in range(count)] for count in shape]
    packages = [[picture(*size, seed=seed + number) for number in each] for each in numbers]
    return PackedVideo(packages, [[number * step for number in each] for each in numbers])


def logits(model: MiniCPMV, inputs: Any) -> torch.Tensor:
    """[B, T, V]"""
    with torch.no_grad():
        return model(**inputs).logits
