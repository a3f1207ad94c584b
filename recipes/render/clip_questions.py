"""Questions about clips: directions, times, colours, collisions, counts, the order of events, and captions."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from recipes.render.records import Question
from recipes.render.shapes import a, named
from recipes.render.words import capital, listing

Scene = Mapping[str, Any]


def ask(scene: Scene, rng: Random) -> Question:
    """A question that fits what happens."""
    makers = {
        "move": [_direction] * 3,
        "appear": [_when] * 3,
        "vanish": [_when] * 3,
        "recolour": [_when, _recolour, _recolour],
    }
    makers |= {"collide": [_collides_with, _collides_with, _when_collide, _any_collision, _any_collision]}
    fitting = [_direction, _any_collision, _visible, _caption, _caption]
    for event in scene["events"]:
        fitting += makers[event["type"]]
    if len({event["time"] for event in scene["events"] if event["type"] != "move"}) > 1:
        fitting += [_order] * 3
    return rng.choice(fitting)(scene, rng)


def seconds(time: float) -> str:
    """`1.5`, `2`"""
    return f"{time:g}"


def spelled(time: float) -> str:
    """`1.5 seconds`, `1 second`"""
    return f"{time:g} second{'' if time == 1 else 's'}"


def _of(scene: Scene, *types: str) -> list[dict[str, Any]]:
    return [event for event in scene["events"] if event["type"] in types]


def _told(scene: Scene, event: Mapping[str, Any]) -> str:
    """An event as a clause without its time."""
    things = scene["objects"]
    if event["type"] == "collide":
        first, second = (named(things[at]) for at in event["objects"])
        return f"the {first} and the {second} collide"
    who = f"the {named(things[event['object']])}"
    if event["type"] == "recolour":
        return f"{who} turns {event['colour']}"
    return (
        f"{who} moves {event['direction']}"
        if event["type"] == "move"
        else f"{who} {event['type']}s".replace("vanishs", "vanishes")
    )


def _direction(scene: Scene, rng: Random) -> Question:
    """Left, right, up, down, or no motion; never of an object that bounces back."""
    candidates = [at for at, thing in enumerate(scene["objects"]) if thing["action"] != "collide"]
    if not candidates:
        return _collides_with(scene, rng)
    moving = [at for at in candidates if scene["objects"][at]["action"] == "move"]
    at = rng.choice(moving if moving and rng.random() < 0.8 else candidates)
    who = named(scene["objects"][at])
    answer = next((event["direction"] for event in _of(scene, "move") if event["object"] == at), "nowhere")
    told = f"The {who} moves {answer}." if answer != "nowhere" else f"The {who} does not move."
    centres = scene["objects"][at]["centres"]
    first, last = (_place(scene, centre) for centre in (centres[0], centres[-1]))
    steps = f"In the first frame it is at {first}, in the last at {last}."
    return Question(
        kind="direction",
        args={"object": who},
        text=f"In which direction does the {who} move: left, right, up, down, or nowhere?",
        answer=answer,
        sentence=told,
        steps=f"{steps}\n{told}",
        hint="Answer with one word.",
    )


def _place(scene: Scene, centre: list[int]) -> str:
    """A place in per cent of the picture, which stays right when the picture is scaled."""
    across, down = (round(100 * at / side) for at, side in zip(centre, scene["size"], strict=True))
    return f"{across}% of the width and {down}% of the height"


def _when(scene: Scene, rng: Random) -> Question:
    event = rng.choice(_of(scene, "appear", "vanish", "recolour"))
    who, time = named(scene["objects"][event["object"]]), seconds(event["time"])
    does = {"appear": "appear", "vanish": "vanish", "recolour": "change its colour"}[event["type"]]
    did = {"appear": "appears", "vanish": "vanishes", "recolour": "changes its colour"}[event["type"]]
    before, now = {
        "appear": ("It is not there yet", "it is there"),
        "vanish": ("It is still there", "it is gone"),
        "recolour": ("It has its first colour", f"it is {event.get('colour')}"),
    }[event["type"]]
    return Question(
        kind="when",
        args={"object": who, "type": event["type"]},
        text=f"At what time does the {who} {does}, in seconds?",
        answer=time,
        sentence=f"The {who} {did} at {spelled(event['time'])}.",
        steps=f"{before} at {seconds(event['time'] - 1 / scene['rate'])} s.\nAt {time} s {now}.",
        hint="Answer with a number.",
    )


def _recolour(scene: Scene, rng: Random) -> Question:
    event = rng.choice(_of(scene, "recolour"))
    who, colour, time = named(scene["objects"][event["object"]]), event["colour"], seconds(event["time"])
    return Question(
        kind="recolour",
        args={"object": who},
        text=f"What colour does the {who} turn?",
        answer=colour,
        sentence=f"The {who} turns {colour}.",
        steps=f"From {time} s on the {who} is {colour}.",
        hint="Answer with one word.",
    )


def _collides_with(scene: Scene, rng: Random) -> Question:
    event = _of(scene, "collide")[0]
    first, second = rng.sample([named(scene["objects"][at]) for at in event["objects"]], 2)
    return Question(
        kind="collides_with",
        args={"object": first},
        text=f"Which object does the {first} collide with?",
        answer=second,
        sentence=f"The {first} collides with the {second}.",
        steps=f"At {seconds(event['time'])} s the {first} and the {second} touch, then both turn back.",
        hint="Answer with its colour and shape.",
    )


def _when_collide(scene: Scene, rng: Random) -> Question:
    event = _of(scene, "collide")[0]
    first, second = (named(scene["objects"][at]) for at in event["objects"])
    time = seconds(event["time"])
    return Question(
        kind="when_collide",
        text="At what time do two objects collide, in seconds?",
        answer=time,
        sentence=f"They collide at {spelled(event['time'])}.",
        steps=f"The {first} and the {second} touch in the frame at {time} s.",
        hint="Answer with a number.",
    )


def _any_collision(scene: Scene, rng: Random) -> Question:
    found = _of(scene, "collide")
    answer = "yes" if found else "no"
    why = capital(_told(scene, found[0])) if found else "No two objects touch in any frame"
    return Question(
        kind="any_collision",
        text="Do any two objects collide?",
        answer=answer,
        sentence=f"{capital(answer)}, {why[0].lower() + why[1:]}.",
        steps=f"{why}, so {answer}.",
        hint="Answer with yes or no.",
    )


def _visible(scene: Scene, rng: Random) -> Question:
    """How many objects one sees in a frame."""
    frame = rng.choice((0, scene["frames"] - 1, rng.randrange(scene["frames"])))
    there = [thing for thing in scene["objects"] if thing["visible"][frame]]
    many, time, at = len(there), seconds(frame / scene["rate"]), spelled(frame / scene["rate"])
    listed = listing([f"the {thing['colours'][frame]} {thing['shape']}" for thing in there]) if there else "nothing"
    return Question(
        kind="visible",
        args={"time": frame / scene["rate"]},
        text=f"How many objects are visible at {at}?",
        answer=str(many),
        sentence=f"At {at} {'one object is' if many == 1 else f'{many} objects are'} visible.",
        steps=f"In the frame at {time} s I see {listed}.\nThat makes {many}.",
        hint="Answer with a number.",
    )


def _order(scene: Scene, rng: Random) -> Question:
    """Which of two events comes first."""
    events = [event for event in scene["events"] if event["type"] != "move"]
    pairs = [(one, other) for one in events for other in events if one["time"] < other["time"]]
    early, late = rng.choice(pairs)
    now, then = _told(scene, early), _told(scene, late)
    first, second = rng.sample((now, then), 2)
    return Question(
        kind="order",
        args={"clauses": [first, second]},
        text=f"What happens first: {first}, or {second}?",
        answer=now,
        sentence=f"First {now}.",
        steps=f"At {seconds(early['time'])} s {now}; at {seconds(late['time'])} s {then}.",
        hint="Answer with one of the two.",
    )


def _caption(scene: Scene, rng: Random) -> Question:
    """The objects, then the events in order with their times."""
    text = rng.choice(("Describe the clip.", "What happens in this clip?", "Write a caption for this clip."))
    things = listing([a(named(thing)) for thing in scene["objects"]])
    told = [
        f"{capital(_told(scene, event))}."
        if event["type"] == "move"
        else f"At {spelled(event['time'])} {_told(scene, event)}."
        for event in scene["events"]
    ]
    answer = " ".join([f"The clip shows {things}.", *(told or ["Nothing moves or changes."])])
    steps = f"There are {scene['frames']} frames, {scene['rate']} per second.\n" + (
        "\n".join(told) or "Nothing changes."
    )
    return Question(kind="caption", text=text, answer=answer, steps=steps)
