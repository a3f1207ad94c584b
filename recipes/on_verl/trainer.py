"""verl's synchronous trainer with Tandem's prompts, advantages and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.utils.tensordict_utils import assign_non_tensor_data, get_tensordict

from recipes.on_verl.batches import group_relative, uid_of
from recipes.on_verl.session import Session
from rl.config import Scale


class TandemTrainer(PPOTrainerSync):
    """Steps through a `Session`; verl does the rest."""

    @property
    def session(self) -> Session:
        """What Tandem knows of the run."""
        return self.replay_buffer.session

    def on_init_end(self) -> None:
        """The servers are up and, on resuming, verl's shards are loaded."""
        super().on_init_end()
        self.session.scorer.client = self.get_llm_client()
        if self.global_steps:
            self.session.restore(Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}")
        else:
            self.session.run.truncate_after(0)  # a run that was resumed before its first checkpoint

    def on_train_begin(self) -> None:
        """Before the first step."""
        if self.global_steps == 1:
            self.session.foresee()
        self.session.start_clock()

    def prepare_step(self) -> dict[str, Any]:
        """Draw the step's prompts and have them generated."""
        self.session.begin(self.global_steps)
        return super().prepare_step()

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """One step, which is written down before a checkpoint may count on it."""
        batch = super().step(metrics, timing_raw)
        self.session.write(self.global_steps, metrics, timing_raw)
        if self.session.stop_requested:
            self._end_here()
        return batch

    def _end_here(self) -> None:
        """verl saves after this step, which every multiple of `save_freq` is for it, and makes no further one."""
        self.config.trainer.save_freq = self.global_steps
        self.total_training_steps = self.global_steps

    def _next_train_batch(self, num_prompts: int | None = None) -> Any:
        """The prompts that the session wants now, in verl's form."""
        slots, step = self.session.slots, self.global_steps
        assert num_prompts in (None, len(slots)), f"{num_prompts} prompts are asked for, and {len(slots)} are wanted"
        batch = get_tensordict(
            {
                "uid": _objects([uid_of(step, slot) for slot in slots]),
                "index": _objects([self.session.environment.row_index(slot) for slot in slots]),
                "asked": _objects([self.session.ask(step, slot) for slot in slots]),
            }
        )
        assign_non_tensor_data(batch, "global_steps", step)
        return batch


def _objects(values: list[Any]) -> np.ndarray:
    """One object per row: numpy would make a table of equal lists."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _estimator(scale: Scale) -> None:
    """Tandem's group-relative advantages under verl's name `tandem_<scale>`."""

    @register_adv_est(f"tandem_{scale}")
    def estimate(
        token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return group_relative(token_level_rewards, response_mask, index, scale)


for _scale in ("group", "batch", "none"):
    _estimator(_scale)
