"""Packed against padded training, on the same samples in turn: `python -m recipes.packing_benchmark config.yaml`.

A round is one optimiser step over the same samples: packed first-fit to the token budget, and in ordinary padded
batches of a fixed number of rows in the order of the data, run by the model's own forward pass. Both start from the
same weights. The samples are made beforehand, so that no data loading is measured. On the CPU only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import Field

from recipes.cli import CONFIGS, run_recipe
from recipes.stage_config import StagedConfig

if TYPE_CHECKING:
    from base_model.training_example import TrainingExample


class PackingBenchmarkConfig(StagedConfig):
    """A training run as for recipes.vlm_sft, and what is measured of it; nothing is written to its run directory."""

    stage: int = Field(0, ge=0)
    """The stage whose mixture, parts and budget are taken, counted from 0."""
    samples: int = Field(64, ge=1)
    """Samples of a round."""
    rows: int | None = Field(None, ge=1)
    """Rows of a padded batch; null = as many samples as a packed batch holds on average."""
    rounds: int = Field(5, ge=1)
    """Rounds that count; each way has one more before, to warm up."""
    json_path: Path | None = None
    """File that the figures are written to, as JSON. --json for short; null = none."""


def main(config: PackingBenchmarkConfig) -> None:
    """Measure and print."""
    from recipes.console import StepBar, say
    from recipes.models import resolve_model
    from rl.files import atomic_write_json

    if config.stage >= len(config.stages):
        raise ValueError(f"stage {config.stage} was asked for, and the last one is {len(config.stages) - 1}")
    path = resolve_model(config.model)
    rounds = _samples(config, path)
    rows = config.rows or _packed_rows(config, rounds)
    say(_shape(rows, rounds))
    ways = {"packed": _packed(config, path), "padded": _padded(config, path, rows)}
    records: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with StepBar("packing", 2 * len(rounds)) as bar:
        for number, samples in enumerate(rounds):
            for name in ways if number % 2 else reversed(ways):
                records[name].append(_timed(ways[name], samples))
                bar.update(sum(map(len, records.values())), name)
    figures = summarise({name: each[1:] for name, each in records.items()}, config.samples)
    figures["loss_difference"] = max(
        abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(records["packed"], records["padded"], strict=True)
    )
    for line in _lines(figures):
        say(line)
    if config.json_path is not None:
        atomic_write_json(config.json_path, figures)


def summarise(records: dict[str, list[dict[str, float]]], samples: int) -> dict[str, Any]:
    """Medians of each way, and of the ratio padded / packed round by round, in wall time and in CPU time."""
    figures: dict[str, Any] = {}
    for name, rounds in records.items():
        figures[name] = {key: median(each[key] for each in rounds) for key in ("seconds", "cpu_seconds")}
        figures[name]["samples_per_s"] = samples / figures[name]["seconds"]
    for key in ("seconds", "cpu_seconds"):
        pairs = zip(records["packed"], records["padded"], strict=True)
        ratios = [padded[key] / packed[key] for packed, padded in pairs]
        figures[f"{key}_ratio"] = {"median": median(ratios), "least": min(ratios), "largest": max(ratios)}
    return figures


def _samples(config: PackingBenchmarkConfig, path: Path) -> list[list[TrainingExample]]:
    """The samples of every round, the warm-up's first."""
    from base_model.checkpoints import load_processor
    from recipes.stage_data import StageData

    data = StageData(config, config.stage, load_processor(path))
    sample = data.loader(None).phases[0].sample
    count = config.samples
    return [
        [sample(number).example for number in range(start, start + count)]
        for start in range(0, count * (config.rounds + 1), count)
    ]


def _packed_rows(config: PackingBenchmarkConfig, rounds: Sequence[Sequence[TrainingExample]]) -> int:
    """Samples of a packed batch, on average."""
    batches = [len(taken) for samples in rounds for taken in _batches(config, samples)]
    return max(1, round(sum(batches) / len(batches)))


