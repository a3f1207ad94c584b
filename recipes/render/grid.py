"""Grids: objects in the cells of a square grid, large enough for the smallest images, each at a place with a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from recipes.render.records import Drawing, Kind, Look, Question, Region
from recipes.render.shapes import COLOURS, GROUNDS, a, counted, named, paint
from recipes.render.words import capital

PLACES = {
    2: ("top left", "top right", "bottom left", "bottom right"),
    3: ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"),
}
"""Names of the cells of a grid, by its side, row by row."""
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
"""Shapes that differ within 20 pixels."""

Thing = Mapping[str, Any]


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """Half a grid of objects to a full one, of a few colours and shapes."""
    side, cells = rng.randint(*look.side), rng.choice(tuple(PLACES))
    cell = side // cells
    colours, shapes = rng.sample(tuple(COLOURS), rng.randint(2, 4)), rng.sample(SHAPES, rng.randint(2, 4))
    things = []
    for at in sorted(rng.sample(range(cells**2), rng.randint(cells**2 // 2, cells**2))):
        radius = int(cell / 2 * rng.uniform(0.6, 0.85))
        centre = [
            place * cell + cell // 2 + rng.randint(radius - cell // 2, cell // 2 - radius)
            for place in (at % cells, at // cells)
        ]
        thing = {"place": PLACES[cells][at], "colour": rng.choice(colours), "shape": rng.choice(shapes)}
        things.append(thing | {"radius": radius, "centre": centre})
    return {"size": [side, side], "cells": cells, "ground": list(rng.choice(GROUNDS)), "objects": things}


def content(scene: Mapping[str, Any]) -> Any:
    """The objects, wherever they are."""
    return sorted(named(thing) for thing in scene["objects"])


def draw(scene: Mapping[str, Any]) -> Drawing:
    """The objects on a plain ground; a region for each."""
    from PIL import Image

    image = Image.new("RGB", tuple(scene["size"]), tuple(scene["ground"]))
    regions = []
    for at, thing in enumerate(scene["objects"]):
        box = paint(image, thing, thing["centre"], thing["colour"])
        regions.append(Region(text=named(thing), box=box, kind="object", group=at))
    return Drawing(images=(image,), regions=tuple(regions))


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """Counts, what is at a place, where something is, existence, comparisons, the most frequent colour, captions."""
    makers = [_count, _count, _count, _at, _at, _at, _where, _exists, _more, _most, _caption, _caption]
    question = None
    while question is None:
        question = rng.choice(makers)(scene["objects"], rng)
    return question


def _told(thing: Thing) -> str:
    """`top left red circle`."""
    return f"{thing['place']} {named(thing)}"


def inventory(things: Sequence[Thing]) -> str:
    """All objects, row by row."""
    return "I see: " + ", ".join(_told(thing) for thing in things) + "."


def _phrase(args: Mapping[str, str]) -> str:
    """`red circle`, `red object`."""
    return " ".join(word for word in (args.get("colour"), args.get("shape", "object")) if word)


def _matches(things: Sequence[Thing], args: Mapping[str, str]) -> list[Thing]:
    return [thing for thing in things if all(thing[name] == value for name, value in args.items())]


def _numbered(found: Sequence[Thing]) -> str:
    return "".join(f"\n{at}: {_told(thing)}" for at, thing in enumerate(found, start=1)) or "\nnone"


def _count(things: Sequence[Thing], rng: Random) -> Question:
    """Objects of one colour, or of one shape (a kind of its own, since shapes are harder to see)."""
    asked = rng.choice(("colour", "colour", "shape"))
    everything = tuple(COLOURS) if asked == "colour" else SHAPES
    args = {asked: rng.choice(everything if rng.random() < 0.15 else [thing[asked] for thing in things])}
    found, what = _matches(things, args), _phrase(args)
    verb = "is" if len(found) == 1 else "are"
    return Question(
        kind="count" if asked == "colour" else "count_shape",
        args=args,
        text=f"How many {counted(what, 2)[2:]} are there?",
        answer=str(len(found)),
        sentence=f"There {verb} {counted(what, len(found))}.",
        steps=f"{inventory(things)}\nI count the {counted(what, 2)[2:]}:{_numbered(found)}\nThat makes {len(found)}.",
        hint="Answer with a number.",
    )


def _at(things: Sequence[Thing], rng: Random) -> Question:
    """Colour or shape of the object at a place."""
    thing, asked = rng.choice(things), rng.choice(("colour", "shape"))
    where = f"at the {thing['place']}" if thing["place"] != "middle" else "in the middle"
    return Question(
        kind=f"{asked}_at",
        args={"place": thing["place"]},
        text=f"What {asked} is the object {where}?",
        answer=thing[asked],
        sentence=f"The object {where} is {thing[asked] if asked == 'colour' else a(thing[asked])}.",
        steps=f"{inventory(things)}\nSo it is the {_told(thing)}.",
        hint="Answer with one word.",
    )


def _where(things: Sequence[Thing], rng: Random) -> Question | None:
    """The place of the only object of its colour."""
    counts = Counter(thing["colour"] for thing in things)
    alone = [thing for thing in things if counts[thing["colour"]] == 1]
    if not alone:
        return None
    thing = rng.choice(alone)
    return Question(
        kind="where",
        args={"colour": thing["colour"]},
        text=f"Where is the {thing['colour']} object?",
        answer=thing["place"],
        sentence=f"The place of the {thing['colour']} object is {thing['place']}.",
        steps=f"{inventory(things)}\nThat is the {_told(thing)}.",
        hint="Answer with its place.",
    )


def _exists(things: Sequence[Thing], rng: Random) -> Question:
    here = {thing["colour"] for thing in things}
    colour = rng.choice(sorted(here) if rng.random() < 0.5 else sorted(set(COLOURS) - here))
    found, what = _matches(things, {"colour": colour}), f"{colour} object"
    answer, verb = "yes" if found else "no", "is" if len(found) == 1 else "are"
    return Question(
        kind="exists",
        args={"colour": colour},
        text=f"Is there {a(what)} in the picture?",
        answer=answer,
        sentence=f"{capital(answer)}, there {verb} {counted(what, len(found))}.",
        steps=f"{inventory(things)}\nI look for {a(what)}:{_numbered(found)}\nSo {answer}.",
        hint="Answer with yes or no.",
    )


def _more(things: Sequence[Thing], rng: Random) -> Question | None:
    """Whether there are more objects of one colour than of another."""
    here = sorted({thing["colour"] for thing in things})
    if len(here) < 2:
        return None
    first, second = rng.sample(here, 2)
    (p, one), (q, other) = [
        (len(_matches(things, {"colour": colour})), f"{colour} object") for colour in (first, second)
    ]
    if p == q and rng.random() < 0.9:  # a tie is a no: few of them, or nearly all answers were no
        return None
    answer = "yes" if p > q else "no"
    both = f"{counted(one, p)} and {counted(other, q)}"
    return Question(
        kind="more",
        args={"first": first, "second": second},
        text=f"Are there more {counted(one, 2)[2:]} than {counted(other, 2)[2:]}?",
        answer=answer,
        sentence=f"{capital(answer)}, there {'is' if p == 1 else 'are'} {both}.",
        steps=f"{inventory(things)}\n{capital(first)}: {p}. {capital(second)}: {q}.\nSo {answer}.",
        hint="Answer with yes or no.",
    )


def _most(things: Sequence[Thing], rng: Random) -> Question | None:
    """The colour that most objects have, if it is one."""
    counts = Counter(thing["colour"] for thing in things).most_common()
    if len(counts) < 2 or counts[0][1] == counts[1][1]:
        return None
    colour = counts[0][0]
    told = " ".join(f"{capital(name)}: {count}." for name, count in counts)
    return Question(
        kind="most",
        text="Which colour do most objects have?",
        answer=colour,
        sentence=f"Most objects are {colour}.",
        steps=f"{inventory(things)}\n{told}\nSo {colour}.",
        hint="Answer with one word.",
    )


def _caption(things: Sequence[Thing], rng: Random) -> Question:
    """All objects, each after its place."""
    text = rng.choice(("Describe the picture.", "What is in the picture?", "List what you see, row by row."))
    return Question(kind="caption", text=text, answer=inventory(things), steps=f"There are {len(things)} objects.")


GRID = Kind(plan=plan, content=content, draw=draw, ask=ask)
