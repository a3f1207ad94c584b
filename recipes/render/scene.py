"""Scenes: objects with colour, shape and size at known places; captions and questions about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from recipes.render.records import DoesNotFit, Drawing, Kind, Look, Question, Region
from recipes.render.shapes import COLOURS, GROUNDS, SHAPES, SIZES, a, counted, named, paint, shape_mask
from recipes.render.words import capital, listing

MAX_OBJECTS = 8
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Axis (0 = x) and direction; y grows downwards."""


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """One to eight objects that do not touch."""
    longer = rng.randint(*look.side)
    across, down = rng.choice(((1, 1), (4, 3), (3, 4)))
    size = (longer * across // max(across, down), longer * down // max(across, down))
    colours, shapes = rng.sample(tuple(COLOURS), rng.randint(2, 5)), rng.sample(SHAPES, rng.randint(2, 4))
    things: list[dict[str, Any]] = []
    for _ in range(rng.randint(1, MAX_OBJECTS)):
        scale = rng.choice(SIZES)
        radius = max(5, int(min(size) * (rng.uniform(0.045, 0.06) if scale == "small" else rng.uniform(0.1, 0.13))))
        centre = _free_place(rng, size, radius, things)
        if centre:
            thing = {"shape": rng.choice(shapes), "colour": rng.choice(colours), "size": scale, "radius": radius}
            things.append(thing | {"centre": list(centre)})
    if not things:
        raise DoesNotFit
    return {"size": list(size), "ground": list(rng.choice(GROUNDS)), "objects": things}


def _free_place(
    rng: Random, size: tuple[int, int], radius: int, things: list[dict[str, Any]]
) -> tuple[int, int] | None:
    """A centre at which an object touches no other one; None if none is found."""
    for _ in range(60):
        x, y = (rng.randint(radius + 2, side - radius - 2) for side in size)
        gaps = [max(abs(x - o["centre"][0]), abs(y - o["centre"][1])) - radius - o["radius"] for o in things]
        if all(gap > 3 for gap in gaps):
            return x, y
    return None


def content(scene: Mapping[str, Any]) -> Any:
    """The objects, wherever they are."""
    return sorted(named(thing, size=True) for thing in scene["objects"])


def draw(scene: Mapping[str, Any]) -> Drawing:
    """The objects on a plain ground; a region for each."""
    from PIL import Image

    image = Image.new("RGB", tuple(scene["size"]), tuple(scene["ground"]))
    regions = []
    for at, thing in enumerate(scene["objects"]):
        box = paint(image, thing, thing["centre"], thing["colour"])
        regions.append(Region(text=named(thing, size=True), box=box, kind="object", group=at))
    return Drawing(images=(image,), regions=tuple(regions))


def box_of(thing: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Where an object's ink is, without drawing it."""
    mask = shape_mask(thing["shape"], thing["radius"])
    left, top = thing["centre"][0] - mask.width // 2, thing["centre"][1] - mask.height // 2
    return left, top, left + mask.width, top + mask.height


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """Existence, counts, attributes of the only object of its kind, relations, comparisons and captions."""
    makers = [_exists, _count, _count, _colour, _shape, _relation, _relation, _relation, _compare, _caption, _caption]
    question = None
    while question is None:
        question = rng.choice(makers)(scene["objects"], rng)
    return question


def matches(things: list[dict[str, Any]], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects with all the given properties."""
    return [thing for thing in things if all(thing[name] == value for name, value in args.items())]


def _phrase(args: Mapping[str, str]) -> str:
    """`large red circle`, `red object`."""
    order = [args.get("size"), args.get("colour"), args.get("shape", "object")]
    return " ".join(word for word in order if word)


def _description(things: list[dict[str, Any]], rng: Random) -> dict[str, str]:
    """Some properties: mostly those of an object that is there, else any."""
    shape, colour, size = rng.choice(SHAPES), rng.choice(tuple(COLOURS)), rng.choice(SIZES)
    args = {"size": size, "colour": colour, "shape": shape}
    if rng.random() < 0.6:
        thing = rng.choice(things)
        args = {name: thing[name] for name in args} | ({"colour": colour} if rng.random() < 0.3 else {})
    kept = rng.choice(
        (("colour", "shape"), ("colour", "shape"), ("colour",), ("shape",), ("size", "shape"), tuple(args))
    )
    return {name: args[name] for name in kept}


def _seen(things: list[dict[str, Any]]) -> str:
    """The objects from left to right, for a worked solution."""
    ordered = sorted(things, key=lambda thing: thing["centre"])
    return "From left to right I see: " + ", ".join(named(thing, size=True) for thing in ordered) + "."


def _exists(things: list[dict[str, Any]], rng: Random) -> Question:
    args = _description(things, rng)
    found, what = len(matches(things, args)), _phrase(args)
    answer = "yes" if found else "no"
    verb = "is" if found == 1 else "are"
    return Question(
        kind="exists",
        args=args,
        text=f"Is there {a(what)} in the picture?",
        answer=answer,
        sentence=f"{capital(answer)}, there {verb} {counted(what, found)}.",
        steps=f"{_seen(things)}\n{capital(counted(what, found))} {verb} among them, so {answer}.",
        hint="Answer with yes or no.",
    )


def _count(things: list[dict[str, Any]], rng: Random) -> Question:
    args = _description(things, rng) if rng.random() < 0.75 else {}
    found, what = matches(things, args), _phrase(args)
    listed = "".join(f"\n{at}: {named(thing, size=True)}" for at, thing in enumerate(found, start=1)) or "\nnone"
    verb = "is" if len(found) == 1 else "are"
    return Question(
        kind="count",
        args=args,
        text=f"How many {counted(what, 2)[2:]} are there?",
        answer=str(len(found)),
        sentence=f"There {verb} {counted(what, len(found))}.",
        steps=f"{_seen(things)}\nI count the {counted(what, 2)[2:]}:{listed}\nThat makes {len(found)}.",
        hint="Answer with a number.",
    )


def _only(things: list[dict[str, Any]], rng: Random, *names: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """An object that is the only one with its values of these properties, and those values."""
    counts = Counter(tuple(thing[name] for name in names) for thing in things)
    alone = [thing for thing in things if counts[tuple(thing[name] for name in names)] == 1]
    if not alone:
        return None
    thing = rng.choice(alone)
    return thing, {name: thing[name] for name in names}


def _colour(things: list[dict[str, Any]], rng: Random) -> Question | None:
    found = _only(things, rng, *rng.choice((("shape",), ("size", "shape"))))
    if found is None:
        return None
    thing, args = found
    what, colour = _phrase(args), thing["colour"]
    return Question(
        kind="colour",
        args=args,
        text=f"What colour is the {what}?",
        answer=colour,
        sentence=f"The {what} is {colour}.",
        steps=f"{_seen(things)}\nThe only {what} is the {named(thing)}, so it is {colour}.",
        hint="Answer with one word.",
    )


def _shape(things: list[dict[str, Any]], rng: Random) -> Question | None:
    found = _only(things, rng, *rng.choice((("colour",), ("size", "colour"))))
    if found is None:
        return None
    thing, args = found
    what, shape = _phrase(args), thing["shape"]
    return Question(
        kind="shape",
        args=args,
        text=f"What shape is the {what}?",
        answer=shape,
        sentence=f"The {what} is {a(shape)}.",
        steps=f"{_seen(things)}\nThe only {what} is the {named(thing)}, so it is {a(shape)}.",
        hint="Answer with one word.",
    )


def relation_holds(first: Mapping[str, Any], second: Mapping[str, Any], relation: str) -> bool | None:
    """Whether the whole of one object is on a side of the whole of another; None if they overlap along that axis."""
    axis, sign = RELATIONS[relation]
    one, other = box_of(first), box_of(second)
    before, after = one[axis + 2] <= other[axis], other[axis + 2] <= one[axis]
    if not before and not after:
        return None
    return before if sign < 0 else after


def _relation(things: list[dict[str, Any]], rng: Random) -> Question | None:
    """Yes or no for two objects, or which of two sides."""
    first, second = _only(things, rng, "colour", "shape"), _only(things, rng, "colour", "shape")
    if first is None or second is None or first[0] is second[0]:
        return None
    one, other = first[0], second[0]
    relation = rng.choice(tuple(RELATIONS))
    holds = relation_holds(one, other, relation)
    if holds is None:
        return None
    axis = RELATIONS[relation][0]
    true = next(name for name, (at, _) in RELATIONS.items() if at == axis and relation_holds(one, other, name))
    told = f"The {named(one)} is {true} the {named(other)}"
    args = {"first": first[1], "second": second[1], "relation": relation}
    if rng.random() < 0.5:
        sides = "left of or right of" if axis == 0 else "above or below"
        return Question(
            kind="side",
            args=args,
            text=f"Is the {named(one)} {sides} the {named(other)}?",
            answer=true.split()[0],
            sentence=f"{told}.",
            steps=f"{told}, so the answer is {true.split()[0]}.",
            hint=f"Answer with {sides.replace(' of', '')}.",
        )
    answer = "yes" if holds else "no"
    return Question(
        kind="relation",
        args=args,
        text=f"Is the {named(one)} {relation} the {named(other)}?",
        answer=answer,
        sentence=f"{capital(answer)}, the {named(one)} is {true} the {named(other)}.",
        steps=f"{told}, so {answer}.",
        hint="Answer with yes or no.",
    )


def _compare(things: list[dict[str, Any]], rng: Random) -> Question:
    """Whether there are more of one colour or shape than of another."""
    name, values = rng.choice((("colour", tuple(COLOURS)), ("shape", SHAPES)))
    here = sorted({thing[name] for thing in things})
    first = rng.choice(here)
    second = rng.choice([value for value in (here if len(here) > 1 else values) if value != first])
    (one, p), (other, q) = [(_phrase({name: v}), len(matches(things, {name: v}))) for v in (first, second)]
    answer = "yes" if p > q else "no"
    both = f"{counted(one, p)} and {counted(other, q)}"
    return Question(
        kind="more",
        args={"property": name, "first": first, "second": second},
        text=f"Are there more {counted(one, 2)[2:]} than {counted(other, 2)[2:]}?",
        answer=answer,
        sentence=f"{capital(answer)}, there {'is' if p == 1 else 'are'} {both}.",
        steps=f"{_seen(things)}\n{capital(both)}.\n{p} is {'more' if p > q else 'not more'} than {q}, so {answer}.",
        hint="Answer with yes or no.",
    )


def _caption(things: list[dict[str, Any]], rng: Random) -> Question:
    """All objects, and how two of them lie."""
    text = rng.choice(("Describe the picture.", "What is in the picture?", "Write a caption for this picture."))
    groups = Counter(named(thing, size=True) for thing in sorted(things, key=lambda thing: thing["centre"]))
    parts = [a(what) if many == 1 else counted(what, many) for what, many in groups.items()]
    verb = "is" if groups[next(iter(groups))] == 1 else "are"
    caption = f"There {verb} {listing(parts)}."
    pair = _relation_told(things, rng)
    return Question(kind="caption", text=text, answer=f"{caption} {pair}".strip(), steps=_seen(things))


def _relation_told(things: list[dict[str, Any]], rng: Random) -> str:
    """A sentence about two objects, if two can be told apart and lie side by side; else nothing."""
    for _ in range(6):
        question = _relation(things, rng)
        if question and question.kind == "side":
            return question.sentence
    return ""


SCENE = Kind(plan=plan, content=content, draw=draw, ask=ask)
