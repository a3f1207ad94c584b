"""Dense captions: everything that an item shows in words, written from the description that it was drawn from.

Only what can be seen is told: values of a chart are given where they are written, else their order where the difference
shows; places of objects are thirds of the picture; times of a clip are those of its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recipes.render.chart_questions import visible
from recipes.render.clip_questions import spelled
from recipes.render.grid import inventory, phrase_at
from recipes.render.records import Item
from recipes.render.scene import box_of
from recipes.render.shapes import a, named
from recipes.render.table import markdown
from recipes.render.turns import story
from recipes.render.words import capital, cents, listing, plural

Scene = Mapping[str, Any]


def caption(item: Item) -> str:
    """The caption of an item."""
    return _WRITERS[item.kind](item.scene)


def _article(scene: Scene) -> str:
    """Title, headings and how each paragraph begins, then the facts."""
    blocks = scene["facts"]["blocks"]
    parts = [f"A page of text with the title “{_title(blocks)}”."]
    headings = [block["text"] for block in blocks if block["kind"] == "heading"]
    if headings:
        parts.append(f"Its heading{'s are' if len(headings) > 1 else ' is'} {listing([f'“{h}”' for h in headings])}.")
    paragraphs = [block["text"] for block in blocks if block["kind"] == "paragraph"]
    count = len(paragraphs)
    parts.append(f"There {'is' if count == 1 else 'are'} {count} {plural('paragraph', count)}.")
    parts += [f"One says: {entry['sentence']}" for entry in scene["facts"]["facts"][:4]]
    return " ".join(parts)


def _title(blocks: list[dict[str, str]]) -> str:
    return next(block["text"] for block in blocks if block["kind"] == "title")


def _table(scene: Scene) -> str:
    """Title, columns, and the cells of every row."""
    facts = scene["facts"]
    titles = [text["text"] for text in scene["texts"] if text["kind"] == "title"]
    head = f"A table “{titles[0]}”" if titles else "A table"
    rows = len(facts["rows"])
    return f"{head} with the columns {listing(facts['columns'])} and {rows} rows:\n{markdown(facts)}"


def _receipt(scene: Scene) -> str:
    """Shop, date, goods with their prices, tax and total."""
    facts = scene["facts"]
    goods = [
        f"{entry['count']} x {entry['name']} for {cents(entry['count'] * entry['unit'])}"
        if entry["count"] > 1
        else f"{entry['name']} for {cents(entry['unit'])}"
        for entry in facts["goods"]
    ]
    shown = {text["text"] for text in scene["texts"]}
    when = f", dated {facts['date']}" if facts["date"] in shown else ""
    told = [
        f"A receipt of {facts['store']}{when}.",
        f"It lists {listing(goods)}.",
        f"The subtotal is {cents(facts['subtotal'])}, the tax of {facts['rate']}% is {cents(facts['tax'])}, and the "
        f"total is {facts['currency']}{cents(facts['total'])}.",
    ]
    if facts["foot"] != 3:
        told.append(f"{cents(facts['paid'])} was paid, with {cents(facts['change'])} change.")
    return " ".join(told)


def _formulas(scene: Scene) -> str:
    """The formulas with their numbers."""
    listed = scene["facts"]["listed"]
    count = len(listed)
    lines = [f"({number}) {formula['latex']}" for number, formula in enumerate(listed, start=1)]
    return f"A page with {count} numbered {plural('formula', count)}:\n" + "\n".join(lines)


def _series(scene: Scene) -> str:
    """The lines."""
    entries = scene["facts"]["entries"]
    return f"A page that says {listing(entries)}."


def _chart(scene: Scene) -> str:
    """Kind, title, and values, or what can be seen of them."""
    kind = "scatter plot" if scene["chart"] == "scatter" else f"{scene['chart']} chart"
    head = f"{capital(a(kind))} with the title “{scene['title']}”."
    if scene["chart"] == "scatter":
        groups = [_points(series, several=len(scene["series"]) > 1) for series in scene["series"]]
        return f"{head} It shows {listing(groups)}."
    return " ".join([head, *(_chart_series(scene, at) for at in range(len(scene["series"])))])


def _points(series: Scene, *, several: bool) -> str:
    count = len(series["points"])
    name = f" of {series['name']}" if several else ""
    return f"{count} {series['colour']} {plural('point', count)}{name}"


def _chart_series(scene: Scene, at: int) -> str:
    """One line, or the bars or slices."""
    series = scene["series"][at]
    pairs = list(zip(scene["labels"], series["values"], strict=True))
    if scene["shown"]:
        unit = "%" if scene["chart"] == "pie" else ""
        return f"The values are: {listing([f'{label} {value}{unit}' for label, value in pairs])}."
    what = {"bar": "bars", "pie": "slices", "line": f"{series['colour']} line"}[scene["chart"]]
    if scene["chart"] == "line" and len(scene["series"]) > 1:
        what += f" ({series['name']})"
    head = f"The {what} {'goes over' if scene['chart'] == 'line' else 'are'} {listing(scene['labels'])}."
    ends = [_end(scene, pairs, most) for most in (True, False)]
    return " ".join([head, *filter(None, ends)])


def _end(scene: Scene, pairs: list[tuple[str, int]], most: bool) -> str:
    """Which value is the largest or smallest, if one can see it."""
    label, best = (max if most else min)(pairs, key=lambda pair: pair[1])
    if not all(visible(scene, value, best) for other, value in pairs if other != label):
        return ""
    return f"The {'largest' if most else 'smallest'} value is that of {label}."


def _scene(scene: Scene) -> str:
    """Every object with its place, from left to right."""
    things = sorted(scene["objects"], key=lambda thing: thing["centre"])
    parts = [f"{a(named(thing, size=True))} {phrase_at(place_of(thing, scene['size']))}" for thing in things]
    count = len(parts)
    return f"The picture shows {count} {plural('object', count)}: {listing(parts)}."


def _grid(scene: Scene) -> str:
    """Every object after its place, row by row."""
    return inventory(scene["objects"])


def place_of(thing: Scene, size: Sequence[int]) -> str:
    """Where in the picture the middle of an object is, in thirds: `top left`, `middle`."""
    left, top, right, bottom = box_of(thing)
    across = ("left", "", "right")[min(2, 3 * (left + right) // (2 * size[0]))]
    down = ("top", "", "bottom")[min(2, 3 * (top + bottom) // (2 * size[1]))]
    return " ".join(filter(None, (down, across))) or "middle"


def _clip(scene: Scene) -> str:
    """All objects, then what happens, in order."""
    things = scene["objects"]
    parts = [a(f"{thing['colours'][0]} {thing['shape']}") for thing in things]
    count = len(parts)
    told = [_event(scene, event) for event in scene["events"]]
    still = [thing for thing in things if thing["action"] == "stay"]
    told += [f"The {named(thing)} does not move." for thing in still]
    return " ".join([f"The clip shows {count} {plural('object', count)}: {listing(parts)}.", *told])


def _event(scene: Scene, event: Scene) -> str:
    """An event as a sentence, with its time unless it lasts for the whole clip."""
    things = scene["objects"]
    when = f"After {spelled(event['time'])}"
    if event["type"] == "collide":
        first, second = (named(things[at]) for at in event["objects"])
        return f"{when}, the {first} and the {second} collide."
    who = f"the {named(things[event['object']])}"
    if event["type"] == "move":
        return f"{capital(who)} moves {event['direction']}."
    what = {"appear": "appears", "vanish": "vanishes", "recolour": f"turns {event.get('colour')}"}[event["type"]]
    return f"{when}, {who} {what}."


_WRITERS: dict[str, Callable[[Scene], str]] = {
    "article": _article,
    "table": _table,
    "receipt": _receipt,
    "formulas": _formulas,
    "chart": _chart,
    "scene": _scene,
    "grid": _grid,
    "series": _series,
    "clip": _clip,
    "turns": lambda scene: story(scene["objects"]),
}
