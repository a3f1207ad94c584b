"""Answers worked out again, by other code, from the record's description and what was asked."""

from __future__ import annotations

import dataclasses
import re
from string import ascii_uppercase
from typing import Any

import pytest

from recipes.render import KINDS, Item, Look
from recipes.render.records import DoesNotFit, random_of
from tests.recipes.render.samples import questions

MAKE = {}


def answer(*names: str) -> Any:
    def register(function: Any) -> Any:
        for name in names:
            MAKE[name] = function
        return function

    return register


# ---- pages ----


def blocks_of(item: Item) -> str:
    """The text of the page from its regions alone."""
    groups: dict[int, list[str]] = {}
    for region in item.regions:
        groups.setdefault(region.group, []).append(region.text)
    return "\n".join(" ".join(groups[group]) for group in sorted(groups))


@answer("article.transcribe", "receipt.transcribe", "series.transcribe")
def transcribe(item: Item) -> str:
    return blocks_of(item)


@answer("formulas.transcribe")
def transcribe_formulas(item: Item) -> str:
    """A formula comes before or after its number, as drawn."""
    lines = []
    for group in sorted({region.group for region in item.regions}):
        parts = [region for region in item.regions if region.group == group]
        lines.append(" ".join(part.text for part in sorted(parts, key=lambda part: part.kind != "formula")))
    if any(region.kind == "label" for region in item.regions):
        lines = [re.sub(r"^(.*) (\(\d+\))$", r"\2 \1", line) for line in lines]
    return "\n".join(lines)


@answer("article.fact")
def fact(item: Item) -> str:
    question, text = item.asked.args["question"], re.sub(r"\s+", " ", blocks_of(item))
    patterns = {
        r"When did (.+) open\?": r"{} opened on ([^.]+)\.",
        r"How much did (.+) pay\?": r"{} paid (\S+) for",
        r"What is the code of (.+)\?": r"The code of {} is ([^.]+)\.",
        r"How many people visited (.+ in .+)\?": r"(\d+) people visited {}\.",
    }
    for pattern, where in patterns.items():
        asked = re.fullmatch(pattern, question)
        if asked:
            found = re.findall(where.format(re.escape(asked[1])), text, flags=re.IGNORECASE)
            assert len(set(found)) == 1, (question, found)
            return found[0]
    raise AssertionError(question)


@answer("article.heading")
def heading(item: Item) -> str:
    above = ""
    for region in item.regions:
        if region.kind == "heading":
            first = [r.text for r in item.regions if r.group == region.group]
            above = " ".join(first)
        if region.kind == "line" and " ".join(r.text for r in item.regions if r.group == region.group).startswith(
            item.asked.args["start"]
        ):
            return above
    raise AssertionError(item.asked)


@answer("article.count")
def count_headings(item: Item) -> str:
    return str(len({region.group for region in item.regions if region.kind == "heading"}))


def cells(item: Item) -> list[list[str]]:
    """The table from the boxes alone: rows by group, columns from left to right."""
    groups = sorted({region.group for region in item.regions if region.kind == "cell"})
    rows = [[r for r in item.regions if r.kind == "cell" and r.group == group] for group in groups]
    return [[r.text for r in sorted(row, key=lambda r: r.box[0])] for row in rows]


def column(item: Item) -> dict[str, int]:
    head, *rows = cells(item)
    at = head.index(item.asked.args["column"])
    return {row[0]: int(row[at]) for row in rows}


@answer("table.transcribe")
def table(item: Item) -> str:
    head, *rows = ["| " + " | ".join(row) + " |" for row in cells(item)]
    return "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *rows])


@answer("table.cell")
def cell(item: Item) -> str:
    head, *rows = cells(item)
    return next(row for row in rows if row[0] == item.asked.args["row"])[head.index(item.asked.args["column"])]


@answer("table.extreme")
def extreme(item: Item) -> str:
    values = column(item)
    ordered = sorted(values, key=values.__getitem__, reverse=item.asked.args["most"])
    assert values[ordered[0]] != values[ordered[1]]
    return ordered[0]


@answer("table.sum")
def total(item: Item) -> str:
    return str(sum(column(item).values()))


@answer("table.above")
def above(item: Item) -> str:
    return str(sum(value > item.asked.args["limit"] for value in column(item).values()))


