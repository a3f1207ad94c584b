"""Attention over the packed axis, as an attention implementation of transformers (any decoder that uses its interface).

Legend: N packed tokens, G responses of a group, L longest response, P prompt tokens, H query heads, K key heads, D
head width.

Responses of a group are batched inside attention only, as [G, H, L, D] against keys [G, K, P + L, D]; everything
outside attention (most of the arithmetic) runs on the unpadded axis. Rows past a response's end are computed and
dropped; its real rows never see them, since every key after a row's own position is masked.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.branches import BranchLayout, KeyValues, branch_attention
from base_model.packing import GroupLayout

NAME = "tandem_packed"

MAX_SCORES = 2**24
"""Scores (batch x heads x rows x keys) up to which CPU attention keeps them instead of recomputing in tiles."""


def register() -> None:
    """Make the implementation known to transformers under ``tandem_packed`` (idempotent)."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """The layout says who sees whom: no mask over the packed axis is ever built."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Sequence[GroupLayout] | BranchLayout | None = None,
    memory: KeyValues | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each group of the layout.

    Args:
        module: the calling attention layer.
        query: [1, H, N, D].
        key: [1, K, N, D], with K dividing H.
        value: [1, K, N, D].
        attention_mask: always None (the layout replaces it).
        layout: the groups, in packed order; or the branches of an earlier batch.
        memory: keeps the batch's keys and values for branches; None = nothing is kept.
        scaling: factor on the scores; None = 1 / sqrt(D).
        sliding_window: a row sees this many latest positions, itself included; None = all.
        softcap: scores are squashed to cap * tanh(score / cap) (Gemma 2); None = off.
        **kwargs: the layer's other keyword arguments.

    Returns:
        Output [1, N, H, D] and no attention weights.

    Raises:
        ValueError: the layer needs something this implementation does not compute (attention sinks).
    """
    if layout is None:
        raise ValueError("packed attention was called without a layout; run the model through PackedCausalLM")
    if kwargs.get("s_aux") is not None:
        raise ValueError(
            "this model uses attention sinks, which packed attention does not compute; choose another model"
        )
    if isinstance(layout, BranchLayout):
        scale = query.shape[3] ** -0.5 if scaling is None else scaling
        return branch_attention(
            _layer(module), query, key, value, layout, scale=scale, window=sliding_window, softcap=softcap
        ), None
    if memory is not None:
        memory.keep(_layer(module), key, value)
    sizes = [size for group in layout for size in (group.prompt, *group.responses)]
    query_parts, key_parts, value_parts = (x.split(sizes, dim=2) for x in (query, key, value))
    outputs: list[Tensor] = []
    at = 0
    for group in layout:
        count = len(group.responses)
        prompt_key, prompt_value = key_parts[at], value_parts[at]
        outputs.append(_attend(query_parts[at], prompt_key, prompt_value, 0, scaling, sliding_window, softcap))
        if count:
            span = slice(at + 1, at + 1 + count)
            queries = _stack(query_parts[span], group.responses)
            keys = torch.cat([prompt_key.expand(count, -1, -1, -1), _stack(key_parts[span], group.responses)], 2)
            values = torch.cat([prompt_value.expand(count, -1, -1, -1), _stack(value_parts[span], group.responses)], 2)
            out = _attend(queries, keys, values, group.prompt, scaling, sliding_window, softcap)
            outputs.extend(out[i : i + 1, :, :length] for i, length in enumerate(group.responses))
        at += 1 + count
    return torch.cat(outputs, 2).transpose(1, 2), None


def _layer(module: nn.Module) -> int:
    """The layer's number, which every decoder of transformers gives its attention."""
    return int(module.layer_idx)


def _stack(parts: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """[1, H, length_i, D] each -> [G, H, L, D], zeros after each one's end."""
    longest = max(lengths)
    return torch.cat([F.pad(p, (0, 0, 0, longest - n)) for p, n in zip(parts, lengths, strict=True)])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offset: int,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Causal attention of rows at positions offset.. over keys at positions 0..

    Args:
        query: [B, H, L, D].
        key: [B, K, offset + L, D].
        value: [B, K, offset + L, D].
        offset: Keys before the first row's own.
        scaling: Factor on the scores.
        sliding_window: Latest positions a row sees.
        softcap: Bound of the scores.
    """
    rows, keys = query.shape[2], key.shape[2]
    window = sliding_window if sliding_window is not None and keys > sliding_window else None
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    small = query.device.type == "cpu" and query.shape[0] * query.shape[1] * rows * keys <= MAX_SCORES
    if softcap is not None or small:
        return _attend_by_products(query, key, value, _bias(offset, rows, window, query.device), scale, softcap)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    if offset == 0 and window is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    mask = _bias(offset, rows, window, query.device) == 0
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, softcap: float | None
) -> Tensor:
    """Attention as two batched matrix products around a softmax, query heads of one key head stacked.

    For short rows on CPU this is four times as fast, backward included, as the fused kernel; it keeps the scores, so it
    is used below ``MAX_SCORES`` only (or where a soft cap rules the fused kernel out).
    """
    batch, heads, rows, width = query.shape
    kv_heads, keys = key.shape[1:3]
    shape = (batch * kv_heads, heads // kv_heads, rows, keys)
    flat_query = (query * scale).reshape(batch * kv_heads, -1, width)
    scores = torch.bmm(flat_query, key.reshape(batch * kv_heads, keys, width).transpose(1, 2)).view(shape)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = (scores + bias.to(scores.dtype)).softmax(-1).view(batch * kv_heads, -1, keys)
    return torch.bmm(weights, value.reshape(batch * kv_heads, keys, width)).view(batch, heads, rows, width)


@lru_cache(maxsize=64)
def _bias(offset: int, rows: int, window: int | None, device: torch.device) -> Tensor:
    """[rows, offset + rows]: 0 where row i (position offset + i) sees key j, else -inf; cached, as every layer asks."""
    seen = torch.ones(rows, offset + rows, dtype=torch.bool, device=device).tril(offset)
    if window is not None:
        seen = seen.triu(offset - window + 1)
    return torch.zeros(rows, offset + rows, device=device).masked_fill_(~seen, float("-inf"))
