"""Clips of a grid whose objects take turns: each is seen at its place for a few frames, and every frame shows little.

What is asked needs all frames, but only colours, places and the order of appearance, large enough for the smallest
images. Frames come in sixes, two per second, so that a package of six holds a clip of three seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from recipes.render.grid import Thing, check, exists, phrase_at, plan_things, told
from recipes.render.prompts import CLIP_PROMPTS
from recipes.render.records import Drawing, Kind, Look, Question, Region
from recipes.render.shapes import counted, named, paint
from recipes.render.words import capital

RATE = 2
"""Frames per second."""


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """A grid's objects, each with the frames that it is seen in: no two begin at the same one, and each stays for a
    second, so that one frame per second shows it."""
    scene = plan_things(rng, look)
    frames = rng.choice(look.frames)
    things = rng.sample(scene["objects"], min(len(scene["objects"]), frames - RATE + 1))
    starts = sorted(rng.sample(range(frames - RATE + 1), len(things)))
    for thing, start in zip(things, starts, strict=True):
        thing |= {"start": start, "end": min(frames, start + rng.randint(RATE, frames // 2))}
    return scene | {"frames": frames, "rate": RATE, "objects": things}


def content(scene: Mapping[str, Any]) -> Any:
    """The objects and their places in the order of their appearance."""
    return [told(thing) for thing in scene["objects"]]


def draw(scene: Mapping[str, Any]) -> Drawing:
    """All frames; a region for each object in each frame that shows it."""
    from PIL import Image

    images, regions = [], []
    for frame in range(scene["frames"]):
        image = Image.new("RGB", tuple(scene["size"]), tuple(scene["ground"]))
        for at, thing in enumerate(scene["objects"]):
            if thing["start"] <= frame < thing["end"]:
                box = paint(image, thing, thing["centre"], thing["colour"])
                regions.append(Region(text=named(thing), box=box, kind="object", group=at, frame=frame))
        images.append(image)
    times = tuple(frame / scene["rate"] for frame in range(scene["frames"]))
    return Drawing(images=tuple(images), times=times, regions=tuple(regions))


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """What is where, whether a colour is seen, the first and last, which of two comes first, how many, captions."""
    makers = [_at, _at, _exists, _check, _end, _end, _before, _order, _how_many, _caption, _caption]
    question = None
    while question is None:
        question = rng.choice(makers)(scene["objects"], rng)
    return question


def story(things: Sequence[Thing]) -> str:
    """All objects in the order of their appearance."""
    return "One after another: " + ", ".join(told(thing) for thing in things) + "."


def _at(things: Sequence[Thing], rng: Random) -> Question:
    thing = rng.choice(things)
    where = phrase_at(thing["place"])
    return Question(
        kind="colour_at",
        args={"place": thing["place"]},
        text=f"What colour is the object that appears {where}?",
        answer=thing["colour"],
        sentence=f"The object that appears {where} is {thing['colour']}.",
        steps=f"{story(things)}\nSo it is the {told(thing)}.",
        hint="Answer with one word.",
    )


def _check(things: Sequence[Thing], rng: Random) -> Question:
    return check(things, rng, story)


def _exists(things: Sequence[Thing], rng: Random) -> Question:
    return exists(things, rng, story, medium="clip")


def _end(things: Sequence[Thing], rng: Random) -> Question:
    """The first or the last to appear."""
    which = rng.choice(("first", "last"))
    thing = things[0 if which == "first" else -1]
    return Question(
        kind="first_last",
        args={"which": which},
        text=f"What colour is the object that appears {which}?",
        answer=thing["colour"],
        sentence=f"The object that appears {which} is {thing['colour']}.",
        steps=f"{story(things)}\nThe {which} one is the {told(thing)}.",
        hint="Answer with one word.",
    )


def _before(things: Sequence[Thing], rng: Random) -> Question | None:
    """Which of two places comes first."""
    if len(things) < 2:
        return None
    early, late = sorted(rng.sample(range(len(things)), 2))
    first, second = rng.sample((things[early]["place"], things[late]["place"]), 2)
    answer = things[early]["place"]
    return Question(
        kind="before",
        args={"places": [first, second]},
        text=f"Where does an object appear first: {first} or {second}?",
        answer=answer,
        sentence=f"First one appears {phrase_at(answer)}.",
        steps=f"{story(things)}\nSo {answer} comes first.",
        hint="Answer with its place.",
    )


def _order(things: Sequence[Thing], rng: Random) -> Question | None:
    """Whether the object at one place appears before the one at another."""
    if len(things) < 2:
        return None
    first, second = rng.sample(range(len(things)), 2)
    one, other = things[first], things[second]
    answer = "yes" if first < second else "no"
    return Question(
        kind="order",
        args={"places": [one["place"], other["place"]]},
        text=f"Does the {one['place']} object appear before the {other['place']} object?",
        answer=answer,
        sentence=f"{capital(answer)}, the {one['place']} object appears {'before' if first < second else 'after'} it.",
        steps=f"{story(things)}\nSo {answer}.",
        hint="Answer with yes or no.",
    )


def _how_many(things: Sequence[Thing], rng: Random) -> Question:
    return Question(
        kind="count",
        text="How many objects appear in the clip?",
        answer=str(len(things)),
        sentence=f"{counted('object', len(things))} appear{'s' if len(things) == 1 else ''}.".capitalize(),
        steps=f"{story(things)}\nThat makes {len(things)}.",
        hint="Answer with a number.",
    )


def _caption(things: Sequence[Thing], rng: Random) -> Question:
    return Question(
        kind="caption", text=rng.choice(CLIP_PROMPTS), answer=story(things), steps=f"There are {len(things)} objects."
    )


TURNS = Kind(plan=plan, content=content, draw=draw, ask=ask)
