"""A profile's figures and its table: from steps that were timed phase by phase; pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from recipes.plots import short_count

PHASES = (
    "generate",
    "score",
    "reward",
    "pack",
    "forward",
    "head",
    "backward",
    "optimizer",
    "sync",
    "checkpoint",
    "other",
)
UPDATE = ("pack", "forward", "head", "backward", "optimizer")
"""Phases of the learner."""
_TIMES = ("seconds", "cpu_seconds")
_WORK = ("tokens", "flop", "bytes")


def profile_figures(
    records: Sequence[Mapping[str, Any]], machine: Mapping[str, float], save_every: int, threads: int = 1
) -> dict[str, Any]:
    """Medians by phase, and their shares of the step and of what the machine can do.

    Args:
        records: counted steps, as the child reports them; after the last one a checkpoint was written.
        machine: `matmul_fp32` and `matmul_bf16` in operations per second, `bandwidth` in bytes per second.
        save_every: steps that a checkpoint is written after: each has this part of its time.
        threads: that the machine's figures and the steps were taken with.
    """
    phases: dict[str, dict[str, float]] = {}
    for name in PHASES[:-2]:
        phases[name] = {key: median(r["profile"].get(name, {}).get(key, 0.0) for r in records) for key in _TIMES}
        phases[name] |= {key: median(r["counts"].get(name, {}).get(key, 0.0) for r in records) for key in _WORK}
    last = records[-1]
    saved = {**last["profile"].get("checkpoint", {}), **last["counts"].get("checkpoint", {})}
    phases["checkpoint"] = {key: saved.get(key, 0.0) / save_every for key in (*_TIMES, *_WORK)}
    phases["other"] = {key: median(_rest(record, key) for record in records) for key in _TIMES}
    phases["other"] |= dict.fromkeys(_WORK, 0.0)
    step, update = _sum(phases.values()), _sum(phases[name] for name in UPDATE)
    for each in (*phases.values(), step, update):
        each |= _shares(each, step["seconds"], machine)
    busy = update["cpu_seconds"] / threads
    update["of_bf16_by_cpu"] = update["flop"] / busy / machine["matmul_bf16"] if busy > 0 else 0.0
    phases["checkpoint"]["of_bandwidth"] = 0.0  # it goes to the disk
    return {"machine": dict(machine), "save_every": save_every, "phases": phases, "step": step, "update": update}


def _sum(phases: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(phases)
    return {key: sum(row[key] for row in rows) for key in (*_TIMES, *_WORK)}


def _rest(record: Mapping[str, Any], key: str) -> float:
    """What the named phases leave of a step; clocks of different kinds may put CPU seconds a little below 0."""
    return max(0.0, record[key] - sum(each[key] for each in record["profile"].values()))


def _shares(figures: Mapping[str, float], step_seconds: float, machine: Mapping[str, float]) -> dict[str, float]:
    seconds = figures["seconds"]

    def share(work: float, peak: float) -> float:
        return work / seconds / peak if seconds > 0 else 0.0

    return {
        "of_step": seconds / step_seconds if step_seconds > 0 else 0.0,
        "of_fp32": share(figures["flop"], machine["matmul_fp32"]),
        "of_bf16": share(figures["flop"], machine["matmul_bf16"]),
        "of_bandwidth": share(figures["bytes"], machine["bandwidth"]),
    }


def profile_table(figures: Mapping[str, Any]) -> Table:
    """The phases of one shape, one row each."""
    profile = figures["profile"]
    machine = profile["machine"]
    title = (
        f"prompt {figures['prompt']}, response {figures['response']} tokens: one training step, on a machine of "
        f"{machine['matmul_fp32'] / 1e9:.0f} GFLOP/s in fp32, {machine['matmul_bf16'] / 1e9:.0f} in bf16, "
        f"{machine['bandwidth'] / 1e9:.1f} GB/s (measured)"
    )
    style: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "padding": (0, 0, 0, 1)}
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, **style)
    table.add_column("phase", no_wrap=True)
    for name in ("s", "CPU s", "%", "tokens", "GFLOP", "% fp32", "% bf16", "GB", "% mem"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in PHASES:
        table.add_row(name, *_cells(profile["phases"][name]))
    table.add_section()
    table.add_row("step", *_cells({**profile["step"], "tokens": 0.0}), style="bold")
    return table


def profile_lines(report: Mapping[str, Any]) -> list[str]:
    """What the table does not say."""
    lines = [
        "Least arithmetic and memory traffic that each phase can do with; head includes its gradients; one checkpoint "
        f"in {report['shapes'][0]['profile']['save_every']} steps."
    ]
    for figures in report["shapes"]:
        update, shape = figures["profile"]["update"], f"prompt {figures['prompt']}, response {figures['response']}"
        lines.append(
            f"{shape}: the update runs at {update['of_bf16']:.0%} of the bf16 peak, "
            f"{update['of_bf16_by_cpu']:.0%} by its CPU seconds, which other programs disturb less."
        )
    return lines


def _cells(row: Mapping[str, float]) -> list[str]:
    """Nothing stands where a phase does none of the work."""
    flop, traffic = row["flop"], row["bytes"]
    return [
        _digits(row["seconds"]),
        _digits(row["cpu_seconds"]),
        f"{row['of_step']:.1%}"[:-1],
        short_count(row["tokens"]) if row["tokens"] else "",
        _digits(flop / 1e9) if flop else "",
        f"{row['of_fp32']:.1%}"[:-1] if flop else "",
        f"{row['of_bf16']:.1%}"[:-1] if flop else "",
        _digits(traffic / 1e9) if traffic else "",
        f"{row['of_bandwidth']:.1%}"[:-1] if row["of_bandwidth"] else "",
    ]


def _digits(value: float) -> str:
    """Three digits that matter, down to thousandths."""
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"
