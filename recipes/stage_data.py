"""The packed batches of a stage: its mixtures drawn, encoded and packed; and its held-out samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.samples.stream import DataConfig, FilterReport, SampleStream
from recipes.sources import Split
from recipes.stage_config import Mixture, StagedConfig
from rollouts.modes import stable_hash

if TYPE_CHECKING:
    from base_model.packing import PackedBatch
    from base_model.sample_loader import Labelled, PackedLoader
    from base_model.training_example import TrainingExample


class StageData:
    """What one stage learns from.

    Args:
        config: of the run.
        number: of the stage, from 0.
        processor: of the model.
    """

    def __init__(self, config: StagedConfig, number: int, processor: Any) -> None:
        self.config, self.stage, self.number, self.processor = config, config.stages[number], number, processor
        self.refused = FilterReport()

    def loader(self, checkpoint: Path | None) -> PackedLoader:
        """The stage's packed batches, from where the checkpoint left off; None = from the start.

        Raises:
            ValueError: a file is missing, or a mixture cannot be met.
        """
        from base_model.sample_loader import PackedLoader, Phase
        from base_model.stage_trainer import POSITION

        phases = [
            Phase(batches=steps * self.stage.gradient_accumulation, sample=self._sample_of(mixture, phase))
            for phase, (steps, mixture) in enumerate(self.stage.phases())
        ]
        return PackedLoader(
            phases,
            self._budget(),
            window=self.config.window,
            workers=self.config.workers,
            position=json.loads((checkpoint / POSITION).read_text()) if checkpoint else None,
        )

    def held_out(self) -> dict[str, list[PackedBatch]]:
        """Packed held-out samples of each source that has some."""
        from base_model.example_packing import pack_examples, view_count
        from base_model.sample_packer import Packer, Sized

        batches = {}
        for source in self.stage.sources:
            if not (self.config.sources[source].has("eval") and self.config.evaluation.samples):
                continue
            stream = self._stream(Mixture(weights={source: 1}), 0, "eval")
            packer: Packer[TrainingExample] = Packer(self._budget(), 1)
            for index in range(self.config.evaluation.samples):
                example = self._encoded(stream, index).example
                packer.add(Sized(example, len(example.ids), view_count(example)))
            batches[source] = [pack_examples([each.item for each in taken]) for taken in packer.rest()]
        return batches

    def note(self, samples: list[Labelled]) -> None:
        """Count what was refused in place of samples that were trained on."""
        for sample in samples:
            self.refused.add(sample.source, sample.notes or ())

    def _budget(self) -> Any:
        from base_model.sample_packer import Budget

        return Budget(self.stage.tokens_per_batch, self.stage.views_per_batch)

    def _sample_of(self, mixture: Mixture, phase: int) -> Any:
        from base_model.sample_loader import Labelled

        # The order in which sources are drawn, and their samples, differ in every stage and phase.
        stream = self._stream(mixture, stable_hash("stage", self.config.seed, self.number, phase, bits=31), "train")

        def sample(index: int) -> Labelled:
            encoded = self._encoded(stream, index)
            return Labelled(encoded.source, encoded.example, encoded.refused)

        return sample

    def _stream(self, mixture: Mixture, seed: int, split: Split) -> SampleStream:
        return DataConfig(
            sources={name: self.config.sources[name] for name in mixture.sources},
            weights=dict(mixture.weights),
            shares=dict(mixture.shares),
            media=self.config.media,
            video=self.stage.video,
            random_video=self.stage.random_video,
            max_bad=self.config.max_bad,
        ).open(seed, split=split)

    def _encoded(self, stream: SampleStream, index: int) -> Any:
        tokens = self.stage.tokens_per_batch
        return stream.encoded(index, self.processor, self.stage.modes, max_tokens=tokens)
