"""Starts verl on a Ray cluster, watches it, and gives the machine back."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.on_verl.translate import verl_keys
from rl.files import WriteError
from rl.interrupt import InterruptGuard

if TYPE_CHECKING:
    from recipes.hybrid_grpo import HybridGrpoConfig

RUNNER = "tandem_task_runner"
POLL_S = 1.0
"""Seconds between two looks at a run."""


def compose(keys: dict[str, Any]) -> Any:
    """verl's configuration: its defaults under the given dotted keys.

    Raises:
        ValueError: verl has no such key, or refuses the combination.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra_compose("ppo_trainer")
    for key, value in keys.items():
        try:
            OmegaConf.update(config, key, value, force_add=True)
        except OmegaConfBaseException as error:
            raise ValueError(f"verl.overrides: {key} cannot be set to {value!r}: {error}") from None
    try:
        validate_config(
            config=config,
            use_reference_policy=need_reference_policy(config),
            use_critic=need_critic(config),
        )
    except (ValueError, AssertionError) as error:
        raise ValueError(f"verl refuses this configuration: {error}") from None
    return config


def train(config: HybridGrpoConfig, model_path: Path, base_dir: Path | None) -> int:
    """Run verl to the last step, or to the end of the step in which the user interrupts; returns completed steps.

    Raises:
        ValueError: no cluster answers, the run was refused there, or its trainer process died.
        RayTaskError: a fault of the program, with the place.
    """
    import ray
    from verl.trainer.main_ppo import run_ppo

    from recipes.on_verl.checkpoints import latest, step_of
    from recipes.on_verl.session import STOP

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    keys = verl_keys(config, model_path, base_dir)
    checkpoints, stop = config.run.absolute() / "verl", config.run.absolute() / STOP
    checkpoint = latest(checkpoints) if config.resume else None
    stop.unlink(missing_ok=True)
    keys |= {"trainer.resume_mode": "disable"} if checkpoint is None else _resume(checkpoint)
    composed = compose(keys)
    watchdog = Watchdog(config.run / "metrics.jsonl", config.verl.timeout_s)
    try:
        with watchdog, ExitStack() as running:
            run_ppo(composed, _on_this_node(running, InterruptGuard(then=stop.touch)))
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at verl.address {config.verl.address!r}: {error}") from None
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError | WriteError):  # the user's, in one sentence
            raise ValueError(str(error.cause)) from None
        raise
    except ray.exceptions.RayActorError as error:
        if watchdog.silent:
            raise ValueError(
                f"no step was completed for {config.verl.timeout_s:g} s (verl.timeout_s), so the run was stopped: look "
                "for the reason in Ray's logs, and go on with --resume"
            ) from None
        raise ValueError(f"verl's trainer process died: {error}; go on with --resume") from None
    finally:
        ray.shutdown()
        stop.unlink(missing_ok=True)
    return step_of(latest(checkpoints))


def _resume(checkpoint: Path) -> dict[str, Any]:
    return {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": str(checkpoint)}


class _on_this_node:
    """The task runner, placed on this machine: the run directory and the user's files are here."""

    def __init__(self, running: ExitStack, guard: InterruptGuard) -> None:
        """Args:
        running: closed when the run has ended.
        guard: takes Ctrl-C over from here on: Ray, which has its own handlers, is up then.
        """
        self._running = running
        self._guard = guard

    def remote(self) -> Any:
        """The actor, as verl asks for it."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from recipes.on_verl.task_runner import TaskRunner

        self._running.enter_context(self._guard)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.remote(TaskRunner).options(name=RUNNER, scheduling_strategy=here, num_cpus=0).remote()


class Watchdog:
    """Stops a run that completes no step for too long."""

    def __init__(self, metrics: Path, timeout_s: float, *, poll_s: float = POLL_S) -> None:
        """Args:
        metrics: the file that grows with each step.
        timeout_s: longest time in which it does not.
        poll_s: seconds between two looks at it.
        """
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="verl-watchdog")
        self.silent = False
        """Whether it has stopped the run."""

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        size, since = self._size(), time.monotonic()
        while not self._end.wait(self._poll_s):
            if (now := self._size()) != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > self._timeout_s:
                self.silent = True
                _end_runner()
                return

    def _size(self) -> int:
        try:
            return self._metrics.stat().st_size
        except FileNotFoundError:
            return 0


def _end_runner() -> None:
    """Kill the trainer process, which ends the wait for it."""
    import ray

    if not ray.is_initialized():  # asking would start Ray
        return
    with suppress(ValueError):  # it has ended meanwhile
        ray.kill(ray.get_actor(RUNNER))
