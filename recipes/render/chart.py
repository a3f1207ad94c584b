"""Charts drawn by matplotlib, with exact values, boxes of all texts and of the bars and points.

A chart is drawn with and without its texts: what differs is the ink of the texts. A layout in which two texts touch or
one leaves the image is not used.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from recipes.render.chart_questions import ask
from recipes.render.fonts import width
from recipes.render.records import Box, DoesNotFit, Drawing, Kind, Look, Region
from recipes.render.words import GOODS, MONTHS, PLACES, THINGS, capital, plural

if TYPE_CHECKING:
    import numpy
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 100
FAMILIES = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
COLOURS = {
    "blue": "#1f77b4", "orange": "#ff7f0e", "green": "#2ca02c", "red": "#d62728", "purple": "#9467bd",
    "brown": "#8c564b", "pink": "#e377c2", "grey": "#7f7f7f", "olive": "#bcbd22", "cyan": "#17becf",
}  # fmt: skip
MEASURES = ("Sales", "Visitors", "Orders", "Exports", "Repairs", "Stock", "Income", "Trips")
ROTATIONS = (0, 40, 90)
ROOMY = 200
"""Pixels from which a chart has room for the name of an axis, and more than a few ticks."""
DARKEST_STEP = 12
"""Change of a colour channel (of 255) from which a pixel counts as ink of a text."""


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """Kind, values and look of a chart."""
    longer = rng.randint(*look.side)
    across, down = (1, 1) if longer < ROOMY else rng.choice(((4, 3), (1, 1), (3, 2)))
    kind = rng.choice(("bar", "line", "pie", "scatter"))
    most = max(2, min(8, longer // 45))
    px = rng.randint(max(8, longer // 42), max(9, longer // 30))
    makers = {"bar": _bars, "line": _lines, "pie": _shares, "scatter": _points}
    measure, made = rng.choice(MEASURES), makers[kind](rng, most)
    return {
        "size": [longer, longer * down // across],
        "chart": kind,
        "title": _title(rng, measure, made["labels"], 0.85 * longer, px),
        "axis": measure,
        "family": rng.choice(FAMILIES),
        "px": px,
        "grid": rng.random() < 0.4,
        "paper": rng.choice(("#ffffff", "#ffffff", "#f7f3e8", "#eef2f7")),
        **made,
    }


def _title(rng: Random, measure: str, labels: list[str], room: float, px: int) -> str:
    """The longest of some titles that fits; with a year, unless the labels are years."""
    what = plural(rng.choice(THINGS), 2)
    when = "" if labels and labels[0].isdigit() else f", {rng.randint(1990, 2029)}"
    titles = (f"{measure} of {what}{when}", f"{capital(what)}{when}", capital(what))
    return next((title for title in titles if width(title, "DejaVuSansMono", px * 6 // 5) < room), titles[-1])


def _labels(rng: Random, count: int) -> list[str]:
    """Distinct names: consecutive months, places, goods or years."""
    kind = rng.randrange(4)
    if kind == 0:
        first = rng.randrange(12)
        return [MONTHS[(first + at) % 12][:3] for at in range(count)]
    if kind == 1:
        first = rng.randint(1980, 2020)
        return [str(first + at) for at in range(count)]
    return rng.sample(PLACES if kind == 2 else GOODS, count)


def _bars(rng: Random, most: int) -> dict[str, Any]:
    """One bar for each label, upright or lying."""
    labels, limit = _labels(rng, rng.randint(2, most)), rng.choice((10, 20, 50, 100, 500))
    return {
        "labels": labels,
        "series": [{"name": "", "colour": rng.choice(tuple(COLOURS)), "values": _values(rng, len(labels), limit)}],
        "lying": rng.random() < 0.3,
        "shown": rng.random() < 0.5,
    }


def _values(rng: Random, count: int, limit: int) -> list[int]:
    """Distinct whole numbers, so that the largest is only one."""
    return rng.sample(range(max(1, limit // 10), limit + count), count)


def _lines(rng: Random, most: int) -> dict[str, Any]:
    """One or two lines with a mark at every value, over years or months."""
    count, limit = rng.randint(3, max(3, most)), rng.choice((10, 20, 50, 100))
    first = rng.randint(1980, 2020)
    months = [MONTHS[(first + at) % 12][:3] for at in range(count)]
    names = rng.sample(THINGS, rng.randint(1, 2))
    colours = rng.sample(tuple(COLOURS), len(names))
    series = [
        {"name": capital(plural(name, 2)), "colour": colour, "values": _values(rng, count, limit)}
        for name, colour in zip(names, colours, strict=True)
    ]
    labels = months if rng.random() < 0.5 else [str(first + at) for at in range(count)]
    return {"labels": labels, "series": series, "shown": False, "lying": False}


def _shares(rng: Random, most: int) -> dict[str, Any]:
    """Shares in whole per cent, each at least 5."""
    count = rng.randint(2, min(6, most))
    cuts = sorted(rng.sample(range(1, 100 - 5 * count + count), count - 1))
    edges = [0, *cuts, 100 - 5 * count + count]
    values = [b - a - 1 + 5 for a, b in pairwise(edges)]
    return {
        "labels": _labels(rng, count),
        "series": [{"name": "", "colour": "", "values": values}],
        "colours": rng.sample(tuple(COLOURS), count),
        "shown": rng.random() < 0.6,
        "lying": False,
        "start": rng.choice((0, 90, 45, 180)),
    }


def _points(rng: Random, most: int) -> dict[str, Any]:
    """One or two groups of points on a grid of whole numbers, no two at one place or next to each other."""
    names, limit = rng.sample(PLACES, rng.randint(1, 2)), max(8, 2 * most)
    cells = [(x, y) for x in range(1, limit, 2) for y in range(1, limit, 2)]
    series = []
    for name, colour in zip(names, rng.sample(tuple(COLOURS), len(names)), strict=True):
        chosen = [cells.pop(rng.randrange(len(cells))) for _ in range(rng.randint(2, 7))]
        series.append({"name": name, "colour": colour, "points": [list(point) for point in chosen]})
    return {"labels": [], "series": series, "limit": limit, "shown": False, "lying": False}


def content(scene: Mapping[str, Any]) -> Any:
    """Kind of chart, labels and values."""
    return [
        scene["chart"],
        scene["title"],
        scene["labels"],
        [[v for k, v in s.items() if k != "colour"] for s in scene["series"]],
    ]


def draw(scene: Mapping[str, Any]) -> Drawing:
    """The chart, with label regions for its texts and mark regions for bars and points. Raises DoesNotFit."""
    import matplotlib
    from PIL import Image

    with matplotlib.rc_context(_defaults()), warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        for rotation in _rotations(scene):
            try:
                with_texts, regions = _drawn(*_figure(scene, rotation))
            except (DoesNotFit, UserWarning):
                continue
            return Drawing(images=(Image.fromarray(with_texts),), regions=tuple(regions))
    raise DoesNotFit


def _drawn(figure: Figure, marks: list[tuple[str, Any]]) -> tuple[numpy.ndarray, list[Region]]:
    """Pixels [height, width, 3] and regions. Raises DoesNotFit when texts touch."""
    with_texts = _pixels(figure)
    figure.set_layout_engine("none")  # nothing moves from here on
    texts = _shown_texts(figure)
    frames = [_extent(text, figure) for text in texts]
    if not _separate(frames, with_texts.shape):
        raise DoesNotFit
    for text in texts:
        text.set_alpha(0)
    changed = abs(with_texts.astype(int) - _pixels(figure)).max(axis=2) >= DARKEST_STEP
    labels = [_label(*pair, changed, at) for at, pair in enumerate(zip(texts, frames, strict=True))]
    return with_texts, [*labels, *_mark_regions(figure, marks, len(labels))]


def _rotations(scene: Mapping[str, Any]) -> list[int]:
    """Angles of the labels below the chart at which they may have room beside each other."""
    if scene["chart"] not in ("bar", "line") or scene["lying"]:
        return [0]
    room, high = 0.85 * scene["size"][0] / len(scene["labels"]), scene["px"] * 1.3
    wide = max(width(label, "DejaVuSans", scene["px"]) for label in scene["labels"])
    angles = [math.radians(angle) for angle in ROTATIONS]
    needed = [wide * math.cos(angle) + high * math.sin(angle) for angle in angles]
    return [angle for angle, least in zip(ROTATIONS, needed, strict=True) if least <= room]


def _defaults() -> dict[str, Any]:
    """matplotlib's own settings, whatever the user's file of settings says."""
    import matplotlib

    return {key: value for key, value in matplotlib.rcParamsDefault.items() if key not in ("backend", "interactive")}


def _figure(scene: Mapping[str, Any], rotation: int) -> tuple[Figure, list[tuple[str, Any]]]:
    """The figure, and (description, data box or point) of every mark."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide, high = scene["size"]
    points = scene["px"] * 72 / DPI
    matplotlib.rcParams.update({"font.family": scene["family"], "font.size": points, "axes.unicode_minus": False})
    figure = Figure(figsize=(wide / DPI, high / DPI), dpi=DPI, facecolor=scene["paper"], layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(scene["paper"])
    axes.set_title(scene["title"], fontsize=points * 1.15)
    drawers = {"bar": _draw_bars, "line": _draw_lines, "pie": _draw_pie, "scatter": _draw_points}
    marks = drawers[scene["chart"]](axes, scene)
    if scene["chart"] != "pie":
        if scene["grid"]:
            axes.grid(alpha=0.4)
            axes.set_axisbelow(True)
        if rotation:
            axes.tick_params(axis="x", labelrotation=rotation)
        if any(series["name"] for series in scene["series"]) and len(scene["series"]) > 1:
            figure.legend(loc="outside lower center", ncols=2 if scene["size"][0] >= ROOMY else 1, frameon=False)
    return figure, marks


def _draw_bars(axes: Axes, scene: Mapping[str, Any]) -> list[tuple[str, Any]]:
    series = scene["series"][0]
    values, colour = series["values"], COLOURS[series["colour"]]
    if scene["lying"]:
        bars = axes.barh(range(len(values)), values, color=colour, height=0.6)
    else:
        bars = axes.bar(range(len(values)), values, color=colour, width=0.6)
    _ticks(axes, scene)
    if scene["shown"]:
        axes.bar_label(bars, padding=2)
        (axes.set_xmargin if scene["lying"] else axes.set_ymargin)(0.15)
    name, value = ("set_ylim", "set_xlabel") if scene["lying"] else ("set_xlim", "set_ylabel")
    if scene["size"][0] >= ROOMY:
        getattr(axes, value)(scene["axis"])
    getattr(axes, name)(-0.7, len(scene["labels"]) - 0.3)
    return [
        (f"{label}: {value}", bar) for label, value, bar in zip(scene["labels"], series["values"], bars, strict=True)
    ]


def _ticks(axes: Axes, scene: Mapping[str, Any]) -> None:
    """Names on one axis, few whole numbers on the other."""
    from matplotlib.ticker import MaxNLocator

    names, numbers = (axes.yaxis, axes.xaxis) if scene["lying"] else (axes.xaxis, axes.yaxis)
    names.set_ticks(range(len(scene["labels"])), scene["labels"])
    numbers.set_major_locator(MaxNLocator(nbins=5 if scene["size"][1] >= ROOMY else 2, integer=True))


def _draw_lines(axes: Axes, scene: Mapping[str, Any]) -> list[tuple[str, Any]]:
    marks: list[tuple[str, Any]] = []
    for series in scene["series"]:
        axes.plot(
            series["values"],
            marker="o",
            markersize=scene["px"] / 3,
            color=COLOURS[series["colour"]],
            label=series["name"],
        )
        pairs = zip(scene["labels"], series["values"], strict=True)
        marks += [(f"{series['name']}, {label}: {value}", (at, value)) for at, (label, value) in enumerate(pairs)]
    _ticks(axes, scene)
    axes.set_ylim(0, max(max(series["values"]) for series in scene["series"]) * 1.1)
    if scene["size"][0] >= ROOMY:
        axes.set_ylabel(scene["axis"])
    return marks


def _draw_pie(axes: Axes, scene: Mapping[str, Any]) -> list[tuple[str, Any]]:
    colours = [COLOURS[name] for name in scene["colours"]]
    labels = scene["labels"]
    if scene["shown"]:
        labels = [f"{label} {value}%" for label, value in zip(labels, scene["series"][0]["values"], strict=True)]
    axes.pie(scene["series"][0]["values"], labels=labels, colors=colours, startangle=scene["start"])
    return []


def _draw_points(axes: Axes, scene: Mapping[str, Any]) -> list[tuple[str, Any]]:
    from matplotlib.ticker import MaxNLocator

    marks: list[tuple[str, Any]] = []
    for series in scene["series"]:
        across, up = zip(*series["points"], strict=True)
        axes.scatter(across, up, s=(scene["px"] / 2) ** 2, color=COLOURS[series["colour"]], label=series["name"])
        marks += [(f"{series['name']} ({x}, {y})", (x, y)) for x, y in series["points"]]
    axes.set_xlim(0, scene["limit"])
    axes.set_ylim(0, scene["limit"])
    axes.set_xlabel("x")
    axes.set_ylabel("y", rotation=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5 if scene["size"][1] >= ROOMY else 2, integer=True))
    return marks


