"""4-bit weights for vLLM and transformers: W4A16 in the compressed-tensors layout ("pack-quantized").

Only the language model's matrices are rounded; embeddings, head, norms, vision tower and resampler keep 16 bits. Each
group of G weights of a row shares a scale, found by search (no data needed): the one with the least squared error.

Legend: O output rows, I input columns, G weights of a group, K groups of a row.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from base_model.export.checkpoint import Checkpoint, save_shard, write_index

LEAST, MOST = -8, 7
SHRINK = tuple(1 - 0.04 * step for step in range(8))
"""Scales that are tried, as shares of the one that just reaches a group's largest weight."""

_KERNEL_SIZE = 32
"""vLLM's CPU kernel takes matrices whose sides are multiples of this."""


def write_int4(checkpoint: Checkpoint, target: Path, *, group: int = 32) -> None:
    """Write a 4-bit checkpoint, shard by shard.

    Args:
        checkpoint: what to export.
        target: an existing empty directory.
        group: weights that share a scale: 32 (4.5 bits a weight) is closest, 128 (4.125 bits) smallest.

    Raises:
        ValueError: a matrix does not divide into such groups.
    """
    matrices = language_matrices(checkpoint)
    for name in matrices:
        _check_sides(name, checkpoint.shape(name), group)
    places: dict[str, str] = {}
    for file, names in checkpoint.names_by_file().items():
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= _stored(checkpoint, name, group if name in matrices else 0)
        save_shard(tensors, target / file)
        places |= dict.fromkeys(tensors, file)
    if len(set(places.values())) > 1:
        write_index(places, target)
    _write_config(checkpoint, target, group)
    checkpoint.copy_companions(target)


def _stored(checkpoint: Checkpoint, name: str, group: int) -> dict[str, Tensor]:
    """What stands in the file for a tensor; ``group`` 0 = it keeps 16 bits."""
    tensor = checkpoint.tensor(name)
    if not group:
        return {name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor}
    stem = name.removesuffix(".weight")
    return {f"{stem}.{key}": value for key, value in packed(tensor, group).items()}


def language_matrices(checkpoint: Checkpoint) -> set[str]:
    """Names of the weights that are rounded: linear layers of the language model, without its head.

    Raises:
        ValueError: the checkpoint's names are not those of the model in memory.
    """
    skeleton: Any = checkpoint.skeleton()
    head = skeleton.get_output_embeddings()
    found = {
        f"{name}.weight"
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear) and module is not head and name.startswith(checkpoint.prefix)
    }
    missing = sorted(found - set(checkpoint.files))
    if missing or not found:
        what = f"lacks {missing[0]}" if missing else "has no linear layers"
        raise ValueError(f"{checkpoint.folder} {what} in the language model: its layout cannot be rounded to 4 bits")
    return found


def _check_sides(name: str, shape: tuple[int, ...], group: int) -> None:
    rows, columns = shape
    if columns % group or rows % _KERNEL_SIZE or columns % _KERNEL_SIZE:
        raise ValueError(
            f"{name} is {rows} x {columns}, which is not made of groups of {group} and blocks of {_KERNEL_SIZE}: "
            "choose a smaller group, or export 16-bit weights"
        )


def packed(weight_OI: Tensor, group: int) -> dict[str, Tensor]:
    """What the file holds for a weight: ``weight_packed`` (8 values an int32), ``weight_scale``, ``weight_shape``."""
    scale_OK = best_scales(weight_OI, group)
    values_OI = rounded(weight_OI, scale_OK)
    nibbles = (values_OI - LEAST).to(torch.int32).unflatten(1, (-1, 8))
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return {
        "weight_packed": (nibbles << shifts).sum(2, dtype=torch.int32),
        "weight_scale": scale_OK,
        "weight_shape": torch.tensor(weight_OI.shape),
    }


def rounded(weight_OI: Tensor, scale_OK: Tensor) -> Tensor:
    """Whole numbers [O, I] from -8 to 7, for one scale per group."""
    groups_OKG = weight_OI.float().unflatten(1, (scale_OK.shape[1], -1))
    return (groups_OKG / scale_OK.float()[..., None]).round().clamp(LEAST, MOST).flatten(1)


def best_scales(weight_OI: Tensor, group: int) -> Tensor:
    """Scales [O, K] in bf16 with the least squared error among ``SHRINK``; a group of zeros gets 1."""
    groups_OKG = weight_OI.float().unflatten(1, (-1, group))
    reach_OK = groups_OKG.abs().amax(2) / -LEAST
    best_OK = torch.full_like(reach_OK, float("inf"))
    chosen_OK = torch.ones_like(reach_OK)
    for share in (-LEAST / MOST, *SHRINK):
        scale_OK = (reach_OK * share).to(torch.bfloat16).float()
        scale_OK = torch.where(scale_OK > 0, scale_OK, torch.ones_like(scale_OK))
        values = (groups_OKG / scale_OK[..., None]).round().clamp(LEAST, MOST) * scale_OK[..., None]
        error_OK = (values - groups_OKG).square().sum(2)
        better = error_OK < best_OK
        best_OK, chosen_OK = torch.where(better, error_OK, best_OK), torch.where(better, scale_OK, chosen_OK)
    return chosen_OK.to(torch.bfloat16)


def _write_config(checkpoint: Checkpoint, target: Path, group: int) -> None:
    config = checkpoint.config
    config.dtype = torch.bfloat16
    config.save_pretrained(target)
    written = json.loads((target / "config.json").read_text())
    written["quantization_config"] = _scheme(group, checkpoint.has_vision)
    (target / "config.json").write_text(json.dumps(written, indent=2))


def _scheme(group: int, has_vision: bool) -> Mapping[str, Any]:
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
    kept = ["re:.*lm_head"] + (["re:.*vpm\\..*", "re:.*resampler\\..*"] if has_vision else [])
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": kept,
    }
