"""Settings of a pool of vLLM workers; free of torch and Ray, so that a command line can list them at once."""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import Field, model_validator

from rollouts.engine import EngineConfig
from rollouts.routing import PREFILL_COST


class PoolConfig(EngineConfig):
    """How vLLM runs, and in how many workers. One worker as a process of this machine is a plain `VLLMEngine`."""

    workers: int = Field(default=1, ge=1, le=1024)
    """Number of vLLM workers, each with a whole copy of the model."""
    backend: Literal["process", "ray"] = "process"
    """Where workers live: processes of this machine, or Ray actors on this machine or a cluster (needs `ray`)."""
    hang_s: float = Field(default=120.0, gt=0)
    """Pool only: longest silence of a worker that generates, scores or takes new weights, in seconds, before it is
    replaced. A worker reports twice a second; starting may take `timeout_s`.
    """
    prefill_cost: float = Field(default=PREFILL_COST, ge=0)
    """Pool only: cost of reading one prompt token, in generated tokens, for the balance between workers."""
    devices: list[int] | None = Field(default=None, min_length=1)
    """Backend process: GPUs, `tensor_parallel_size` for each worker in turn (a worker more than there are GPUs shares
    one, so lower gpu_memory_utilization then); null = all that this process sees.
    """
    ray_address: str | None = None
    """Backend ray: address of a running cluster, or `auto`; null = Ray is started on this machine, for this run."""
    cpus_per_worker: float = Field(default=1.0, ge=0)
    """Backend ray: CPU cores that Ray reserves for each worker."""
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """Backend ray: GPUs that Ray reserves for each worker; null = tensor_parallel_size where the cluster has GPUs."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """Backend ray: workers on as few machines as possible (PACK) or on as many (SPREAD); STRICT = or not at all."""
    weight_transport: Literal["auto", "shared_memory", "object_store"] = "auto"
    """Backend ray: how new weights reach a worker: shared memory (this machine only), Ray's object store, or the
    faster one that its place allows (auto).
    """

    @model_validator(mode="after")
    def _backend_takes_its_keys(self) -> Self:
        if self.backend == "ray" and self.devices is not None:
            raise ValueError("devices is for backend: process; Ray gives each worker its GPUs (see gpus_per_worker)")
        if self.backend == "process" and self.ray_address is not None:
            raise ValueError(f"ray_address is {self.ray_address!r}, but backend is process; set backend: ray")
        gpus = self.gpus_per_worker
        if gpus and gpus > 1 and gpus != self.tensor_parallel_size:
            raise ValueError(
                f"gpus_per_worker is {gpus:g}, but tensor_parallel_size is {self.tensor_parallel_size}: a worker uses "
                "exactly that many GPUs; make them equal, or leave gpus_per_worker out"
            )
        return self

    @property
    def is_pool(self) -> bool:
        """Whether more than a plain `VLLMEngine` is asked for."""
        return self.workers > 1 or self.backend != "process"

    def threads_per_worker(self) -> int:
        """OpenMP threads of each worker: `threads`, or an equal share of this machine's cores."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)
