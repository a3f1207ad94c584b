"""The clipped policy-gradient loss of GRPO, as pure functions on tensors.

Shape legend: T response tokens, of all responses of a batch (or of any part of it) one after the other,
without padding.

The loss of a step is one weighted sum over its tokens, `sum_t weight_t * loss_t`. `token_weights` makes the weights
from the lengths of the WHOLE step before anything is split, and the loss of a token depends on that token's inputs
only. So chunks, micro-batches and ranks can be cut anywhere: their losses and gradients add up to those of the
undivided step.

There is no KL term and no entropy bonus (MiniCPM-V 4.5, arXiv 2509.18154, section 2.4 removes both).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rl.config import Aggregation
from rl.metrics import Max, Mean, Metrics

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut here, far beyond any clip range: a ratio that overflows to infinity would give even a clipped
token the gradient 0 * inf = NaN."""


def token_weights(
    lengths: Sequence[int],
    *,
    aggregation: Aggregation = "token-mean",
    constant_length: int | None = None,
    batch_tokens: int | None = None,
    batch_sequences: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Weight of every response token in the step's loss.

    With N responses of lengths L_i:

    - `"token-mean"` (DAPO, RLPR; default): 1 / sum_i L_i. Every token counts the same.
    - `"sequence-mean"` (GRPO as published): 1 / (N L_i). Every response counts the same.
    - `"constant"` (Dr. GRPO): 1 / (N constant_length). Free of length bias.

    Give the lengths of all responses of the step, also those that will not be trained because their group has no
        signal: a zero advantage
    adds nothing to the sum, but belongs to the denominator. Drop their weights afterwards (`weights.split(lengths)`).

    Args:
        lengths: Response tokens of each response; 0 is allowed and has no token to weigh.
        aggregation: See above.
        constant_length: Tokens; the denominator per response of `"constant"`, usually the response budget.
        batch_tokens, batch_sequences: Totals of the step, where `lengths` is only one rank's share of it. None: those
            of `lengths`.
        dtype: Of the result.

    Returns:
        Shape [T], T = sum(lengths), responses in the given order.

    Example::

        token_weights([1, 3], aggregation="sequence-mean")  # [1/2, 1/6, 1/6, 1/6]
    """
    tokens = sum(lengths) if batch_tokens is None else batch_tokens
    sequences = len(lengths) if batch_sequences is None else batch_sequences
    if aggregation == "token-mean":
        per_response = [1.0 / max(tokens, 1)] * len(lengths)
    elif aggregation == "sequence-mean":
        per_response = [1.0 / (sequences * max(length, 1)) for length in lengths]
    elif aggregation == "constant":
        if constant_length is None or constant_length < 1:
            raise ValueError(f"aggregation 'constant' needs constant_length >= 1 (tokens), got {constant_length}")
        per_response = [1.0 / (sequences * constant_length)] * len(lengths)
    else:
        raise ValueError(f"unknown aggregation {aggregation!r}: use 'token-mean', 'sequence-mean' or 'constant'")
    weights = torch.tensor(per_response, dtype=torch.float64)
    return weights.repeat_interleave(torch.tensor(lengths, dtype=torch.int64)).to(dtype)


def policy_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor | None,
    advantages_T: Tensor,
    weights_T: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    engine_logprobs_T: Tensor | None = None,
    importance_cap: float | None = None,
) -> tuple[Tensor, Metrics]:
    """PPO's clipped objective, weighted and summed over tokens.

    With r_t = exp(logprobs_t - old_logprobs_t) and advantages A_t:

        loss = sum_t weight_t * c_t * -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t)

    c_t = 1, or with `importance_cap` the truncated importance weight min(exp(old_logprobs_t - engine_logprobs_t), cap),
    without gradient, which corrects for an inference engine whose probabilities differ a little from the trainer's.

    Args:
        logprobs_T: Log-probs of the sampled tokens under the policy being trained (with gradient), shape [T].
        old_logprobs_T: The trainer's log-probs before the step's first update, shape [T]. None: there is one update per
            step, so they are `logprobs_T` without its gradient.
        advantages_T: Advantage of the response each token belongs to, shape [T].
        weights_T: From `token_weights`, shape [T].
        clip_low, clip_high: Distances of the clip bounds from 1. RLPR uses 0.2 and 0.27.
        engine_logprobs_T: Log-probs the engine sampled the tokens with, shape [T]. Alone they are only measured.
        importance_cap: Upper bound of the importance weight, e.g. 2. None: no correction.

    Returns:
        The scalar loss, and metrics over the tokens (mergeable, see `rl.metrics`).

    Example::

        # r = 1.5 is cut to 1.2 where that lowers the objective (A > 0), and kept where it would hide a mistake (A < 0).
        policy_loss(log([1.5, 1.5]), log([1, 1]), [1, -1], [0.5, 0.5])  # 0.5 * -1.2 + 0.5 * 1.5 = 0.15

    References:
        PPO, arXiv 1707.06347, equation 7; clip-higher and the token mean: DAPO, arXiv 2503.14476; RLPR, arXiv
        2506.18254; truncated importance sampling: Yao et al. 2025, "Your efficient RL framework secretly brings you
        off-policy RL training".
    """
    _check_shapes(logprobs_T, old_logprobs_T, advantages_T, weights_T, engine_logprobs_T)
    if importance_cap is not None and engine_logprobs_T is None:
        raise ValueError("importance_cap needs engine_logprobs_T, the log-probs the engine sampled the tokens with")
    old_T = logprobs_T.detach() if old_logprobs_T is None else old_logprobs_T.detach()
    ratio_T = (logprobs_T - old_T).clamp(max=MAX_LOG_RATIO).exp()
    clipped_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_T = -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
    metrics = _ratio_metrics(ratio_T.detach(), advantages_T, clip_low=clip_low, clip_high=clip_high)
    if engine_logprobs_T is not None:
        metrics |= _engine_metrics(old_T, engine_logprobs_T)
    if importance_cap is not None and engine_logprobs_T is not None:
        whole_T = (old_T - engine_logprobs_T).clamp(max=MAX_LOG_RATIO).exp()
        importance_T = whole_T.clamp(max=importance_cap)
        metrics["engine/importance_mean"] = _mean(importance_T)
        metrics["engine/importance_truncated"] = _mean(whole_T > importance_cap)
        loss_T = loss_T * importance_T
    return (loss_T * weights_T).sum(), metrics


def _ratio_metrics(ratio_T: Tensor, advantages_T: Tensor, *, clip_low: float, clip_high: float) -> Metrics:
    """How far the policy has moved, and which share of the tokens the clip keeps from moving further."""
    low_T = (ratio_T < 1.0 - clip_low) & (advantages_T < 0)
    high_T = (ratio_T > 1.0 + clip_high) & (advantages_T > 0)
    return {
        "ratio/mean": _mean(ratio_T),
        "ratio/max": _max(ratio_T),
        "clip_fraction": _mean(low_T | high_T),
        "clip_fraction/low": _mean(low_T),
        "clip_fraction/high": _mean(high_T),
    }


def _engine_metrics(old_T: Tensor, engine_T: Tensor) -> Metrics:
    """How far the engine's log-probs of its own samples are from the trainer's, in nats per token: |difference|, and an
    unbiased estimate of KL(engine || trainer) without negative terms, r - 1 - log r (Schulman 2020,
    http://joschu.net/blog/kl-approx.html), in float64, where it is not lost beside 1.
    """
    log_ratio_T = (old_T - engine_T).double().clamp(max=MAX_LOG_RATIO)
    gap_T = (old_T - engine_T).abs()
    return {
        "engine/logprob_gap_mean": _mean(gap_T),
        "engine/logprob_gap_max": _max(gap_T),
        "engine/kl": _mean(log_ratio_T.expm1() - log_ratio_T),
    }


def _mean(values_T: Tensor) -> Mean:
    return Mean(float(values_T.sum(dtype=torch.float64)), values_T.numel())


def _max(values_T: Tensor) -> Max:
    return Max(float(values_T.max())) if values_T.numel() else Max()


def _check_shapes(logprobs_T: Tensor, *others: Tensor | None) -> None:
    """Broadcasting a [T, 1] against a [T] would silently make T * T losses."""
    shapes = [list(logprobs_T.shape), *(list(other.shape) for other in others if other is not None)]
    if logprobs_T.dim() != 1 or any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"policy_loss wants tensors of one shape [T], got {shapes}")
