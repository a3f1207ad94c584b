"""Vision tower and resampler as llama.cpp's projector file (``mmproj``), in its layout of MiniCPM-V.

llama.cpp has no place for video packages: it reads images and their slices, each as one view. Source of names and keys:
llama.cpp's ``tools/mtmd`` (``clip.cpp``, ``clip-impl.h``, ``models/minicpmv.cpp``).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from base_model.export.checkpoint import Checkpoint
from base_model.export.gguf_file import FILE_TYPES, Entry, write

MINICPMV_4_5 = 6
"""llama.cpp's number of the layout: <slice> tags, rows joined by a newline, the number of queries from the file."""

TABLE_SIDE = 70
"""Entries per side of the position table that llama.cpp looks up, whatever the file says."""

HEAD_WIDTH = 128
"""Width of a resampler head in llama.cpp."""

_LAYER = MappingProxyType(
    {
        "layer_norm1": "ln1",
        "layer_norm2": "ln2",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "mlp.fc1": "ffn_up",
        "mlp.fc2": "ffn_down",
    }
)
_RESAMPLER = MappingProxyType(
    {
        "query": "resampler.query",
        "kv_proj.weight": "resampler.kv.weight",
        "attn.out_proj.weight": "resampler.attn.out.weight",
        "attn.out_proj.bias": "resampler.attn.out.bias",
        **{
            f"ln_{part}.{kind}": f"resampler.ln_{part}.{kind}"
            for part in ("q", "kv", "post")
            for kind in ("weight", "bias")
        },
    }
)


def write_vision(checkpoint: Checkpoint, path: Path, kind: Literal["f32", "f16"]) -> None:
    """Write vision tower and resampler of a checkpoint.

    Args:
        checkpoint: what to export; the language model's tensors are not read.
        path: the file to write.
        kind: type of the matrices.

    Raises:
        ValueError: llama.cpp cannot run the layout; the sentence says which size is in the way.
    """
    check_vision(checkpoint)
    config = checkpoint.config

    def metadata(writer: Any) -> None:
        writer.add_file_type(FILE_TYPES[kind])
        _add_shape(writer, config, _layers(checkpoint))

    write(path, "clip", metadata, list(_entries(checkpoint, kind)))


def check_vision(checkpoint: Checkpoint) -> None:
    """Refuse a layout that llama.cpp cannot run; see ``write_vision``."""
    if not checkpoint.has_vision:
        raise ValueError(f"{checkpoint.folder} has no vision tower: it has no projector file, leave it out")
    vision, width = checkpoint.config.vision_config, checkpoint.text_config.hidden_size
    if width % HEAD_WIDTH:
        raise ValueError(
            f"llama.cpp's resampler has heads of width {HEAD_WIDTH}, which do not divide this language model's hidden "
            f"size {width}: only the text part can go to llama.cpp (sizes tiny and minicpm-v-4.5 fit)"
        )
    if vision.hidden_act != "gelu_pytorch_tanh":
        raise ValueError(f"llama.cpp's tower has the activation gelu_pytorch_tanh, this one {vision.hidden_act}")
    table_entries(vision.image_size // vision.patch_size)


def _layers(checkpoint: Checkpoint) -> int:
    start = "vpm.encoder.layers."
    return 1 + max(int(name.removeprefix(start).split(".")[0]) for name in checkpoint.files if name.startswith(start))


def _add_shape(writer: Any, config: Any, layers: int) -> None:
    vision = config.vision_config
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_minicpmv_projector", True)
    writer.add_string("clip.projector_type", "resampler")
    writer.add_int32("clip.minicpmv_version", MINICPMV_4_5)
    writer.add_uint32("clip.minicpmv_query_num", config.query_num)
    writer.add_uint32("clip.vision.image_size", config.slice_config["scale_resolution"])
    writer.add_uint32("clip.vision.patch_size", config.patch_size)
    writer.add_uint32("clip.vision.embedding_length", vision.hidden_size)
    writer.add_uint32("clip.vision.feed_forward_length", vision.intermediate_size)
    writer.add_uint32("clip.vision.projection_dim", 0)
    writer.add_uint32("clip.vision.attention.head_count", vision.num_attention_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.layer_norm_eps)
    writer.add_uint32("clip.vision.block_count", layers)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)


