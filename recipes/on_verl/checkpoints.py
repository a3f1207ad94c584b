"""A checkpoint of verl becomes one of the run directory: a plain model, and all that resuming needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from recipes.on_verl.session import STATE
from rl.files import atomic_write_json, remove_directory

MODEL = "actor/huggingface"
"""Where verl writes the plain model within its checkpoint."""
_NAME = re.compile(r"(?:global_)?step_(\d+)")


class Checkpoints(CheckpointCallback):
    """Called by verl after each of its checkpoints."""

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, **_: Any) -> None:
        """Move the plain model to `checkpoints/step_N`, write the state, and drop what is older than `keep_last`."""
        session, folder = trainer.session, Path(checkpoint_dir)
        publish(folder, session.run.checkpoints / f"step_{global_step}")
        session.save(folder)
        keep = session.config.trainer.keep_last
        for parent in (folder.parent, session.run.checkpoints):
            prune(parent, global_step, keep)


def publish(checkpoint: Path, target: Path) -> None:
    """Move the plain model out of verl's checkpoint; an older one of the same step is replaced."""
    if target.exists():
        remove_directory(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    config = checkpoint / MODEL / "config.json"
    # verl writes float32 weights, and bfloat16 into their configuration: they would be rounded when they are loaded.
    atomic_write_json(config, {**json.loads(config.read_text()), "dtype": "float32"})
    (checkpoint / MODEL).rename(target)


def prune(parent: Path, newest: int, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints, counted from the one that was just written; 0 = keep all."""
    found = {int(match[1]): path for path in parent.iterdir() if (match := _NAME.fullmatch(path.name))}
    for step in sorted(step for step in found if step < newest)[: -(keep - 1) or None] if keep else []:
        remove_directory(found[step])


def step_of(checkpoint: Path | None) -> int:
    """Completed steps at a checkpoint; 0 where there is none."""
    match = _NAME.fullmatch(checkpoint.name) if checkpoint else None
    return int(match[1]) if match else 0


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of verl, or None."""
    found = sorted(
        (int(match[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _NAME.fullmatch(path.name)) and (path / STATE).is_file()
    )
    return found[-1][1] if found else None
