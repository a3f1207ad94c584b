"""Tensors of a checkpoint directory, read one at a time, so that a model larger than memory can be converted."""

import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"

COMPANIONS = (
    "*token*.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template*",
    "*processor_config.json",
    "generation_config.json",
)
"""Files beside the weights that belong to a model; training state and records do not."""


class Checkpoint:
    """A plain checkpoint directory of a causal language model, or of a vision-language model around one.

    Args:
        folder: holds ``config.json`` and safetensors, in one file or in shards with an index.

    Raises:
        ValueError: the directory is no such checkpoint, or its weights are quantised already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no config.json: give the directory of a transformers checkpoint")
        self.files = _files_by_name(folder)
        if getattr(self.config, "quantization_config", None) is not None:
            raise ValueError(f"{folder} is quantised already: export from the checkpoint with 16- or 32-bit weights")

    @cached_property
    def config(self) -> Any:
        """The transformers configuration."""
        from transformers import AutoConfig

        import base_model.vlm  # noqa: F401  makes the Auto classes know the layout

        return AutoConfig.from_pretrained(self.folder, local_files_only=True)

    @property
    def text_config(self) -> Any:
        """Configuration of the language model."""
        return self.config.get_text_config()

    @property
    def has_vision(self) -> bool:
        """Whether there is a vision tower."""
        return getattr(self.config, "vision_config", None) is not None

    @property
    def prefix(self) -> str:
        """How the names of the language model's tensors begin."""
        return "llm." if self.has_vision else ""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the file's header."""
        with safe_open(self.folder / self.files[name], framework="pt") as opened:
            return tuple(opened.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """One tensor, at the type it has in the file."""
        with safe_open(self.folder / self.files[name], framework="pt") as opened:
            return opened.get_tensor(name)

    def names_by_file(self) -> dict[str, list[str]]:
        """The names in each file."""
        names: dict[str, list[str]] = {}
        for name, file in self.files.items():
            names.setdefault(file, []).append(name)
        return names

    def skeleton(self) -> nn.Module:
        """The model on the meta device: names and shapes without memory."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.config)

    def copy_companions(self, target: Path) -> None:
        """Copy tokenizer, processor, chat template and generation settings."""
        for pattern in COMPANIONS:
            for path in self.folder.glob(pattern):
                if path.is_file() and path.name != "adapter_config.json":
                    shutil.copyfile(path, target / path.name)


def save_shard(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def write_index(places: Mapping[str, str], target: Path) -> None:
    """Write which shard each tensor lies in."""
    size = sum((target / file).stat().st_size for file in set(places.values()))
    index = {"metadata": {"total_size": size}, "weight_map": dict(places)}
    (target / INDEX).write_text(json.dumps(index, indent=1))


def _files_by_name(folder: Path) -> dict[str, str]:
    """The file that each tensor lies in."""
    if (folder / INDEX).is_file():
        places = json.loads((folder / INDEX).read_text())["weight_map"]
        for file in set(places.values()):
            if Path(file).name != file or not (folder / file).is_file():
                raise ValueError(f"{folder / INDEX} names the file {file!r}, which is not in that directory")
        return places
    if not (folder / MODEL).is_file():
        raise ValueError(f"{folder} holds no {MODEL}: pickled weights are not read, save the model again")
    with safe_open(folder / MODEL, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), MODEL)
