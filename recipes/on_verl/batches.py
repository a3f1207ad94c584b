"""Batches as verl lays them out: keys of responses, rewards per token, advantages per token.

A group's uid is `{step}-{position}`, a response's key `{uid}_{number}_{output}`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from rl.advantages import batch_advantages
from rl.config import Scale
from rl.environment import PromptSlot


def uid_of(step: int, slot: PromptSlot) -> str:
    """verl's name of a group."""
    return f"{step}-{slot.position}"


def sample_of(key: str) -> int:
    """Number of a response within its group."""
    return int(key.rsplit("_", 2)[1])


def by_group(keys: Sequence[str]) -> dict[str, list[int]]:
    """Where the responses of each group stand among the keys, by uid, in the order of their numbers."""
    places: dict[str, list[int]] = {}
    for place in sorted(range(len(keys)), key=lambda place: sample_of(keys[place])):
        places.setdefault(keys[place].rsplit("_", 2)[0], []).append(place)
    return places


def at_last_token(total: float, length: int) -> Tensor:
    """A response's reward as verl holds it, (T,): all of it at the last token."""
    scores_T = torch.zeros(length)
    scores_T[-1] = total
    return scores_T


def group_relative(
    token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[Hashable], scale: Scale
) -> tuple[Tensor, Tensor]:
    """Advantages of a batch in verl's form.

    Args:
        token_level_rewards: (B, T), each response's reward anywhere in its row.
        response_mask: (B, T), 1 at the response's tokens.
        index: (B,) the group of each row.
        scale: see `rl.advantages`.

    Returns:
        Advantages and returns (the same), (B, T).
    """
    rewards_B = token_level_rewards.sum(-1).double()
    places: dict[Hashable, list[int]] = {}
    for row, group in enumerate(index):
        # Rows that verl adds to fill a batch have an empty mask, and are no responses.
        if bool(response_mask[row].any()):
            places.setdefault(group, []).append(row)
    found = batch_advantages([rewards_B[rows] for rows in places.values()], scale=scale)
    advantages_B = torch.zeros_like(rewards_B)
    for rows, own in zip(places.values(), found, strict=True):
        advantages_B[rows] = own
    advantages = advantages_B.to(token_level_rewards.dtype).unsqueeze(-1) * response_mask
    return advantages, advantages
