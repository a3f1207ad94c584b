"""verl without a GPU, for tests only: verl 0.9.1 has no CPU platform.

Everything hangs on environment variables and configuration that `environment` and `OVERRIDES` give; a user's run never
sees any of it. Nothing of verl or vLLM is changed on disk.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BYTECODE = Path(tempfile.gettempdir()) / f"tandem-verl-bytecode-{os.getuid()}"
"""Ten processes import torch, verl and vLLM: 5 CPU seconds each with compiled files, and 11 without."""

OVERRIDES: dict[str, Any] = {
    "actor_rollout_ref.model.external_lib": "tests.verl_cpu.engine",
    "actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.model.use_remove_padding": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.rollout.free_cache_engine": False,
    "actor_rollout_ref.rollout.enable_sleep_mode": False,
    "actor_rollout_ref.rollout.agent.num_workers": 1,
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 64,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "transfer_queue.backend.SimpleStorage.total_storage_size": 1000,
    "trainer.device": "cpu",
    "trainer.logger": [],
    "ray_kwargs.ray_init.num_cpus": 16,  # reservations only
    "ray_kwargs.ray_init.num_gpus": 1,  # a GPU that is not there: verl places its workers on Ray's GPUs
    "ray_kwargs.ray_init.include_dashboard": False,
    "ray_kwargs.ray_init.object_store_memory": 200_000_000,
}


def environment() -> dict[str, str]:
    """All variables of a process that runs verl on CPU."""
    return {**os.environ, **variables()}


def variables() -> dict[str, str]:
    """Those that are set for it."""
    path = [str(ROOT), str(HERE / "site"), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(entry for entry in path if entry),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(BYTECODE),
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "tests.verl_cpu.platform",
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_worker_niceness": "0",  # Ray's 15 would leave its workers nothing beside other programs
        "RAY_prestart_worker_first_driver": "0",  # it would start as many idle workers as there are reservations
        "RAY_raylet_start_wait_time_s": "300",  # a busy machine is no reason to fail
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
