"""What verl measures in a step, under the names of this library's `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NAMES = {
    "actor/grad_norm": "grad_norm",
    "actor/lr": "lr",
    "actor/pg_loss": "loss",
    "actor/pg_clipfrac": "clip_fraction",
    "training/rollout_probs_diff_mean": "engine/prob_gap_mean",
}
"""verl's names of what both engines measure, and ours."""
PHASES = {"gen": "generate", "old_log_prob": "old_logprobs", "update_actor": "learn"}
"""verl's names of a step's phases, and ours."""


def step_line(measured: Mapping[str, Any], seconds: Mapping[str, float], step_s: float) -> dict[str, float]:
    """The line of a step: what both engines measure under our names, everything else of verl's under `verl/`.

    Args:
        measured: verl's metrics.
        seconds: verl's phases, in seconds.
        step_s: Seconds since the step before was written down, the weight sync and the checkpoint after it included.
    """
    numbers = {name: float(value) for name, value in measured.items() if _is_number(value)}
    return {
        **{NAMES.get(name, f"verl/{name}"): value for name, value in numbers.items()},
        **{f"time/{ours}": seconds[name] for name, ours in PHASES.items() if name in seconds},
        "time/step": step_s,
    }


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
