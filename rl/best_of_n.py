"""Best of n at inference: the response that a DPO policy's implicit reward likes best.

RLAIF-V, arXiv 2405.17220, section 3.4.

Legend: N responses of one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from base_model.packed_lm import PackedCausalLM
from base_model.packing import TokenGroup, pack_groups, split_by_tokens
from rl.preference_losses import implicit_rewards, sum_by_response


def best_of_n(
    logprobs_N: Sequence[float],
    ref_logprobs_N: Sequence[float],
    tokens_N: Sequence[int],
    *,
    beta: float = 0.1,
    length_normalised: bool = True,
) -> tuple[int, list[float]]:
    """The best response and the implicit reward of each: r(y) = (beta / T) * log(pi(y) / pi_ref(y)).

    Args:
        logprobs_N: Summed log-probs of the responses under the DPO policy.
        ref_logprobs_N: The same under its reference.
        tokens_N: Tokens T of each response, the end of the turn included.
        beta: That of DPO; it scales the rewards and does not change the choice.
        length_normalised: Divide by T; without it, long responses have rewards far from 0.

    Returns:
        Index of the best one (of equal ones the first), and the rewards.

    Raises:
        ValueError: There is no response, or no reward is finite.

    Example::

        best_of_n([-4.0, -6.0], [-5.0, -9.0], [5, 10])  # (1, [0.02, 0.03])
    """
    options = {"dtype": torch.float64}
    columns = [torch.tensor(list(values), **options) for values in (logprobs_N, ref_logprobs_N, tokens_N)]
    rewards = implicit_rewards(*columns, beta=beta, length_normalised=length_normalised).tolist()
    finite = [index for index, reward in enumerate(rewards) if math.isfinite(reward)]
    if not finite:
        raise ValueError(f"none of the {len(rewards)} responses has a finite reward, so none is the best")
    return max(finite, key=lambda index: rewards[index]), rewards


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """A prompt with its responses, as token ids."""

    prompt_ids: tuple[int, ...]
    """The mode's prefill included, blocks of images and videos in place."""
    responses: tuple[tuple[int, ...], ...]
    """Each with its end of turn."""
    load_inputs: Callable[[], Mapping[str, Any]] | None = None
    """Makes the model's further arguments for the prompt's images and videos; None = there are none."""

    @property
    def tokens(self) -> int:
        """Packed tokens: the prompt counts once."""
        return len(self.prompt_ids) + sum(map(len, self.responses))

    def group(self) -> TokenGroup:
        """All responses behind one prompt."""
        inputs = self.load_inputs() if self.load_inputs else None
        return TokenGroup(prompt=self.prompt_ids, responses=self.responses, inputs=inputs)


def response_logprobs(
    packed: PackedCausalLM, candidates: Sequence[Candidates], micro_batch_tokens: int = 16384
) -> list[list[float]]:
    """Summed log-probs of every response to every prompt, in the precision the model is in, without gradient.

    Args:
        packed: The model.
        candidates: Prompts with their responses.
        micro_batch_tokens: Packed tokens of one forward pass; 0 = all at once.
    """
    packed.eval()
    device = next(packed.parameters()).device
    found: list[list[float]] = []
    for part in split_by_tokens([each.tokens for each in candidates], micro_batch_tokens):
        own = [candidates[i] for i in part]
        logprobs_T = packed.logprobs(pack_groups([each.group() for each in own]).to(device))
        sums = iter(sum_by_response(logprobs_T, [len(r) for each in own for r in each.responses]).tolist())
        found.extend([next(sums) for _ in each.responses] for each in own)
    return found
