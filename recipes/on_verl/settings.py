"""Settings of a run on verl; free of verl and Ray, so that a command line can list them at once."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class VerlConfig(BaseModel):
    """Where verl runs, and what of its own configuration is set by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    nodes: int = Field(default=1, ge=1)
    """Machines that train and generate."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs used on each machine."""
    address: str | None = None
    """Address of a running Ray cluster, or `auto`; null = that of RAY_ADDRESS (which `ray job submit` sets), and
    without one Ray is started on this machine, for this run.
    """
    offload: bool = False
    """Keep the trainer's weights and optimizer in main memory while responses are generated."""
    timeout_s: float = Field(default=3600.0, gt=0)
    """Longest time without a completed step, in seconds, before the run is stopped: a failed weight sync of verl waits
    for ever.
    """
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of verl's own configuration with their values; those that the recipe sets itself are refused."""
