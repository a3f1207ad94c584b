"""Exported files read back as models, for the quality check."""

import warnings
from pathlib import Path
from typing import Any

import torch

from base_model.export.checkpoint import Checkpoint
from base_model.export.gguf_text import read_text


def load_plain(folder: Path) -> Any:
    """A checkpoint in fp32 for comparison; 4-bit weights are multiplied out."""
    from transformers import AutoConfig, AutoModelForCausalLM, CompressedTensorsConfig

    import base_model.vlm  # noqa: F401  makes the Auto classes know the layout

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    rounded = getattr(config, "quantization_config", None) is not None
    given = {"quantization_config": CompressedTensorsConfig(run_compressed=False)} if rounded else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You passed `quantization_config`")  # the file's own is what counts
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, **given
        )
    return model.eval()


def load_gguf(path: Path, checkpoint: Checkpoint) -> Any:
    """The checkpoint's model with the language model's weights as a GGUF file has them; the rest is its own."""
    model = load_plain(checkpoint.folder)
    model.load_state_dict(read_text(checkpoint, path), strict=False)
    return model
