"""Settings of one training stage's optimiser; free of torch, so that a command line can list them at once."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PartName = Literal["resampler", "vision tower", "language model"]
PARTS: tuple[PartName, ...] = ("resampler", "vision tower", "language model")


class Schedule(BaseModel):
    """How the learning rate goes over the steps of a stage: up over the warm-up, then down to the final share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["wsd", "cosine", "constant"] = "constant"
    """wsd: at the peak until the decay phase, then straight down (warm-up, stable, decay; arXiv 2404.06395); cosine:
    half a cosine from the warm-up's end on; constant: at the peak."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises in a straight line."""
    decay_steps: int = Field(0, ge=0)
    """wsd only: length of the decay phase, at the end of the stage."""
    final_share: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak (wsd and cosine)."""

    @model_validator(mode="after")
    def _decay_belongs_to_wsd(self) -> Schedule:
        if (self.kind == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                f"schedule {self.kind} has decay_steps {self.decay_steps}: wsd needs a decay phase, and no other "
                "schedule has one"
            )
        return self

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak in optimiser step ``step``, counted from 0, of ``steps``.

        With W warm-up steps, rising: (step + 1) / (W + 1), so that no step is wasted on a rate of 0. Falling from 1
        to final_share with the progress p in (0, 1]: linear in p (wsd), or (1 + cos(pi p)) / 2 (cosine).
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.kind == "constant":
            return 1.0
        length = self.decay_steps if self.kind == "wsd" else max(1, steps - self.warmup_steps)
        progress = min(1.0, max(0.0, (step + 1 - (steps - length)) / length))
        left = 1 - progress if self.kind == "wsd" else (1 + math.cos(math.pi * progress)) / 2
        return self.final_share + (1 - self.final_share) * left


class OptimizerSettings(BaseModel):
    """AdamW, with a learning rate for each part that trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    learning_rates: dict[PartName, float] = {}
    """Peak learning rates of single parts (resampler, vision tower, language model) that differ from it."""
    schedule: Schedule = Schedule()
    """The learning rate over the steps; the same shape for all parts."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay, on matrices only."""
    beta2: float = Field(0.95, gt=0, lt=1)
    """AdamW's second decay rate."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 = off."""

    @model_validator(mode="after")
    def _positive_rates(self) -> OptimizerSettings:
        for part, rate in self.learning_rates.items():
            if rate <= 0:
                raise ValueError(f"the learning rate of the {part} is {rate}: leave the part out of `train` instead")
        return self

    def rate(self, part: PartName) -> float:
        """Peak learning rate of a part."""
        return self.learning_rates.get(part, self.learning_rate)
