"""Questions about charts: values, extremes, differences, sums, shares and counts."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from recipes.render.records import Question


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """A question that fits the kind of chart; values are asked for only where they are written."""
    written = [_value, _difference, _sum] * 2 if scene["shown"] else []
    makers = {
        "bar": [_kind, _title, _count, *[_extreme, _compare] * 2, *written],
        "line": [_kind, _title, _count, *[_extreme, _trend] * 3],
        "pie": [_kind, _title, _count, *[_extreme, _compare] * 2, *written],
        "scatter": [_kind, _title, *[_points, _above] * 3],
    }[scene["chart"]]
    return rng.choice(makers)(scene, rng)


def _kind(scene: Mapping[str, Any], rng: Random) -> Question:
    looks = {"bar": "bars", "line": "lines through points", "pie": "slices of a circle", "scatter": "separate points"}
    name = f"{scene['chart']} chart" if scene["chart"] != "scatter" else "scatter plot"
    return Question(
        kind="kind",
        text="What kind of chart is this: a bar chart, a line chart, a pie chart or a scatter plot?",
        answer=name,
        sentence=f"It is a {name}.",
        steps=f"The values are shown as {looks[scene['chart']]}, so it is a {name}.",
        hint="Answer with one of these.",
    )


def _title(scene: Mapping[str, Any], rng: Random) -> Question:
    title = scene["title"]
    return Question(
        kind="title",
        text="What is the title of the chart?",
        answer=title,
        sentence=f"The title is “{title}”.",
        steps=f"Above the chart stands “{title}”.",
        hint="Answer with the title.",
    )


def _pairs(scene: Mapping[str, Any], at: int = 0) -> list[tuple[str, int]]:
    return list(zip(scene["labels"], scene["series"][at]["values"], strict=True))


def visible(scene: Mapping[str, Any], a: int, b: int) -> bool:
    """Whether one can see which of two values is larger: they are written, or differ by a twentieth of the largest
    (a pie: of the whole)."""
    largest = max(max(series["values"]) for series in scene["series"])
    return a != b and (scene["shown"] or 20 * abs(a - b) >= (100 if scene["chart"] == "pie" else largest))


def _unit(scene: Mapping[str, Any]) -> str:
    return "%" if scene["chart"] == "pie" else ""


def _count(scene: Mapping[str, Any], rng: Random) -> Question:
    what = {"bar": "bars", "line": "lines", "pie": "slices"}[scene["chart"]]
    many = len(scene["series"]) if scene["chart"] == "line" else len(scene["labels"])
    names = [s["name"] for s in scene["series"]] if scene["chart"] == "line" and many > 1 else scene["labels"]
    told = f"The {what} are: {', '.join(names)}.\n" if many > 1 else f"There is a single {what[:-1]}.\n"
    return Question(
        kind="count",
        text=f"How many {what} does the chart have?",
        answer=str(many),
        sentence=f"It has {many} {what if many > 1 else what[:-1]}.",
        steps=f"{told}That makes {many}.",
        hint="Answer with a number.",
    )


def _value(scene: Mapping[str, Any], rng: Random) -> Question:
    label, value = rng.choice(_pairs(scene))
    unit = _unit(scene)
    return Question(
        kind="value",
        args={"label": label},
        text=f"What value does {label} have?",
        answer=f"{value}{unit}",
        sentence=f"{label} has the value {value}{unit}.",
        steps=f"The chart says {value}{unit} for {label}.",
        hint="Answer with the value.",
    )


def _extreme(scene: Mapping[str, Any], rng: Random) -> Question:
    """The label of the largest or smallest value, if it stands out; else something else is asked."""
    at, most = rng.randrange(len(scene["series"])), rng.random() < 0.5
    pairs, name = _pairs(scene, at), scene["series"][at]["name"]
    best = (max if most else min)(value for _, value in pairs)
    labels = [label for label, value in pairs if not visible(scene, value, best)]
    if len(labels) > 1:
        return _count(scene, rng)
    word = "largest" if most else "smallest"
    where = f" of {name}" if len(scene["series"]) > 1 else ""
    looks = {"bar": "bar is the longest" if most else "bar is the shortest", "pie": f"slice is the {word}"}
    seen = looks.get(scene["chart"], f"point is the {'highest' if most else 'lowest'}")
    return Question(
        kind="extreme",
        args={"series": at, "most": most},
        text=f"Which label has the {word} value{where}?",
        answer=labels[0],
        sentence=f"{labels[0]} has the {word} value{where}.",
        steps=f"Which {seen}{where}? That of {labels[0]}.",
        hint="Answer with the label.",
    )


def _compare(scene: Mapping[str, Any], rng: Random) -> Question:
    (first, a), (second, b) = rng.sample(_pairs(scene), 2)
    if not visible(scene, a, b):
        return _count(scene, rng)
    answer = "yes" if a > b else "no"
    seen = "larger" if a > b else "smaller"
    return Question(
        kind="compare",
        args={"labels": [first, second]},
        text=f"Is the value of {first} larger than that of {second}?",
        answer=answer,
        sentence=f"{answer.capitalize()}, the value of {first} is {seen} than that of {second}.",
        steps=f"{first} is {seen} than {second} in the chart, so {answer}.",
        hint="Answer with yes or no.",
    )


def _difference(scene: Mapping[str, Any], rng: Random) -> Question:
    (first, a), (second, b) = sorted(rng.sample(_pairs(scene), 2), key=lambda pair: -pair[1])
    return Question(
        kind="difference",
        args={"labels": [first, second]},
        text=f"By how much do the values of {first} and {second} differ?",
        answer=str(a - b),
        sentence=f"They differ by {a - b}.",
        steps=f"{first}: {a}\n{second}: {b}\n{a} - {b} = {a - b}",
        hint="Answer with a number.",
    )


def _sum(scene: Mapping[str, Any], rng: Random) -> Question:
    (first, a), (second, b) = rng.sample(_pairs(scene), 2)
    return Question(
        kind="sum",
        args={"labels": [first, second]},
        text=f"What is the sum of the values of {first} and {second}?",
        answer=str(a + b),
        sentence=f"Together they make {a + b}.",
        steps=f"{first}: {a}\n{second}: {b}\n{a} + {b} = {a + b}",
        hint="Answer with a number.",
    )


def _trend(scene: Mapping[str, Any], rng: Random) -> Question:
    """Whether a line rises or falls between two neighbours."""
    at, start = rng.randrange(len(scene["series"])), rng.randrange(len(scene["labels"]) - 1)
    series = scene["series"][at]
    (first, a), (second, b) = _pairs(scene, at)[start : start + 2]
    if not visible(scene, a, b):
        return _count(scene, rng)
    answer = "rise" if b > a else "fall"
    who = f"the line of {series['name']}" if len(scene["series"]) > 1 else "the line"
    return Question(
        kind="trend",
        args={"series": at, "start": start},
        text=f"Does {who} rise or fall from {first} to {second}?",
        answer=answer,
        sentence=f"From {first} to {second} {who} {answer}s.",
        steps=f"At {second} the point is {'higher' if b > a else 'lower'} than at {first}, so {who} {answer}s.",
        hint="Answer with rise or fall.",
    )


def _points(scene: Mapping[str, Any], rng: Random) -> Question:
    """How many points have a colour."""
    series = rng.choice(scene["series"])
    many, colour = len(series["points"]), series["colour"]
    return Question(
        kind="points",
        args={"colour": colour},
        text=f"How many {colour} points are there?",
        answer=str(many),
        sentence=f"There are {many} {colour} points.",
        steps=f"The {colour} points are at {_places(series['points'])}.\nThat makes {many}.",
        hint="Answer with a number.",
    )


def _places(points: list[list[int]]) -> str:
    return ", ".join(f"({x}, {y})" for x, y in sorted(points))


def _above(scene: Mapping[str, Any], rng: Random) -> Question:
    """How many points are above a height that none has: points have odd ones, limits are even."""
    limit = 2 * rng.randrange(1, scene["limit"] // 2)
    found = [point for series in scene["series"] for point in series["points"] if point[1] > limit]
    many = len(found)
    return Question(
        kind="points_above",
        args={"limit": limit},
        text=f"How many points lie above y = {limit}?",
        answer=str(many),
        sentence=f"{'One point lies' if many == 1 else f'{many} points lie'} above y = {limit}.",
        steps=(f"Above y = {limit} are {_places(found)}.\n" if found else "") + f"That makes {many}.",
        hint="Answer with a number.",
    )
