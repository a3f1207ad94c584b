"""Configuration of training in stages: named sources, and a list of stages that each train some parts on a mixture."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from base_model.training_settings import OptimizerSettings, PartName
from base_model.video_settings import VideoSettings
from recipes.models import ModelConfig
from recipes.rendered_examples import RenderedSource
from rollouts.modes import ModesConfig


class Stage(OptimizerSettings):
    """One stage: what trains, on what, for how long."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name in metrics and folders."""
    train: list[PartName] = Field(min_length=1)
    """Parts that train: resampler, vision tower, language model; the others are frozen."""
    mixture: dict[str, float] = Field(min_length=1)
    """Weight of each source, relative to the others."""
    decay_mixture: dict[str, float] | None = None
    """Weights during the decay phase of a wsd schedule; null = those of `mixture`."""
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
    """Modes that samples are trained in: hybrid draws one for each sample that has a worked solution."""
    video: VideoSettings = VideoSettings(package=1)
    """How clips are read; package 1 = frame by frame."""
    random_video: bool = False
    """Each clip gets a package size and a frame rate drawn from video.training_packages and video.training_fps (the
    upgrade from 2D to 3D)."""

    @model_validator(mode="after")
    def _mixtures_give_something(self) -> Stage:
        for name, mixture in (("mixture", self.mixture), ("decay_mixture", self.decay_mixture)):
            if mixture is not None and (min(mixture.values(), default=0) < 0 or not any(mixture.values())):
                raise ValueError(f"stage {self.name}: {name} {mixture} needs weights of 0 or more, and one above 0")
        if self.decay_mixture is not None and self.schedule.kind != "wsd":
            raise ValueError(f"stage {self.name}: decay_mixture needs a decay phase: set schedule.kind to wsd")
        if self.schedule.warmup_steps + self.schedule.decay_steps > self.steps:
            raise ValueError(
                f"stage {self.name}: warmup_steps {self.schedule.warmup_steps} and decay_steps "
                f"{self.schedule.decay_steps} take more than its {self.steps} steps: make them shorter"
            )
        return self

    def phases(self) -> list[tuple[int, dict[str, float]]]:
        """(optimiser steps, weights) of each mixture, in order."""
        if self.decay_mixture is None:
            return [(self.steps, self.mixture)]
        decay = self.schedule.decay_steps
        return [(self.steps - decay, self.mixture), (decay, self.decay_mixture)]

    @property
    def sources(self) -> list[str]:
        """Sources that the stage draws from."""
        mixtures = (self.mixture, self.decay_mixture or {})
        return list(dict.fromkeys(name for mixture in mixtures for name, weight in mixture.items() if weight))


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
    sources: dict[str, RenderedSource] = Field(min_length=1)
    """Sources by name; the stages' mixtures draw from them."""
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
