"""DPO on the pairs of a round: `recipes.dpo` in a process of its own, with the configuration in `dpo.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipes.recipe_stages import Stage, call, can_resume
from recipes.rlaif.config import RlaifVConfig
from recipes.rlaif.pairing import FILE
from recipes.yaml_config import dump
from rl.files import atomic_write_text

FOLDER = "dpo"


class StageFailedError(ValueError):
    """A stage ended with an error, which it has said itself."""


def train(config: RlaifVConfig, folder: Path, start: Path, pairs: int, step: int) -> list[Path]:
    """Train unless it is done, resuming an interrupted run.

    Args:
        config: Of the loop.
        folder: The round's, which holds the pairs.
        start: Policy and reference.
        pairs: How many there are.
        step: Number of the round.

    Returns:
        The checkpoints to be evaluated, by step.

    Raises:
        StageFailedError: The recipe ended with an error.
    """
    file = folder / "dpo.yaml"
    atomic_write_text(file, dump(dpo_settings(config, folder, start, pairs, step)))
    stage = Stage(
        title=f"round {step}: DPO",
        arguments=("recipes.dpo", str(file)),
        run=folder / FOLDER,
        product=folder / FOLDER / "run.json",
    )
    if not stage.product.is_file():
        status = call([*stage.arguments, *(["--resume", "true"] if can_resume(stage) else [])])
        if status:
            raise StageFailedError(
                f"DPO of round {step} ended with status {status}: mend its cause and continue with --resume true; it "
                "goes on from here"
            )
    return checkpoints(folder / FOLDER, merged=config.dpo.lora is not None)


def dpo_settings(config: RlaifVConfig, folder: Path, start: Path, pairs: int, step: int) -> dict[str, Any]:
    """The configuration of `recipes.dpo`."""
    own = config.dpo.model_dump(mode="json", exclude_none=True)
    own["trainer"] = {**own["trainer"], "keep_last": 0}
    return {
        **own,
        "eval_size": min(config.dpo.eval_size, pairs // 5),
        "run": str(folder / FOLDER),
        "seed": config.seed + step,
        "model": {"path": str(start), "trust_remote_code": config.model.trust_remote_code},
        "pairs": str(folder / FILE),
        "media_outside": True,  # the paths are those that the loop itself has written
        "modes": config.modes.model_dump(mode="json"),
        "video": config.video.model_dump(mode="json", exclude_none=True),
    }


def checkpoints(run: Path, *, merged: bool) -> list[Path]:
    """Whole models of a DPO run, by step; of adapters only the last one, where they are folded in."""
    if merged:
        return [run / "model"]
    return [path for _, path in sorted(_by_step(run).items())]


def trained_steps(checkpoint: Path) -> int:
    """DPO steps of one of these models."""
    if checkpoint.name == "model":  # adapters folded in, of the last step
        return max(_by_step(checkpoint.parent), default=0)
    return int(checkpoint.name.removeprefix("step_"))


def _by_step(run: Path) -> dict[int, Path]:
    return {int(path.name[5:]): path for path in (run / "checkpoints").glob("step_*") if path.name[5:].isdigit()}
