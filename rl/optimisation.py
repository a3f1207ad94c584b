"""Optimiser, schedule and mixed precision around one module, as every learner of a packed model needs them."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from base_model.packed_lm import compute_dtype
from rl.config import Schedule


class OptimiserSettings(Protocol):
    """What a learner's configuration says about its optimiser."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def lr_scheduler(self) -> Schedule: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def adam_beta1(self) -> float: ...
    @property
    def adam_beta2(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def precision(self) -> Any: ...


class Optimisation:
    """AdamW over a module's trainable parameters, with its schedule, in the configured precision."""

    def __init__(self, module: nn.Module, settings: OptimiserSettings, *, warmup_steps: int, total_steps: int) -> None:
        """Args:
        module: What is trained.
        settings: Of the optimiser.
        warmup_steps: Steps over which the learning rate rises.
        total_steps: Steps of the whole run, for the schedule.

        Raises:
            ValueError: Training was launched in several processes.
        """
        from transformers import get_scheduler

        self.settings = settings
        mixed = "bf16" if compute_dtype(settings.precision) is torch.bfloat16 else "no"
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        if self.accelerator.num_processes > 1:
            raise ValueError(
                f"training was launched in {self.accelerator.num_processes} processes, but this trainer runs in one; "
                "start the recipe with python -m, without accelerate launch or torchrun"
            )
        self.optimizer = torch.optim.AdamW(
            [p for p in module.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.scheduler = get_scheduler(
            settings.lr_scheduler, self.optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps
        )
        self._module = module
        self.forward = self.accelerator.prepare(module)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self.accelerator.device

    def autocast(self) -> AbstractContextManager[Any]:
        """The matmul precision of training, for passes outside of `forward`."""
        return self.accelerator.autocast()

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient to what has been accumulated."""
        self.accelerator.backward(loss)

    def step(self) -> tuple[float, float]:
        """Clip, update and advance the schedule; a gradient that is not finite leaves the weights as they were.

        Returns:
            The gradient's norm before clipping, and the learning rate as it was used.
        """
        limit = self.settings.max_grad_norm or math.inf
        rate = float(self.scheduler.get_last_lr()[0])
        norm = float(torch.nn.utils.clip_grad_norm_(self._module.parameters(), limit))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with warnings.catch_warnings():  # a refused first update moves the schedule all the same
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            self.scheduler.step()
        return norm, rate