@answer("table.difference")
def difference(item: Item) -> str:
    first, second = (column(item)[name] for name in item.asked.args["rows"])
    return str(abs(first - second))


def receipt_lines(item: Item) -> dict[str, str]:
    """Name -> amount of every line with two cells."""
    return {row[0]: row[1].lstrip("$€£") for row in cells(item)}


def goods(item: Item) -> list[tuple[str, int, int]]:
    """(name, count, cents of the line)"""
    found = []
    for name, amount in receipt_lines(item).items():
        if name == "Subtotal":
            return found
        count, _, bare = name.rpartition(" x ")
        found.append((bare, int(count or 1), int(amount.replace(".", ""))))
    raise AssertionError("a receipt without a subtotal")


@answer("receipt.amount")
def amount(item: Item) -> str:
    lines = receipt_lines(item)
    cents = {re.sub(r"\W.*", "", name).lower(): int(value.replace(".", "")) for name, value in lines.items()}
    rate = int(re.search(r"Tax (\d+)%", " ".join(lines))[1])  # type: ignore[index]
    subtotal = sum(line for _, _, line in goods(item))
    tax = int(subtotal * rate / 100 + 0.5)
    due = {"subtotal": subtotal, "tax": tax, "total": subtotal + tax}
    if "cash" in cents:
        due["change"] = cents["cash"] - subtotal - tax
    assert due == {name: cents[name] for name in due}
    return f"{due[item.asked.args['what']] / 100:.2f}"


@answer("receipt.unit")
def unit(item: Item) -> str:
    _, count, line = next(entry for entry in goods(item) if entry[0] == item.asked.args["name"])
    assert line % count == 0
    return f"{line / count / 100:.2f}"


@answer("receipt.items")
def pieces(item: Item) -> str:
    return str(sum(count for _, count, _ in goods(item)))


@answer("receipt.dearest")
def dearest(item: Item) -> str:
    first, second = sorted(goods(item), key=lambda entry: -entry[2])[:2]
    assert first[2] > second[2]
    return first[0]


def numbered(item: Item) -> str:
    """The formula whose box is at the height of its number's."""
    tag = next(r for r in item.regions if r.kind == "label" and r.text == f"({item.asked.args['number']})")
    middle = (tag.box[1] + tag.box[3]) / 2
    formulas = [region for region in item.regions if region.kind == "formula"]
    return min(formulas, key=lambda r: abs((r.box[1] + r.box[3]) / 2 - middle)).text


@answer("formulas.latex")
def latex(item: Item) -> str:
    return numbered(item)


@answer("formulas.solve")
def solve(item: Item) -> str:
    left, right = numbered(item).split("=")
    a, letter, sign, b = left.split()
    assert f"for {letter}" in item.asked.text
    found = [x for x in range(-100, 100) if int(a) * x + int(sign + b) == int(right)]
    assert len(found) == 1
    return str(found[0])


# ---- charts ----


def marks(item: Item, at: int = 0) -> dict[str, int]:
    """Label -> value from the marks, or for a pie from its labels."""
    if item.scene["chart"] == "pie":
        return dict(zip(item.scene["labels"], item.scene["series"][0]["values"], strict=True))
    name = item.scene["series"][at]["name"]
    texts = [r.text for r in item.regions if r.kind == "mark" and r.text.startswith(name)]
    return {text.split(": ")[0].removeprefix(f"{name}, "): int(text.split(": ")[1]) for text in texts}


@answer("chart.kind")
def chart_kind(item: Item) -> str:
    return {"scatter": "scatter plot"}.get(item.scene["chart"], f"{item.scene['chart']} chart")


@answer("chart.title")
def chart_title(item: Item) -> str:
    return min((r for r in item.regions if r.kind == "label"), key=lambda r: r.box[1]).text


@answer("chart.count")
def chart_count(item: Item) -> str:
    return str(len(item.scene["series"] if item.scene["chart"] == "line" else marks(item)))


@answer("chart.value")
def chart_value(item: Item) -> str:
    return f"{marks(item)[item.asked.args['label']]}{'%' if item.scene['chart'] == 'pie' else ''}"


