"""The language model as a GGUF file for llama.cpp: Llama, Qwen2 and Qwen3, alone or inside a vision-language model."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from base_model.export.checkpoint import Checkpoint
from base_model.export.gguf_file import FILE_TYPES, FOUR_BIT, Entry, WeightType, fitting, write
from base_model.export.gguf_tokenizer import add_tokenizer

ARCHITECTURES = MappingProxyType({"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"})
"""``model_type`` of transformers -> name in ``gguf.MODEL_ARCH``."""


def write_text(checkpoint: Checkpoint, path: Path, kind: WeightType) -> None:
    """Write the language model of a checkpoint.

    With a 4-bit type the layers' matrices get it; embeddings and head, where rounding costs most, get 8 bits.

    Args:
        checkpoint: what to export; only the language model's tensors are read.
        path: the file to write.
        kind: type of the matrices.

    Raises:
        ValueError: llama.cpp, or this export, has no such architecture or tokenizer.
    """
    config = checkpoint.text_config
    if config.model_type not in ARCHITECTURES:
        raise ValueError(
            f"the language model is a {config.model_type}, and GGUF files are written for "
            f"{', '.join(ARCHITECTURES)}; convert the merged checkpoint with llama.cpp's convert_hf_to_gguf.py instead"
        )
    _check_rope(config)

    def metadata(writer: Any) -> None:
        _add_shape(writer, config)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(2)
        add_tokenizer(writer, checkpoint.folder, config.vocab_size)

    write(path, config.model_type, metadata, [entry for _, entry in _entries(checkpoint, kind)])


def _check_rope(config: Any) -> None:
    rope = config.rope_parameters or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"the language model scales its positions ({rope['rope_type']}), which the GGUF export does not write; "
            "convert the merged checkpoint with llama.cpp's convert_hf_to_gguf.py instead"
        )


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _add_shape(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_width(config))
    writer.add_value_length(_head_width(config))
    writer.add_rope_dimension_count(_head_width(config))
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _entries(checkpoint: Checkpoint, kind: WeightType) -> Iterator[tuple[str, Entry]]:
    """The checkpoint's name of each tensor, and what is written for it."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = checkpoint.text_config
    names = get_tensor_name_map(MODEL_ARCH[ARCHITECTURES[config.model_type]], config.num_hidden_layers)
    for full in sorted(checkpoint.files):
        if not full.startswith(checkpoint.prefix):
            continue
        name = full.removeprefix(checkpoint.prefix)
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp uses the embeddings where there is no head
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ValueError(f"llama.cpp's {config.model_type} has no place for the tensor {full}")
        shape = checkpoint.shape(full)
        wanted: WeightType = "q8_0" if kind in FOUR_BIT and ".layers." not in name else kind
        read = partial(_read, checkpoint, full, config)
        yield full, Entry(name=target, shape=shape, kind=fitting(wanted, shape), read=read)


def _read(checkpoint: Checkpoint, name: str, config: Any) -> Tensor:
    heads = _turned_heads(name, config)
    return _interleave(checkpoint.tensor(name), heads) if heads else checkpoint.tensor(name)


def read_text(checkpoint: Checkpoint, path: Path) -> dict[str, Tensor]:
    """The language model's weights out of a file of ``write_text``, in fp32 and under the checkpoint's names.

    Args:
        checkpoint: what the file was made from; it gives names, shapes and order.
        path: the file.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    weights = {}
    for source, entry in _entries(checkpoint, "f32"):
        tensor = stored[entry.name]
        values = dequantize(tensor.data, tensor.tensor_type).reshape(entry.shape)
        heads = _turned_heads(source, checkpoint.text_config)
        weights[source] = _separate(torch.from_numpy(values), heads) if heads else torch.from_numpy(values)
    return weights


def _turned_heads(name: str, config: Any) -> int:
    """Heads of a matrix whose rows llama.cpp has in another order; 0 = it has them in the same."""
    if config.model_type != "llama" or ".self_attn." not in name:
        return 0
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return int(heads.get(name.split(".")[-2], 0))


def _separate(tensor: Tensor, heads: int) -> Tensor:
    """Undoes ``_interleave``."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _interleave(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head reordered: llama.cpp turns neighbouring pairs for Llama, transformers the two halves."""
    halves = tensor.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2)
