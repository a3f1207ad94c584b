"""Handing weights to an engine process: a safetensors image in anonymous shared memory.

The memory has no name in any directory, so nothing is left behind however a process ends, and a small /dev/shm is no
limit. Another process of the same user opens it as /proc/PID/fd/N.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

_CODES = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}
_TYPES = {code: name.removeprefix("torch.") for name, code in _CODES.items()}


def checkpoint_shapes(directory: Path) -> Shapes:
    """Names and shapes of all tensors in the safetensors files of a checkpoint, from their headers alone."""
    shapes: Shapes = {}
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    if not shapes:
        raise ValueError(f"{directory} holds no *.safetensors weights; save the model with save_pretrained first")
    return shapes


def select_tensors(named: Iterable[tuple[str, Tensor]], expected: Shapes, tied: bool) -> dict[str, Tensor]:
    """The tensors of the checkpoint's names, after a check that each is there, once, in its shape.

    Args:
        named: Pairs as from `model.named_parameters()` or `model.state_dict().items()`.
        expected: Names and shapes of the checkpoint that the engine was started from.
        tied: Whether the LM head is the embedding; then a second name of the same values may be among the pairs.

    Raises:
        ValueError: Naming what is missing, unknown or of another shape.
    """
    given = dict(named)
    extra = [name for name in given if name not in expected and not (tied and _is_alias(name, given, expected))]
    missing = [name for name in expected if name not in given]
    problems = []
    if missing:
        problems.append(f"missing: {_few(missing)}")
    if extra:
        problems.append(f"unknown: {_few(extra)}")
    problems += [
        f"{name} has shape {tuple(given[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    if problems:
        raise ValueError(
            "the weights do not fit the model that the engine was started from ("
            + "; ".join(problems[:5])
            + "); pass all of its tensors under the names of its checkpoint (merge LoRA adapters first)"
        )
    return {name: given[name] for name in expected}


def _is_alias(name: str, given: Mapping[str, Tensor], expected: Shapes) -> bool:
    """Whether a tensor outside the checkpoint has the values of one inside it (a tied LM head)."""
    import torch

    tensor = given[name]
    same_shape = [given[other] for other, shape in expected.items() if shape == tuple(tensor.shape) and other in given]
    return any(t.data_ptr() == tensor.data_ptr() or torch.equal(t, tensor) for t in same_shape)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class WeightsImage:
    """One set of weights in anonymous shared memory, as safetensors in one floating-point format.

    The memory is taken once and written again at every update: fresh pages for each would cost more than the copy.
    """

    def __init__(self, tensors: Mapping[str, Tensor], dtype: str) -> None:
        """Copies the tensors.

        Args:
            tensors: Any device, any floating-point format.
            dtype: Name of the torch dtype to store, e.g. "bfloat16".

        Raises:
            OSError: The machine has not enough memory.
        """
        import torch

        header = _header(tensors, getattr(torch, dtype))
        self._views: dict[str, Tensor] = {}
        self._map: mmap.mmap | None = None
        self._fd = os.memfd_create("tandem-weights", os.MFD_CLOEXEC)
        try:
            size = len(header) + _data_bytes(header)
            os.posix_fallocate(self._fd, 0, size)  # refuses now, where a write could only kill the process
            self._map = mmap.mmap(self._fd, size)
            self._map[: len(header)] = header
            self._views = _views(self._map)
            self.write(tensors)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """Where another process of this user opens the image while this one lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all values; names and shapes are those it was made with. Nobody may be reading meanwhile."""
        for name, view in self._views.items():
            view.copy_(tensors[name].detach())

    def close(self) -> None:
        """Gives the memory back; may be called again."""
        self._views = {}
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MappedWeights:
    """The reader's side: the tensors of an image, mapped once and looked at again after every update."""

    def __init__(self) -> None:
        self._file: tuple[int, int] | None = None
        self._tensors: dict[str, Tensor] = {}

    def read(self, path: str) -> dict[str, Tensor]:
        """Tensors over the image's own memory, as it is now."""
        with open(path, "r+b") as file:
            stat = os.fstat(file.fileno())
            if self._file != (stat.st_dev, stat.st_ino):
                self._tensors = _views(mmap.mmap(file.fileno(), stat.st_size))
                self._file = (stat.st_dev, stat.st_ino)
        return self._tensors


def _views(image: mmap.mmap) -> dict[str, Tensor]:
    """The tensors of a safetensors image, without a copy."""
    import torch

    (size,) = struct.unpack("<Q", image[:8])
    whole = torch.frombuffer(image, dtype=torch.uint8)
    views = {}
    for name, entry in json.loads(image[8 : 8 + size]).items():
        start, end = (8 + size + at for at in entry["data_offsets"])
        views[name] = whole[start:end].view(getattr(torch, _TYPES[entry["dtype"]])).view(entry["shape"])
    return views


def _data_bytes(header: bytes) -> int:
    return max((entry["data_offsets"][1] for entry in json.loads(header[8:]).values()), default=0)


def _header(tensors: Mapping[str, Tensor], dtype: object) -> bytes:
    """Header of the safetensors format: length, then names, formats, shapes and byte offsets as JSON."""
    entries, end = {}, 0
    itemsize = 4 if str(dtype) == "torch.float32" else 2
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * itemsize
        entries[name] = {"dtype": _CODES[str(dtype)], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text
