"""The upgrade from 2D to 3D, measured: a model that read clips frame by frame is tuned for a short time on packages of
random size, and is asked about held-out clips in packages of 1 and of 6 frames, before and after.

    python -m recipes.video_upgrade --model.path models/tiny --run runs/video_upgrade

The first stage of the configuration trains frame by frame, the second with random packages; both run for each seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from base_model.video_settings import VideoSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.stage_config import StagedConfig

if TYPE_CHECKING:
    from recipes.samples.sample import Sample

T_95 = (math.nan, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t for a two-sided interval of 95 % by degrees of freedom."""


class VideoUpgradeConfig(StagedConfig):
    """Two stages of training, and what is asked after each."""

    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, max_length=10)
    """Seeds of the data; each has a run of its own in the run directory."""
    source: str = "clips"
    """The source whose held-out samples are asked."""
    questions: int = Field(200, ge=1)
    """Held-out questions."""
    max_tokens: int = Field(96, ge=1)
    """Longest answer in tokens. Answers are given in long mode if the second stage trains it, else in short mode."""
    packages: tuple[int, ...] = (1, 6)
    """Package sizes that clips are read with."""
    fps: float = Field(3.0, gt=0)
    """Frames per second that clips are read with."""

    @model_validator(mode="after")
    def _two_stages(self) -> VideoUpgradeConfig:
        if len(self.stages) != 2 or self.stages[0].random_video or not self.stages[1].random_video:
            raise ValueError(
                "the upgrade takes two stages, the first without and the second with random_video: correct `stages`"
            )
        if self.source not in self.sources:
            raise ValueError(f"source {self.source!r} is not among the sources ({', '.join(self.sources)})")
        return self


def main(config: VideoUpgradeConfig) -> None:
    """Train, ask, print and write upgrade.json."""
    from recipes.console import say
    from recipes.stages import run_stages
    from rl.files import atomic_write_json

    results = []
    for seed in config.seeds:
        run = config.run / f"seed_{seed}"
        given = config.model_dump(include=set(StagedConfig.model_fields))
        again = (run / "config.yaml").is_file() and not config.overwrite
        run_stages(StagedConfig.model_validate(given | {"run": run, "seed": seed, "resume": again}))
        results.append(_accuracies(config, run))
        say(f"seed {seed}: " + ", ".join(f"{name} {value:.1%}" for name, value in results[-1].items()))
    table = summary(results)
    for name, row in table.items():
        spread = "one seed, no interval" if math.isnan(row["interval"]) else f"+- {row['interval']:.1%}"
        say(f"{name}: {row['mean']:.1%} ({spread})")
    blocks = {f"packages of {package}": _blocks(_questions(config, package)) for package in config.packages}
    say("blocks of tokens of a clip: " + ", ".join(f"{value:.2f} in {name}" for name, value in blocks.items()))
    figures = {"seeds": config.seeds, "accuracy": results, "summary": table, "blocks": blocks}
    atomic_write_json(config.run / "upgrade.json", figures)


def summary(results: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and half width of the 95 % interval over the seeds, of each accuracy and of the gains by tuning."""
    rows = [dict(result) for result in results]
    for row in rows:
        for key in [key for key in row if key.startswith("before")]:
            row[f"gain{key.removeprefix('before')}"] = row[f"after{key.removeprefix('before')}"] - row[key]
    return {name: _interval([row[name] for row in rows]) for name in rows[0]}


def _interval(values: Sequence[float]) -> dict[str, float]:
    freedom = len(values) - 1
    half = T_95[freedom] * stdev(values) / math.sqrt(len(values)) if freedom else math.nan
    return {"mean": mean(values), "interval": half}


def _accuracies(config: VideoUpgradeConfig, run: Path) -> dict[str, float]:
    """Share of right answers before and after the second stage, by package size."""
    ends = [config.stages[0].steps, config.stages[0].steps + config.stages[1].steps]
    figures: dict[str, float] = {}
    for when, end in zip(("before", "after"), ends, strict=True):
        model, processor = _load(run / "checkpoints" / f"step_{end}")
        for package in config.packages:
            samples = _questions(config, package)
            figures[f"{when}, packages of {package}"] = _accuracy(config, model, processor, samples)
    return figures


def _blocks(samples: Sequence[Sample]) -> float:
    """Packages of a clip on average; each takes as many tokens as an image."""
    return mean(len(packages) for sample in samples for packages, _ in sample.videos)


def _load(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForImageTextToText

    from base_model.checkpoints import load_processor

    processor = load_processor(path)
    return AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval(), processor


def _questions(config: VideoUpgradeConfig, package: int) -> list[Sample]:
    from recipes.samples.stream import OpenSources

    source = config.sources[config.source]
    video = VideoSettings(fps=config.fps, package=package)
    opened = OpenSources({config.source: source}, "eval", 0, media=config.media, video=video, random_video=False)
    return [opened.sample(config.source, position)[0] for position in range(config.questions)]


def _accuracy(config: VideoUpgradeConfig, model: Any, processor: Any, samples: Sequence[Sample]) -> float:
    from recipes.greedy import answer_of, greedy_answers, same_answer

    *_, mode = config.stages[1].modes.active()
    texts = greedy_answers(model, processor, samples, mode, max_tokens=config.max_tokens)
    answers = [answer_of(text, mode) for text in texts]
    return mean(same_answer(answer, sample.answer) for answer, sample in zip(answers, samples, strict=True))


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, VideoUpgradeConfig, doc=__doc__, default_config=CONFIGS / "video_upgrade.yaml"))
