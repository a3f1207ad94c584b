"""Supervised warm-up: teaches a model both modes, from rows with a worked solution.

Each row is trained in one mode: in long mode the worked solution inside the think block, then the answer; in short mode
the answer at once. What opens the mode belongs to the prompt and is never trained on.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from base_model.config import LoraSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.models import ModelConfig
from recipes.tasks import TaskConfig
from recipes.warmup import AnswerFormat
from rollouts.modes import ModesConfig

if TYPE_CHECKING:
    from base_model.sft import PackedTrainer, SftExample
    from rl.run_directory import RunDirectory

MAY_CHANGE = {"resume", "overwrite", "save_every"}


class SftConfig(BaseModel):
    """A supervised warm-up run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    run: Path = Path("runs/sft")
    """Run directory; an existing one is never overwritten silently."""
    seed: int = 0
    """Seed of modes and data order."""
    model: ModelConfig
    """The model to start from."""
    task: TaskConfig
    """Rows with worked solutions."""
    modes: ModesConfig = ModesConfig()
    """What the modes are, and the share of rows trained in long mode."""
    style: AnswerFormat = AnswerFormat()
    """How answers are written."""
    steps: int = Field(100, ge=1)
    """Optimiser steps."""
    batch_rows: int = Field(16, ge=1)
    """Rows per step, packed into one batch without padding."""
    gradient_accumulation: int = Field(1, ge=1)
    """Packed batches per step; batch_rows is the size of each."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    lr_scheduler: str = "cosine"
    """Schedule of transformers."""
    warmup_steps: int = Field(10, ge=0)
    """Steps over which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 = off."""
    max_length: int = Field(1024, ge=2)
    """Longest row in tokens; a longer one is refused."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision over fp32 weights; auto = bf16 where the machine multiplies it in hardware."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights; null = all weights."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass."""
    save_every: int = Field(0, ge=0)
    """Steps between checkpoints to resume from; 0 = only the final model."""
    resume: bool = False
    """Continue the run in the run directory."""
    overwrite: bool = False
    """Delete the run that is in the run directory first."""


def main(config: SftConfig) -> None:
    """Load rows, render both modes, train, write the model."""
    from rl.run_directory import RunDirectory

    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    place: dict[str, Any] = {"resume": config.resume, "overwrite": config.overwrite, "may_change": MAY_CHANGE}
    RunDirectory.check(config.run, dumped, **place)

    from transformers import AutoTokenizer

    from recipes.console import say
    from recipes.models import resolve_model
    from recipes.tasks import load_rows, rows_with_solution
    from recipes.warmup import sft_examples
    from rollouts.modes import ModeSampler

    rows = rows_with_solution(load_rows(config.task, "train"))
    model_path = resolve_model(config.model)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    examples = sft_examples(
        rows, ModeSampler(config.modes, config.seed), tokenizer, config.style, max_length=config.max_length
    )
    with RunDirectory.create(config.run, dumped, **place) as run:
        say(f"supervised warm-up of {model_path.name}: {config.steps} steps, {len(examples)} rows, run {run.path}")
        started = time.perf_counter()
        trainer = build_trainer(config, run, model_path, examples)
        trainer.train(resume_from_checkpoint=_newest(run.path / "trainer") if config.resume else None)
        checkpoint = _save(run, trainer, tokenizer, config.steps)
        seconds = time.perf_counter() - started
        run.write_summary(
            {"name": run.path.name, "mode": "none", "steps": config.steps, "seconds": seconds, "finished": True}
        )
        say(f"done in {seconds:.0f} s. Model: {checkpoint}")


def build_trainer(config: SftConfig, run: RunDirectory, model_path: Path, examples: list[SftExample]) -> PackedTrainer:
    """transformers' Trainer over the packed model."""
    import torch
    from transformers import PrinterCallback, TrainingArguments

    from base_model.packed_lm import compute_dtype, load_packed
    from base_model.sft import PackedTrainer

    packed = load_packed(
        model_path,
        lora=config.lora,
        gradient_checkpointing=config.gradient_checkpointing,
        trust_remote_code=config.model.trust_remote_code,
    )
    arguments = TrainingArguments(
        output_dir=str(run.path / "trainer"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_rows,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=compute_dtype(config.precision) is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or 1,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = PackedTrainer(packed, arguments, examples, callbacks=[_callback(run, config.steps)])
    trainer.remove_callback(PrinterCallback)
    return trainer


def _callback(run: RunDirectory, steps: int) -> Any:
    from transformers import TrainerCallback

    from recipes.console import StepBar

    class Report(TrainerCallback):
        """Writes metrics.jsonl and moves the bar."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = StepBar("warm-up", steps, state.global_step)
            self.bar.__enter__()
            run.truncate_after(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                values = {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}
                run.append_metrics({"step": state.global_step, **values, "lr": float(logs["learning_rate"])})
                self.bar.update(state.global_step)
                self.bar.line(f"step {state.global_step}/{steps}  loss {values['loss']:.4f}", every_s=10.0)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.__exit__(None, None, None)

    return Report()


def _save(run: RunDirectory, trainer: PackedTrainer, tokenizer: Any, step: int) -> Path:
    """The final model as checkpoints/step_N, a plain model directory (adapters folded in), complete or absent."""
    from base_model.packed_lm import save_merged
    from rl.files import atomic_directory

    target = run.checkpoints / f"step_{step}"
    with atomic_directory(target) as folder:
        save_merged(trainer.accelerator.unwrap_model(trainer.model).model, folder)
        tokenizer.save_pretrained(folder)
        (folder / "state.json").write_text(json.dumps({"step": step}))
    return target


def _newest(folder: Path) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, SftConfig, doc=__doc__, default_config=CONFIGS / "sft.yaml"))
