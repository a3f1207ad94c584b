"""``Trainer`` of one training stage: packed batches of a mixture, parts with learning rates of their own, exact resume.

The optimiser loop, accumulation, clipping, mixed precision and checkpoints are transformers'.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from base_model.packed_lm import PackedCausalLM
from base_model.packing import PackedBatch
from base_model.sample_loader import Labelled, PackedLoader
from base_model.sft import PackedTrainer
from base_model.throughput import Meter
from base_model.trainable import parameter_groups
from base_model.training_settings import OptimizerSettings

POSITION = "data_position.json"
"""Written last into a checkpoint: one without it was never finished."""


class StageTrainer(PackedTrainer):
    """Trains whatever parameters require a gradient.

    Args:
        model: the packed model, its parts frozen already (``trainable.set_trainable``).
        args: transformers' arguments; ``max_steps`` optimiser steps are done.
        loader: makes the packed batches.
        optimizer_settings: learning rates by part, schedule, decay.
        meter: gets every batch and the time spent waiting for it.
        **kwargs: as for ``Trainer``.
    """

    def __init__(
        self,
        model: PackedCausalLM,
        args: TrainingArguments,
        loader: PackedLoader,
        *,
        optimizer_settings: OptimizerSettings,
        meter: Meter,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, loader, **kwargs)
        self.settings, self.meter = optimizer_settings, meter
        self.position: Mapping[str, Any] | None = None
        self.samples: list[Labelled] = []  # of the current step

    def get_train_dataloader(self) -> Any:
        """The loader as it is: it has workers of its own, and nothing may read ahead of its position."""
        return self.train_dataset

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one optimiser step, and the target tokens that they hold together."""
        self.meter.reset()
        with self.meter.waiting():
            batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.samples = [sample for batch in batches for sample in batch["samples"]]
        for batch in batches:
            self.meter.add(batch["batch"], batch["samples"])
        if batches:
            self.position = batches[-1]["position"]
        return [{"batch": batch["batch"]} for batch in batches], count

    optimizer: Any
    lr_scheduler: Any

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the parts that train."""
        if self.optimizer is None:
            groups = parameter_groups(self.accelerator.unwrap_model(model or self.model).model, self.settings)
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, self.settings.beta2), fused=True)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The stage's schedule, on every group's own peak."""
        if self.lr_scheduler is None:
            schedule = self.settings.schedule
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: schedule.factor(step, num_training_steps)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each part, as the optimiser has it."""
        return {group["part"]: group["lr"] for group in self.optimizer.param_groups}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As ``PackedTrainer``; a batch that no trained part sees (text, while only the resampler trains) is a
        constant, whose gradient is 0."""
        out = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = out[0] if return_outputs else out
        if not loss.requires_grad:
            trained = next(parameter for parameter in model.parameters() if parameter.requires_grad)
            loss = loss + 0.0 * trained.flatten()[0]
        return (loss, out[1]) if return_outputs else loss

    @torch.no_grad()
    def mean_loss(self, batches: list[PackedBatch]) -> float:
        """Mean negative log-likelihood per target token over packed batches."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        with self.compute_loss_context_manager():
            sums = [float(model.logprobs(batch.to(self.args.device)).sum()) for batch in batches]
        model.train()
        return -sum(sums) / max(1, sum(len(batch.targets_T) for batch in batches))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / POSITION).write_text(json.dumps(self.position))


def newest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint of a stage."""
    if not folder.is_dir():
        return None
    numbered = {int(p.name[11:]): p for p in folder.glob("checkpoint-*") if p.name[11:].isdigit()}
    complete = [path for _, path in sorted(numbered.items()) if (path / POSITION).is_file()]
    return complete[-1] if complete else None
