"""What the recipe cannot do on verl, said in one sentence each before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.hybrid_grpo import HybridGrpoConfig

PACKAGES = {"verl": "verl", "ray": "ray", "transfer_queue": "TransferQueue", "torchdata": "torchdata"}
"""Modules that a run on verl needs, and the packages they come in."""
SCHEDULES = ("constant", "constant_with_warmup", "cosine")
"""Schedules of the learning rate that verl has too."""


def check_config(config: HybridGrpoConfig) -> None:
    """Refuse what verl cannot do. Raises ValueError, one line for each thing."""
    refused = list(_refused(config))
    if refused:
        raise ValueError("\n".join(refused))


def check_rows(rows: Sequence[Any]) -> None:
    """Refuse rows with images or videos. Raises ValueError."""
    found = next((row.index for row in rows if row.images or row.videos), None)
    if found is not None:
        raise ValueError(
            f"row {found} has images or videos, which backend: verl does not pass on: use backend: tandem, or rows of "
            "text"
        )


def check_rewards(config: HybridGrpoConfig, deferred: bool) -> None:
    """Refuse rewards that need the policy's probabilities at another temperature than 1. Raises ValueError."""
    if deferred and config.sampling.temperature != 1:
        raise ValueError(
            f"sampling.temperature is {config.sampling.temperature:g}, but verl's rollout servers give probabilities "
            "of reference answers at temperature 1 only: set it to 1, or leave rewards that ask for them out"
        )


def check_installed() -> None:
    """Refuse a machine without verl. Raises ValueError."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"backend: verl needs the package {missing[0]}, which is not installed: `pip install 'tandem-rl[verl]'`"
        )


def _refused(config: HybridGrpoConfig) -> Iterator[str]:
    learner, trainer, engine = config.learner, config.trainer, config.engine
    if config.lora is not None:
        yield "lora is set, but backend: verl trains all weights: set lora: null, or use backend: tandem"
    if trainer.eval_every:
        yield (
            f"trainer.eval_every is {trainer.eval_every}, but backend: verl evaluates at the end only: set it to 0, "
            "and evaluate checkpoints with recipes.evaluate"
        )
    if trainer.staleness:
        yield (
            f"trainer.staleness is {trainer.staleness}, but backend: verl runs its synchronous trainer: set it to 0, "
            "or use backend: tandem"
        )
    if trainer.prompts_per_step % learner.updates_per_step:
        yield (
            f"learner.updates_per_step {learner.updates_per_step} does not divide trainer.prompts_per_step "
            f"{trainer.prompts_per_step}, and verl's updates are of equal size: change one of them"
        )
    if learner.lr_scheduler not in SCHEDULES:
        yield (
            f"learner.lr_scheduler {learner.lr_scheduler} is unknown to verl: use {', '.join(SCHEDULES[:-1])} or "
            f"{SCHEDULES[-1]}"
        )
    if engine.backend != "process" or engine.workers != 1:
        yield (
            "engine.workers and engine.backend are for backend: tandem; on verl there are nodes x gpus_per_node / "
            "engine.tensor_parallel_size rollout servers: leave them out, and set verl.nodes and verl.gpus_per_node"
        )
    yield from _refused_devices(config)


def _refused_devices(config: HybridGrpoConfig) -> Iterator[str]:
    gpus, parallel = config.verl.nodes * config.verl.gpus_per_node, config.engine.tensor_parallel_size
    if gpus % parallel:
        yield (
            f"engine.tensor_parallel_size {parallel} does not divide the {gpus} GPUs of verl.nodes x "
            "verl.gpus_per_node: change one of them"
        )
    responses = config.trainer.prompts_per_step // config.learner.updates_per_step * config.group_size
    if responses % gpus:
        yield (
            f"an update has {responses} responses (trainer.prompts_per_step / learner.updates_per_step x group_size), "
            f"which {gpus} GPUs cannot share equally: make it a multiple of {gpus}"
        )