def _pixels(figure: Figure) -> numpy.ndarray:
    """The figure as an array [height, width, 3] of bytes."""
    import numpy
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    return numpy.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()


def _shown_texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: title, labels, legend, and the ticks within the axes."""
    axes = figure.axes[0]
    texts = [axes.title, *axes.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    if axes.axison:
        texts += [axes.xaxis.label, axes.yaxis.label]
        texts += [text for text in axes.xaxis.get_ticklabels() if _within(axes.get_xlim(), text.get_position()[0])]
        texts += [text for text in axes.yaxis.get_ticklabels() if _within(axes.get_ylim(), text.get_position()[1])]
    return [text for text in texts if text.get_text().strip()]


def _within(limits: tuple[float, float], value: float) -> bool:
    slack = abs(limits[1] - limits[0]) * 1e-9
    return min(limits) - slack <= value <= max(limits) + slack


def _extent(text: Text, figure: Figure) -> Box:
    """Where a text may have ink, a pixel wider than matplotlib says; rows count from the top."""
    box, high = text.get_window_extent(), figure.canvas.get_width_height()[1]
    return int(box.x0) - 1, int(high - box.y1) - 1, int(box.x1) + 2, int(high - box.y0) + 2


def _separate(boxes: list[Box], shape: tuple[int, ...]) -> bool:
    """Whether boxes are inside the image and none touches another."""
    if any(left < 0 or top < 0 or right > shape[1] or bottom > shape[0] for left, top, right, bottom in boxes):
        return False
    return not any(_touch(a, b) for at, a in enumerate(boxes) for b in boxes[:at])


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label(text: Text, frame: Box, changed: numpy.ndarray, group: int) -> Region:
    """The region of a text: the smallest box with the pixels that it changes."""
    import numpy

    left, top, right, bottom = frame
    rows, columns = numpy.nonzero(changed[top:bottom, left:right])
    if not rows.size:
        raise DoesNotFit  # it has the colour of what it stands on
    box = (left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1)
    return Region(text=text.get_text(), box=tuple(int(edge) for edge in box), kind="label", group=group)  # type: ignore[arg-type]


def _mark_regions(figure: Figure, marks: list[tuple[str, Any]], group: int) -> list[Region]:
    """Boxes of bars, and boxes of a few pixels around points."""
    axes, high, regions = figure.axes[0], figure.canvas.get_width_height()[1], []
    for at, (text, mark) in enumerate(marks):
        if isinstance(mark, tuple):
            x, y = axes.transData.transform(mark)
            edges = (x - 3, y - 3, x + 3, y + 3)
        else:
            edges = mark.get_window_extent().extents
        left, low, right, up = edges
        box = (round(left), round(high - up), round(right), round(high - low))
        regions.append(Region(text=text, box=box, kind="mark", group=group + at))
    return regions


CHART = Kind(plan=plan, content=content, draw=draw, ask=ask)
