"""verl's replay buffer for hybrid GRPO: whole groups are scored together, and filtered ones are generated again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.tensordict_utils import get_tensordict

from recipes.on_verl.batches import at_last_token, by_group, sample_of, uid_of
from recipes.on_verl.session import Response, Session
from rl.environment import PromptSlot, ScoredGroup

POLL_S = 0.1
"""Seconds between two looks at what is finished (verl's own 2 s are a floor under a small model's step)."""


class TandemSampler(ReplayBuffer):
    """Waits for the step's groups, scores them, and hands over those to be trained with their rewards.

    Keys of responses are `{uid}_{session}_{output}`, and the uid of a group `{step}-{position}`.
    """

    def __init__(self, *, sampler_kwargs: Any, **settings: Any) -> None:
        super().__init__(sampler_kwargs=sampler_kwargs, poll_interval=POLL_S, **settings)
        base_dir = sampler_kwargs["base_dir"]
        self.session = Session(Path(sampler_kwargs["run"]), None if base_dir is None else Path(base_dir))

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """The step's batch, as verl asks for it; see `ReplayBuffer.sample`."""
        first = list(self.session.slots)
        batches: dict[int, KVBatchMeta] = {}

        def rollout(slots: Sequence[PromptSlot]) -> list[ScoredGroup]:
            if slots is not first:
                self.session.slots = list(slots)
                self.refill_fn(len(slots))
            batch, _ = super(TandemSampler, self).sample(global_steps, partition_id, len(slots))
            own = {
                uid: KVBatchMeta(
                    partition_id=batch.partition_id,
                    keys=[batch.keys[place] for place in places],
                    tags=[batch.tags[place] for place in places],
                )
                for uid, places in by_group(batch.keys).items()
            }
            responses = [self._responses(own.get(uid_of(global_steps, slot))) for slot in slots]
            groups = self.session.score(global_steps, slots, responses)
            batches.update({id(g): own[uid] for g in groups if (uid := uid_of(global_steps, g.slot)) in own})
            return groups

        accepted, generated = self.session.state.collect(global_steps, first, rollout)
        self.session.collected(accepted, generated)
        return self._hand_over(accepted or generated[:1], generated, batches), {}

    def _responses(self, batch: KVBatchMeta | None) -> list[Response]:
        """A group's responses, read from verl's store."""
        if batch is None:
            return []
        fields = ["responses", "rollout_log_probs"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        return [
            Response(sample=sample_of(key), ids=ids.tolist(), logprobs=logprobs.tolist())
            for key, ids, logprobs in zip(batch.keys, data["responses"], data["rollout_log_probs"], strict=True)
        ]

    def _hand_over(
        self, trained: Sequence[ScoredGroup], generated: Sequence[ScoredGroup], batches: dict[int, KVBatchMeta]
    ) -> KVBatchMeta:
        """Put the rewards of the groups to be trained into verl's store, and take everything else out of it.

        A step in which no group is left trains on one without signal, since verl cannot train on nothing.
        """
        keys, tags, rewards, dropped = [], [], [], []
        wanted = {id(group) for group in trained}
        for group in generated:
            if (batch := batches.get(id(group))) is None:
                continue
            totals = {rollout.sample: score.total for rollout, score in zip(group.rollouts, group.scores, strict=True)}
            for key, tag in zip(batch.keys, batch.tags, strict=True):
                total = totals.get(sample_of(key)) if id(group) in wanted else None
                if total is None:
                    dropped.append(key)
                else:
                    keys.append(key)
                    tags.append(tag)
                    rewards.append(at_last_token(total, tag["response_len"]))
        if not keys:
            raise RuntimeError("no response of this step could be scored: see the log of the rollout servers")
        if dropped:
            tq.kv_clear(keys=dropped, partition_id="train")
        scores = torch.nested.as_nested_tensor(rewards, layout=torch.jagged)
        tq.kv_batch_put(keys=keys, partition_id="train", fields=get_tensordict({"rm_scores": scores}))
        return KVBatchMeta(partition_id="train", keys=keys, tags=tags)
