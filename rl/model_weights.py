"""Loading saved weights into a model that is already built, bit for bit, and refusing by name what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

MODEL = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"


def holds_adapter(model: Any) -> bool:
    """Whether the model is a peft model, of which only the adapter is saved."""
    return hasattr(model, "get_base_model")


def uses_own_names(directory: Path, model: Any) -> bool:
    """Whether the saved weights carry the model's own parameter names.

    For some architectures transformers keeps the weights in memory in another arrangement (the experts of a mixture as
    one tensor) than in files; `save_pretrained` then writes the arrangement every other program expects.
    """
    return holds_adapter(model) or saved_names(directory) <= set(model.state_dict())


def saved_names(directory: Path) -> set[str]:
    """Names of all tensors in a model directory, from the files' headers."""
    names: set[str] = set()
    for file in _weight_files(directory):
        with safe_open(file, framework="pt") as opened:
            names |= set(opened.keys())
    return names


def weights_loader(directory: Path, model: Any, *, own_names: bool) -> Callable[[], None]:
    """Check that the saved weights fit `model`, and return the function that copies them into it.

    Raises:
        ValueError: Adapter against full model, missing or additional names, other shapes, another precision.
    """
    adapter = (directory / ADAPTER).exists()
    if adapter != holds_adapter(model):
        saved, wanted = ("a LoRA adapter", "a full model") if adapter else ("a full model", "a LoRA adapter")
        raise ValueError(f"it holds {saved}, but this run trains {wanted}")
    if adapter:
        return _adapter_loader(directory, model)
    target = model.state_dict()
    source = _read(directory) if own_names else _rearranged(directory, model)
    _check_fits(source, target, optional=_untouched(source, target, model))
    return lambda: _copy(source, target)


def _adapter_loader(directory: Path, model: Any) -> Callable[[], None]:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    source = load_file(directory / ADAPTER)
    _check_fits(source, get_peft_model_state_dict(model, save_embedding_layers=False), optional=set())

    def load() -> None:
        set_peft_model_state_dict(model, source)

    return load


def _read(directory: Path) -> dict[str, Tensor]:
    """All saved tensors; they are memory-mapped, so nothing is read before it is copied."""
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(directory):
        tensors |= load_file(file)
    return tensors


def _rearranged(directory: Path, model: Any) -> dict[str, Tensor]:
    """The saved tensors in the arrangement of the model in memory: transformers' own loading knows how."""
    loaded, report = type(model).from_pretrained(directory, dtype=model.dtype, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(f"it lacks {sorted(report['missing_keys'])[0]}")
    return loaded.state_dict()


def _untouched(source: Mapping[str, Tensor], target: Mapping[str, Tensor], model: Any) -> set[str]:
    """Names that need not be saved: other names of a saved tensor (tied weights), and what the model never saves."""
    covered = {_identity(target[name]) for name in source if name in target}
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    return ignored | {name for name, tensor in target.items() if _identity(tensor) in covered}


def _identity(tensor: Any) -> tuple[int, torch.Size]:
    return (tensor.to_local() if _is_divided(tensor) else tensor).data_ptr(), tensor.shape


def _is_divided(tensor: Any) -> bool:
    """Whether each process holds a part of it (FSDP2)."""
    return hasattr(tensor, "to_local")


def _check_fits(source: Mapping[str, Tensor], target: Mapping[str, Tensor], optional: set[str]) -> None:
    unknown = sorted(source.keys() - target.keys())
    if unknown:
        raise ValueError(f"{len(unknown)} of its parameters are not in this model, {unknown[0]} for one")
    missing = sorted(target.keys() - source.keys() - optional)
    if missing:
        raise ValueError(f"it lacks {len(missing)} of this model's parameters, {missing[0]} for one")
    for name, tensor in source.items():
        here = target[name]
        if tensor.shape != here.shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)} there and {list(here.shape)} in this model")
        if tensor.dtype != here.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} there and {here.dtype} in this model: load the model in that dtype"
            )


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Any]) -> None:
    for name, tensor in source.items():
        whole = target[name]
        if _is_divided(whole):
            from rl.shards import own_part

            whole.to_local().copy_(own_part(tensor, whole))
        else:
            whole.copy_(tensor)


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files of the model: one, or the shards that the index lists."""
    index = directory / MODEL_INDEX
    if not index.exists():
        return [directory / MODEL]
    return [directory / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
