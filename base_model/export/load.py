"""Exported files read back as models, for the quality check: through transformers, which reads both formats itself."""

from pathlib import Path
from typing import Any

import torch

from base_model.export.checkpoint import Checkpoint


def load_plain(folder: Path) -> Any:
    """A checkpoint in fp32 for comparison; 4-bit weights are multiplied out."""
    from transformers import AutoModelForCausalLM

    import base_model.vlm  # noqa: F401  makes the Auto classes know the layout

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return model.eval()


def load_gguf(path: Path, checkpoint: Checkpoint) -> Any:
    """The model whose language model is a GGUF file's; vision tower and resampler are the checkpoint's."""
    from transformers import AutoModelForCausalLM

    text = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
    )
    if not checkpoint.has_vision:
        return text.eval()
    model = load_plain(checkpoint.folder)
    model.llm.load_state_dict(text.state_dict())
    return model
