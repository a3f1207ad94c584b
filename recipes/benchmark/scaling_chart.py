"""The measured curves with the fitted law, one panel per axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.benchmark.scaling import AXES, axis_points
from recipes.benchmark.scaling_law import predicted
from recipes.plots import COLOURS, GREY, save_figure

_NAMES = {
    "group_size": "responses per prompt",
    "prompt": "prompt tokens",
    "response": "response tokens",
    "images": "images per prompt",
    "width": "hidden size",
}


def draw_scaling(measured: Sequence[Mapping[str, Any]], law: Mapping[str, Any], path: Path) -> None:
    """Draw the curves into a PNG file.

    Args:
        measured: the points.
        law: as `fit_law` gives it.
        path: the file; replaced if it is there.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 150}):
        figure = Figure(figsize=(9.0, 5.2), layout="constrained")
        *panels, rest = figure.subplots(2, 3).flatten()
        for panel, name in zip(panels, AXES, strict=True):
            _draw(panel, name, axis_points(measured, name), law)
        rest.set_axis_off()
        rest.legend(*panels[0].get_legend_handles_labels(), loc="center left", frameon=False)
        save_figure(figure, path)


def _draw(axis: Any, name: str, points: Sequence[Mapping[str, Any]], law: Mapping[str, Any]) -> None:
    at = [point[name] for point in points]
    axis.plot(at, [point["cpu_seconds"] for point in points], "o", color=COLOURS[0], label="measured")
    if name == "width":
        size = law["size"]
        if size and size["gflops"]:
            line = [size["fixed"] + point["flop"] / size["gflops"] / 1e9 for point in points]
            axis.plot(at, line, "-", color=COLOURS[0])
    else:
        coefficients = law["coefficients"]
        axis.plot(at, [predicted(p, coefficients) for p in points], "-", color=COLOURS[0], label="fitted law")
        repeated = [predicted(p, coefficients, "repeated_") for p in points]
        axis.plot(at, repeated, ":", color=GREY, label="by that law, with the prompt\ncomputed per response")
    axis.set_xlabel(_NAMES[name])
    axis.set_ylabel("CPU seconds per step")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
