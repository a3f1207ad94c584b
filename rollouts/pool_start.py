"""How a pool starts a worker: as a process of this machine, or as a Ray actor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from rollouts.pool_config import PoolConfig
from rollouts.pool_host import Link, ProcessLink
from rollouts.process import worker_environment


class Starter(Protocol):
    """Makes the workers of one pool."""

    def start(self, place: int) -> Link:
        """A worker on its way; called from the thread that will talk to it."""
        ...

    def weights_changed(self) -> None:
        """What was said of earlier weights is void."""
        ...

    def close(self) -> None:
        """Gives everything back; may be called again."""
        ...


def make_starter(config: PoolConfig, model_path: Path, log_path: Path | None) -> Starter:
    """The starter of the configured backend.

    Raises:
        ValueError: Ray is not installed, or has no room for the workers; or a worker needs more GPUs than there are.
    """
    if config.backend == "process":
        return ProcessStarter(config, model_path, log_path)
    from rollouts.ray_start import RayStarter

    return RayStarter(config, model_path, log_path)


def log_of(log_path: Path | None, place: int) -> Path | None:
    """Log file of one worker: `engine.log`, `engine_1.log`, ..."""
    if log_path is None or place == 0:
        return log_path
    return log_path.with_stem(f"{log_path.stem}_{place}")


class ProcessStarter:
    """Workers as processes of this machine."""

    def __init__(self, config: PoolConfig, model_path: Path, log_path: Path | None) -> None:
        """
        Raises:
            ValueError: A worker needs more GPUs than there are.
        """
        self._config = config
        self._model_path = model_path
        self._log_path = log_path
        self._devices = [str(device) for device in config.devices] if config.devices else _visible_devices()
        if self._devices and len(self._devices) < config.tensor_parallel_size:
            raise ValueError(
                f"engine.tensor_parallel_size is {config.tensor_parallel_size}, but only {len(self._devices)} GPUs are "
                "there: lower it, or name more in engine.devices"
            )

    def start(self, place: int) -> Link:
        """A worker that sees its own GPUs alone."""
        environment = worker_environment(self._config.threads_per_worker(), self._config.enforce_eager)
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices_of(place))
        return ProcessLink(self._config.vllm_arguments(self._model_path), environment, log_of(self._log_path, place))

    def devices_of(self, place: int) -> list[str]:
        """GPUs of one worker; more workers than GPUs share them in turn."""
        size = self._config.tensor_parallel_size
        teams = max(1, len(self._devices) // size)
        first = place % teams * size
        return self._devices[first : first + size]

    def weights_changed(self) -> None:
        """Nothing: the workers read the image itself."""

    def close(self) -> None:
        """Nothing: the hosts have ended their workers."""


def _visible_devices() -> list[str]:
    """GPUs that this process sees, in the words of CUDA_VISIBLE_DEVICES."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]
