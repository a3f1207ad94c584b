"""What moves from step to step beside weights and optimiser, and what moves it: data positions, filter, ledger.

It is the same whoever generates and updates: this package's trainer, or verl's (recipes.on_verl).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rl.advantages import reward_std
from rl.environment import Environment, PromptSlot, ScoredGroup
from rl.filtering import StdFilter
from rl.ledger import TokenLedger


@dataclass(kw_only=True, slots=True)
class TrainerState:
    """The state of a run after a completed step; goes into every checkpoint."""

    step: int = 0  # completed steps
    position: int = 0  # data positions consumed
    ledger: TokenLedger = field(default_factory=TokenLedger)
    filter: StdFilter | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able copy for the checkpoint."""
        return {
            "step": self.step,
            "position": self.position,
            "ledger": self.ledger.state_dict(),
            "filter": None if self.filter is None else self.filter.state_dict(),
        }

    def load_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's state."""
        self.step, self.position = state["step"], state["position"]
        self.ledger.load_state_dict(state["ledger"])
        if self.filter is not None and state["filter"] is not None:
            self.filter.load_state_dict(state["filter"])

    def next_slots(self, environment: Environment, step: int, count: int) -> list[PromptSlot]:
        """The step's prompts, over the next data positions."""
        slots = environment.slots(step, count, self.position)
        self.position += len(slots)
        return slots

    def collect(
        self,
        step: int,
        slots: Sequence[PromptSlot],
        rollout: Callable[[Sequence[PromptSlot]], list[ScoredGroup]],
    ) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
        """The step's groups, and all that were generated for it: a filtered prompt's slot is filled again, same mode.

        Args:
            step: Number of the step, from 1.
            slots: Its prompts.
            rollout: Generates and scores prompts, one group each in the same order.
        """
        accepted: list[ScoredGroup] = []
        generated: list[ScoredGroup] = []
        rounds = self.filter.config.max_generation_rounds if self.filter else 1
        for number in range(rounds):
            if number:
                slots = self._refill(slots)
            groups = rollout(slots)
            generated.extend(groups)
            keep = [self._accepts(step, group) for group in groups]
            accepted.extend(group for group, kept in zip(groups, keep, strict=True) if kept)
            slots = [slot for slot, kept in zip(slots, keep, strict=True) if not kept]
            if not slots:
                break
        if self.filter is not None:
            self.filter.update(step, [reward_std(torch.tensor(group.rewards_G)) for group in generated])
        return accepted, generated

    def count_tokens(
        self,
        generated: Iterable[ScoredGroup],
        accepted: Iterable[ScoredGroup],
        advantages: Iterable[Sequence[float]],
    ) -> None:
        """Put a step's groups into the ledger; `advantages` are those of the accepted ones."""
        trained_ids = {id(group) for group, own in zip(accepted, advantages, strict=True) if any(own)}
        for group in generated:
            rollouts = [*group.rollouts, *(rollout for rollout, _ in group.left_out)]
            self.ledger.add_group(
                group.mode,
                prompt_tokens=len(rollouts[0].prompt_ids) if rollouts else 0,
                generated_lengths=[len(r.response_ids) for r in rollouts],
                trained_lengths=[len(r.response_ids) for r in group.rollouts] if id(group) in trained_ids else [],
            )

    def _accepts(self, step: int, group: ScoredGroup) -> bool:
        if not group.rollouts:
            return False
        return self.filter is None or self.filter.keep(step, reward_std(torch.tensor(group.rewards_G)))

    def _refill(self, slots: Sequence[PromptSlot]) -> list[PromptSlot]:
        """The same modes, over the next data positions."""
        start = self.position
        self.position += len(slots)
        return [PromptSlot(mode=slot.mode, position=start + i) for i, slot in enumerate(slots)]
