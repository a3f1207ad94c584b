"""Evaluation of a checkpoint in the loop: hallucination on labelled images, and held-out questions, by one engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.console import StepBar
from recipes.rlaif.config import HeldOutConfig, RlaifVConfig
from recipes.rlaif.selection import Figures
from rl.files import atomic_write_json

if TYPE_CHECKING:
    from recipes.rlaif.engines import Served
    from recipes.tasks import Row
    from rewards import RewardSet

FILE = "figures.json"


class Evaluator:
    """Evaluates checkpoints on the same rows. A context manager, since rewards may have workers."""

    def __init__(self, config: RlaifVConfig, base_dir: Path | None = None) -> None:
        """Read the rows and build the rewards, so that what is wrong with them shows before a model is loaded.

        Raises:
            ValueError: rows or rewards cannot be had.
        """
        self.config = config
        self._rows: list[Row] = []
        self._rewards: RewardSet | None = None
        if config.held_out is not None:
            self._rows, self._rewards = _held_out(config.held_out, config, base_dir)

    def read(self, folder: Path) -> Figures | None:
        """Figures that are there already."""
        path = folder / FILE
        return Figures(**json.loads(path.read_text())) if path.is_file() else None

    def evaluate(self, served: Served, folder: Path, step: int) -> Figures:
        """Evaluate the model in the engine.

        Args:
            served: The model.
            folder: Where figures and samples go.
            step: Training steps of its round.
        """
        folder.mkdir(parents=True, exist_ok=True)
        details: dict[str, Any] = {}
        if self.config.held_out is not None:
            details["held_out"] = self._ask_held_out(self.config.held_out, served, folder, step)
        figures = Figures(
            checkpoint=str(served.path),
            step=step,
            chair_i=None,
            chair_s=None,
            words=0.0,
            accuracy=details["held_out"]["accuracy"] if "held_out" in details else None,
            details=details,
        )
        atomic_write_json(folder / FILE, figures.to_dict())
        return figures

    def _ask_held_out(self, config: HeldOutConfig, served: Served, folder: Path, step: int) -> dict[str, Any]:
        """Figures in the mode of the loop; writes evaluation.json and evaluation_samples.jsonl."""
        from recipes.evaluate import write_evaluation
        from recipes.evaluation import evaluate_policy
        from rl.config import ReferenceConfig

        assert self._rewards is not None
        mode = self.config.modes.active()[0]
        with StepBar("held-out questions", 1) as bar:
            summary, records = evaluate_policy(
                engine=served.engine,
                tokenizer=served.processor,
                rows=self._rows,
                modes=self.config.modes,
                rewards=self._rewards,
                config=config.evaluation,
                reference=ReferenceConfig(),
                on_progress=lambda done, total: bar.note(done, total, "generate"),
                video=self.config.video,
                only=mode,
            )
        write_evaluation(folder, checkpoint=served.path, step=step, summary=summary, records=records)
        return summary[mode.name]

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._rewards is not None:
            self._rewards.__exit__(*error)


def _held_out(config: HeldOutConfig, loop: RlaifVConfig, base_dir: Path | None) -> tuple[list[Row], RewardSet]:
    import rewards
    from recipes.evaluation import check_breakdown, check_evaluation
    from recipes.reward_keys import reward_columns, reward_specs
    from recipes.tasks import load_rows

    specs = reward_specs(config.rewards, loop.modes, base_dir)
    made = rewards.build(specs, reward_columns(config.task), base_dir)
    check_evaluation(config.evaluation, made.names)
    rows = load_rows(config.task, "eval")
    check_breakdown(config.evaluation, rows[: config.evaluation.rows or None])
    return rows, made
