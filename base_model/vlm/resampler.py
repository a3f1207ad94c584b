"""3D-resampler: a package of frames, or one view of an image, becomes a fixed number of tokens.

Source: MiniCPM-V 4.5 (arXiv 2509.18154, section 2.2). Images and videos go through the same weights.

Legend: Q queries, D language model width, C tower width, N patches of all views end to end, G packages, L patches of
one package.

Keys carry the position of their patch (2D) and, in a video, the time of their frame; values carry neither, nor do the
queries. (The report's figure adds positions to the queries; the released weights do not, and theirs is what counts.)
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from base_model.vlm.vision import Grid, batches

NO_TIME = -1
"""Temporal id of a view that is not a frame: it adds nothing to the keys."""

TICKS_PER_SECOND = 10
"""A temporal id counts tenths of a second."""

MAX_PATCHES = 2**17
"""Patches whose keys and values are held at a time (128 frames of 448 x 448): a long video would not fit at once."""

HEAD_WIDTH = 128
"""Width of an attention head in the official layout: heads = D // 128."""

Span = tuple[int, int]
"""First index and end."""


class Resampler(nn.Module):
    """One cross-attention layer from learned queries to the patches of a package.

    Args:
        queries: Q.
        width: D, a multiple of 4 that the heads divide.
        vision_width: C.
    """

    def __init__(self, queries: int, width: int, vision_width: int) -> None:
        super().__init__()
        heads = max(1, width // HEAD_WIDTH)
        if width % heads or width % 4:
            raise ValueError(
                f"hidden_size {width} does not divide into {heads} resampler heads and 4 position bands; "
                f"choose a multiple of {HEAD_WIDTH}, or a smaller multiple of 4"
            )
        self.query = nn.Parameter(torch.empty(queries, width))
        self.kv_proj = nn.Identity() if vision_width == width else nn.Linear(vision_width, width, bias=False)
        self.attn = nn.MultiheadAttention(width, heads)  # holds the weights under their official names
        self.ln_q = nn.LayerNorm(width, eps=1e-6)
        self.ln_kv = nn.LayerNorm(width, eps=1e-6)
        self.ln_post = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Parameter(torch.empty(width, width))

    def forward(
        self, features: Sequence[Tensor], grids: Sequence[Grid], packages: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """Tokens [G, Q, D] of each package, in order.

        Args:
            features: tower features [N_i, C] of each view.
            grids: (rows, columns) of patches of each view.
            packages: temporal ids of the views of each package, in order; together they cover all views. None = every
                view is an image, a package of its own.
        """
        if packages is None:
            packages = [[NO_TIME]] * len(features)
        _check_packages(packages, len(features))
        tokens = [
            self._tokens(features[slice(*views)], grids[slice(*views)], packages[first:last])
            for (first, last), views in _runs(packages, [rows * columns for rows, columns in grids])
        ]
        return torch.cat(tokens)

    def _tokens(self, features: Sequence[Tensor], grids: Sequence[Grid], packages: Sequence[Sequence[int]]) -> Tensor:
        value_ND = self.ln_kv(self.kv_proj(torch.cat(list(features))))
        key_ND = value_ND + self._positions(grids, packages, value_ND)
        ends = [0, *accumulate(rows * columns for rows, columns in grids)]
        starts = [ends[view] for view in (0, *accumulate(len(package) for package in packages))]
        return self.ln_post(self._attend(key_ND, value_ND, list(pairwise(starts)))) @ self.proj

    def _positions(self, grids: Sequence[Grid], packages: Sequence[Sequence[int]], like: Tensor) -> Tensor:
        """[N, D]: what the keys of every view carry."""
        width = like.shape[1]
        tables = [grid_positions(rows, columns, width, like.device) for rows, columns in grids]
        times = [time for package in packages for time in package]
        tables = [
            table if time == NO_TIME else table + time_position(time, width, like.device)
            for table, time in zip(tables, times, strict=True)
        ]
        return torch.cat(tables).to(like.dtype)

    def _attend(self, key_ND: Tensor, value_ND: Tensor, spans: Sequence[Span]) -> Tensor:
        """[G, Q, D]; packages of equally many patches are computed together, so nothing is padded or masked."""
        query_QD, key_ND, value_ND = self._project(self.ln_q(self.query), key_ND, value_ND)
        tokens: dict[int, Tensor] = {}
        sizes = [end - start for start, end in spans]
        parts = (key_ND.split(sizes), value_ND.split(sizes))  # slices would each fill a gradient of all rows
        for members in batches(sizes, len(spans)):
            keys, values = (torch.stack([part[i] for i in members]) for part in parts)
            queries = query_QD.expand(len(members), -1, -1)
            out = F.scaled_dot_product_attention(*(self._split(x) for x in (queries, keys, values)))
            out = self.attn.out_proj(out.transpose(1, 2).flatten(2))
            tokens.update(zip(members, out.unbind(), strict=True))
        return torch.stack([tokens[i] for i in range(len(spans))])

    def _project(self, *inputs: Tensor) -> list[Tensor]:
        """Query, key and value through their third of the attention's input projection each."""
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        return [F.linear(*each) for each in zip(inputs, weights, biases, strict=True)]

    def _split(self, rows: Tensor) -> Tensor:
        """[G, L, D] -> [G, heads, L, D / heads]."""
        return rows.unflatten(2, (self.attn.num_heads, -1)).transpose(1, 2)

    def init_weights(self) -> None:
        """The official initialisation; weights that were loaded are left alone."""
        init.trunc_normal_(self.query, std=0.02)
        init.normal_(self.proj, std=self.proj.shape[0] ** -0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init.trunc_normal_(module.weight, std=0.02)


def _runs(packages: Sequence[Sequence[int]], patches: Sequence[int]) -> Iterator[tuple[Span, Span]]:
    """Packages (first, end) that are computed at a time, and their views (first, end)."""
    first = view = start = held = 0
    for number, package in enumerate(packages):
        size = sum(patches[view : view + len(package)])
        if number > first and held + size > MAX_PATCHES:
            yield (first, number), (start, view)
            first, start, held = number, view, 0
        view, held = view + len(package), held + size
    yield (first, len(packages)), (start, view)


def _check_packages(packages: Sequence[Sequence[int]], views: int) -> None:
    if any(not package for package in packages) or sum(map(len, packages)) != views:
        raise ValueError(
            f"temporal_ids give packages of {[len(package) for package in packages]} views, but there are {views} "
            "views; every view must be in exactly one package"
        )


@lru_cache(maxsize=16)
def grid_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """[rows * columns, width] fp32: sines and cosines of the column in the first half, of the row in the second."""
    with torch.inference_mode(False):  # what is kept must also serve a later training step
        across = _bands(columns, width // 2, device).expand(rows, -1, -1)
        down = _bands(rows, width // 2, device)[:, None].expand(-1, columns, -1)
        return torch.cat([across, down], 2).flatten(0, 1)


@lru_cache(maxsize=4096)
def time_position(tick: int, width: int, device: torch.device) -> Tensor:
    """[width] fp32: sines and then cosines of a temporal id."""
    with torch.inference_mode(False):
        return sincos(np.array([tick]), width).to(device)[0]


@lru_cache(maxsize=512)
def _bands(count: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return sincos(np.arange(count), width).to(device)


def sincos(positions: np.ndarray, width: int) -> Tensor:
    """Sines and then cosines [count, width] of positions at wavelengths from 2 pi to 20,000 pi (base 10,000).

    In single precision throughout, as the checkpoint was trained: at large positions the rounding of the frequencies is
    part of the table.
    """
    exponents = np.arange(width // 2, dtype=np.float32) / np.float32(width / 2)
    frequencies = np.float32(1) / np.float32(10000) ** exponents
    angles = positions.astype(np.float32)[:, None] * frequencies
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], 1))