@answer("chart.extreme")
def chart_extreme(item: Item) -> str:
    """From where the marks are drawn, for upright charts; from the values otherwise."""
    args, chart = item.asked.args, item.scene["chart"]
    values = marks(item, args["series"])
    ordered = sorted(values, key=values.__getitem__, reverse=args["most"])
    assert values[ordered[0]] != values[ordered[1]]
    assert stands_out(item, values[ordered[0]], values[ordered[1]])
    if chart in ("bar", "line") and not item.scene["lying"]:
        name = item.scene["series"][args["series"]]["name"]
        drawn = [r for r in item.regions if r.kind == "mark" and r.text.startswith(name)]
        tops = [region.box[1] for region in drawn]
        best = drawn[tops.index(min(tops) if args["most"] else max(tops))].text
        assert best.split(": ")[0].removeprefix(f"{name}, ") == ordered[0] or item.scene["shown"]
    return ordered[0]


def stands_out(item: Item, a: int, b: int) -> bool:
    """Values that are not written are compared only if the drawing shows the difference."""
    whole = 100 if item.scene["chart"] == "pie" else max(max(s["values"]) for s in item.scene["series"])
    return item.scene["shown"] or abs(a - b) / whole >= 0.05


@answer("chart.compare")
def chart_compare(item: Item) -> str:
    first, second = item.asked.args["labels"]
    assert stands_out(item, marks(item)[first], marks(item)[second])
    return "yes" if marks(item)[first] > marks(item)[second] else "no"


@answer("chart.difference")
def chart_difference(item: Item) -> str:
    first, second = item.asked.args["labels"]
    return str(abs(marks(item)[first] - marks(item)[second]))


@answer("chart.sum")
def chart_sum(item: Item) -> str:
    first, second = item.asked.args["labels"]
    return str(marks(item)[first] + marks(item)[second])


@answer("chart.trend")
def trend(item: Item) -> str:
    values, at = list(marks(item, item.asked.args["series"]).values()), item.asked.args["start"]
    assert stands_out(item, values[at + 1], values[at])
    return "rise" if values[at + 1] > values[at] else "fall"


@answer("chart.points")
def points(item: Item) -> str:
    name = next(s["name"] for s in item.scene["series"] if s["colour"] == item.asked.args["colour"])
    return str(sum(r.kind == "mark" and r.text.startswith(name) for r in item.regions))


@answer("chart.points_above")
def points_above(item: Item) -> str:
    heights = [int(r.text.split(", ")[1].rstrip(")")) for r in item.regions if r.kind == "mark"]
    return str(sum(height > item.asked.args["limit"] for height in heights))


# ---- scenes: from the regions, which say where the ink is ----


def seen(item: Item, args: Any) -> list[Any]:
    """Regions whose text has all the words."""
    return [region for region in item.regions if set(args.values()) <= set(region.text.split())]


@answer("scene.exists")
def exists(item: Item) -> str:
    return "yes" if seen(item, item.asked.args) else "no"


@answer("scene.count")
def count(item: Item) -> str:
    return str(len(seen(item, item.asked.args)))


@answer("scene.colour")
def colour(item: Item) -> str:
    (only,) = seen(item, item.asked.args)
    return only.text.split()[1]


@answer("scene.shape")
def shape(item: Item) -> str:
    (only,) = seen(item, item.asked.args)
    return only.text.split()[2]


def sides(item: Item) -> set[str]:
    """All relations that hold between the whole of the two boxes."""
    (one,), (other,) = seen(item, item.asked.args["first"]), seen(item, item.asked.args["second"])
    a, b = one.box, other.box
    holds = {"left of": a[2] <= b[0], "right of": b[2] <= a[0], "above": a[3] <= b[1], "below": b[3] <= a[1]}
    return {name for name, true in holds.items() if true}


@answer("scene.relation")
def relation(item: Item) -> str:
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    asked = item.asked.args["relation"]
    assert len(sides(item) & {asked, opposite[asked]}) == 1
    return "yes" if asked in sides(item) else "no"


@answer("scene.side")
def side(item: Item) -> str:
    named = [name for name in ("left of", "right of", "above", "below") if name in item.asked.text]
    (true,) = sides(item) & set(named)
    return true.removesuffix(" of")


@answer("scene.more")
def more(item: Item) -> str:
    first, second = (len(seen(item, {"": item.asked.args[name]})) for name in ("first", "second"))
    return "yes" if first > second else "no"


