"""Attention of the vision tower, as an attention implementation of transformers: no mask, and plain products where
they are faster.

Legend: V views of one size, H heads, N patches of a view, D head width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "tandem_vision"

MAX_SCORES = 2**24
"""Scores (V x H x N x N) up to which CPU attention keeps them instead of recomputing in tiles."""


def vision_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Every patch of a view sees all of them.

    For small views on CPU, two batched products around a softmax take, backward included, a quarter of the fused
    kernel's time in bf16 (16 views of 64 patches) and as long as it in fp32; they keep the scores, so larger views and
    other devices use the fused kernel.

    Args:
        module: the calling attention layer.
        query, key, value: [V, H, N, D].
        attention_mask: always None.
        scaling: factor on the scores; None = 1 / sqrt(D).
        **kwargs: the layer's other keyword arguments.

    Returns:
        Output [V, N, H, D] and no attention weights.
    """
    views, heads, patches, width = query.shape
    if query.device.type != "cpu" or views * heads * patches**2 > MAX_SCORES:
        out, _ = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, is_causal=False)
        return out, None
    scale = width**-0.5 if scaling is None else scaling
    query, key, value = (each.reshape(views * heads, patches, width) for each in (query * scale, key, value))
    out = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(-1), value)
    return out.view(views, heads, patches, width).transpose(1, 2), None


AttentionInterface.register(NAME, vision_attention)
