"""Plots of the pipeline: accuracy from model to model, whole and by family; losses of the training stages; rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recipes.plots import COLOURS, MARKERS, STYLES, smoothed
from recipes.run_records import MODES, Run, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODE_COLOURS = dict(zip(MODES, COLOURS, strict=False))


class HasEvaluation(Protocol):
    """A model with figures by mode, and by family and mode."""

    title: str
    run: Run

    def parts(self, mode: str) -> Mapping[str, Any]:
        """Figures by family."""


def draw_pipeline_plots(found: Sequence[Any], runs: Sequence[Run], folder: Path) -> list[tuple[str, Path]]:
    """Draw every plot for which there is data.

    Args:
        found: The evaluated models, in order.
        runs: Pre-training, fine-tuning and GRPO.
        folder: Where the PNG files go; made if need be.

    Returns:
        (caption, file) of each plot.
    """
    from matplotlib import rc_context

    from rl.files import atomic_file

    folder.mkdir(parents=True, exist_ok=True)
    *training, rl = runs
    plots = [
        ("accuracy", "Accuracy on held-out pictures after each stage, with 95 % intervals", _accuracy(found)),
        ("families", "The same by family of questions", _by_family(found)),
        ("loss", "Loss per target token (faint: each step; bold: smoothed); dashed: a stage ends", _loss(training)),
        ("reward", "Accuracy of the responses sampled in GRPO, by mode", _reward(rl)),
    ]
    drawn = []
    with rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 120}):
        for name, caption, figure in plots:
            if figure is not None:
                with atomic_file(folder / f"{name}.png") as temporary:
                    figure.savefig(temporary, format="png", bbox_inches="tight")
                drawn.append((caption, folder / f"{name}.png"))
    return drawn


def _figure(rows: int = 1, columns: int = 1, width: float = 7.5, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    flat = [axis for line in figure.subplots(rows, columns, squeeze=False) for axis in line]
    for axis in flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, flat


def _accuracy(found: Sequence[HasEvaluation]) -> Figure | None:
    figure, (axis,) = _figure()
    for mode in MODES:
        _line(axis, [each.run.eval.get(mode) for each in found], mode)
    axis.set_xticks(range(len(found)), [each.title for each in found], fontsize=8)
    axis.set_ylabel("accuracy (%)")
    axis.set_ylim(0, 100)
    axis.legend(frameon=False)
    return figure


def _by_family(found: Sequence[HasEvaluation]) -> Figure | None:
    names = sorted({name for each in found for mode in MODES for name in each.parts(mode)})
    if not names:
        return None
    rows = -(-len(names) // 4)
    figure, axes = _figure(rows, 4, width=10.0, height=2.4 * rows)
    for axis, name in zip(axes, names, strict=False):
        for mode in MODES:
            _line(axis, [each.parts(mode).get(name) for each in found], mode)
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(found)), [str(at + 1) for at in range(len(found))], fontsize=7)
        axis.set_ylim(0, 100)
        axis.tick_params(labelsize=7)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    return figure


def _line(axis: Axes, figures: Sequence[Mapping[str, Any] | None], mode: str) -> None:
    """Accuracy and interval of each model that has them."""
    known = [(at, each) for at, each in enumerate(figures) if each and number(each, "accuracy") is not None]
    if not known:
        return
    accuracy = [100 * each["accuracy"] for _, each in known]
    below = [100 * max(0.0, each["accuracy"] - each["ci_low"]) for _, each in known]
    above = [100 * max(0.0, each["ci_high"] - each["accuracy"]) for _, each in known]
    axis.errorbar(
        [at for at, _ in known],
        accuracy,
        yerr=[below, above],
        color=_MODE_COLOURS[mode],
        linestyle=STYLES[mode],
        marker=MARKERS[mode],
        markersize=4,
        capsize=3,
        label=f"{mode} mode",
    )


def _loss(training: Sequence[Run]) -> Figure | None:
    figure, axes = _figure(1, len(training), width=10.0, height=3.4)
    for axis, run in zip(axes, training, strict=True):
        pairs = [(number(record, "step"), number(record, "loss")) for record in run.metrics]
        known = [(step, loss) for step, loss in pairs if step is not None and loss is not None]
        if known:
            steps, losses = zip(*known, strict=True)
            axis.plot(steps, losses, color=COLOURS[0], linewidth=0.5, alpha=0.35)
            axis.plot(steps, smoothed(losses), color=COLOURS[0], linewidth=1.6)
        for before, after in zip(run.metrics, run.metrics[1:], strict=False):
            if before.get("stage") != after.get("stage"):
                axis.axvline(number(after, "step") or 0, color="black", linestyle="--", linewidth=0.8)
        axis.set_title(run.name, fontsize=10)
        axis.set_xlabel("step")
    axes[0].set_ylabel("loss")
    return figure


def _reward(run: Run) -> Figure | None:
    figure, (axis,) = _figure(height=3.2)
    drawn = False
    for mode in MODES:
        key = f"reward/{mode}/accuracy"
        known = [(number(record, "step"), number(record, key)) for record in run.metrics]
        points = [(step, value) for step, value in known if step is not None and value is not None]
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, color=_MODE_COLOURS[mode], linewidth=0.6, alpha=0.4)
            axis.plot(steps, smoothed(values), color=_MODE_COLOURS[mode], linewidth=1.8, label=f"{mode} mode")
            drawn = True
    if not drawn:
        return None
    axis.set_xlabel("step")
    axis.legend(frameon=False)
    return figure
