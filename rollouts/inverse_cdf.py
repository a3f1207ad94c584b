"""Drawing from many categorical distributions by inverting their cumulative sums.

Letters: B = rows, V = categories, W = width of a block, K = number of blocks = ceil(V / W).
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH = 256


def draw(weights_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Draws one category per row with probability proportional to its weight.

    The cumulative sum is taken in two levels, over blocks of W categories and then within one block: a plain sum over
    a large vocabulary is vectorised, a cumulative one is not. A category of weight 0 is never drawn.

    Args:
        weights_BV: [B, V] weights >= 0 with a positive sum in every row.
        uniforms_B: [B] float64 numbers in [0, 1).

    Returns:
        [B] int64 categories.

    Example::

        draw(torch.tensor([[0.2, 0.0, 0.8]]), torch.tensor([0.3], dtype=torch.float64))  # tensor([2])
    """
    sums_BK = _block_sums(weights_BV)
    block_B, rest_B = _invert(sums_BK, uniforms_B)
    index_BW = block_B.unsqueeze(1) * WIDTH + torch.arange(WIDTH, device=weights_BV.device)
    last = weights_BV.shape[1] - 1
    inside_BW = weights_BV.gather(1, index_BW.clamp(max=last)).double()
    inside_BW = inside_BW.masked_fill(index_BW > last, 0.0)
    offset_B, _ = _invert(inside_BW, rest_B)
    return (block_B * WIDTH + offset_B).clamp(max=last)


def _block_sums(weights_BV: Tensor) -> Tensor:
    """[B, K] float64 sums of blocks of W categories; the last block may be shorter."""
    whole = weights_BV.shape[1] // WIDTH * WIDTH
    sums = weights_BV[:, :whole].unflatten(1, (whole // WIDTH, WIDTH)).sum(-1)
    if whole < weights_BV.shape[1]:
        sums = torch.cat([sums, weights_BV[:, whole:].sum(-1, keepdim=True)], dim=1)
    return sums.double()


def _invert(weights_BN: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Inverts the cumulative sums at the given fractions.

    Returns:
        [B] the categories, and [B] the fraction in [0, 1) of the category's own weight that was reached.
    """
    cdf_BN = weights_BN.cumsum(1)
    total_B = cdf_BN[:, -1]
    # strictly below the total, so that some category's sum lies above the target
    target_B = torch.minimum(uniforms_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    index_B = torch.searchsorted(cdf_BN, target_B.unsqueeze(1), right=True).squeeze(1)
    index_B = index_B.clamp(max=weights_BN.shape[1] - 1)
    weight_B, upper_B = (t.gather(1, index_B.unsqueeze(1)).squeeze(1) for t in (weights_BN, cdf_BN))
    fraction_B = 1 - (upper_B - target_B) / weight_B
    return index_B, fraction_B.clamp(0.0, 1.0 - 2.0**-53)
