"""LM head, softmax, loss and their gradients, chunk by chunk: the full logits never exist.

Legend: T target tokens, C tokens of one chunk, D hidden width, V vocabulary.

The loss must be token-local: the term of token t depends on the log-prob of token t alone (denominators are known
before the forward pass). Then the gradient of a chunk's logits is known as soon as its log-probs are, so one pass
makes loss, hidden and weight gradients with three matrix products per chunk, against four when the logits are
recomputed in the backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TokenLoss = Callable[[Tensor, slice], Tensor]
"""(log-probs [C] that require grad, slice of the T axis) -> scalar: the chunk's share of the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadShape:
    """How a model's hidden state becomes logits, beside the weight: ``softcap(h @ W.T * scale) / temperature``."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0


def head_logprobs(hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shape: HeadShape) -> Tensor:
    """Log-probs [T] (fp32) of the targets, without gradient.

    Args:
        hidden_TD: final hidden states at the positions that predict the targets; its dtype is the matmul's.
        weight_VD: LM head weight.
        targets_T: token ids.
        shape: scale, soft cap and sampling temperature.
    """
    weight = weight_VD.detach().to(hidden_TD.dtype)
    out = torch.empty(len(targets_T), dtype=torch.float32, device=hidden_TD.device)
    with torch.no_grad():
        for span in _chunks(len(targets_T), weight.shape[0]):
            logits = _logits(hidden_TD[span].detach(), weight, shape)
            out[span] = logits.gather(1, targets_T[span, None])[:, 0] - logits.logsumexp(1)
    return out


def head_loss(
    hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shape: HeadShape, token_loss: TokenLoss
) -> tuple[Tensor, Tensor]:
    """A token-local loss on the targets' log-probs, differentiable in hidden states and weight.

    Args:
        hidden_TD: final hidden states; their dtype is the matmul's (bf16 under autocast).
        weight_VD: LM head weight, any float dtype; its gradient is accumulated in fp32 when it is fp32.
        targets_T: token ids.
        shape: scale, soft cap and sampling temperature.
        token_loss: see ``TokenLoss``; called once per chunk, in order.

    Returns:
        The loss (scalar, fp32) and the detached log-probs [T] (fp32).
    """
    return _HeadLoss.apply(hidden_TD, weight_VD, targets_T, shape, token_loss)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shape: HeadShape, token_loss: TokenLoss
    ) -> tuple[Tensor, Tensor]:
        weight = weight_VD.to(hidden_TD.dtype)
        grad_hidden = torch.empty_like(hidden_TD) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        logprobs_T = torch.empty(len(targets_T), dtype=torch.float32, device=hidden_TD.device)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        for span in _chunks(len(targets_T), weight.shape[0]):
            hidden, targets = hidden_TD[span], targets_T[span, None]
            logits = _logits(hidden, weight, shape)
            logsumexp = logits.logsumexp(1, keepdim=True)
            with torch.enable_grad():
                chunk_logprobs = (logits.gather(1, targets) - logsumexp)[:, 0].requires_grad_()
                chunk_loss = token_loss(chunk_logprobs, span)
                (grad_logprobs,) = torch.autograd.grad(chunk_loss, chunk_logprobs)
            logprobs_T[span] = chunk_logprobs.detach()
            loss += chunk_loss.detach()
            if grad_hidden is None and grad_weight is None:
                continue
            grad_logits = _grad_logits(logits, logsumexp, targets, grad_logprobs, shape).to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[span] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(logprobs_T)
        return loss, logprobs_T

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _grad_logprobs: Tensor) -> tuple[Tensor | None, ...]:
        grads = tuple(None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors)
        return *grads, None, None, None


def _logits(hidden: Tensor, weight: Tensor, shape: HeadShape) -> Tensor:
    """[C, V] in fp32 at the sampling temperature."""
    with torch.autocast(hidden.device.type, enabled=False):
        logits = (hidden @ weight.T).float()
    if shape.scale != 1.0:
        logits.mul_(shape.scale)
    if shape.softcap is not None:
        logits.div_(shape.softcap).tanh_().mul_(shape.softcap)
    return logits if shape.temperature == 1.0 else logits.div_(shape.temperature)


def _grad_logits(logits: Tensor, logsumexp: Tensor, targets: Tensor, grad_logprobs: Tensor, shape: HeadShape) -> Tensor:
    """d loss / d (hidden @ weight.T), overwriting ``logits``: g * (onehot - softmax), through temperature, cap and
    scale.
    """
    slope = None
    if shape.softcap is not None:
        slope = 1 - (logits * (shape.temperature / shape.softcap)).square()
    grad = logits.sub_(logsumexp).exp_().neg_()
    grad.scatter_add_(1, targets, torch.ones_like(targets, dtype=grad.dtype))
    grad.mul_((grad_logprobs * (shape.scale / shape.temperature))[:, None])
    return grad if slope is None else grad.mul_(slope)


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    """Slices of the T axis holding at most about 2^25 logits (128 MiB in fp32), never fewer than 64 tokens."""
    size = max(64, 2**25 // vocabulary)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
