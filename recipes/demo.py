"""The whole job on a real model: warm-up, then short-only, long-only and hybrid GRPO with equal steps, evaluation
of all four in both modes on rows never trained on, and the comparison.

Every stage is one of the other recipes, run as you would run it; the commands are printed. A stage that has finished is
not run again, and one that was interrupted continues where it stopped.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recipes.cli import run_recipe
from recipes.console import say

MODES = ("short", "long", "hybrid")
SMALL_WARMUP = ["--steps", "20", "--task.size", "1000"]
SMALL_TRAINING = ["--trainer.steps", "3", "--trainer.prompts_per_step", "4", "--task.size", "1000"]
SMALL_EVALUATION = ["--task.eval_size", "40"]


class DemoConfig(BaseModel):
    """Where the demo goes, and how large it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    out: Path | None = None
    """Folder of the four runs and of the comparison; null = runs/demo, or runs/demo_small."""
    small: bool = False
    """Run everything at a fraction of the size, in a few minutes: shows the machinery, not the effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One recipe call of the demo."""

    title: str
    arguments: tuple[str, ...]  # module and options
    run: Path  # the run directory it fills
    product: Path  # the file whose presence says that the stage is done


def stages(out: Path, small: bool) -> list[Stage]:
    """The demo's recipe calls, in order."""
    warmup = out / "warmup"
    evaluation = SMALL_EVALUATION if small else []
    found = [
        Stage(
            title="warm-up: both modes from worked solutions",
            arguments=("recipes.sft", "--run", str(warmup), *(SMALL_WARMUP if small else [])),
            run=warmup,
            product=warmup / "run.json",
        ),
        Stage(
            title="evaluation of the warm-up model",
            arguments=(
                "recipes.evaluate",
                "--model.path",
                str(warmup),
                *(["--task.size", "1000", *evaluation] if small else []),
            ),
            run=warmup,
            product=warmup / "evaluation.json",
        ),
    ]
    for mode in MODES:
        options = ["--run", str(out / mode), "--model.path", str(warmup), "--modes.mode", mode]
        found.append(
            Stage(
                title=f"{mode} GRPO",
                arguments=("recipes.hybrid_grpo", *options, *([*SMALL_TRAINING, *evaluation] if small else [])),
                run=out / mode,
                product=out / mode / "run.json",
            )
        )
    return found


def main(config: DemoConfig) -> int:
    """Run the stages that are not done yet, then compare."""
    started = time.perf_counter()
    out = config.out or Path("runs/demo_small" if config.small else "runs/demo")
    todo = stages(out, config.small)
    for number, stage in enumerate(todo, 1):
        say(f"\n[{number}/{len(todo) + 1}] {stage.title}")
        if stage.product.is_file():
            say(f"done already: {stage.product}")
            continue
        resume = ["--resume", "true"] if _can_resume(stage) else []
        status = _call([*stage.arguments, *resume])
        if status:
            say(f"the stage ended with status {status}; mend its cause and call the demo again: it goes on from here")
            return status
    say(f"\n[{len(todo) + 1}/{len(todo) + 1}] comparison")
    runs = [out / name for name in ("warmup", *MODES)]
    status = _call(["recipes.compare", *map(str, runs), "--out", str(out)])
    if status == 0:
        say(f"\nthe demo took {(time.perf_counter() - started) / 60:.1f} minutes; open {out / 'report.html'}")
    return status


def _can_resume(stage: Stage) -> bool:
    """Whether the stage is a run that was started and not finished."""
    return stage.product.name == "run.json" and (stage.run / "config.yaml").is_file()


def _call(arguments: Sequence[str]) -> int:
    """Run a recipe in a process of its own (vLLM and the trainer leave nothing behind), its output shown as it
    comes.
    """
    command = [sys.executable, "-m", *arguments]
    say(f"$ python -m {shlex.join(arguments)}")
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the recipe got the signal too, and saves
        process.wait()
        raise


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, DemoConfig, doc=__doc__))
