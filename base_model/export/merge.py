"""One plain checkpoint out of any: adapters folded in, weights at one type, tokenizer and processor beside them."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from base_model.export.checkpoint import MODEL, Checkpoint, save_shard, write_index

DtypeName = Literal["keep", "bfloat16", "float16", "float32"]


def write_merged(source: Path, target: Path, dtype: DtypeName = "keep", *, base: Path | None = None) -> None:
    """Write a checkpoint that transformers and vLLM load.

    A plain checkpoint is copied tensor by tensor (its shards stay shards), so memory holds one shard; an adapter is
    folded into its base model, which is loaded whole in fp32 and rounded once.

    Args:
        source: a checkpoint directory, or a peft adapter's.
        target: an existing empty directory.
        dtype: type of the weights; "keep" leaves a plain checkpoint's, and gives a merged one its base's.
        base: checkpoint that the adapter was trained on; None = the one its own settings name.

    Raises:
        ValueError: the source is no checkpoint, or the base is not found or does not fit.
    """
    if (source / "adapter_config.json").is_file():
        _fold(source, base or _base_of(source), target, dtype)
        return
    checkpoint = Checkpoint(source)
    for file, names in checkpoint.names_by_file().items():
        save_shard({name: _cast(checkpoint.tensor(name), dtype) for name in names}, target / file)
    if len(set(checkpoint.files.values())) > 1:
        write_index(checkpoint.files, target)
    _write_config(checkpoint.config, target, dtype)
    checkpoint.copy_companions(target)


def _cast(tensor: Tensor, dtype: str) -> Tensor:
    """The tensor at the type asked for; whole numbers stay what they are."""
    return tensor if dtype == "keep" or not tensor.is_floating_point() else tensor.to(getattr(torch, dtype))


def _write_config(config: Any, target: Path, dtype: str) -> None:
    if dtype != "keep":
        config.dtype = getattr(torch, dtype)
        config.get_text_config().dtype = config.dtype
    config.save_pretrained(target)


def _base_of(adapter: Path) -> Path:
    name = json.loads((adapter / "adapter_config.json").read_text()).get("base_model_name_or_path") or ""
    if not (Path(name) / "config.json").is_file():
        raise ValueError(
            f"{adapter} is an adapter to {name!r}, which is no checkpoint directory here: give the model it was "
            "trained on (base)"
        )
    return Path(name)


def _fold(adapter: Path, base: Path, target: Path, dtype: DtypeName) -> None:
    """Adapter and base in one."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from base_model.packed_lm import merged_weights

    plain = Checkpoint(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    try:
        merged = merged_weights(PeftModel.from_pretrained(model, adapter))
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"the adapter {adapter} does not fit the model {base}: {first}") from None
    own = {name: plain.tensor(name).dtype for name in plain.files}
    kept = next(iter(own.values()))
    tensors = {
        name: tensor.to(own.get(name, kept)) if dtype == "keep" else _cast(tensor, dtype)
        for name, tensor in merged.items()
    }
    save_shard(tensors, target / MODEL)
    _write_config(plain.config, target, dtype)
    plain.copy_companions(target)
    for path in adapter.glob("chat_template*"):
        (target / path.name).write_bytes(path.read_bytes())
