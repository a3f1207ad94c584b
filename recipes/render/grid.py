"""Grids: objects in the cells of a square grid, large enough for the smallest images, each at a place with a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from recipes.render.prompts import CAPTION_PROMPTS
from recipes.render.records import Drawing, Kind, Look, Question, Region
from recipes.render.shapes import COLOURS, GROUNDS, PLAIN_SHAPES, a, counted, named, paint
from recipes.render.words import capital

PLACES = {
    2: ("top left", "top right", "bottom left", "bottom right"),
    3: ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"),
}
"""Names of the cells of a grid, by its side, row by row."""
_COUNT_WEIGHTS = (0.6, 1.0, 3.0, 6.0)
"""How gladly a count of 0, 1, 2, and more is asked for: large ones are rarely there."""

Thing = Mapping[str, Any]
Listing = Callable[[Sequence[Thing]], str]
"""Tells all objects in words."""


def plan_things(rng: Random, look: Look) -> dict[str, Any]:
    """Half a grid of objects to a full one, of few or many colours and shapes."""
    side, cells = rng.randint(*look.side), rng.choice(look.cells)
    cell = side // cells
    colours = rng.sample(tuple(COLOURS), rng.choice(look.palette))
    shapes = rng.sample(look.shapes, rng.randint(min(2, len(look.shapes)), len(look.shapes)))
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
    """The objects and their places."""
    return [told(thing) for thing in scene["objects"]]


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
    filled = partial(_filled, PLACES[scene["cells"]])
    makers: list[Callable[[Sequence[Thing], Random], Question | None]] = [_count] * 3 + [_at] * 3 + [_check, _where]
    makers += [_exists, filled, _objects, _more, _most, _most, _caption, _caption]
    question = None
    while question is None:
        question = rng.choice(makers)(scene["objects"], rng)
    return question


def told(thing: Thing) -> str:
    """`top left red circle`."""
    return f"{thing['place']} {named(thing)}"


def phrase_at(place: str) -> str:
    """`at the top left`, `in the middle`."""
    return "in the middle" if place == "middle" else f"at the {place}"


def inventory(things: Sequence[Thing]) -> str:
    """All objects, row by row."""
    return "I see: " + ", ".join(told(thing) for thing in things) + "."


def _phrase(args: Mapping[str, str]) -> str:
    """`red circle`, `red object`."""
    return " ".join(word for word in (args.get("colour"), args.get("shape", "object")) if word)


def _matches(things: Sequence[Thing], args: Mapping[str, str]) -> list[Thing]:
    return [thing for thing in things if all(thing[name] == value for name, value in args.items())]


def _numbered(found: Sequence[Thing]) -> str:
    return "".join(f"\n{at}: {told(thing)}" for at, thing in enumerate(found, start=1)) or "\nnone"


def _count(things: Sequence[Thing], rng: Random) -> Question:
    """Objects of one colour, or of one shape (a kind of its own, since shapes are harder to see)."""
    asked = rng.choice(("colour", "colour", "shape"))
    names = COLOURS if asked == "colour" else PLAIN_SHAPES
    args = {asked: _evenly(Counter(thing[asked] for thing in things), names, rng)}
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


def _evenly(counts: Counter[str], everything: Iterable[str], rng: Random) -> str:
    """One of the names such that none, one and many are about equally frequent answers."""
    by_count: dict[int, list[str]] = {}
    for name in everything:
        by_count.setdefault(counts[name], []).append(name)
    drawn = rng.choices(list(by_count), [_COUNT_WEIGHTS[min(count, 3)] for count in by_count])[0]
    return rng.choice(by_count[drawn])


def check(things: Sequence[Thing], rng: Random, listing: Listing) -> Question:
    """Whether the object at a place has a colour; if not, half of the time it is the colour of another one there."""
    thing = rng.choice(things)
    colour, others = thing["colour"], sorted({other["colour"] for other in things} - {thing["colour"]})
    if rng.random() < 0.5:
        near = others and rng.random() < 0.5
        colour = rng.choice(others if near else [name for name in COLOURS if name != colour])
    answer = "yes" if colour == thing["colour"] else "no"
    return Question(
        kind="check",
        args={"place": thing["place"], "colour": colour},
        text=f"Is the {thing['place']} object {colour}?",
        answer=answer,
        sentence=f"{capital(answer)}, it is {thing['colour']}.",
        steps=f"{listing(things)}\nThe {thing['place']} object is {thing['colour']}.\nSo {answer}.",
        hint="Answer with yes or no.",
    )


def _check(things: Sequence[Thing], rng: Random) -> Question:
    return check(things, rng, inventory)


def _exists(things: Sequence[Thing], rng: Random) -> Question:
    return exists(things, rng, inventory)


def _at(things: Sequence[Thing], rng: Random) -> Question:
    """Colour or shape of the object at a place."""
    thing, asked = rng.choice(things), rng.choice(("colour", "shape"))
    where = phrase_at(thing["place"])
    return Question(
        kind=f"{asked}_at",
        args={"place": thing["place"]},
        text=f"What {asked} is the object {where}?",
        answer=thing[asked],
        sentence=f"The object {where} is {thing[asked] if asked == 'colour' else a(thing[asked])}.",
        steps=f"{inventory(things)}\nSo it is the {told(thing)}.",
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
        steps=f"{inventory(things)}\nThat is the {told(thing)}.",
        hint="Answer with its place.",
    )


def exists(things: Sequence[Thing], rng: Random, listing: Listing, medium: str = "picture") -> Question:
    """Whether there is an object of a colour."""
    here = {thing["colour"] for thing in things}
    colour = rng.choice(sorted(here) if rng.random() < 0.5 else sorted(set(COLOURS) - here))
    found, what = _matches(things, {"colour": colour}), f"{colour} object"
    answer, verb = "yes" if found else "no", "is" if len(found) == 1 else "are"
    return Question(
        kind="exists",
        args={"colour": colour},
        text=f"Is there {a(what)} in the {medium}?",
        answer=answer,
        sentence=f"{capital(answer)}, there {verb} {counted(what, len(found))}.",
        steps=f"{listing(things)}\nI look for {a(what)}:{_numbered(found)}\nSo {answer}.",
        hint="Answer with yes or no.",
    )


def _filled(places: Sequence[str], things: Sequence[Thing], rng: Random) -> Question | None:
    """Whether there is an object at a place; none is asked about a full grid, which has no empty one."""
    here = {thing["place"]: thing for thing in things}
    empty = [place for place in places if place not in here]
    if not empty:
        return None
    place = rng.choice(list(here) if rng.random() < 0.5 else empty)
    where, answer = phrase_at(place), "yes" if place in here else "no"
    found = told(here[place]) if place in here else "nothing"
    return Question(
        kind="filled",
        args={"place": place},
        text=f"Is there an object {where}?",
        answer=answer,
        sentence=f"{capital(answer)}, there is {'an' if place in here else 'no'} object {where}.",
        steps=f"{inventory(things)}\nI look {where}: {found}.\nSo {answer}.",
        hint="Answer with yes or no.",
    )


def _objects(things: Sequence[Thing], rng: Random) -> Question:
    """How many objects there are."""
    verb = "is" if len(things) == 1 else "are"
    return Question(
        kind="count_all",
        text="How many objects are there?",
        answer=str(len(things)),
        sentence=f"There {verb} {counted('object', len(things))}.",
        steps=f"{inventory(things)}\nThat makes {len(things)}.",
        hint="Answer with a number.",
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
    if p == q:  # a tie is a no: with them nearly all answers were no
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
    return Question(
        kind="caption",
        text=rng.choice(CAPTION_PROMPTS),
        answer=inventory(things),
        steps=f"There are {len(things)} objects.",
    )


GRID = Kind(plan=plan_things, content=content, draw=draw, ask=ask)
