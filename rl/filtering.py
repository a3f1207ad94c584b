"""Dynamic sampling: train on the prompts whose rewards differ enough.

This is the standard-deviation filter of RLPR (arXiv 2506.18254).

A prompt is kept iff the standard deviation of its group's rewards is at least beta times an exponential moving average
of that deviation over the run, so the bar follows what the policy currently finds hard. With the default configuration:

    steps 1-10   every group is kept; the mean deviation of steps 6-10 is remembered
    step 11      ema = mean of these five
    from then on keep iff std >= beta * ema; after the step
                 ema = 0.99 ema + 0.01 * (mean std of all groups generated in the step)

The caller generates new groups for the prompts that are missing, at most `max_generation_rounds` times, and gives the
deviations of all groups it generated, kept or not, to `update`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StdFilterConfig(BaseModel):
    """Settings of the standard-deviation filter; the defaults are RLPR's for Qwen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    beta: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """A group is kept from this multiple of the average standard deviation on (RLPR: 0.5 Qwen, 0.9 Llama, 1 Gemma)."""
    warmup_steps: int = Field(default=10, ge=1)
    """Steps at the start in which every group is kept."""
    init_steps: int = Field(default=5, ge=1)
    """The last so many warm-up steps start the moving average."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Weight of the moving average's old value in each step."""
    max_generation_rounds: int = Field(default=4, ge=1)
    """Generation rounds per step, the first included, to fill the batch; afterwards the step trains on what it has."""

    @model_validator(mode="after")
    def _init_fits_into_warmup(self) -> StdFilterConfig:
        if self.init_steps > self.warmup_steps:
            raise ValueError(f"init_steps ({self.init_steps}) must not exceed warmup_steps ({self.warmup_steps})")
        return self


class StdFilter:
    """The filter's moving average and the decision made with it; steps are counted from 1.

    Example::

        kept = [group for group in generated if std_filter.keep(step, reward_std(group.rewards_G))]
        std_filter.update(step, [reward_std(group.rewards_G) for group in generated])  # once, at the end of the step
    """

    def __init__(self, config: StdFilterConfig) -> None:
        self.config = config
        self._last_step = 0
        self._warmup_means: list[float] = []
        self._ema: float | None = None

    def threshold(self, step: int) -> float | None:
        """Smallest standard deviation that is kept in `step`; None during the warm-up, when everything is."""
        if step <= self.config.warmup_steps or self._ema is None:
            return None
        return self.config.beta * self._ema

    def keep(self, step: int, std: float) -> bool:
        """Whether a group is kept, given the unbiased standard deviation of its rewards."""
        threshold = self.threshold(step)
        return threshold is None or std >= threshold

    def update(self, step: int, stds: Sequence[float]) -> None:
        """Learn from a finished step.

        Args:
            step: The step's number; every step is reported once, in order.
            stds: Standard deviations of ALL groups generated in the step, before filtering. None at all leaves the
                average as it is.
        """
        assert step == self._last_step + 1, f"step {step} reported after step {self._last_step}"
        self._last_step = step
        if not stds:
            return
        mean = math.fsum(stds) / len(stds)
        if step > self.config.warmup_steps and self._ema is not None:
            self._ema = self.config.decay * self._ema + (1 - self.config.decay) * mean
        elif step > self.config.warmup_steps - self.config.init_steps:
            self._warmup_means.append(mean)
        self._start_average(step)

    def _start_average(self, step: int) -> None:
        """The remembered means become the average at the end of the warm-up (later, if no group was seen by then)."""
        if step >= self.config.warmup_steps and self._ema is None and self._warmup_means:
            self._ema = math.fsum(self._warmup_means) / len(self._warmup_means)

    def state_dict(self) -> dict[str, Any]:
        """Everything the filter has learnt, as JSON-able values."""
        return {"last_step": self._last_step, "warmup_means": list(self._warmup_means), "ema": self._ema}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._last_step = int(state["last_step"])
        self._warmup_means = [float(mean) for mean in state["warmup_means"]]
        self._ema = None if state["ema"] is None else float(state["ema"])
