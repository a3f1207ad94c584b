"""Small checkpoints on disk for the tests of the export."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.export import llama_cpp
from base_model.export.checkpoint import Checkpoint
from base_model.vlm.presets import build
from tests.tiny import QWEN3_CHAT_TEMPLATE, make_tiny_model, make_tiny_tokenizer

needs_llama_cpp = pytest.mark.skipif(
    not llama_cpp.available(), reason=f"llama.cpp (pip package {llama_cpp.PACKAGE}, extra `export`) is not installed"
)


def text_checkpoint(folder: Path, architecture: str = "qwen3", **options: Any) -> Checkpoint:
    """A random language model of two layers; norms and biases are not trivial, so that leaving one out shows."""
    make_tiny_model(folder, architecture, spread=0.1, chat_template=QWEN3_CHAT_TEMPLATE, **options)
    return _roughened(folder)


def vision_checkpoint(folder: Path, **changes: Any) -> Checkpoint:
    """A random vision-language model of the smallest preset, shrunk."""
    tokenizer = make_tiny_tokenizer(chat_template=QWEN3_CHAT_TEMPLATE)
    options = {"num_hidden_layers": 2, "intermediate_size": 128, "query_num": 4, "initializer_range": 0.1}
    model, processor = build("tiny", tokenizer, **(options | changes))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return _roughened(folder)


def _roughened(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(3)
    tensors = load_file(folder / "model.safetensors")
    for weight in tensors.values():
        if weight.ndim == 1:
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Checkpoint(folder)


@cache
def prompt(image: bool = False) -> str:
    """A rendered chat prompt."""
    place = "(<image>./</image>)\n" if image else ""
    return f"<|im_start|>user\n{place}What is the sum of 3 and 4?<|im_end|>\n<|im_start|>assistant\n"
