"""A pool of vLLM workers against one engine with the same cores: throughput, and what new weights cost.

All engines are there from the start and answer the same requests in turn, one after the other, in every round; those
that wait take no time of the machine. Each round begins with a weight sync, timed by itself: the tensors' way into
shared memory (or Ray's object store), through all workers, until the last of them could sample from them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recipes.benchmark.config import Shape, context_length
from recipes.cli import run_recipe
from recipes.models import SMOLLM2

SINGLE = "one engine"


class PoolBenchmarkConfig(BaseModel):
    """What the engines are given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: str = SMOLLM2
    """Checkpoint folder, name on the Hugging Face hub, or `smollm2-135m-instruct`."""
    workers: int = Field(2, ge=2)
    """Workers of each pool."""
    backends: list[Literal["process", "ray"]] = Field(["process", "ray"], min_length=1)
    """Pools to measure beside the one engine."""
    weight_transport: Literal["auto", "shared_memory", "object_store"] = "auto"
    """How weights reach the workers on Ray."""
    prompts: int = Field(8, ge=1)
    """Prompts of a round."""
    group_size: int = Field(8, ge=1)
    """Responses per prompt."""
    prompt: int = Field(67, ge=1)
    """Tokens of every prompt."""
    response: int = Field(64, ge=1)
    """Tokens of every response; the end of the turn is ignored."""
    rounds: int = Field(5, ge=1)
    """Counted rounds, after one that is not."""
    threads: int = Field(0, ge=0)
    """Threads of the one engine; the workers of a pool share as many. 0 = as many as there are usable cores."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the engines."""
    json_path: Path | None = None
    """File for the figures; null = only the table."""

    @model_validator(mode="after")
    def _threads_for_all(self) -> Self:
        if self.threads and self.threads % self.workers:
            raise ValueError(
                f"threads is {self.threads}, which {self.workers} workers cannot share equally: make it a multiple"
            )
        return self

    def usable_threads(self) -> int:
        """Threads of the one engine: at least one for each worker, and as many for all of them."""
        cores = len(os.sched_getaffinity(0))
        return self.threads or max(self.workers, cores - cores % self.workers)


def main(config: PoolBenchmarkConfig) -> None:
    """Measure every engine, print the table, write the JSON."""
    if "ray" in config.backends and importlib.util.find_spec("ray") is None:
        raise ValueError("backends names ray, which is not installed: pip install 'tandem-rl[ray]', or leave it out")
    from recipes.benchmark.__main__ import check_output, machine_facts
    from recipes.benchmark.pool_rounds import measure, summarise
    from recipes.console import StepBar, console, say
    from recipes.models import ModelConfig, resolve_model
    from rl.files import atomic_write_json

    check_output("json", config.json_path)
    model = resolve_model(ModelConfig(path=config.model)).resolve()
    length = context_length(model, [Shape(prompt=config.prompt, response=config.response)])
    facts = machine_facts()
    with StepBar("pool", (config.rounds + 1) * (1 + len(config.backends))) as bar:
        records, sizes = measure(config, model, length, bar)
    report = {
        **facts,
        "model": model.name,
        "threads": config.usable_threads(),
        "config": config.model_dump(mode="json"),
    }
    report |= {**sizes, "engines": summarise(records)}
    console.print(pool_table(report))
    for line in remarks(report):
        say(line)
    if config.json_path is not None:
        atomic_write_json(config.json_path, report)
        say(f"written to {config.json_path}")


def pool_table(report: Mapping[str, Any]) -> Any:
    """One row for each engine; medians over the rounds, ratios over the pairs of a round."""
    from rich import box
    from rich.table import Table

    megabytes = report["weight_bytes"] / 1e6
    title = f"{report['model']}: {report['tokens']} response tokens a round, {megabytes:,.1f} MB of weights"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("engine", no_wrap=True)
    for name in ("tokens/s", "range", "ratio", "CPU s", "ratio", "sync ms", "CPU ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in report["engines"].items():
        table.add_row(
            name,
            f"{row['tokens_per_s']:,.0f}",
            f"{row['tokens_per_s_min']:,.0f}-{row['tokens_per_s_max']:,.0f}",
            f"{row['speedup']:.2f}x",
            f"{row['cpu_seconds']:.2f}",
            f"{row['cpu_speedup']:.2f}x",
            f"{1000 * row['sync_seconds']:,.0f}",
            f"{1000 * row['sync_cpu_seconds']:,.0f}",
        )
    return table


def remarks(report: Mapping[str, Any]) -> list[str]:
    """How the figures were taken, and what to distrust."""
    config = report["config"]
    workers = config["workers"]
    lines = [
        f"one engine with {report['threads']} threads against {workers} workers with {report['threads'] // workers} "
        f"each, {config['dtype']}; medians of {config['rounds']} rounds in which each took its turn; a ratio above 1 "
        "means that the pool is faster, or needs less CPU time.",
        f"a sync writes {report['weight_bytes'] / 1e6:,.1f} MB once, and each worker reads them.",
    ]
    busy = max(row["busy_elsewhere"] for row in report["engines"].values())
    if busy > 0.2:
        lines.append(f"other programs kept {busy:.1f} cores busy: trust the CPU seconds, or repeat on a quiet machine.")
    return lines


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, PoolBenchmarkConfig, doc=__doc__, aliases={"json": "json_path"}))
