"""Hybrid GRPO in the processes that torchrun or accelerate launch start; in one without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rl.launch import launched_processes

if TYPE_CHECKING:
    from recipes.hybrid_grpo import HybridGrpoConfig
    from rl.learner import Learner
    from rl.processes import Processes


def in_processes(config: HybridGrpoConfig, lead: Callable[[Processes | None], None]) -> None:
    """Run the recipe in process 0 and, in the others, the learner's share of it.

    Args:
        config: The recipe's.
        lead: The recipe, given the processes if there are several. It calls `Processes.announce` with the model's
            folder before it loads the model.

    Raises:
        ValueError: As `rl.processes.join`; or a process has ended.
    """
    if launched_processes() == 1:
        lead(None)
        return
    from rl.processes import join

    with join() as processes:
        if processes.leads:
            lead(processes)
        elif (model_path := processes.awaited()) is not None:
            load_learner(config, model_path, processes).follow()


def load_learner(config: HybridGrpoConfig, model_path: Path, processes: Processes | None = None) -> Learner:
    """The policy and its updates, as every training process makes them."""
    from base_model.packed_lm import load_packed
    from rl.learner import Learner

    packed = load_packed(
        model_path,
        lora=config.lora,
        gradient_checkpointing=config.gradient_checkpointing,
        temperature=config.sampling.temperature,
        trust_remote_code=config.model.trust_remote_code,
    )
    return Learner(
        packed,
        config.learner,
        total_steps=config.trainer.steps,
        processes=processes,
        parallel=config.trainer.parallel,
    )
