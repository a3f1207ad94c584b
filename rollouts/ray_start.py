"""Workers of a pool as Ray actors: on this machine, or on a running cluster."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from rollouts.pool_config import PoolConfig
from rollouts.process import EngineError, WorkerDiedError
from rollouts.ray_actor import VLLMActor, machine

PLACEMENT_S = 120.0
"""Longest wait for the cluster to reserve room for the workers."""
START_ATTEMPTS = 3
"""Ray gives its own processes 30 s to start, which a busy machine may exceed."""
GRACE_S = 5.0
"""Silence of an actor that is allowed on top of its worker's: the actor ends a silent worker itself."""


class RayStarter:
    """Reserves room for all workers, and makes them one by one."""

    def __init__(self, config: PoolConfig, model_path: Path, log_path: Path | None) -> None:
        """Connects to the cluster, or starts Ray on this machine.

        Raises:
            ValueError: Ray is not installed, or the cluster has no room for the workers.
        """
        self._ray = import_ray()
        self._config = config
        self._model_path = model_path.resolve()
        self._log_path = log_path.resolve() if log_path is not None else None
        self._image: Any = None
        self._lock = threading.Lock()
        self._owns_ray = not self._ray.is_initialized()
        if self._owns_ray:
            _connect(self._ray, config)
        self._group: Any = None
        try:
            self._group = self._reserve()
        except BaseException:
            self.close()
            raise

    def _reserve(self) -> Any:
        from ray.util.placement_group import placement_group

        available = self._ray.cluster_resources()
        bundle = bundle_of(self._config, available.get("GPU", 0))
        for kind, amount in bundle.items():
            if amount * self._config.workers > available.get(kind, 0):
                raise ValueError(
                    f"engine.workers is {self._config.workers} with {amount:g} {kind} each, but the Ray cluster has "
                    f"{available.get(kind, 0):g} {kind} in all: lower engine.workers, or what each worker reserves"
                )
        group = placement_group([bundle] * self._config.workers, strategy=self._config.placement)
        if not group.wait(PLACEMENT_S):
            raise ValueError(
                f"the Ray cluster did not find room for {self._config.workers} workers of {bundle} with "
                f"engine.placement {self._config.placement} within {PLACEMENT_S:g} s: others may use it; free it, or "
                "ask for less"
            )
        return group

    def start(self, place: int) -> RayLink:
        """An actor in the place that is reserved for it."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from rollouts.pool_start import log_of

        bundle = self._group.bundle_specs[place]
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)
        log = log_of(self._log_path, place)
        actor = (
            self._ray.remote(VLLMActor)
            .options(
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                max_restarts=0,  # the pool replaces it, and gives its requests to others meanwhile
                max_concurrency=4,  # its process ids are asked for while it works
                scheduling_strategy=strategy,
            )
            .remote(
                self._config.vllm_arguments(self._model_path),
                self._config.threads_per_worker(),
                self._config.enforce_eager,
                str(log) if log is not None else None,
            )
        )
        return RayLink(self._ray, actor, self._config, self.image)

    def image(self, path: str) -> Any:
        """Reference to the weights in Ray's object store; they are put there once for all workers."""
        import numpy as np

        with self._lock:
            if self._image is None:
                self._image = self._ray.put(np.asarray(np.memmap(path, dtype=np.uint8, mode="r")))
            return self._image

    def weights_changed(self) -> None:
        """Gives up the copy of the earlier weights."""
        with self._lock:
            self._image = None

    def close(self) -> None:
        """Gives the reserved room back, and ends Ray if it was started here; may be called again."""
        self._image = None
        with contextlib.suppress(Exception):  # the cluster may be gone already
            if self._group is not None:
                from ray.util.placement_group import remove_placement_group

                remove_placement_group(self._group)
        self._group = None
        if self._owns_ray:
            self._ray.shutdown()
            self._owns_ray = False


