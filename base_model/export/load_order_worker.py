"""The process that ``load_order`` measures: loads the parts in one order, reads an image, prints its peak as JSON."""

import ctypes
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from base_model.export.checkpoint import Checkpoint
from base_model.export.process_memory import current_memory, peak_memory
from base_model.vlm.resampler import Resampler
from base_model.vlm.vision import VisionTower


@torch.inference_mode()
def main() -> None:
    """Measure one order."""
    checkpoint, order = Checkpoint(Path(sys.argv[1])), sys.argv[2]
    if not checkpoint.has_vision:
        raise ValueError(f"{checkpoint.folder} has no vision tower, so there is no order of loading")
    config = checkpoint.config
    _warm_up()
    start = current_memory()
    eyes = _vision(checkpoint)
    language = _language(checkpoint) if order == "at once" else None
    tokens = _look(eyes, config)
    if language is None:
        del eyes
        _give_back()
        language = _language(checkpoint)
    logits = language(inputs_embeds=tokens[None], use_cache=False).logits[0, -1]
    print(json.dumps({"start": start, "peak": peak_memory(), "logit_sum": float(logits.float().sum())}))


def _warm_up() -> None:
    """What torch sets up at first use belongs to the start, not to the model."""
    torch.nn.functional.scaled_dot_product_attention(*torch.zeros(3, 1, 1, 8, 8))
    torch.zeros(8, 8) @ torch.zeros(8, 8)


def _vision(checkpoint: Checkpoint) -> nn.ModuleDict:
    config = checkpoint.config
    with torch.device("meta"):
        tower = VisionTower(config.vision_config, drop_last_layer=config.drop_vision_last_layer)
        resampler = Resampler(config.query_num, config.text_config.hidden_size, config.vision_config.hidden_size)
    parts = nn.ModuleDict({"vpm": tower, "resampler": resampler})
    _fill(parts, checkpoint, "")
    return parts.eval()


def _language(checkpoint: Checkpoint) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(checkpoint.text_config)
    _fill(model, checkpoint, checkpoint.prefix)
    _restore_rotary(model, checkpoint)
    return model.eval()


def _fill(module: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
    """Give every parameter the checkpoint's tensor, as a copy: what a memory-mapped file holds is no fair count."""
    given = {
        name: checkpoint.tensor(prefix + name).clone()
        for name in dict(module.named_parameters(remove_duplicate=False))
        if prefix + name in checkpoint.files
    }
    module.load_state_dict(given, strict=False, assign=True)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    missing = [name for name, weight in module.named_parameters() if weight.is_meta]
    if missing:
        raise ValueError(f"{checkpoint.folder} lacks {prefix}{missing[0]}")


def _restore_rotary(model: Any, checkpoint: Checkpoint) -> None:
    """Position frequencies are computed, not saved; on the meta device they were not."""
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, type(module)(config=checkpoint.text_config))


def _look(eyes: Any, config: Any) -> Tensor:
    """Tokens [Q, D] of one image of the model's scale."""
    side = config.slice_config["scale_resolution"] // config.patch_size
    weight = eyes["vpm"].embeddings.patch_embedding.weight
    pixels = torch.linspace(-1, 1, 3 * config.patch_size**2 * side**2, dtype=weight.dtype)
    views = [pixels.view(3, config.patch_size, -1)]
    return eyes["resampler"](eyes["vpm"](views, [(side, side)]), [(side, side)])[0]


def _give_back() -> None:
    """Return freed memory to the system, which the C library would otherwise keep."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


if __name__ == "__main__":
    main()
