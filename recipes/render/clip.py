"""Short clips: objects that move, appear, vanish, change colour and collide, with the times of all events.

Every object (or pair that collides) has a lane of its own, across or down the picture, so that nothing else touches.
The description lists the state of each object in each frame; the events are what those states show.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from recipes.render.clip_questions import ask
from recipes.render.records import DoesNotFit, Drawing, Kind, Look, Region
from recipes.render.shapes import COLOURS, GROUNDS, SHAPES, named, paint

RATES = (1, 2, 5)
"""Frames per second; times are then exact in tenths."""
DIRECTIONS = {(0, 1): "right", (0, -1): "left", (1, 1): "down", (1, -1): "up"}
"""By axis (0 = across) and sign."""
COLLIDERS = ("circle", "square", "diamond")
"""Shapes that reach their full width and height at the middle, where they meet."""
ACTIONS = ("move", "move", "appear", "vanish", "recolour", "stay")


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """One to four objects with what each does."""
    longer = rng.randint(*look.side)
    across, down = rng.choice(((1, 1), (4, 3), (3, 4)))
    size = (longer * across // max(across, down), longer * down // max(across, down))
    axis, lanes = rng.choice((0, 1)), rng.randint(1, 3)
    frames, rate = rng.randint(6, 12), rng.choice(RATES)
    lane_wide = size[1 - axis] // lanes
    radius = min(lane_wide * 2 // 5, size[axis] // 8)
    if radius < 5:
        raise DoesNotFit
    colliding = rng.randrange(lanes) if rng.random() < 0.35 else None
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    things: list[dict[str, Any]] = []
    for lane in range(lanes):
        line = lane * lane_wide + lane_wide // 2
        made = _pair(rng, size[axis], radius, frames) if lane == colliding else [_one(rng, size[axis], radius, frames)]
        for thing in made:
            _dress(rng, thing, looks, frames)
            along = thing.pop("along")
            thing["centres"] = [[at, line] if axis == 0 else [line, at] for at in along]
            things.append(thing)
    ground = list(rng.choice(GROUNDS))
    return {"size": list(size), "ground": ground, "rate": rate, "frames": frames, "objects": things} | {
        "events": _events(things, rate)
    }


def _one(rng: Random, length: int, radius: int, frames: int) -> dict[str, Any]:
    """An object alone in its lane, with one action."""
    action, low, high = rng.choice(ACTIONS), radius + 2, length - radius - 2
    start = rng.randint(low, high)
    along, visible = [start] * frames, [True] * frames
    if action == "move":
        end = rng.randint(low, high)
        while abs(end - start) < length // 4:
            start, end = rng.randint(low, high), rng.randint(low, high)
        along = [round(start + (end - start) * at / (frames - 1)) for at in range(frames)]
    if action in ("appear", "vanish"):
        change = rng.randint(1, frames - 1)
        visible = [(at >= change) == (action == "appear") for at in range(frames)]
    return {"action": action, "radius": radius, "along": along, "visible": visible}


def _pair(rng: Random, length: int, radius: int, frames: int) -> list[dict[str, Any]]:
    """Two objects that meet at one frame, touching, and go back."""
    meeting = rng.randint(2, frames - 3)
    middle, most = length // 2, length // 2 - 2 * radius - 2
    if most < 2 * frames:
        raise DoesNotFit
    steps = max(meeting, frames - 1 - meeting)
    speed = rng.randint(max(1, most // (2 * steps)), max(1, most // steps))
    away = [abs(at - meeting) * speed for at in range(frames)]
    first = [middle - radius - way for way in away]
    second = [middle + radius + way for way in away]
    common = {"action": "collide", "radius": radius, "visible": [True] * frames}
    return [common | {"along": first}, common | {"along": second}]


def _dress(rng: Random, thing: dict[str, Any], looks: list[tuple[str, str]], frames: int) -> None:
    """Gives an object a colour and shape that no other one has at any time."""
    allowed = [look for look in looks if look[1] in COLLIDERS] if thing["action"] == "collide" else looks
    colour, shape = rng.choice(allowed)
    looks.remove((colour, shape))
    thing |= {"shape": shape, "colour": colour, "colours": [colour] * frames}
    if thing["action"] == "recolour":
        later = rng.choice([other for other, form in looks if form == shape])
        looks.remove((later, shape))
        change = rng.randint(1, frames - 1)
        thing["colours"] = [colour] * change + [later] * (frames - change)


def _events(things: list[dict[str, Any]], rate: int) -> list[dict[str, Any]]:
    """What happens, ordered by time (s): of a motion its start, of the others their first frame."""
    events = [event for at, thing in enumerate(things) for event in _events_of(at, thing, rate)]
    pairs = [at for at, thing in enumerate(things) if thing["action"] == "collide"]
    if pairs:
        one, other = (things[at] for at in pairs)
        gaps = [_distance(a, b) for a, b in zip(one["centres"], other["centres"], strict=True)]
        events.append({"type": "collide", "objects": pairs, "time": gaps.index(min(gaps)) / rate})
    return sorted(events, key=lambda event: event["time"])


def _distance(a: list[int], b: list[int]) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _events_of(at: int, thing: Mapping[str, Any], rate: int) -> list[dict[str, Any]]:
    """The event of one object's own action."""
    if thing["action"] == "move":
        first, last = thing["centres"][0], thing["centres"][-1]
        axis = 0 if first[0] != last[0] else 1
        direction = DIRECTIONS[axis, 1 if last[axis] > first[axis] else -1]
        return [{"type": "move", "object": at, "direction": direction, "time": 0.0}]
    if thing["action"] in ("appear", "vanish"):
        change = thing["visible"].index(thing["action"] == "appear")
        return [{"type": thing["action"], "object": at, "time": change / rate}]
    if thing["action"] == "recolour":
        later = thing["colours"][-1]
        return [{"type": "recolour", "object": at, "colour": later, "time": thing["colours"].index(later) / rate}]
    return []


def content(scene: Mapping[str, Any]) -> Any:
    """The objects and what each does, wherever and whenever."""
    return sorted([named(thing), thing["action"], thing["colours"][-1]] for thing in scene["objects"])


def draw(scene: Mapping[str, Any]) -> Drawing:
    """All frames; a region for each visible object of each frame."""
    from PIL import Image

    images, regions = [], []
    for frame in range(scene["frames"]):
        image = Image.new("RGB", tuple(scene["size"]), tuple(scene["ground"]))
        for at, thing in enumerate(scene["objects"]):
            if thing["visible"][frame]:
                colour = thing["colours"][frame]
                box = paint(image, thing, thing["centres"][frame], colour)
                text = f"{colour} {thing['shape']}"
                regions.append(Region(text=text, box=box, kind="object", group=at, frame=frame))
        images.append(image)
    times = tuple(frame / scene["rate"] for frame in range(scene["frames"]))
    return Drawing(images=tuple(images), times=times, regions=tuple(regions))


CLIP = Kind(plan=plan, content=content, draw=draw, ask=ask)