@answer("scene.caption")
def caption(item: Item) -> str:
    """Every object is told once, and nothing that is not there."""
    told: dict[str, int] = {}
    inventory = item.reference.split(".")[0]
    for number, what in re.findall(r"(an?|\d+) ((?:small|large) \w+ \w+)", inventory):
        single = (
            re.sub(r"(ss|s)es$", r"\1", what) if what.endswith("sses") else what if number in ("a", "an") else what[:-1]
        )
        told[single.replace("crosse", "cross")] = 1 if number in ("a", "an") else int(number)
    here = [region.text for region in item.regions]
    assert told == {text: here.count(text) for text in here}, item.reference
    return item.asked.answer


# ---- series: from the regions alone ----


def _lines(item: Item) -> list[str]:
    return [region.text for region in sorted(item.regions, key=lambda region: (region.group, region.box[0]))]


@answer("series.place")
def series_place(item: Item) -> str:
    return _lines(item)[item.asked.args["at"]]


@answer("series.next")
def series_next(item: Item) -> str:
    """Numbers by their difference, names by their distance around the circle."""
    first, second, *_, last = _lines(item)
    if first.isdigit():
        return str(int(last) + int(second) - int(first))
    circles = (
        "Mon Tue Wed Thu Fri Sat Sun",
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
        " ".join(ascii_uppercase),
    )
    names = next(circle.split() for circle in circles if first in circle.split())
    return names[(names.index(last) + names.index(second) - names.index(first)) % len(names)]


# ---- grids: places from the boxes ----


