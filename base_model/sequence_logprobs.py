"""Log-probs of a packed batch's targets, differentiable, for losses that are not token-local.

Legend: T target tokens, D hidden width, V vocabulary.

`fused_head.head_loss` needs each token's share of the loss as soon as its log-prob is known. A loss on sums over whole
responses (DPO) knows it only at the end, so here the logits are made twice, chunk by chunk: once for the log-probs,
once in the backward pass for the gradient. The full logits never exist, and the backbone runs once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from base_model.fused_head import HeadShape, head_logprobs, head_loss
from base_model.packed_lm import PackedCausalLM
from base_model.packing import PackedBatch


def target_logprobs(hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shape: HeadShape) -> Tensor:
    """Log-probs [T] (fp32) of the targets, differentiable in hidden states and weight.

    Args:
        hidden_TD: Final hidden states at the positions that predict the targets; their dtype is the matmul's.
        weight_VD: LM head weight.
        targets_T: Token ids.
        shape: Scale, soft cap and temperature.
    """
    return _TargetLogprobs.apply(hidden_TD, weight_VD, targets_T, shape)


class _TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shape: HeadShape) -> Tensor:
        ctx.save_for_backward(hidden_TD, weight_VD, targets_T)
        ctx.shape = shape
        return head_logprobs(hidden_TD, weight_VD, targets_T, shape)

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of sum_t grad_t * logprob_t, which is a token-local loss."""
        hidden_TD, weight_VD, targets_T = ctx.saved_tensors
        hidden_TD = hidden_TD.detach().requires_grad_(ctx.needs_input_grad[0])
        weight_VD = weight_VD.detach().requires_grad_(ctx.needs_input_grad[1])
        with torch.enable_grad():
            loss, _ = head_loss(
                hidden_TD, weight_VD, targets_T, ctx.shape, lambda logprobs_C, span: (logprobs_C * grad_T[span]).sum()
            )
        wanted = [tensor for tensor in (hidden_TD, weight_VD) if tensor.requires_grad]
        found = iter(torch.autograd.grad(loss, wanted))
        return *(next(found) if tensor.requires_grad else None for tensor in (hidden_TD, weight_VD)), None, None


class SequenceLogprobs(nn.Module):
    """A packed model whose forward gives differentiable log-probs; it holds no parameters of its own."""

    def __init__(self, packed: PackedCausalLM) -> None:
        super().__init__()
        self.packed = packed

    def forward(self, batch: PackedBatch) -> Tensor:
        """Log-probs [T] of the batch's targets; differentiable where gradients are on."""
        hidden_TD = self.packed._hidden(batch)
        return target_logprobs(hidden_TD, self.packed._head_weight(), batch.targets_T, self.packed.shape)
