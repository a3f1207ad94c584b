"""How a new resampler begins: every query looks at its own part of the view.

With the official initialisation all queries see nearly the mean of all patches, and a model that learns from nothing
needs many thousands of pictures before the first query prefers a place. Here the queries begin as the position codes of
a regular grid, and the attention compares positions, so that each begins with a soft window around its own place. Only
the weights' first values differ: the layout, and what training can reach, are the same.

Legend: D width, Q queries, H heads.
"""

from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn

from base_model.vlm.resampler import Resampler, sincos

GAIN = 2.0
"""Weight of the compared position bands in query and key: the window is narrower the larger it is."""
SLOWEST = 0.12
"""Bands slower than this (radians per patch) say little about neighbours, and are left out of the comparison."""


@torch.no_grad()
def start_local(resampler: Resampler, side: int, gain: float = GAIN) -> bool:
    """Set a new resampler's first weights; torch's own generator gives the random ones.

    Args:
        resampler: Q queries; they are laid out as a square.
        side: patches along a side of a usual view.
        gain: see ``GAIN``.

    Returns:
        False, and nothing is changed, where Q is not a square number.
    """
    across = isqrt(resampler.query.shape[0])
    if across**2 != resampler.query.shape[0]:
        return False
    width, heads = resampler.query.shape[1], resampler.attn.num_heads
    resampler.query.copy_(_places(across, side, width))
    query_DD, key_DD, value_DD = resampler.attn.in_proj_weight.chunk(3)
    compared_DD = _comparison(width, heads, gain)
    query_DD += compared_DD
    key_DD += compared_DD
    nn.init.orthogonal_(value_DD)
    nn.init.orthogonal_(resampler.attn.out_proj.weight)
    if isinstance(resampler.kv_proj, nn.Linear):
        nn.init.xavier_uniform_(resampler.kv_proj.weight)
    return True


def _places(across: int, side: int, width: int) -> Tensor:
    """[Q, D]: position codes, as the keys have them, at the middles of an across x across grid over side x side
    patches."""
    middles = (np.arange(across) + 0.5) * side / across - 0.5
    codes = sincos(middles, width // 2)
    columns, rows = codes.expand(across, -1, -1), codes[:, None].expand(-1, across, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1)


def _comparison(width: int, heads: int, gain: float) -> Tensor:
    """[D, D]: passes on the fast position bands, dealt out to the heads in turn (sine and cosine of a band to the same
    one)."""
    bands = width // 4
    frequencies = 10000.0 ** -(torch.arange(bands) / bands)
    gains_D = torch.where(frequencies > SLOWEST, gain, 0.0).repeat(4)
    order_D = torch.arange(width).view(-1, heads).T.reshape(-1)
    return torch.diag(gains_D)[order_D]