class RayLink:
    """The pool's end of one actor; see `rollouts.pool_host.Link`."""

    def __init__(self, ray: Any, actor: Any, config: PoolConfig, image: Callable[[str], Any]) -> None:
        self._ray = ray
        self._actor = actor
        self._transport = config.weight_transport
        self._image = image
        self._message: tuple[Any, ...] | None = None
        self._weights: Any = None
        self._pids: tuple[int, int] | None = None
        self._processes: list[psutil.Process] = []
        """Actor and vLLM, if they are on this machine."""

    @property
    def pid(self) -> int:
        """Process id of vLLM on its machine; 0 = not known yet."""
        return self._pids[1] if self._pids else 0

    @property
    def actor_pid(self) -> int:
        """Process id of the actor on its machine; 0 = not known yet."""
        return self._pids[0] if self._pids else 0

    def send(self, message: tuple[Any, ...]) -> None:
        """Keeps the message for `receive`; new weights take the way that the actor's place allows."""
        self._message = message
        if message[0] == "load" and (self._transport == "object_store" or not self._reads_our_memory()):
            self._weights = self._image(message[1])

    def _reads_our_memory(self) -> bool:
        if not self._processes and self._transport == "shared_memory":
            raise EngineError(
                "engine.weight_transport is shared_memory, but Ray has placed a worker on another machine; "
                "set it to auto, or engine.placement to STRICT_PACK"
            )
        return bool(self._processes)

    def receive(
        self,
        timeout_s: float,
        on_progress: Callable[[int, int], None] | None = None,
        on_part: Callable[[int, Any], None] | None = None,
    ) -> Any:
        """Waits for the answer; see `WorkerProcess.receive`."""
        try:
            if self._pids is None:
                self._find_out(timeout_s)
            message, weights = self._message, self._weights
            self._message = self._weights = None
            stream = self._actor.answer.options(num_returns="streaming").remote(message, timeout_s, weights)
            return self._follow(stream, timeout_s + GRACE_S, on_progress, on_part)
        except self._ray.exceptions.RayError as error:
            self.kill()
            raise WorkerDiedError(f"the Ray actor of a vLLM worker is gone: {_in_brief(error)}") from error

    def _find_out(self, timeout_s: float) -> None:
        """Where the actor is. Waits until Ray has started it."""
        reference = self._actor.where.remote()
        self._wait(reference, timeout_s)
        place, *pids = self._ray.get(reference)
        if place == machine():
            with contextlib.suppress(psutil.NoSuchProcess):
                self._processes = [psutil.Process(pid) for pid in pids]
        self._pids = (pids[0], pids[1])

    def _wait(self, reference: Any, timeout_s: float) -> None:
        ready, _ = self._ray.wait([reference], timeout=timeout_s)
        if not ready:
            self.kill()
            raise WorkerDiedError(f"the Ray actor of a vLLM worker was silent for {timeout_s:g} s and was ended")

    def _follow(
        self,
        stream: Any,
        timeout_s: float,
        on_progress: Callable[[int, int], None] | None,
        on_part: Callable[[int, Any], None] | None,
    ) -> Any:
        while True:
            self._wait(stream, timeout_s)
            for kind, *content in self._ray.get(next(stream)):
                if kind == "progress" and on_progress is not None:
                    on_progress(*content)
                elif kind == "part" and on_part is not None:
                    on_part(*content)
                elif kind == "result":
                    return content[0]
                elif kind == "died":
                    raise WorkerDiedError(content[0])
                elif kind == "error":
                    raise EngineError(content[0])

    def interrupt(self) -> None:
        """Ends the actor; what waits for it hears of that from Ray."""
        with contextlib.suppress(Exception):  # Ray may have been shut down
            self._ray.kill(self._actor, no_restart=True)
        for process in self._processes:  # one that is stopped, or whose parent is, does not hear of it otherwise
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        """Ends actor and worker at once; may be called again."""
        self.interrupt()

    def close(self, idle: bool) -> None:
        """Ends actor and worker; a worker that waits for messages may put its things away first."""
        if idle:
            with contextlib.suppress(Exception):
                self._ray.get(self._actor.close.remote(True), timeout=15.0)
        self.kill()


def import_ray() -> Any:
    """Ray, with its usage reports off.

    Raises:
        ValueError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray puts its workers far behind all other programs; the step waits for these, so they rank with the trainer.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "engine.backend is ray, but Ray is not installed: pip install 'tandem-rl[ray]', or set engine.backend: "
            "process"
        ) from error
    return ray


def _connect(ray: Any, config: PoolConfig) -> None:
    """Joins the cluster at the configured address, or starts Ray on this machine."""
    if config.ray_address is not None:
        try:
            ray.init(address=config.ray_address, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"no Ray cluster answers at engine.ray_address {config.ray_address!r}: {error}") from error
        return
    cores = max(len(os.sched_getaffinity(0)), int(-(-config.workers * config.cpus_per_worker // 1)))
    for attempt in range(1, START_ATTEMPTS + 1):
        before = {child.pid for child in psutil.Process().children()}
        try:
            ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
            return
        except Exception as error:  # Ray raises a plain Exception when its processes are not up in 30 s
            _end_half_started(ray, before)
            if attempt == START_ATTEMPTS:
                raise EngineError(
                    f"Ray did not start on this machine in {attempt} attempts; it may be too busy: {_in_brief(error)}"
                ) from error


def _end_half_started(ray: Any, before: set[int]) -> None:
    """Ends what an attempt to start Ray has left: its own processes that were not children of ours before."""
    with contextlib.suppress(Exception):
        ray.shutdown()
    home = str(Path(ray.__file__).parent)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.pid not in before and any(home in word for word in child.cmdline()):
                child.kill()
                child.wait(5.0)


def bundle_of(config: PoolConfig, cluster_gpus: float) -> dict[str, float]:
    """What Ray reserves for one worker."""
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = float(config.tensor_parallel_size) if cluster_gpus else 0.0
    bundle = {"CPU": config.cpus_per_worker, "GPU": gpus}
    return {kind: amount for kind, amount in bundle.items() if amount} or {"CPU": 0.01}


def _in_brief(error: BaseException) -> str:
    """First and last line of an error of Ray, which puts the whole story between them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}" + (f" ... {lines[-1]}" if len(lines) > 1 else "")
