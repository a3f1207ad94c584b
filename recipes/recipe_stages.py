"""A job of several recipe calls: each in a process of its own, its command printed, finished ones skipped, interrupted
ones resumed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.cli import CALLER
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


def run_all(todo: Sequence[Stage], job: str) -> int:
    """Run the stages that are not done yet, resuming an interrupted one; ends with the first that fails.

    Args:
        todo: The stages, in order; one more follows, which the caller announces.
        job: What they are called together, in messages.

    Returns:
        The exit status of the stage that failed; 0 if none did.
    """
    for number, stage in enumerate(todo, 1):
        say(f"\n[{number}/{len(todo) + 1}] {stage.title}")
        if stage.product.is_file():
            say(f"done already: {stage.product}")
            continue
        status = call([*stage.arguments, *(["--resume", "true"] if can_resume(stage) else [])])
        if status:
            say(f"the stage ended with status {status}; mend its cause and call the {job} again: it goes on from here")
            return status
    return 0


def call(arguments: Sequence[str]) -> int:
    """Run a recipe in a process of its own (vLLM and the trainer leave nothing behind), its output shown as it
    comes; returns its exit status. The recipe ends when this process is killed, so that nothing else writes to its run
    when the job is called again.
    """
    command = [sys.executable, "-m", *arguments]
    say(f"$ python -m {shlex.join(arguments)}")
    process = subprocess.Popen(command, env={**os.environ, CALLER: str(os.getpid())})
    try:
        return process.wait()
    except KeyboardInterrupt:  # the recipe got the signal too, and saves
        process.wait()
        raise
