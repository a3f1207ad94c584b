"""Parameters and bytes of a model by part, as stored in each format; from names and shapes, on the meta device too."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

PARTS = MappingProxyType({"vision tower": "vpm.", "resampler": "resampler.", "embeddings and head": "", "layers": ""})
"""Parts that are listed; the language model is split, since only its layers go to 4 bits."""

_GGUF_BLOCK, _GGUF_4, _GGUF_8 = 32, 18, 34
"""Weights of a block, and bytes of one in q4_0 and q8_0."""

_GGUF_F32 = ("vpm.embeddings.position_embedding.weight", "resampler.query")


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSize:
    """One part of a model; sizes in bytes."""

    parameters: int
    bf16: int
    int4: int
    """As ``int4.write_int4`` stores it."""
    q4_0: int
    """As ``gguf_text`` and ``gguf_vision`` (f16) store it."""


def part_sizes(model: nn.Module, *, group: int = 32) -> dict[str, PartSize]:
    """Sizes of the parts of a causal language model or a vision-language model; tied weights count once.

    Args:
        model: on any device, meta included.
        group: weights that share a scale in the 4-bit checkpoint.
    """
    sizes: dict[str, list[PartSize]] = {part: [] for part in PARTS}
    for name, weight, linear in _weights(model):
        part = _part(name, linear)
        sizes[part].append(_size(name, tuple(weight.shape), part, linear, group))
    return {part: _sum(each) for part, each in sizes.items() if each}


def _weights(model: Any) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Name, weight, and whether it is a linear layer's matrix other than the head's."""
    head = model.get_output_embeddings()
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear) and module is not head}
    for name, weight in model.named_parameters():
        yield name, weight, id(weight) in linear


def _part(name: str, linear: bool) -> str:
    for part in ("vision tower", "resampler"):
        if name.startswith(PARTS[part]):
            return part
    return "layers" if ".layers." in name or linear else "embeddings and head"


def _size(name: str, shape: tuple[int, ...], part: str, linear: bool, group: int) -> PartSize:
    count = prod(shape)
    vision = part in ("vision tower", "resampler")
    matrix, rounded = len(shape) > 1, linear and not vision
    int4 = count // 2 + 2 * count // group + 16 if rounded else 2 * count
    if not matrix or name in _GGUF_F32:
        q4 = 4 * count
    elif vision or shape[-1] % _GGUF_BLOCK:
        q4 = 2 * count
    else:
        q4 = count // _GGUF_BLOCK * (_GGUF_4 if rounded else _GGUF_8)
    return PartSize(parameters=count, bf16=2 * count, int4=int4, q4_0=q4)


def _sum(sizes: list[PartSize]) -> PartSize:
    fields = [asdict(size) for size in sizes]
    return PartSize(**{key: sum(each[key] for each in fields) for key in fields[0]})


def key_value_bytes(config: Any, tokens: int, width: int = 2) -> int:
    """Keys and values of a context, at ``width`` bytes a number."""
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * text.num_key_value_heads * head * tokens * width)


def loaded(sizes: Mapping[str, PartSize], kind: str, key_values: int) -> dict[str, int]:
    """Weights and cache that are in memory at most: all parts at once, or vision and language model in turn.

    Source: MiniCPM-V (arXiv 2408.01800, section 5): on a phone the vision tower is loaded, used and dropped before the
    language model is loaded.

    Args:
        sizes: of the parts.
        kind: field of ``PartSize``.
        key_values: bytes of the language model's cache.
    """
    parts = {part: getattr(size, kind) for part, size in sizes.items()}
    vision = sum(parts.get(part, 0) for part in ("vision tower", "resampler"))
    language = sum(parts.values()) - vision + key_values
    return {"at once": vision + language, "in turn": max(vision, language)}
