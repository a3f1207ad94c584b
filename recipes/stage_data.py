"""The packed batches of a stage: its sources, mixtures and modes put together."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.sources import Split
from recipes.stage_config import StagedConfig
from rollouts.modes import Mode, ModeSampler, stable_hash

if TYPE_CHECKING:
    from base_model.packing import PackedBatch
    from base_model.sample_loader import PackedLoader
    from base_model.training_example import TrainingExample


def stage_loader(config: StagedConfig, number: int, processor: Any, checkpoint: Path | None) -> PackedLoader:
    """The stage's packed batches, from where the checkpoint left off.

    Args:
        config: of the run.
        number: of the stage, from 0.
        processor: of the model.
        checkpoint: to go on from; None = the stage's start.
    """
    from base_model.sample_loader import PackedLoader, Phase
    from base_model.sample_packer import Budget
    from base_model.stage_trainer import POSITION

    stage = config.stages[number]
    seed = stage_seed(config, number)
    phases = [
        Phase(batches=steps * stage.gradient_accumulation, source_of=source_picker(weights, seed))
        for steps, weights in stage.phases()
    ]
    return PackedLoader(
        StageExamples(config, number, processor, "train"),
        phases,
        Budget(stage.tokens_per_batch, stage.views_per_batch),
        window=config.window,
        workers=config.workers,
        position=json.loads((checkpoint / POSITION).read_text()) if checkpoint else None,
    )


def stage_seed(config: StagedConfig, number: int) -> int:
    """Seed of the stage's data: other samples in every stage."""
    return stable_hash("stage", config.seed, number, bits=48)


def source_picker(weights: Mapping[str, float], seed: int) -> Callable[[int], str]:
    """The source of each draw."""
    names = [name for name, weight in weights.items() if weight]
    edges = list(accumulate(weights[name] for name in names))

    def pick(draw: int) -> str:
        share = stable_hash("source", seed, draw, bits=32) / 2**32
        return names[bisect_right(edges, share * edges[-1], hi=len(edges) - 1)]

    return pick


class StageExamples:
    """Example n of a source, in the mode that falls to it; a pure function of (seed, stage, source, n)."""

    def __init__(self, config: StagedConfig, number: int, processor: Any, split: Split) -> None:
        self.config, self.stage, self.processor, self.split = config, config.stages[number], processor, split
        self.seed = stage_seed(config, number) if split == "train" else 0
        self.modes = ModeSampler(self.stage.modes, self.seed)

    def __call__(self, source: str, number: int) -> TrainingExample | None:
        from recipes.rendered_examples import encode_item

        item = self.config.sources[source].item(self.split, self.seed, number)
        video = self.stage.video
        if self.stage.random_video:
            video = video.drawn(self.seed, f"{source}/{number}")
        return encode_item(self.processor, item, self._mode(source, number), video)

    def _mode(self, source: str, number: int) -> Mode:
        return self.modes.mode(stable_hash(source, bits=31), number)


def held_out(config: StagedConfig, number: int, processor: Any) -> dict[str, list[PackedBatch]]:
    """Packed held-out samples of each source of the stage."""
    from base_model.example_packing import pack_examples, view_count
    from base_model.sample_packer import Budget, Packer, Sized

    stage = config.stages[number]
    examples = StageExamples(config, number, processor, "eval")
    batches = {}
    for source in stage.sources:
        packer: Packer[TrainingExample] = Packer(Budget(stage.tokens_per_batch, stage.views_per_batch), 1)
        for index in range(config.evaluation.samples):
            example = examples(source, index)
            if example is not None:
                packer.add(Sized(example, len(example.ids), view_count(example)))
        batches[source] = [pack_examples([each.item for each in taken]) for taken in packer.rest()]
    return batches
