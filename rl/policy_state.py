"""A policy under training: model, optimiser and schedule, held by one process or shared by several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.packed_lm import PackedCausalLM, compute_dtype
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.config import LearnerConfig, ParallelConfig
from rl.processes import Processes
from rl.replicas import Replicas

if TYPE_CHECKING:
    from rl.shards import Shards


class PolicyState:
    """What an update changes: read by the engine, written to checkpoints, continued from them.

    ``follow`` is for the processes beside process 0, all other methods for process 0.
    """

    def __init__(
        self,
        packed: PackedCausalLM,
        config: LearnerConfig,
        *,
        total_steps: int,
        processes: Processes | None = None,
        parallel: ParallelConfig | None = None,
    ) -> None:
        """Args:
        packed: the model.
        config: how it is updated.
        total_steps: steps of the run, for the schedule.
        processes: those that share the work; None = this one, which must then be the only one that was launched.
        parallel: how they share the model.

        Raises:
            ValueError: several processes were launched and are not expected, or cannot share this model so.
        """
        from transformers import get_scheduler

        self.config = config
        self.dtype = compute_dtype(config.precision)
        mixed = "bf16" if self.dtype is torch.bfloat16 else "no"
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        if processes is None and self.accelerator.num_processes > 1:
            raise ValueError(
                f"training was launched in {self.accelerator.num_processes} processes, but this trainer runs in one; "
                "start the recipe with python -m, without accelerate launch or torchrun"
            )
        self.processes = processes or Processes()
        self.packed = packed
        # Gradients are added up by hand (see rl.replicas), so the module is prepared without DDP around it.
        self._forward = self.accelerator.prepare_model(packed, evaluation_mode=True)
        self.parallel = _parallel(packed, self.processes, parallel or ParallelConfig())
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.parallel.named_parameters()],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scheduler = get_scheduler(
            config.lr_scheduler,
            self.optimizer,
            num_warmup_steps=config.warmup_steps,
            num_training_steps=total_steps,
        )
        self.processes.ready()

    @property
    def model(self) -> Any:
        """The transformers (or peft) model under training."""
        return self.packed.model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.accelerator.device

    @property
    def interrupted(self) -> bool:
        """Whether another process was asked to end."""
        return self.processes.interrupted

    def follow(self) -> None:
        """Do process 0's work as long as it has any."""
        self.processes.follow(self)

    # ---- state ----

    def weights(self) -> dict[str, Tensor]:
        """The plain model's current weights, adapters folded in, for the engine."""
        if self.parallel.even:
            return self._everywhere("_full_weights")[0]
        return self._full_weights(None)

    def save(self, run: Path, *, step: int, tokenizer: Any, state: Mapping[str, Any], keep_last: int) -> None:
        """Write a checkpoint; its files do not depend on the number of processes. Arguments as of
        ``save_checkpoint``.
        """
        save_checkpoint(
            run,
            step=step,
            model=self.model,
            tokenizer=tokenizer,
            optimizer=self.optimizer,
            state={**state, "scheduler": self.scheduler.state_dict()},
            keep_last=keep_last,
            named_parameters=self.parallel.named_parameters(),
            whole=self._everywhere("_full_state")[0] if self.parallel.even else None,
        )

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Continue from a checkpoint; returns its state, as ``load_checkpoint``."""
        return self._everywhere("_load", [checkpoint] * self.processes.count)[0]

    def _full_weights(self, _share: None) -> dict[str, Tensor]:
        return self.parallel.full_weights()

    def _full_state(self, _share: None) -> Any:
        assert not isinstance(self.parallel, Replicas)
        whole = self.parallel.full_state(self.optimizer)
        return whole if self.processes.leads else None

    def _load(self, checkpoint: Path) -> dict[str, Any]:
        state = load_checkpoint(
            checkpoint,
            model=self.model,
            optimizer=self.optimizer,
            named_parameters=self.parallel.named_parameters(),
            own_part=None if isinstance(self.parallel, Replicas) else self.parallel.own_part,
        )
        self.scheduler.load_state_dict(state["scheduler"])
        return state

    def _everywhere(self, work: str, shares: Sequence[Any] | None = None, *own: Any) -> list[Any]:
        """Run a method of this class on every process; results by process."""
        return self.processes.run(self, work, shares or [None] * self.processes.count, *own)


def _parallel(packed: PackedCausalLM, processes: Processes, config: ParallelConfig) -> Replicas | Shards:
    """How the processes share a model; one process holds all of it whatever the configuration says."""
    if processes.count == 1 or config.kind == "ddp":
        return Replicas(packed, processes)
    from rl.shards import Shards

    return Shards(packed, processes)
