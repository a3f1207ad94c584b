"""The table that a person sees, and what to think of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from recipes.benchmark.session import PHASES
from recipes.benchmark.summary import noise

NAMES = {"tandem": "Tandem", "trl": "TRL", "verl": "verl", "probability": "with it", "repeated": "repeated"}
_NOISY = 0.15
_BUSY = 0.2


def shape_table(figures: Mapping[str, Any], peer: str) -> Table:
    """Seconds per step by phase, and memory, of one shape."""
    title = f"prompt {figures['prompt']}, response {figures['response']} tokens: one training step"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    columns = [("Tandem", "")] if peer == "none" else [("Tandem", ""), (NAMES[peer], "peer_")]
    table.add_column("median seconds", no_wrap=True)
    for name in [name for name, _ in columns] + ["ratio"] * (peer != "none"):
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("CPU", justify="right", no_wrap=True)
    prefixes = [prefix for _, prefix in columns]
    for phase in PHASES:
        table.add_row(phase, *_phase_cells(figures, prefixes, phase))
    table.add_section()
    table.add_row("step", *_step_cells(figures, prefixes), style="bold")
    table.add_row("least", *_step_cells(figures, prefixes, "_min"))
    table.add_row("largest", *_step_cells(figures, prefixes, "_max"))
    table.add_row("peak GiB", *_memory_cells(figures, prefixes))
    return table


def _phase_cells(figures: Mapping[str, Any], prefixes: Sequence[str], phase: str) -> list[str]:
    rows = [figures[f"{prefix}phases"][phase] for prefix in prefixes]
    cells = [f"{row[key]:.2f}" for row in rows for key in ("seconds", "cpu_seconds")]
    if len(rows) == 2:
        cells += [_ratio(rows[1][key], rows[0][key]) for key in ("seconds", "cpu_seconds")]
    return cells


def _step_cells(figures: Mapping[str, Any], prefixes: Sequence[str], which: str = "") -> list[str]:
    """The whole step: its median, or with ``_min`` and ``_max`` the least and largest."""
    cells = [f"{figures[prefix + key + which]:.2f}" for prefix in prefixes for key in ("seconds", "cpu_seconds")]
    if len(prefixes) == 2:
        cells += [f"{figures[name + which]:.2f}x" for name in ("speedup", "cpu_speedup")]
    return cells


def _memory_cells(figures: Mapping[str, Any], prefixes: Sequence[str]) -> list[str]:
    cells = [cell for prefix in prefixes for cell in (f"{figures[prefix + 'memory_gib']:.1f}", "")]
    if len(prefixes) == 2:
        cells += [_ratio(figures["peer_memory_gib"], figures["memory_gib"]), ""]
    return cells


def _ratio(theirs: float, ours: float) -> str:
    """How much less ours is; blank where both are below what the clock can tell."""
    return f"{theirs / ours:.1f}x" if ours >= 0.02 else ""


def remarks(report: Mapping[str, Any]) -> list[str]:
    """How the figures were taken, and what to distrust."""
    lines = [
        f"{report['model']}, {report['prompts']} prompts x {report['group_size']} responses per step, "
        f"{report['threads']} threads, training in {_precision(report)} over fp32 weights, engines in bfloat16"
        f"{'' if report['enforce_eager'] else ', compiled'}.",
    ]
    if report["peer"] == "probability":
        lines += [
            f"Tandem beside Tandem with the probability reward on references of {report['reference_tokens']} tokens; "
            "a ratio of 1.05x means that a step with it takes 5 % longer. Baselines are taken before the first step."
        ]
    if report["peer"] != "none":
        steps = report["shapes"][0]["steps"]
        lines += [
            f"{steps} counted steps of each library after {report['warmup']} of warm-up, one of each in turn in one "
            "run; ratios are medians over the pairs. Both trained on the same prompts and as many tokens (checked).",
        ]
    lines += [
        "CPU seconds and memory include the engine's process."
        if report["peer"] != "verl"
        else "CPU seconds and memory include every process below each side's own, Ray's for verl."
    ]
    lines += [line for figures in report["shapes"] for line in _floor(figures)]
    return lines + [line for figures in report["shapes"] for line in _distrust(figures)]


def _floor(figures: Mapping[str, Any]) -> list[str]:
    """What of the peer's step its design makes it wait, and the ratio without that."""
    if "peer_floor_seconds" not in figures:
        return []
    seconds, ratio = figures["peer_floor_seconds"], "speedup_beyond_floor"
    middle, least, largest = (figures[ratio + end] for end in ("", "_min", "_max"))
    return [
        f"prompt {figures['prompt']}, response {figures['response']}: verl looks for finished responses every "
        f"{seconds:g} s, so up to that much of its step is waiting, not work; with {seconds:g} s taken off each of its "
        f"steps the ratio is {middle:.2f}x ({least:.2f} to {largest:.2f}). Its processes start once and stay up, idle, "
        "while Tandem steps."
    ]


def _precision(report: Mapping[str, Any]) -> str:
    """What the processes say that they used."""
    processes = [facts for figures in report["shapes"] for facts in figures["processes"].values()]
    return " and ".join(sorted({facts["precision"] for facts in processes}))


def _distrust(figures: Mapping[str, Any]) -> list[str]:
    where = f"prompt {figures['prompt']}, response {figures['response']}"
    lines = []
    names = [name for name in ("seconds", "peer_seconds") if name in figures and noise(figures, name) > _NOISY]
    if names:
        worst = max(noise(figures, name) for name in names)
        lines.append(f"{where}: noisy, wall seconds vary by +-{worst:.0%}; CPU seconds are steadier.")
    busy = max(figures.get("busy_elsewhere", 0.0), figures.get("peer_busy_elsewhere", 0.0))
    if busy > _BUSY:
        lines.append(f"{where}: other programs kept {busy:.1f} cores busy; repeat on a quiet machine.")
    return lines
