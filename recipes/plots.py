"""Plots of runs, as PNG files that read well in print, on a phone and in a dark page.

One colour for each run, the same in every plot; long mode is drawn solid, short mode dashed. The horizontal axis is
what RL has cost so far: response tokens sampled for training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.run_records import MODES, Run, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for colour-blind readers; grey is kept for runs without RL.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B5A2B", "#000000")
GREY = "#777777"
STYLES = {"long": "-", "short": "--"}
MARKERS = {"long": "o", "short": "s"}
_SMOOTHING = 0.8
"""Weight of the past in the drawn average of noisy curves."""


def draw_plots(runs: Sequence[Run], folder: Path) -> list[tuple[str, Path]]:
    """Draws every plot for which there is data.

    Args:
        runs: The runs, in the order of the legend.
        folder: Where the PNG files go; made if need be.

    Returns:
        (caption, file) of each plot.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 150}):
        for name, caption, draw in _PLOTS:
            figure = draw(runs)
            if figure is not None:
                save_figure(figure, folder / f"{name}.png")
                drawn.append((caption, folder / f"{name}.png"))
    return drawn


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file, complete or absent."""
    from rl.files import atomic_file

    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")


def colours(runs: Sequence[Run]) -> dict[str, str]:
    """The colour of each run by name."""
    trained = [run.name for run in runs if run.mode != "none"]
    return {run.name: GREY if run.mode == "none" else COLOURS[trained.index(run.name) % len(COLOURS)] for run in runs}


def _figure(width: float = 7.5, height: float = 4.2, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    flat = [axis for line in axes for axis in line]
    for axis in flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, flat


def _token_axis(axis: Axes) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_xlabel("RL training tokens (responses sampled)")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def short_count(value: float) -> str:
    """A count in three or four characters: 950, 12.3k, 4.4M, 1.6B."""
    for bound, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= bound * 0.9995:
            return f"{value / bound:.3g}{unit}"
    return f"{value:.0f}"


# ---- accuracy against tokens ----


def _accuracy(runs: Sequence[Run]) -> Figure | None:
    if not any(run.eval or run.evaluations for run in runs):
        return None
    figure, (axis,) = _figure(height=4.8)
    colour = colours(runs)
    for run in runs:
        for mode in MODES:
            points = accuracy_points(run, mode)
            if points and run.mode == "none":
                _level(axis, points[-1], mode)
            elif points:
                _curve(axis, points, mode, colour[run.name])
    _token_axis(axis)
    axis.set_ylabel("accuracy on held-out rows (%)")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    _legend(figure, runs)
    return figure


def accuracy_points(run: Run, mode: str) -> list[tuple[float, Mapping[str, Any]]]:
    """(training tokens so far, evaluation) of a run in one mode: the periodic evaluations, then the final one."""
    points = [
        (number(record, "rl_tokens") or 0.0, record["eval"][mode])
        for record in run.evaluations
        if mode in record["eval"] and number(record["eval"][mode], "accuracy") is not None
    ]
    if mode in run.eval:
        points = [point for point in points if point[0] != run.rl_tokens]
        points.append((float(run.rl_tokens), run.eval[mode]))
    return sorted(points, key=lambda point: point[0])


def _curve(axis: Axes, points: Sequence[tuple[float, Mapping[str, Any]]], mode: str, colour: str) -> None:
    tokens = [at for at, _ in points]
    axis.errorbar(
        tokens,
        [100 * figures["accuracy"] for _, figures in points],
        yerr=[*zip(*(_whiskers(figures) for _, figures in points), strict=True)],
        color=colour,
        linestyle=STYLES[mode],
        marker=MARKERS[mode],
        markersize=5,
        markerfacecolor=colour if mode == "long" else "white",
        capsize=3,
        linewidth=1.6,
        elinewidth=1,
    )


def _whiskers(figures: Mapping[str, Any]) -> tuple[float, float]:
    """How far the interval reaches below and above the accuracy, in per cent; 0 where it is not known."""
    accuracy = figures["accuracy"]
    low, high = number(figures, "ci_low"), number(figures, "ci_high")
    below = 0.0 if low is None else max(0.0, accuracy - low)
    above = 0.0 if high is None else max(0.0, high - accuracy)
    return 100 * below, 100 * above


def _level(axis: Axes, point: tuple[float, Mapping[str, Any]], mode: str) -> None:
    """A run without RL is where the others start: a grey level across the plot, with its interval."""
    figures = point[1]
    below, above = _whiskers(figures)
    accuracy = 100 * figures["accuracy"]
    axis.axhline(accuracy, color=GREY, linestyle=STYLES[mode], linewidth=1.2)
    axis.axhspan(accuracy - below, accuracy + above, color=GREY, alpha=0.12, linewidth=0)


def _legend(figure: Figure, runs: Sequence[Run], modes: bool = True) -> None:
    from matplotlib.lines import Line2D

    colour = colours(runs)
    handles = [Line2D([], [], color=colour[run.name], linewidth=2, label=_plain(run.name)) for run in runs]
    if modes:
        handles += [
            Line2D(
                [], [], color="black", linestyle=STYLES[mode], marker=MARKERS[mode], markersize=4, label=f"{mode} mode"
            )
            for mode in ("long", "short")
        ]
    columns = 4 if max(len(run.name) for run in runs) < 14 else 2
    figure.legend(handles=handles, fontsize=9, loc="outside lower center", ncols=columns, frameon=False)


def _plain(text: str) -> str:
    """A name as matplotlib shows it unchanged: `$` would start a formula, a leading `_` hides it from the legend."""
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text


# ---- training curves ----


def _curves(runs: Sequence[Run], keys: Mapping[str, str], title: str, *, smooth: bool) -> Figure | None:
    """One panel; `keys` are the metrics drawn, each with its line style."""
    drawn = [run for run in runs if any(_series(run, key)[0] for key in keys)]
    if not drawn:
        return None
    figure, (axis,) = _figure()
    _draw_series(axis, runs, keys, smooth=smooth)
    _token_axis(axis)
    axis.set_ylabel(title)
    _legend(figure, [run for run in runs if run in drawn], modes=len(keys) > 1)
    return figure


def _draw_series(axis: Axes, runs: Sequence[Run], keys: Mapping[str, str], *, smooth: bool) -> None:
    colour = colours(runs)
    for run in runs:
        for key, style in keys.items():
            tokens, values = _series(run, key)
            if tokens and smooth and len(values) > 4:
                axis.plot(tokens, values, color=colour[run.name], linestyle=style, linewidth=0.6, alpha=0.3)
                values = smoothed(values)
            axis.plot(tokens, values, color=colour[run.name], linestyle=style, linewidth=1.8)


def _series(run: Run, key: str) -> tuple[list[float], list[float]]:
    """(tokens so far, value) of a metric, where the run has it; steps stand in for a run that counts no tokens."""
    pairs = [
        (number(record, "tokens/generated"), number(record, key))
        for record in run.metrics
        if number(record, key) is not None
    ]
    known = [(at, value) for at, value in pairs if at is not None and value is not None]
    return [at for at, _ in known], [value for _, value in known]


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential average with the bias of its start removed (as in Adam)."""
    average, result = 0.0, []
    for index, value in enumerate(values, start=1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * value
        result.append(average / (1 - _SMOOTHING**index))
    return result


def _reward(runs: Sequence[Run]) -> Figure | None:
    return _curves(runs, {"reward/total": "-"}, "mean training reward (all parts, weighted)", smooth=True)


def _length(runs: Sequence[Run]) -> Figure | None:
    keys = {f"response_tokens/{mode}": STYLES[mode] for mode in ("long", "short")}
    return _curves(runs, keys, "response length in training (tokens)", smooth=True)


def reward_names(runs: Sequence[Run]) -> list[str]:
    """Names of the rewards in the metrics, without totals, shares of missing ones and the split by mode."""
    names: dict[str, None] = {}
    for run in runs:
        for record in run.metrics:
            for key in record:
                name = key.removeprefix("reward/")
                split = name.startswith(("short/", "long/"))
                if name != key and name != "total" and not split and not name.endswith("/missing"):
                    names[name] = None
    return list(names)


def _breakdown(runs: Sequence[Run]) -> Figure | None:
    """A small panel for each reward, unweighted."""
    names = [name for name in reward_names(runs) if any(_series(run, f"reward/{name}")[0] for run in runs)]
    if not names:
        return None
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = _figure(width=3.75 * columns, height=2.4 * rows + 0.5, columns=columns, rows=rows)
    for axis, name in zip(axes, names, strict=False):
        _draw_series(axis, runs, {f"reward/{name}": "-"}, smooth=True)
        _token_axis(axis)
        axis.set_xlabel("training tokens", fontsize=8)
        axis.set_title(_plain(name), fontsize=9)
        axis.tick_params(labelsize=8)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    _legend(figure, [run for run in runs if run.metrics and run.mode != "none"], modes=False)
    return figure


_PLOTS = (
    ("accuracy", "Accuracy on held-out rows against RL training tokens, with 95 % intervals", _accuracy),
    ("reward", "Training reward (faint: each step; bold: smoothed)", _reward),
    ("length", "Response length in training", _length),
    ("rewards", "Training reward by name, unweighted", _breakdown),
)
