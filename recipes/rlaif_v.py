"""RLAIF-V: fewer hallucinations, by the model's own or another model's feedback on claims, in rounds.

Each round: responses of the policy, divided into claims, each claim checked against the image or video by a labeler
(divide and conquer), preference pairs out of the scores, DPO on them, evaluation of its checkpoints; the best one seeds
the next round (arXiv 2405.17220; for video 2509.18154). What the stages make is plain files in the run directory, and
report.html shows all of it. A run that was stopped or killed goes on with --resume true, and pays for no label twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipes.cli import run_recipe
from recipes.rlaif.config import MAY_CHANGE, RlaifVConfig


def main(config: RlaifVConfig, base_dir: Path | None = None) -> None:
    """Check what can be checked without a model, then run the rounds and report."""
    from recipes.console import say
    from rl.run_directory import RunDirectory
    from rollouts.engine import check_block_size

    check_block_size(config.engine)
    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    place: dict[str, Any] = {"resume": config.resume, "overwrite": config.overwrite, "may_change": MAY_CHANGE}
    RunDirectory.check(config.run, dumped, **place)
    _check_inputs(config)

    from recipes.rlaif.engines import EngineRoom
    from recipes.rlaif.evaluation import Evaluator
    from recipes.rlaif.report import console_table, write_rlaif_report
    from recipes.rlaif.rounds import Loop

    with (
        Evaluator(config, base_dir) as evaluator,
        RunDirectory.create(config.run, dumped, **place) as run,
        EngineRoom(config.engine, run.path / "engine.log") as room,
    ):
        best = Loop(config, room, evaluator).go()
        report = write_rlaif_report(run.path)
        run.write_summary({"name": run.path.name, "mode": "none", "model": best.checkpoint, "finished": True})
    for line in console_table(run.path):
        say(line)
    say(f"model: {best.checkpoint}\nreport: {report}")


def _check_inputs(config: RlaifVConfig) -> None:
    """Refuse models and instructions that are not there, before a run directory is made. Raises ValueError."""
    from recipes.models import resolve_model
    from recipes.rlaif.config import ModelDividerConfig
    from recipes.tasks import raw_rows

    divider = config.divider.model if isinstance(config.divider, ModelDividerConfig) else None
    for model in (config.model, config.labeler.model, divider):
        if model is not None:
            resolve_model(model)
    if not config.resume:
        next(raw_rows(config.instructions, "train"), None)


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, RlaifVConfig, doc=__doc__))
