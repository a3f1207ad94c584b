"""Evaluation of a checkpoint in the loop: hallucination on labelled images, and held-out questions, by one engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.console import StepBar
from recipes.evaluation import EVALUATION_STEP, MEDIA_PROMPTS
from recipes.rlaif.config import HeldOutConfig, RlaifVConfig
from recipes.rlaif.labelled import HallucinationConfig, LabelledRow, labelled_rows
from recipes.rlaif.selection import Figures
from rl.files import atomic_write_json, atomic_write_text
from rollouts.records import Request, Rollout, Sampling, request_seed

if TYPE_CHECKING:
    from recipes.rlaif.engines import Served
    from recipes.tasks import Row
    from rewards import RewardSet

FILE, DESCRIPTIONS = "figures.json", "descriptions.jsonl"


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
        self._labelled = labelled_rows(config.hallucination.labelled) if config.hallucination else []
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
        if self.config.hallucination is not None:
            details["hallucination"] = self._describe(self.config.hallucination, served, folder)
        if self.config.held_out is not None:
            details["held_out"] = self._ask_held_out(self.config.held_out, served, folder, step)
        found = details.get("hallucination")
        figures = Figures(
            checkpoint=str(served.path),
            step=step,
            chair_i=found["chair_i"]["value"] if found and found["objects"] else None,
            chair_s=found["chair_s"]["value"] if found and found["objects"] else None,
            words=found["words"] if found else 0.0,
            accuracy=details["held_out"]["accuracy"] if "held_out" in details else None,
            details=details,
        )
        atomic_write_json(folder / FILE, figures.to_dict())
        return figures

    def _describe(self, config: HallucinationConfig, served: Served, folder: Path) -> dict[str, Any]:
        """Figures of hallucination, mean words, and what could not be described; writes descriptions.jsonl."""
        from recipes.hallucination import CheckedResponse, as_record, hallucination

        checked, words, records = [], [], []
        with StepBar("descriptions", len(self._labelled) * config.samples) as bar:
            for row, rollout in described(served, self._labelled, self.config, config, bar.update):
                objects = row.count(rollout.answer)
                checked.append(CheckedResponse(row=row.index, objects=objects, tokens=len(rollout.response_ids)))
                words.append(len(rollout.answer.split()))
                records.append({"row": row.index, "place": row.place, "response": rollout.response, **asdict(objects)})
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        atomic_write_text(folder / DESCRIPTIONS, lines)
        found = as_record(hallucination(checked, seed=config.seed))
        asked = len(self._labelled) * config.samples
        return {**found, "words": sum(words) / len(words), "left_out": asked - len(records)}

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


def described(
    served: Served,
    rows: Sequence[LabelledRow],
    loop: RlaifVConfig,
    config: HallucinationConfig,
    on_progress: Callable[[int], None],
) -> Iterator[tuple[LabelledRow, Rollout]]:
    """Descriptions of the rows, those of a row one after the other; a row that cannot be asked has none."""
    from rl.prompts import PromptMaker

    maker = PromptMaker(served.processor, loop.video, kept_bytes=0)
    mode = loop.modes.active()[0]
    for start in range(0, len(rows), MEDIA_PROMPTS):
        requests: list[Request] = []
        for row in rows[start : start + MEDIA_PROMPTS]:
            try:
                prompt = maker.prompt(row, mode)
                served.engine.check_prompt(prompt.ids, prompt.media)
            except ValueError:
                continue
            requests += [
                Request(
                    prompt_ids=prompt.ids,
                    media=prompt.media,
                    mode=mode,
                    row=row.index,
                    sample=sample,
                    seed=request_seed(config.seed, EVALUATION_STEP, row.index, sample),
                    sampling=Sampling(temperature=config.temperature),
                )
                for sample in range(config.samples)
            ]
        for rollout in served.engine.generate(requests):
            yield rows[rollout.row], rollout
        on_progress(min(start + MEDIA_PROMPTS, len(rows)) * config.samples)


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
