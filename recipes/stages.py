"""Runs training stages one after the other, each from the last one's model; resumable in the middle of any."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.stage_config import Stage, StagedConfig

if TYPE_CHECKING:
    from base_model.packed_lm import PackedCausalLM
    from base_model.stage_trainer import StageTrainer
    from rl.interrupt import InterruptGuard
    from rl.run_directory import RunDirectory

MAY_CHANGE = {"resume", "overwrite", "save_every", "workers", "evaluation.every"}


def run_stages(config: StagedConfig) -> None:
    """Train all stages that the run directory does not hold yet."""
    from rl.interrupt import InterruptGuard
    from rl.run_directory import RunDirectory

    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    place: dict[str, Any] = {"resume": config.resume, "overwrite": config.overwrite, "may_change": MAY_CHANGE}
    RunDirectory.check(config.run, dumped, **place)

    from recipes.console import say
    from recipes.models import resolve_model

    path = resolve_model(config.model)
    _check(config, path)
    started = time.perf_counter()
    with RunDirectory.create(config.run, dumped, **place) as run, InterruptGuard() as guard:
        say(f"{len(config.stages)} stages of {path.name}: {config.ends()[-1]} steps, run {run.path}")
        for number, end in enumerate(config.ends()):
            target = run.checkpoints / f"step_{end}"
            if not (target / "state.json").is_file():
                StageRun(config, run, number, path, guard).train(target)
            path = target
        seconds = time.perf_counter() - started
        summary = {"name": run.path.name, "mode": "none", "steps": config.ends()[-1], "seconds": seconds}
        run.write_summary({**summary, "finished": True})
        say(f"done in {seconds:.0f} s. Model: {path}")


def _check(config: StagedConfig, path: Path) -> None:
    """Refuse before anything is trained what a later stage would fail at. Raises ValueError."""
    from base_model.checkpoints import has_vision
    from recipes.stage_data import StageData

    for number, stage in enumerate(config.stages):
        if not has_vision(path) and stage.train != ["language model"]:
            raise ValueError(
                f"stage {stage.name} trains the {', '.join(stage.train)}, but {path.name} is a language model alone: "
                "train its language model only, or make a vision-language model of it with recipes.new_model"
            )
        StageData(config, number, None).loader(None)


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run."""

    config: StagedConfig
    run: RunDirectory
    number: int
    start: Path
    """The model that the stage starts from."""
    guard: InterruptGuard

    @property
    def stage(self) -> Stage:
        """Its settings."""
        return self.config.stages[self.number]

    @property
    def first_step(self) -> int:
        """Steps of the stages before."""
        return self.config.ends()[self.number] - self.stage.steps

    @property
    def folder(self) -> Path:
        """Where its checkpoints lie."""
        return self.run.path / "trainer" / self.stage.name

    def train(self, target: Path) -> None:
        """Train to the end, going on from the newest checkpoint if there is one; write the model."""
        from base_model.checkpoints import load_processor
        from base_model.stage_trainer import newest_checkpoint

        processor = load_processor(self.start, trust_remote_code=self.config.model.trust_remote_code)
        checkpoint = newest_checkpoint(self.folder)
        trainer = self._trainer(self._model(), processor, checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if self.guard.requested:
            raise KeyboardInterrupt
        self._save(trainer, processor, target)

    def _model(self) -> PackedCausalLM:
        from base_model.packed_lm import load_packed
        from base_model.trainable import set_trainable
        from recipes.console import say

        packed = load_packed(
            self.start,
            gradient_checkpointing=self.stage.gradient_checkpointing,
            trust_remote_code=self.config.model.trust_remote_code,
        )
        states = set_trainable(packed.causal_lm, self.stage.train)
        say(f"stage {self.number + 1}, {self.stage.name}: {self.stage.steps} steps")
        for part, state in states.items():
            say(f"  {part}: {state.trainable:,} of {state.parameters:,} parameters train")
        return packed

    def _trainer(self, packed: PackedCausalLM, processor: Any, checkpoint: Path | None) -> StageTrainer:
        import torch
        from transformers import PrinterCallback

        from base_model.flops import FlopCount, measure_peak
        from base_model.packed_lm import compute_dtype
        from base_model.stage_trainer import StageTrainer
        from base_model.throughput import Meter
        from recipes.stage_data import StageData
        from recipes.stage_report import stage_report

        arguments = self._arguments()
        dtype = compute_dtype(self.config.precision)
        meter = Meter(
            FlopCount(packed.causal_lm, self.stage.train),
            measure_peak(torch.device(arguments.device), dtype),
            self.stage.tokens_per_batch,
        )
        data = StageData(self.config, self.number, processor)
        loader = data.loader(checkpoint)
        trainer = StageTrainer(packed, arguments, loader, optimizer_settings=self.stage, meter=meter)
        trainer.add_callback(stage_report(self, trainer, data))
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _arguments(self) -> Any:
        import torch
        from transformers import TrainingArguments

        from base_model.packed_lm import compute_dtype

        save_every = self.config.save_every
        return TrainingArguments(
            output_dir=str(self.folder),
            max_steps=self.stage.steps,
            gradient_accumulation_steps=self.stage.gradient_accumulation,
            max_grad_norm=self.stage.max_grad_norm,
            bf16=compute_dtype(self.config.precision) is torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            seed=self.config.seed,
            save_strategy="steps" if save_every else "no",
            save_steps=save_every or 1,
            save_total_limit=2,
            ignore_data_skip=True,
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=True,
        )

    def _save(self, trainer: StageTrainer, processor: Any, target: Path) -> None:
        """The stage's model as checkpoints/step_N, a plain model directory, complete or absent."""
        from base_model.packed_lm import save_merged
        from rl.files import atomic_directory

        with atomic_directory(target) as folder:
            save_merged(trainer.accelerator.unwrap_model(trainer.model).model, folder)
            processor.save_pretrained(folder)
            state = {"step": self.first_step + self.stage.steps, "stage": self.stage.name}
            (folder / "state.json").write_text(json.dumps(state))
