"""The vision path written a second time, straight from its description: padded batches, masks, one head at a time.

It shares no code with the model; only the weights are the model's.
"""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def features(
    weights: Weights,
    views: list[Tensor],
    grids: list[tuple[int, int]],
    packages: list[list[int]],
    *,
    tower_heads: int,
    resampler_heads: int,
) -> Tensor:
    """Tokens [packages, queries, width]; everything is padded to the longest view and masked, frame-major."""
    counts = [rows * columns for rows, columns in grids]
    longest = max(counts)
    hidden = torch.stack([_pad(_embed(weights, view, grid), longest) for view, grid in zip(views, grids, strict=True)])
    seen = torch.stack([_pad(torch.ones(count, dtype=torch.bool), longest) for count in counts])
    for layer in range(1 + max(int(name.split(".")[3]) for name in weights if name.startswith("vpm.encoder"))):
        hidden = _layer(weights, f"vpm.encoder.layers.{layer}.", hidden, seen, tower_heads)
    hidden = _norm(weights, "vpm.post_layernorm", hidden)
    value = _norm(weights, "resampler.ln_kv", hidden @ weights["resampler.kv_proj.weight"].T)
    ids = [time for package in packages for time in package]
    position = torch.stack(
        [_pad(_position(grid, time, value.shape[2]), longest) for grid, time in zip(grids, ids, strict=True)]
    )
    query = _norm(weights, "resampler.ln_q", weights["resampler.query"])[None]
    out, at = [], 0
    for package in packages:
        span = slice(at, at + len(package))
        key, val = ((value + position)[span].flatten(0, 1)[None], value[span].flatten(0, 1)[None])
        out.append(_resample(weights, query, key, val, seen[span].flatten()[None], resampler_heads))
        at += len(package)
    return _norm(weights, "resampler.ln_post", torch.cat(out)) @ weights["resampler.proj"]


def _pad(rows: Tensor, length: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(length - len(rows), *rows.shape[1:])])


def _embed(weights: Weights, view: Tensor, grid: tuple[int, int]) -> Tensor:
    """A convolution over the view put together again, plus the table at floor(place * side)."""
    rows, columns = grid
    side = view.shape[1]
    image = torch.cat(view.split(side * columns, 2), 1)  # a row's patches stand side by side already
    embedded = torch.nn.functional.conv2d(
        image[None],
        weights["vpm.embeddings.patch_embedding.weight"],
        weights["vpm.embeddings.patch_embedding.bias"],
        stride=side,
    )[0]
    table = weights["vpm.embeddings.position_embedding.weight"]
    length = math.isqrt(len(table))
    places = [(y * length // rows) * length + x * length // columns for y in range(rows) for x in range(columns)]
    return embedded.flatten(1).T + table[places]


def _layer(weights: Weights, name: str, hidden: Tensor, seen: Tensor, heads: int) -> Tensor:
    def linear(part: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}{part}.weight"].T + weights[f"{name}{part}.bias"]

    normed = _norm(weights, f"{name}layer_norm1", hidden)
    query, key, value = (linear(f"self_attn.{part}_proj", normed) for part in "qkv")
    hidden = hidden + linear("self_attn.out_proj", _attend(query, key, value, seen, heads))
    normed = linear("mlp.fc1", _norm(weights, f"{name}layer_norm2", hidden))
    return hidden + linear("mlp.fc2", torch.nn.functional.gelu(normed, approximate="tanh"))


def _resample(weights: Weights, query: Tensor, key: Tensor, value: Tensor, seen: Tensor, heads: int) -> Tensor:
    weight, bias = weights["resampler.attn.in_proj_weight"], weights["resampler.attn.in_proj_bias"]
    width = weight.shape[1]
    parts = [
        x @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width]
        for i, x in enumerate((query, key, value))
    ]
    out = _attend(*parts, seen, heads)
    return out @ weights["resampler.attn.out_proj.weight"].T + weights["resampler.attn.out_proj.bias"]


def _attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, heads: int) -> Tensor:
    width = query.shape[2] // heads
    out = []
    for head in range(heads):
        q, k, v = (x[..., head * width : (head + 1) * width] for x in (query, key, value))
        scores = (q @ k.transpose(1, 2) / math.sqrt(width)).masked_fill(~seen[:, None], -math.inf)
        out.append(scores.softmax(-1) @ v)
    return torch.cat(out, -1)


def _norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def _position(grid: tuple[int, int], time: int, width: int) -> Tensor:
    """Per patch [column sines, column cosines, row sines, row cosines]; a frame adds [time sines, time cosines]."""
    rows, columns = grid
    table = torch.tensor([_waves(x, width // 2) + _waves(y, width // 2) for y in range(rows) for x in range(columns)])
    return table if time < 0 else table + torch.tensor(_waves(time, width))


def _waves(position: float, width: int) -> list[float]:
    angles = [position / 10000 ** (2 * i / width) for i in range(width // 2)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
