"""The whole job on a real model: warm-up, then short-only, long-only and hybrid GRPO with equal steps, evaluation
of all four in both modes on rows never trained on, and the comparison.

Every stage is one of the other recipes, run as you would run it; the commands are printed. A stage that has finished is
not run again, and one that was interrupted continues where it stopped.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recipes.cli import run_recipe
from recipes.console import say
from recipes.recipe_stages import Stage, call, run_all

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
    status = run_all(todo, "demo")
    if status:
        return status
    say(f"\n[{len(todo) + 1}/{len(todo) + 1}] comparison")
    runs = [out / name for name in ("warmup", *MODES)]
    status = call(["recipes.compare", *map(str, runs), "--out", str(out)])
    if status == 0:
        say(f"\nthe demo took {(time.perf_counter() - started) / 60:.1f} minutes; open {out / 'report.html'}")
    return status


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, DemoConfig, doc=__doc__))
