"""A GGUF file written tensor by tensor, so that memory holds one of them at a time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

WeightType = Literal["f32", "f16", "bf16", "q8_0", "q4_1", "q4_0"]
"""How matrices are stored; vectors are always f32."""

FILE_TYPES = MappingProxyType({"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "bf16": 32})
"""llama.cpp's numbers (``general.file_type``)."""

FOUR_BIT = ("q4_0", "q4_1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A tensor that will be written."""

    name: str
    shape: tuple[int, ...]
    kind: WeightType
    read: Callable[[], Tensor]
    """Gives the tensor when its turn comes."""


def write(path: Path, architecture: str, metadata: Callable[[Any], None], entries: Iterable[Entry]) -> None:
    """Write a GGUF file.

    Args:
        path: the file.
        architecture: ``general.architecture``.
        metadata: adds the key-value pairs to the ``gguf.GGUFWriter`` it gets.
        entries: the tensors, in the file's order.
    """
    from gguf import GGUFWriter

    entries = list(entries)
    writer = GGUFWriter(path, architecture)
    metadata(writer)
    for entry in entries:
        _announce(writer, entry)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry in entries:
        writer.write_tensor_data(_encode(entry.read(), entry.kind))
    writer.close()


def fitting(kind: WeightType, shape: tuple[int, ...]) -> WeightType:
    """The type that a tensor can have: vectors f32, rows that blocks do not divide f16."""
    from gguf.constants import GGML_QUANT_SIZES

    if len(shape) < 2:
        return "f32"
    return kind if shape[-1] % GGML_QUANT_SIZES[_number(kind)][0] == 0 else "f16"


def _number(kind: WeightType) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind.upper()]


def _announce(writer: Any, entry: Entry) -> None:
    from gguf.quants import quant_shape_to_byte_shape

    if entry.kind in ("f32", "f16"):
        dtype = np.dtype(np.float32 if entry.kind == "f32" else np.float16)
        writer.add_tensor_info(entry.name, entry.shape, dtype, int(np.prod(entry.shape)) * dtype.itemsize)
        return
    shape = quant_shape_to_byte_shape(entry.shape, _number(entry.kind))
    dtype = np.dtype(np.uint8)
    writer.add_tensor_info(entry.name, shape, dtype, int(np.prod(shape)), raw_dtype=_number(entry.kind))


def _encode(tensor: Tensor, kind: WeightType) -> np.ndarray:
    from gguf.quants import quantize

    return quantize(np.ascontiguousarray(tensor.detach().to(torch.float32).numpy()), _number(kind))