def _entries(checkpoint: Checkpoint, kind: Literal["f32", "f16"]) -> Iterator[Entry]:
    for name in sorted(checkpoint.files):
        if name.startswith("vpm."):
            yield from _tower(checkpoint, name.removeprefix("vpm."), kind)
        elif name.startswith("resampler."):
            yield from _resampler(checkpoint, name.removeprefix("resampler."), kind)
    width, columns = checkpoint.shape("resampler.query")[1], checkpoint.config.vision_config.hidden_size
    if "resampler.kv_proj.weight" not in checkpoint.files:
        yield _entry("resampler.kv.weight", (width, columns), kind, lambda: torch.eye(width))
    # The loader asks for a position table; the graph computes positions itself.
    yield _entry("resampler.pos_embed_k", (1, width), "f32", lambda: torch.zeros(1, width))


def _tower(checkpoint: Checkpoint, name: str, kind: Literal["f32", "f16"]) -> Iterator[Entry]:
    full = f"vpm.{name}"
    if name == "embeddings.position_embedding.weight":
        vision = checkpoint.config.vision_config
        entries = table_entries(vision.image_size // vision.patch_size)
        shape = (len(entries), vision.hidden_size)
        yield _entry("v.position_embd.weight", shape, "f32", lambda: checkpoint.tensor(full)[entries])
        return
    yield _entry(_tower_name(name), checkpoint.shape(full), kind, lambda: checkpoint.tensor(full))


def _tower_name(name: str) -> str:
    if name.startswith("embeddings.patch_embedding."):
        return name.replace("embeddings.patch_embedding", "v.patch_embd")
    if name.startswith("post_layernorm."):
        return name.replace("post_layernorm", "v.post_ln")
    _, _, number, rest = name.split(".", 3)
    part, _, leaf = rest.rpartition(".")
    return f"v.blk.{number}.{_LAYER[part]}.{leaf}"


def _resampler(checkpoint: Checkpoint, name: str, kind: Literal["f32", "f16"]) -> Iterator[Entry]:
    full = f"resampler.{name}"
    shape = checkpoint.shape(full)
    if name in _RESAMPLER:
        own: Literal["f32", "f16"] = "f32" if name == "query" else kind
        yield _entry(_RESAMPLER[name], shape, own, lambda: checkpoint.tensor(full))
    elif name == "proj":
        yield _entry("resampler.proj.weight", shape[::-1], kind, lambda: checkpoint.tensor(full).T)
    elif name.startswith("attn.in_proj_"):
        leaf, rows = name.removeprefix("attn.in_proj_"), shape[0] // 3
        for number, part in enumerate("qkv"):
            read = _third(checkpoint, full, number)
            yield _entry(f"resampler.attn.{part}.{leaf}", (rows, *shape[1:]), kind, read)
    else:
        raise ValueError(f"llama.cpp's resampler has no place for the tensor {full}")


def _third(checkpoint: Checkpoint, name: str, number: int) -> Callable[[], Tensor]:
    return lambda: checkpoint.tensor(name).chunk(3)[number]


def _entry(name: str, shape: tuple[int, ...], kind: Literal["f32", "f16"], read: Callable[[], Tensor]) -> Entry:
    return Entry(name=name, shape=shape, kind="f32" if len(shape) < 2 else kind, read=read)


def table_entries(side: int) -> Tensor:
    """[70 * 70] the entry of a ``side`` x ``side`` position table that stands at each place of llama.cpp's table.

    llama.cpp reads entry floor(70 i / n) for patch i of n, this model entry floor(side i / n). Every place of the large
    table is reached from few grids; it gets the entry that the smallest of them reads, which is exact for all grids of
    up to ``exact_grid(side)`` patches a side, and one entry off in places for longer ones.

    Raises:
        ValueError: the table is larger than llama.cpp's.
    """
    if side > TABLE_SIDE:
        raise ValueError(f"llama.cpp's position table has {TABLE_SIDE} entries a side, and this model's {side}")
    line = _line(side)
    return (line[:, None] * side + line[None, :]).flatten()


def _line(side: int) -> Tensor:
    chosen: dict[int, int] = {}
    for patches in range(1, TABLE_SIDE + 1):
        for patch in range(patches):
            chosen.setdefault(TABLE_SIDE * patch // patches, side * patch // patches)
    return torch.tensor([chosen[place] for place in range(TABLE_SIDE)])


def exact_grid(side: int, longest: int = 1024) -> int:
    """Patches a side up to which ``table_entries`` changes nothing; ``longest`` where that is so for every grid."""
    line = _line(side)
    for patches in range(1, longest + 1):
        places = torch.arange(patches)
        if not torch.equal(line[TABLE_SIDE * places // patches], side * places // patches):
            return patches - 1
    return longest