def _batches(config: PackingBenchmarkConfig, samples: Sequence[TrainingExample]) -> Iterator[list[TrainingExample]]:
    from base_model.example_packing import view_count
    from base_model.sample_packer import Budget, Packer, Sized

    stage = config.stages[config.stage]
    packer: Packer[TrainingExample] = Packer(Budget(stage.tokens_per_batch, stage.views_per_batch), 1)
    for sample in samples:
        packer.add(Sized(sample, len(sample.ids), view_count(sample)))
    for taken in packer.rest():
        yield [each.item for each in taken]


def _shape(rows: int, rounds: Sequence[Sequence[TrainingExample]]) -> str:
    from base_model.example_packing import view_count

    examples = [example for samples in rounds for example in samples]
    lengths = sorted(len(example.ids) for example in examples)
    chunks = [samples[at : at + rows] for samples in rounds for at in range(0, len(samples), rows)]
    padded = sum(max(len(example.ids) for example in chunk) * len(chunk) for chunk in chunks)
    return (
        f"{len(examples)} samples of {lengths[0]} to {lengths[-1]} tokens, {median(lengths):g} in the middle, "
        f"{sum(map(view_count, examples)) / len(examples):.1f} views each; padded batches of {rows} rows, "
        f"{sum(lengths) / padded:.0%} of which are samples"
    )


Step = Callable[[Sequence["TrainingExample"]], float]
"""One optimiser step over the samples; the loss."""


def _packed(config: PackingBenchmarkConfig, path: Path) -> Step:
    from base_model.example_packing import pack_examples
    from base_model.packed_lm import load_packed

    model = load_packed(path)
    optimizer = _optimizer(config, model.causal_lm)

    def step(samples: Sequence[TrainingExample]) -> float:
        total, loss_sum = sum(sample.targets for sample in samples), 0.0
        for taken in _batches(config, samples):
            with _autocast(config):
                loss, _ = model(pack_examples(taken), lambda logprobs, _span: -logprobs.sum() / total)
            loss.backward()
            loss_sum += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return loss_sum

    return step


def _padded(config: PackingBenchmarkConfig, path: Path, rows: int) -> Step:
    import torch
    from transformers import AutoModelForImageTextToText

    from base_model.padded import pad_examples

    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).train()
    optimizer = _optimizer(config, model)

    def step(samples: Sequence[TrainingExample]) -> float:
        total, loss_sum = sum(sample.targets for sample in samples), 0.0
        for at in range(0, len(samples), rows):
            with _autocast(config):
                batch = pad_examples(samples[at : at + rows])
                loss = model(**batch, num_items_in_batch=total, use_cache=False).loss
            loss.backward()
            loss_sum += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return loss_sum

    return step


def _optimizer(config: PackingBenchmarkConfig, model: Any) -> Any:
    import torch

    from base_model.trainable import parameter_groups, set_trainable

    stage = config.stages[config.stage]
    set_trainable(model, stage.train)
    return torch.optim.AdamW(parameter_groups(model, stage), fused=True)


def _autocast(config: PackingBenchmarkConfig) -> Any:
    import torch

    from base_model.packed_lm import compute_dtype

    dtype = compute_dtype(config.precision)
    return torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16)


def _timed(step: Step, samples: Sequence[TrainingExample]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step(samples)
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "loss": loss}


def _lines(figures: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("packed", "padded"):
        each = figures[name]
        times = f"{each['seconds']:.2f} s and {each['cpu_seconds']:.2f} CPU s a round"
        lines.append(f"{name}: {each['samples_per_s']:.2f} samples/s; {times}")
    for key, name in (("seconds", "wall time"), ("cpu_seconds", "CPU time")):
        ratio = figures[f"{key}_ratio"]
        spread = f"{ratio['least']:.2f} to {ratio['largest']:.2f}"
        lines.append(f"packed is {ratio['median']:.2f} ({spread}) times as fast in {name}")
    return [*lines, f"the losses differ by {figures['loss_difference']:.1e} of their size at most"]


if __name__ == "__main__":
    raise SystemExit(
        run_recipe(
            main,
            PackingBenchmarkConfig,
            doc=__doc__,
            default_config=CONFIGS / "packing_benchmark.yaml",
            aliases={"json": "json_path"},
        )
    )
