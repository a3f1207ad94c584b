"""A job of several recipe calls: each in a process of its own, its command printed, finished ones skipped, interrupted
ones resumed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.console import say


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One recipe call."""

    title: str
    arguments: tuple[str, ...]
    """Module and options."""
    run: Path
    """The run directory that it fills."""
    product: Path
    """The file whose presence says that the stage is done."""


def can_resume(stage: Stage) -> bool:
    """Whether the stage is a run that was started and not finished."""
    return stage.product.name == "run.json" and (stage.run / "config.yaml").is_file()


def call(arguments: Sequence[str]) -> int:
    """Run a recipe in a process of its own (vLLM and the trainer leave nothing behind), its output shown as it
    comes; returns its exit status.
    """
    command = [sys.executable, "-m", *arguments]
    say(f"$ python -m {shlex.join(arguments)}")
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the recipe got the signal too, and saves
        process.wait()
        raise
