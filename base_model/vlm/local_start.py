"""How new weights begin in a model that learns from nothing: tower and resampler look locally.

With the official initialisation all queries of the resampler see nearly the mean of all patches, and many thousands of
pictures pass before the first query prefers a place. Here the queries begin as the position codes of a regular grid,
and the attention compares positions, so that each begins with a soft window around its own place. In the tower,
positions begin as sines as strong as the patches' contents, and the keys of the first layers as the queries, so that a
patch begins by looking at its like and its neighbours. Only the weights' first values differ: the layout, and what
training can reach, are the same. On pictures of four objects the first 6,400 samples teach a tiny model all colours by
place, where the official initialisation is still at the prior.

Legend: D width of the resampler, Q its queries, H its heads; C width of the tower.
"""

from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn

from base_model.vlm.resampler import Resampler, sincos
from base_model.vlm.vision import VisionTower

GAIN = 2.0
"""Weight of the compared position bands in query and key: the window is narrower the larger it is."""
SLOWEST = 0.12
"""Bands slower than this (radians per patch) say little about neighbours, and are left out of the comparison."""


TOWER_BASE, TOWER_SCALE = 100.0, 1.5
"""Wavelengths of the tower's first positions: from 2 pi / 1.5 patches to a hundred times that."""
TOWER_LAYERS = 3
"""Layers of the tower, from the first on, whose keys begin as their queries."""


@torch.no_grad()
def start_tower(tower: VisionTower, side: int) -> None:
    """Set a new tower's positions, and the keys of its first layers.

    Args:
        tower: with a position table for grids of any size.
        side: patches along a side of a usual view.
    """
    table = tower.embeddings.position_embedding.weight
    places = np.arange(tower.embeddings.side) * side / tower.embeddings.side
    codes = _tower_codes(places, table.shape[1] // 2)
    columns, rows = codes.expand(len(places), -1, -1), codes[:, None].expand(-1, len(places), -1)
    table.copy_(torch.cat([columns, rows], 2).flatten(0, 1))
    for layer in tower.encoder.layers[:TOWER_LAYERS]:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def _tower_codes(places: np.ndarray, width: int) -> Tensor:
    """[places, width]: sines and then cosines."""
    bands = width // 2
    angles = torch.from_numpy(places)[:, None] * TOWER_SCALE * TOWER_BASE ** -(torch.arange(bands) / bands)
    return torch.cat([angles.sin(), angles.cos()], 1).float()


@torch.no_grad()
def start_resampler(resampler: Resampler, side: int, gain: float = GAIN) -> bool:
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
