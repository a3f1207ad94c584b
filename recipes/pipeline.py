"""A vision-language model from nothing: a new tiny model, pre-training in its stages, supervised fine-tuning in two,
hybrid GRPO, evaluation in both modes after each, and a page that follows the model through all of them.

    make pipeline        (python -m recipes.pipeline)

Every stage is one of the other recipes with a YAML file of its own (recipes/configs/pipeline_*.yaml), run as you would
run it; the commands are printed. A stage that has finished is not run again, and one that was interrupted continues
where it stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recipes.cli import CONFIGS, load_config, run_recipe
from recipes.console import say
from recipes.recipe_stages import Stage, run_all
from recipes.stage_config import StagedConfig
from recipes.tasks import TaskConfig

MODEL, PRETRAIN, SFT, RL = "model", "pretrain", "sft", "rl"
"""Folders of the model and of the runs."""
EVALUATIONS = "evaluations"
"""Folder of the evaluations, one folder for each model."""


class PipelineConfig(BaseModel):
    """Where the pipeline goes, and how large it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    out: Path | None = None
    """Folder of the model, the runs and the report; null = runs/pipeline, or runs/pipeline_small."""
    small: bool = False
    """Run everything at a fraction of the size, in a few minutes: shows the machinery, not the effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model that is evaluated."""

    title: str
    checkpoint: Path
    """Its folder, or its run directory."""
    evaluation: Path
    """Folder of its evaluation."""


def stages(out: Path, small: bool) -> list[Stage]:
    """The pipeline's recipe calls, in order."""
    new = Stage(
        title="a new tiny model",
        arguments=("recipes.new_model", str(config_file("model", small)), "--out", str(out / MODEL)),
        run=out / MODEL,
        product=out / MODEL / "config.json",
    )
    pretrain = _run("recipes.pretrain", "pre-training", PRETRAIN, out / MODEL, out, small)
    sft = _run("recipes.vlm_sft", "supervised fine-tuning", SFT, out / PRETRAIN, out, small)
    rl = _run("recipes.hybrid_grpo", "hybrid GRPO, and evaluation after it", RL, out / SFT, out, small)
    evaluations = [_evaluation(model, small) for model in models(out, small)[:-1]]
    return [new, pretrain, evaluations[0], sft, *evaluations[1:], rl]


def models(out: Path, small: bool) -> list[Model]:
    """The models that are evaluated, in order; the last one by its own run."""
    return [
        Model(title="pre-trained", checkpoint=out / PRETRAIN, evaluation=out / EVALUATIONS / PRETRAIN),
        *(
            Model(title=f"fine-tuned: {name}", checkpoint=checkpoint, evaluation=out / EVALUATIONS / f"{SFT}_{name}")
            for name, checkpoint in _stage_models(SFT, out, small)
        ),
        Model(title="hybrid GRPO", checkpoint=out / RL, evaluation=out / RL),
    ]


def training_config(name: str, small: bool) -> StagedConfig:
    """The configuration of pre-training or fine-tuning."""
    return load_config(StagedConfig, [str(config_file(name, small))])


def task_config(small: bool) -> TaskConfig:
    """The rows of GRPO and of all evaluations."""
    from recipes.evaluate import EvaluateConfig

    return load_config(EvaluateConfig, [str(config_file("evaluate", small)), "--model.path", "none"]).task


def config_file(name: str, small: bool) -> Path:
    """The YAML file of a stage."""
    usual, reduced = (CONFIGS / f"pipeline_{part}{name}.yaml" for part in ("", "small_"))
    return reduced if small and reduced.is_file() else usual


def _stage_models(name: str, out: Path, small: bool) -> list[tuple[str, Path]]:
    """(name, checkpoint) at the end of each stage of a run."""
    config = training_config(name, small)
    ends = zip(config.stages, config.ends(), strict=True)
    return [(stage.name, out / name / "checkpoints" / f"step_{end}") for stage, end in ends]


def _run(module: str, title: str, name: str, start: Path, out: Path, small: bool) -> Stage:
    run = out / name
    options = ("--run", str(run), "--model.path", str(start))
    arguments = (module, str(config_file(name, small)), *options)
    return Stage(title=title, arguments=arguments, run=run, product=run / "run.json")


def _evaluation(model: Model, small: bool) -> Stage:
    options = ("--model.path", str(model.checkpoint), "--out", str(model.evaluation))
    return Stage(
        title=f"evaluation of the model: {model.title}",
        arguments=("recipes.evaluate", str(config_file("evaluate", small)), *options),
        run=model.evaluation,
        product=model.evaluation / "evaluation.json",
    )


def main(config: PipelineConfig) -> int:
    """Run the stages that are not done yet, then write the report."""
    from recipes.pipeline_report import write_pipeline_report

    started = time.perf_counter()
    out = config.out or Path("runs/pipeline_small" if config.small else "runs/pipeline")
    todo = stages(out, config.small)
    status = run_all(todo, "pipeline")
    if status:
        return status
    say(f"\n[{len(todo) + 1}/{len(todo) + 1}] report")
    report = write_pipeline_report(out, config.small)
    say(f"\nthe pipeline took {(time.perf_counter() - started) / 60:.1f} minutes; open {report}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, PipelineConfig, doc=__doc__))