def place_of(item: Item, region: Any) -> str:
    """The name of the cell that a region's middle is in."""
    side, cells = item.images[0].size[0], item.scene["cells"]
    column, row = ((region.box[axis] + region.box[axis + 2]) / 2 // (side / cells) for axis in (0, 1))
    down = {0: "top", cells - 1: "bottom"}.get(int(row), "")
    across = {0: "left", cells - 1: "right"}.get(int(column), "")
    return f"{down} {across}".strip() or "middle"


def found_at(item: Item) -> list[tuple[str, str]]:
    """(place, colour and shape) of every object, row by row as drawn."""
    return [(place_of(item, region), region.text) for region in item.regions]


@answer("grid.exists")
def grid_exists(item: Item) -> str:
    return "yes" if seen(item, item.asked.args) else "no"


@answer("grid.count", "grid.count_shape")
def grid_count(item: Item) -> str:
    return str(len(seen(item, item.asked.args)))


@answer("grid.colour_at")
def colour_at(item: Item) -> str:
    return dict(found_at(item))[item.asked.args["place"]].split()[0]


@answer("grid.filled")
def filled(item: Item) -> str:
    return "yes" if item.asked.args["place"] in dict(found_at(item)) else "no"


@answer("grid.count_all")
def count_all(item: Item) -> str:
    return str(len(item.regions))


@answer("grid.check")
def check(item: Item) -> str:
    return "yes" if colour_at(item) == item.asked.args["colour"] else "no"


@answer("grid.shape_at")
def shape_at(item: Item) -> str:
    return dict(found_at(item))[item.asked.args["place"]].split()[1]


@answer("grid.where")
def where(item: Item) -> str:
    (place,) = [place for place, text in found_at(item) if item.asked.args["colour"] == text.split()[0]]
    return place


@answer("grid.more")
def grid_more(item: Item) -> str:
    first, second = (len(seen(item, {"": item.asked.args[name]})) for name in ("first", "second"))
    return "yes" if first > second else "no"


@answer("grid.most")
def most(item: Item) -> str:
    colours = [region.text.split()[0] for region in item.regions]
    (colour,) = [
        name for name in set(colours) if all(colours.count(name) > colours.count(o) for o in {*colours} - {name})
    ]
    return colour


@answer("grid.caption")
def grid_caption(item: Item) -> str:
    return "I see: " + ", ".join(f"{place} {text}" for place, text in found_at(item)) + "."


# ---- clips of objects that take turns: from the boxes in each frame ----


def appearing(item: Item) -> list[tuple[str, str]]:
    """(place, colour and shape) of every object by the first frame that shows it, which is its own."""
    first: dict[tuple[str, str], int] = {}
    for region in item.regions:
        first.setdefault((place_of(item, region), region.text), region.frame)
    assert len(set(first.values())) == len(first)
    return sorted(first, key=lambda told: first[told])


@answer("turns.colour_at")
def turns_colour_at(item: Item) -> str:
    return dict(appearing(item))[item.asked.args["place"]].split()[0]


@answer("turns.check")
def turns_check(item: Item) -> str:
    return "yes" if turns_colour_at(item) == item.asked.args["colour"] else "no"


@answer("turns.exists")
def turns_exists(item: Item) -> str:
    return "yes" if seen(item, item.asked.args) else "no"


@answer("turns.first_last")
def turns_first_last(item: Item) -> str:
    return appearing(item)[{"first": 0, "last": -1}[item.asked.args["which"]]][1].split()[0]


@answer("turns.before")
def turns_before(item: Item) -> str:
    places = [place for place, _ in appearing(item)]
    return min(item.asked.args["places"], key=places.index)


@answer("turns.order")
def turns_order(item: Item) -> str:
    first, second = item.asked.args["places"]
    places = [place for place, _ in appearing(item)]
    return "yes" if places.index(first) < places.index(second) else "no"


@answer("turns.count")
def turns_count(item: Item) -> str:
    return str(len(appearing(item)))


@answer("turns.caption")
def turns_caption(item: Item) -> str:
    return "One after another: " + ", ".join(f"{place} {text}" for place, text in appearing(item)) + "."


# ---- clips: from the boxes in each frame ----


def track(item: Item, name: str) -> list[Any]:
    """The regions of the object that starts with this colour and shape, by frame."""
    group = next(at for at, thing in enumerate(item.scene["objects"]) if f"{thing['colour']} {thing['shape']}" == name)
    return [region for region in item.regions if region.group == group]


@answer("clip.direction")
def direction(item: Item) -> str:
    path = track(item, item.asked.args["object"])
    dx, dy = path[-1].box[0] - path[0].box[0], path[-1].box[1] - path[0].box[1]
    assert not (dx and dy)
    return "right" if dx > 0 else "left" if dx < 0 else "down" if dy > 0 else "up" if dy < 0 else "nowhere"


@answer("clip.when")
def when(item: Item) -> str:
    path = track(item, item.asked.args["object"])
    frames = [region.frame for region in path]
    if item.asked.args["type"] == "recolour":
        frame = next(region.frame for region in path if region.text != path[0].text)
    else:
        frame = frames[0] if item.asked.args["type"] == "appear" else frames[-1] + 1
    assert item.times is not None
    return f"{item.times[frame]:g}"


@answer("clip.recolour")
def recolour(item: Item) -> str:
    return track(item, item.asked.args["object"])[-1].text.split()[0]


def touching(item: Item) -> list[tuple[int, Any, Any]]:
    """(frame, region, region) for boxes without a gap between them."""
    found = []
    for one in item.regions:
        for other in item.regions:
            if one.frame == other.frame and one.group < other.group:
                gap = max(max(one.box[a], other.box[a]) - min(one.box[a + 2], other.box[a + 2]) for a in (0, 1))
                if gap <= 1:
                    found.append((one.frame, one, other))
    return found


@answer("clip.any_collision")
def any_collision(item: Item) -> str:
    return "yes" if touching(item) else "no"


@answer("clip.collides_with")
def collides_with(item: Item) -> str:
    ((_, one, other),) = touching(item)
    assert item.asked.args["object"] in (one.text, other.text)
    return other.text if one.text == item.asked.args["object"] else one.text


@answer("clip.when_collide")
def when_collide(item: Item) -> str:
    ((frame, _, _),) = touching(item)
    assert item.times is not None
    return f"{item.times[frame]:g}"


@answer("clip.visible")
def visible(item: Item) -> str:
    assert item.times is not None
    frame = item.times.index(item.asked.args["time"])
    return str(sum(region.frame == frame for region in item.regions))


def time_of(item: Item, clause: str) -> float:
    """When a clause such as `the red star appears` comes true."""
    assert item.times is not None
    if clause.endswith("collide"):
        ((frame, _, _),) = touching(item)
        return item.times[frame]
    name = re.match(r"the (\w+ \w+) ", clause)[1]  # type: ignore[index]
    path = track(item, name)
    if "turns" in clause:
        return item.times[next(region.frame for region in path if region.text.split()[0] == clause.split()[-1])]
    return item.times[path[0].frame if clause.endswith("appears") else path[-1].frame + 1]


@answer("clip.order")
def order(item: Item) -> str:
    first, second = item.asked.args["clauses"]
    assert time_of(item, first) != time_of(item, second)
    return min((first, second), key=lambda clause: time_of(item, clause))


@answer("clip.caption")
def clip_caption(item: Item) -> str:
    """Every event with its time, and every motion with its direction."""
    for time, clause in re.findall(r"At ([\d.]+) seconds? ([^.]+)\.", item.reference):
        assert time_of(item, clause) == float(time)
    moving = dict(re.findall(r"The (\w+ \w+) moves (\w+)\.", item.reference))
    for thing in item.scene["objects"]:
        name = f"{thing['colour']} {thing['shape']}"
        assert name in item.reference
        boxes = {region.box for region in track(item, name)}
        assert (len(boxes) > 1) == (name in moving or thing["action"] == "collide"), name
    assert ("collide" in item.reference) == bool(touching(item))
    return item.asked.answer


def with_further_questions(item: Item) -> list[Item]:
    """The item, and the same picture with other questions."""
    others = [KINDS[item.kind].ask(item.scene, random_of(item.index, at)) for at in range(6)]
    return [item, *(dataclasses.replace(item, asked=question, reference=question.answer) for question in others)]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_description(kind: str) -> None:
    asked = set()
    for item in (other for first in questions(kind) for other in with_further_questions(first)):
        name = f"{kind}.{item.asked.kind}"
        asked.add(name)
        assert MAKE[name](item) == item.asked.answer, (name, item.index, item.asked)
    assert asked == {name for name in MAKE if name.startswith(f"{kind}.")}


@pytest.mark.parametrize("kind", KINDS)
def test_references_have_the_form_that_was_asked_for(kind: str) -> None:
    forms = set()
    for item in questions(kind):
        text = item.messages[0]["content"][1]["text"]
        forms.add(item.form)
        assert item.asked.text in text
        if item.form == "free" and item.asked.sentence:
            assert item.reference == item.asked.sentence
            assert "full sentence" in text
        else:
            assert item.reference == item.asked.answer
        if item.asked.sentence and item.asked.kind not in ("fact",):
            told = item.asked.sentence.lower()
            right = item.asked.answer.lower()
            alternatives = {"0": "no", "1": "one", "nowhere": "not move", "solve": right}
            assert right in told or alternatives.get(right, right) in told, item.asked
    assert forms == {"short", "free"}


@pytest.mark.parametrize("kind", KINDS)
def test_worked_solutions_arrive_at_the_answer(kind: str) -> None:
    for item in questions(kind):
        assert item.solution == item.asked.steps
        if item.asked.sentence and item.asked.kind != "direction":
            steps = item.solution.lower()
            right = item.asked.answer.lower().removesuffix("%")
            assert right in steps or right.replace("scatter plot", "scatter") in steps, item.asked


@pytest.mark.parametrize("kind", ["table", "chart", "receipt"])
def test_sums_in_worked_solutions_are_right(kind: str) -> None:
    seen_sums = 0
    for item in questions(kind):
        for terms, result in re.findall(r"^(\d+(?: [-+] \d+)+) = (\d+)$", item.solution, flags=re.MULTILINE):
            assert sum(int(term) for term in terms.replace("- ", "-").replace("+ ", "").split()) == int(result)
            seen_sums += 1
    assert seen_sums


def test_no_count_of_a_grid_is_the_usual_answer() -> None:
    counts = []
    for index in range(2000):
        rng = random_of("counts", index)
        question = KINDS["grid"].ask(KINDS["grid"].plan(rng, Look(cells=(2,))), rng)
        if question.kind == "count":
            counts.append(question.answer)
    shares = {count: counts.count(count) / len(counts) for count in set(counts)}
    assert max(shares.values()) < 0.42, shares
    assert min(shares[count] for count in ("0", "1", "2")) > 0.15, shares


@pytest.mark.parametrize("kind", ["scene", "grid", "turns", "clip", "chart"])
def test_yes_and_no_are_about_as_frequent(kind: str) -> None:
    """A model that looks at nothing should gain little; descriptions alone, without drawing."""
    answers: dict[str, list[str]] = {}
    for index in range(1500):
        rng = random_of("balance", index)
        try:
            scene = KINDS[kind].plan(rng, Look())
        except DoesNotFit:
            continue
        question = KINDS[kind].ask(scene, rng)
        if question.answer in ("yes", "no"):
            answers.setdefault(question.kind, []).append(question.answer)
    assert answers
    for name, given in answers.items():
        assert 0.3 < given.count("yes") / len(given) < 0.7, (name, len(given))
