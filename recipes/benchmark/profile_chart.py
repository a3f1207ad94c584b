"""A profile as bars: seconds of each phase, with its share of the step and of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.benchmark.profile import PHASES
from recipes.plots import COLOURS, GREY, save_figure


def draw_profiles(report: Mapping[str, Any], path: Path) -> None:
    """Draw one panel per shape into a PNG file.

    Args:
        report: the figures of a run with a profile.
        path: the file; replaced if it is there.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shapes = report["shapes"]
    with rc_context({"font.size": 9, "figure.dpi": 150}):
        figure = Figure(figsize=(7.0, 2.9 * len(shapes)), layout="constrained")
        for axis, figures in zip(figure.subplots(len(shapes), 1, squeeze=False)[:, 0], shapes, strict=True):
            _draw(axis, figures)
        save_figure(figure, path)


def _draw(axis: Any, figures: Mapping[str, Any]) -> None:
    phases = figures["profile"]["phases"]
    seconds = [phases[name]["seconds"] for name in PHASES]
    colours = [GREY if name == "other" else COLOURS[0] for name in PHASES]
    bars = axis.barh(PHASES, seconds, color=colours)
    axis.bar_label(bars, [_label(phases[name]) for name in PHASES], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, max(seconds) * 1.45)
    axis.set_xlabel("seconds per step")
    axis.set_title(f"prompt {figures['prompt']}, response {figures['response']} tokens", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _label(phase: Mapping[str, float]) -> str:
    """Share of the step; of the bf16 peak where there is arithmetic, else of the bandwidth where memory is moved."""
    text = f"{phase['of_step']:.1%}"
    if phase["flop"]:
        return f"{text}, {phase['of_bf16']:.0%} of the bf16 peak"
    return f"{text}, {phase['of_bandwidth']:.0%} of the bandwidth" if phase["of_bandwidth"] else text
