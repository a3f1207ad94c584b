"""Configuration of training in stages: named sources, and a list of stages that each train some parts on a mixture."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from base_model.training_settings import OptimizerSettings, PartName
from base_model.video_settings import VideoSettings
from recipes.models import ModelConfig
from recipes.samples.media import MediaSettings
from recipes.samples.stream import SampleSource
from rollouts.modes import ModesConfig


class Mixture(BaseModel):
    """How much comes from each source."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    weights: dict[str, float] = {}
    """Name of a source -> how many samples come from it, relative to the others."""
    shares: dict[str, float] = {}
    """Name of a source -> share of all samples, such as {text: 0.1}; the others divide what is left by weight."""

    @model_validator(mode="after")
    def _gives_something(self) -> Mixture:
        values = [*self.weights.values(), *self.shares.values()]
        if min(values, default=0) < 0 or not any(values):
            raise ValueError(f"the mixture {self.weights | self.shares} needs numbers of 0 or more, and one above 0")
        return self

    @property
    def sources(self) -> list[str]:
        """Sources that it draws from."""
        return [name for name, amount in (self.weights | self.shares).items() if amount]


class Stage(OptimizerSettings):
    """One stage: what trains, on what, for how long."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name in metrics and folders."""
    train: list[PartName] = Field(min_length=1)
    """Parts that train: resampler, vision tower, language model; the others are frozen."""
    mixture: Mixture
    """What it learns from."""
    decay_mixture: Mixture | None = None
    """What it learns from in the decay phase of a wsd schedule; null = the same mixture."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    tokens_per_batch: int = Field(4096, ge=16)
    """Tokens that a packed batch holds at most, images' and videos' included; a longer sample is left out."""
    views_per_batch: int = Field(0, ge=0)
    """Images, slices and frames that a packed batch holds at most (the vision tower's memory); 0 = any number."""
    gradient_accumulation: int = Field(1, ge=1)
    """Packed batches per step."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass."""
    modes: ModesConfig = ModesConfig(mode="short")
    """What the modes are, and which of them samples with reasoning are trained in: short, long, or hybrid, which draws
    one for each; samples without reasoning are always short."""
    video: VideoSettings = VideoSettings(package=1)
    """How clips are read; by default frame by frame."""
    random_video: bool = False
    """Whether each clip gets a frame rate and a package size of its own, drawn from video.training_fps and
    video.training_packages: the upgrade from 2D to 3D."""

    @model_validator(mode="after")
    def _phases_fit(self) -> Stage:
        if self.decay_mixture is not None and self.schedule.kind != "wsd":
            raise ValueError(f"stage {self.name}: decay_mixture needs a decay phase: set schedule.kind to wsd")
        if self.schedule.warmup_steps + self.schedule.decay_steps > self.steps:
            raise ValueError(
                f"stage {self.name}: warmup_steps {self.schedule.warmup_steps} and decay_steps "
                f"{self.schedule.decay_steps} take more than its {self.steps} steps: make them shorter"
            )
        return self

    def phases(self) -> list[tuple[int, Mixture]]:
        """(optimiser steps, mixture), in order."""
        decay = self.schedule.decay_steps
        if self.decay_mixture is None:
            return [(self.steps, self.mixture)]
        return [(self.steps - decay, self.mixture), (decay, self.decay_mixture)]

    @property
    def sources(self) -> list[str]:
        """Sources that the stage draws from."""
        return list(dict.fromkeys(name for _, mixture in self.phases() for name in mixture.sources))


class StageEvaluation(BaseModel):
    """What is measured on held-out samples during training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    every: int = Field(0, ge=0)
    """Steps between evaluations; 0 = at the end of each stage only."""
    samples: int = Field(16, ge=0)
    """Held-out samples of each source of the stage, whose loss is measured; 0 = no evaluation."""


class StagedConfig(BaseModel):
    """Training in stages, each from the model of the one before."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    run: Path
    """Run directory; an existing one is never overwritten silently."""
    seed: int = 0
    """Seed of data and modes."""
    model: ModelConfig
    """The model to start from."""
    sources: dict[str, SampleSource] = Field(min_length=1)
    """Sources by name, from which the stages' mixtures draw; `kind` is rendered, qa, caption, interleaved, ocr, video
    or chat."""
    media: MediaSettings = MediaSettings()
    """Which images and videos of files are taken."""
    max_bad: float = Field(0.1, ge=0, le=1)
    """Largest share of a source's rows that may be bad (malformed, media missing or unreadable) before a run stops."""
    stages: list[Stage] = Field(min_length=1)
    """The stages, in order."""
    evaluation: StageEvaluation = StageEvaluation()
    """Loss by source on held-out samples."""
    workers: int = Field(0, ge=0)
    """Processes that read, render and encode samples; 0 = the training process itself. The order never changes."""
    window: int = Field(64, ge=1)
    """Samples among which each packed batch is chosen."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision over fp32 weights; auto = bf16 where the machine multiplies it in hardware."""
    save_every: int = Field(0, ge=0)
    """Steps between checkpoints to resume from, within a stage; 0 = only at the end of each stage."""
    resume: bool = False
    """Continue the run in the run directory."""
    overwrite: bool = False
    """Delete the run that is in the run directory first."""

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, stages: list[Stage]) -> list[Stage]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages have the same name ({', '.join(names)}): give each its own")
        return stages

    @model_validator(mode="after")
    def _sources_exist(self) -> StagedConfig:
        for stage in self.stages:
            for name in stage.sources:
                if name not in self.sources:
                    raise ValueError(
                        f"stage {stage.name} draws from {name!r}, which is not among the sources "
                        f"({', '.join(self.sources)}): add it there, or correct the name"
                    )
        return self

    def ends(self) -> list[int]:
        """Step at which each stage ends, counted through all stages."""
        return list(accumulate(stage.steps for stage in self.stages))
