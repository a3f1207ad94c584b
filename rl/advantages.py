"""Group-relative advantages: a response is compared with the other responses to the same prompt.

Shape legend: G responses of one group (one prompt, one mode), B groups of the step.

How this follows the papers (RLPR, arXiv 2506.18254, and DeepSeekMath's GRPO, arXiv 2402.03300):

1. The baseline is the group's mean, the scale its unbiased standard deviation plus `eps`.
2. A group whose standard deviation is below 1e-6 carries no signal: its advantages are exactly 0, never NaN.
3. `scale="none"` is Dr. GRPO (arXiv 2503.20783): the mean only, which removes the bias towards very easy and very hard
   prompts.
4. `scale="batch"` divides by the standard deviation of all rewards of the step (REINFORCE++, arXiv 2501.03262; also
   TRL's option).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rl.config import Scale

NO_SIGNAL_STD = 1e-6
"""A group whose unbiased standard deviation is below this has no signal (RLPR)."""


def reward_std(rewards_G: Tensor) -> float:
    """Unbiased standard deviation in float64; 0 for fewer than two rewards, where it is not defined."""
    return float(rewards_G.double().std(unbiased=True)) if rewards_G.numel() > 1 else 0.0


def has_signal(rewards_G: Tensor) -> bool:
    """Whether training on the group can change anything: its rewards differ."""
    return reward_std(rewards_G) >= NO_SIGNAL_STD


def group_advantages(
    rewards_G: Tensor, *, scale: Scale = "group", eps: float = 1e-6, batch_std: float | None = None
) -> Tensor:
    """Advantages of one group.

    `A_i = (R_i - mean(R)) / (s + eps)` with `s` the group's unbiased standard deviation (`scale="group"`), the step's
    (`"batch"`); `A_i = R_i - mean(R)` for `"none"`.

    Args:
        rewards_G: Total reward of each response, shape [G].
        scale: What the centred reward is divided by.
        eps: Added to the standard deviation. Not used by `"none"`.
        batch_std: Standard deviation of all rewards of the step; needed by `"batch"` only.

    Returns:
        Shape [G], float64. All zeros for a group without signal.

    Raises:
        ValueError: A reward is not finite, the shape is not [G], or `"batch"` comes without `batch_std`.

    Example::

        group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0]), scale="none")  # [0.5, -0.5, -0.5, 0.5]
    """
    rewards_G = _checked(rewards_G)
    if scale == "batch" and batch_std is None:
        raise ValueError("scale='batch' needs batch_std, the standard deviation of all rewards of the step")
    if not has_signal(rewards_G):
        return torch.zeros_like(rewards_G)
    centred_G = rewards_G - rewards_G.mean()
    if scale == "none":
        return centred_G
    if scale == "group":
        return centred_G / (reward_std(rewards_G) + eps)
    if scale == "batch":
        assert batch_std is not None
        return centred_G / (batch_std + eps)
    raise ValueError(f"unknown scale {scale!r}: use 'group', 'batch' or 'none'")


def batch_advantages(
    rewards_BG: Sequence[Sequence[float] | Tensor], *, scale: Scale = "group", eps: float = 1e-6
) -> list[Tensor]:
    """Advantages of all groups of a step; the groups may differ in size.

    Args:
        rewards_BG: One sequence of total rewards per group.
        scale, eps: As in `group_advantages`; the standard deviation of `"batch"` is taken over every reward given here.

    Returns:
        One float64 tensor per group, in the same order.
    """
    groups = [_checked(torch.as_tensor(rewards_G, dtype=torch.float64)) for rewards_G in rewards_BG]
    batch_std = reward_std(torch.cat(groups)) if scale == "batch" and groups else None
    return [group_advantages(rewards_G, scale=scale, eps=eps, batch_std=batch_std) for rewards_G in groups]


def _checked(rewards_G: Tensor) -> Tensor:
    """The rewards in float64, refused where no advantage can be computed from them."""
    if rewards_G.dim() != 1:
        raise ValueError(f"rewards of one group must have shape [G], got {list(rewards_G.shape)}")
    if not bool(torch.isfinite(rewards_G).all()):
        raise ValueError(f"rewards must be finite, got {rewards_G.tolist()}: leave a failed response out of its group")
    return rewards_G.double()
