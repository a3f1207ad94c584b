"""Losses of direct preference optimisation (DPO), as pure functions on tensors.

Shape legend: P pairs, T response tokens of both sides of a batch, one after the other.

The loss of a step is a sum over its pairs (and, for the supervised term, over the chosen sides' tokens) with weights
that are known before anything is split, so micro-batches can be cut between any two pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rl.metrics import Mean, Metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLogprobs:
    """Log-probs of both sides of some pairs, summed over their tokens; all of shape [P]."""

    chosen_P: Tensor
    """log pi(chosen | prompt) under the policy, with gradient."""
    rejected_P: Tensor
    """log pi(rejected | prompt) under the policy, with gradient."""
    ref_chosen_P: Tensor
    """The same under the reference policy."""
    ref_rejected_P: Tensor
    """The same under the reference policy."""
    chosen_tokens_P: Tensor
    """Tokens of the chosen side, the end of the turn included."""
    rejected_tokens_P: Tensor
    """Tokens of the rejected side, the end of the turn included."""

    @property
    def chosen_ratio_P(self) -> Tensor:
        """log pi / pi_ref of the chosen side."""
        return self.chosen_P - self.ref_chosen_P

    @property
    def rejected_ratio_P(self) -> Tensor:
        """log pi / pi_ref of the rejected side."""
        return self.rejected_P - self.ref_rejected_P


def dpo_loss(
    pairs: PairLogprobs, *, beta: float = 0.1, label_smoothing: float = 0.0, length_normalised: bool = False
) -> Tensor:
    """The sigmoid loss of each pair.

    With the implicit rewards r_w, r_l = beta * log(pi / pi_ref) of chosen and rejected side and m = r_w - r_l:

        loss = -(1 - label_smoothing) * log sigmoid(m) - label_smoothing * log sigmoid(-m)

    Args:
        pairs: Summed log-probs.
        beta: How strongly the policy is held to the reference.
        label_smoothing: Assumed share of pairs whose sides are confused ("conservative" DPO); below 0.5.
        length_normalised: Divide each side's log-ratio by its tokens; beta then wants to be larger by about their
            number.

    Returns:
        Shape [P].

    Example::

        # log-ratios 2 and -1, beta 0.5: m = 1.5
        dpo_loss(pairs, beta=0.5)  # [0.2014] = -log sigmoid(1.5)

    References:
        Rafailov et al. 2023, arXiv 2305.18290, equation 7; RLAIF-V, arXiv 2405.17220, uses beta 0.1. Label smoothing:
        Mitchell 2023, "A note on DPO with noisy preferences". Length normalisation: arXiv 2405.14734, section 2.
    """
    _check(pairs)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is {label_smoothing}, and must lie in [0, 0.5): at 0.5 a pair says nothing")
    margin_P = beta * _log_ratio_difference(pairs, length_normalised)
    return -(1 - label_smoothing) * logsigmoid(margin_P) - label_smoothing * logsigmoid(-margin_P)


def sft_loss(chosen_P: Tensor, chosen_tokens: float) -> Tensor:
    """Mean negative log-likelihood per token of the chosen sides: the supervised term that keeps them likely.

    Args:
        chosen_P: Summed log-probs of the chosen sides, shape [P].
        chosen_tokens: Tokens of the chosen sides of the WHOLE step, of which these pairs may be a part.

    Returns:
        Scalar; the parts of a step add up to the step's mean.

    References:
        TRL's `sft` loss (formerly `rpo_alpha`); arXiv 2404.19733, equation 1, divides by each side's own length
        instead.
    """
    return -chosen_P.sum() / max(float(chosen_tokens), 1.0)


def implicit_rewards(
    logprobs_P: Tensor, ref_logprobs_P: Tensor, tokens_P: Tensor, *, beta: float, length_normalised: bool
) -> Tensor:
    """beta * log(pi / pi_ref) of each response, or beta / tokens times it; shape [P].

    References:
        arXiv 2305.18290, section 4; length-normalised for best-of-N: RLAIF-V, arXiv 2405.17220, section 3.4.
    """
    rewards_P = beta * (logprobs_P - ref_logprobs_P)
    return rewards_P / tokens_P.clamp(min=1) if length_normalised else rewards_P


def both_rewards(pairs: PairLogprobs, *, beta: float, length_normalised: bool) -> tuple[Tensor, Tensor]:
    """Implicit rewards of chosen and rejected sides, without gradient."""
    chosen = pairs.chosen_P.detach(), pairs.ref_chosen_P, pairs.chosen_tokens_P
    rejected = pairs.rejected_P.detach(), pairs.ref_rejected_P, pairs.rejected_tokens_P
    return (
        implicit_rewards(*chosen, beta=beta, length_normalised=length_normalised),
        implicit_rewards(*rejected, beta=beta, length_normalised=length_normalised),
    )


def pair_metrics(pairs: PairLogprobs, *, beta: float, length_normalised: bool = False) -> Metrics:
    """Implicit rewards, their margin and accuracy (a tie is wrong), log-probs and lengths, as mergeable means."""
    chosen_P, rejected_P = both_rewards(pairs, beta=beta, length_normalised=length_normalised)
    return {
        "reward/chosen": _mean(chosen_P),
        "reward/rejected": _mean(rejected_P),
        "reward/margin": _mean(chosen_P - rejected_P),
        "reward/accuracy": _mean((chosen_P > rejected_P).double()),
        "logp/chosen": _mean(pairs.chosen_P.detach()),
        "logp/rejected": _mean(pairs.rejected_P.detach()),
        "tokens/chosen": _mean(pairs.chosen_tokens_P),
        "tokens/rejected": _mean(pairs.rejected_tokens_P),
    }


def sum_by_response(logprobs_T: Tensor, tokens: list[int]) -> Tensor:
    """Sums of consecutive runs of `logprobs_T`, one per response, in double precision; shape [len(tokens)].

    Long responses add thousands of terms to a number of which only the small difference to the reference's counts.
    """
    owner_T = torch.arange(len(tokens), device=logprobs_T.device).repeat_interleave(
        torch.tensor(tokens, device=logprobs_T.device)
    )
    sums = torch.zeros(len(tokens), dtype=torch.float64, device=logprobs_T.device)
    return sums.index_add(0, owner_T, logprobs_T.double())


def _log_ratio_difference(pairs: PairLogprobs, length_normalised: bool) -> Tensor:
    chosen_P, rejected_P = pairs.chosen_ratio_P, pairs.rejected_ratio_P
    if length_normalised:
        chosen_P = chosen_P / pairs.chosen_tokens_P.clamp(min=1)
        rejected_P = rejected_P / pairs.rejected_tokens_P.clamp(min=1)
    return chosen_P - rejected_P


def _mean(values: Tensor) -> Mean:
    return Mean(float(values.sum(dtype=torch.float64)), values.numel())


def _check(pairs: PairLogprobs) -> None:
    """Broadcasting a [P, 1] against a [P] would silently make P * P pairs."""
    names = PairLogprobs.__dataclass_fields__
    shapes = {name: list(getattr(pairs, name).shape) for name in names}
    if len({tuple(shape) for shape in shapes.values()}) != 1 or pairs.chosen_P.dim() != 1:
        raise ValueError(f"dpo_loss wants tensors of one shape [P], got {shapes}")
