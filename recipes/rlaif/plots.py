"""Plots of a loop: hallucination, length and held-out accuracy from model to model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.plots import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float, float]
"""(value, low, high)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A model on the horizontal axis."""

    at: float
    """Round; checkpoints of a round lie between it and the one before."""
    goes_on: bool
    figures: dict[str, Interval]
    """By name of the curve; a name may be missing."""


CURVES = (
    ("chair_i", "CHAIR_i (%): mentioned objects", 100.0),
    ("chair_s", "CHAIR_s (%): responses", 100.0),
    ("words", "mean length of a response (words)", 1.0),
    ("accuracy", "held-out accuracy (%)", 100.0),
)
"""(name, axis, factor)"""


def draw_rounds(points: Sequence[Point], path: Path) -> Path:
    """Draw the curves: a line through the models that went on, a grey mark for each other checkpoint.

    Args:
        points: The models, in order; the first is the one before.
        path: The PNG file to write.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from rl.files import atomic_file

    path.parent.mkdir(exist_ok=True)
    with rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 130}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = [axis for line in figure.subplots(2, 2, squeeze=False) for axis in line]
        for axis, (name, label, factor) in zip(axes, CURVES, strict=True):
            _curve(axis, points, name, factor)
            axis.set_xlabel("round (0 = the model before)")
            axis.set_ylabel(label)
            axis.set_xticks(sorted({round(point.at) for point in points}))
            axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.05)  # room above a mark at the top
            axis.spines[["top", "right"]].set_visible(False)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png")
    return path


def _curve(axis: Axes, points: Sequence[Point], name: str, factor: float) -> None:
    for goes_on, style, colour in ((False, "x", GREY), (True, "o-", COLOURS[0])):
        known = [
            (p.at, *(factor * value for value in p.figures[name]))
            for p in points
            if name in p.figures and p.goes_on is goes_on
        ]
        if known:
            places, values, lows, highs = zip(*known, strict=True)
            below = [max(0.0, value - low) for value, low in zip(values, lows, strict=True)]
            above = [max(0.0, high - value) for value, high in zip(values, highs, strict=True)]
            axis.errorbar(places, values, yerr=[below, above], fmt=style, color=colour, markersize=5, capsize=3)
