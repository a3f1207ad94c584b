"""Log-probs of given continuations from verl's rollout servers, for rewards that ask for the policy's probabilities."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from rl.learner import TrainGroup

AT_ONCE = 256
"""Texts that are scored at the same time."""


class ServerScorer:
    """The branches of groups under the weights that the servers hold; what `Learner.branch_logprobs` is elsewhere."""

    def __init__(self) -> None:
        self.client: Any = None
        """verl's client of the rollout servers, known once they are up."""

    def __call__(self, groups: Sequence[TrainGroup]) -> list[list[list[float]]]:
        """Log-probs at temperature 1 of each branch's tokens, in order, per group."""
        return asyncio.run(self._score(groups))

    async def _score(self, groups: Sequence[TrainGroup]) -> list[list[list[float]]]:
        slots = asyncio.Semaphore(AT_ONCE)
        return [
            list(own)
            for own in await asyncio.gather(
                *(
                    asyncio.gather(*(self._branch(slots, *branch_text(group, number)) for number in _numbers(group)))
                    for group in groups
                )
            )
        ]

    async def _branch(self, slots: asyncio.Semaphore, prefix: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Log-probs of `tokens` after `prefix`: vLLM gives those of a whole prompt, and has to make one token more."""
        params = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "detokenize": False}
        ids = [*prefix, *tokens]
        async with slots:
            output = await self.client.generate(request_id=uuid4().hex, prompt_ids=ids, sampling_params=params)
        # verl shifts them by one: entry i is about token i + 1.
        found = slice(len(prefix) - 1, len(ids) - 1)
        given = [own[0] for own in output.extra_fields["prompt_ids"][found]]
        assert given == list(tokens), f"the servers scored other tokens than were asked for: {given} for {list(tokens)}"
        return [float(own[0]) for own in output.extra_fields["prompt_logprobs"][found]]


def branch_text(group: TrainGroup, number: int) -> tuple[list[int], Sequence[int]]:
    """Token ids before a branch, and its own."""
    branch = group.branches[number]
    kept = group.tokens.responses[branch.response][: branch.keep] if branch.keep else ()
    return [*group.tokens.prompt, *kept], branch.tokens


def _numbers(group: TrainGroup) -> range:
    return range(len(group.branches))
