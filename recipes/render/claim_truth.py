"""Whether a claim about a rendered picture or clip is true, from the description that it was drawn from.

    facts = SceneFacts(item.kind, item.scene)
    facts.truth("There are 2 red circles.")  # True, False, or None: not known, ambiguous, or not understood

Sentences are those of the renderer's captions and answers and of `rl.claim_splitter`. What is said of an object that is
not there is false; what holds of one of several objects that fit, and not of another, is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from recipes.render.captions import place_of
from recipes.render.claim_phrases import COLOUR, PHRASE, PLACE, Phrase, fits, number, read_phrase
from recipes.render.scene import RELATIONS, relation_holds
from recipes.render.shapes import SHAPES
from rl.clauses import plain

Thing = Mapping[str, Any]
Predicate = Callable[[Thing], bool | None]
KNOWN_KINDS = ("scene", "grid", "turns", "clip")
"""Kinds of rendered items whose objects are known, so that claims about them can be checked."""
MAX_CHARACTERS = 1000
_SECONDS = r"(?:at|after) (?P<time>\d{1,4}(?:\.\d{1,3})?) ?(?:s|seconds?)\b"
_TIME = re.compile(rf"(?:^{_SECONDS},? | {_SECONDS.replace('time', 'late')}$)")
_SHOWS = r"(?:there (?:is|are)|the \w+ (?:shows?|contains?)|i see)"
_RELATION = "|".join(["to the left of", "to the right of", *RELATIONS])
_DOES = {"appears": "appear", "vanishes": "vanish", "disappears": "vanish", "changes its colour": "recolour"}
_NOT = r"(?P<not>not )?"


def _form(pattern: str) -> re.Pattern[str]:
    """A pattern with ONE and OTHER for phrases."""
    return re.compile(pattern.replace("ONE", f"(?P<one>{PHRASE})").replace("OTHER", f"(?P<other>{PHRASE})") + "$")


class SceneFacts:
    """What is known of one rendered picture or clip."""

    def __init__(self, kind: str, scene: Mapping[str, Any]) -> None:
        """Args:
        kind: one of KNOWN_KINDS.
        scene: the item's description.

        Raises:
            ValueError: another kind, of which claims cannot be checked.
        """
        if kind not in KNOWN_KINDS:
            raise ValueError(f"claims about a rendered {kind!r} cannot be checked: take scene, grid, turns or clip")
        self.kind, self.scene = kind, scene
        self.things: list[Thing] = [_thing(kind, scene, at) for at in range(len(scene["objects"]))]

    def truth(self, claim: str) -> bool | None:
        """Whether a claim is true; None where that is not known."""
        if len(claim) > MAX_CHARACTERS:
            return None
        text = plain(claim).lower().strip().rstrip(".!")
        moment = _TIME.search(text)
        time = None
        if moment:
            time = float(moment["time"] or moment["late"])
            text = (text[: moment.start()] + text[moment.end() :]).strip(" ,")
        text = re.sub(r",? in the (?:picture|image|clip|video)$", "", text)
        for pattern, judge in _FORMS:
            found = pattern.match(text)
            if found:
                return judge(self, found.groupdict(), time)
        return None

    # -- the objects that are meant ------------------------------------------------------------------------------------

    def at(self, time: float | None) -> list[Thing]:
        """The objects, or what is seen of them at a time; none at a time outside the clip."""
        if time is None or "frames" not in self.scene:
            return self.things
        frame = round(time * self.scene["rate"])
        if not 0 <= frame < self.scene["frames"]:
            return []
        return [
            {**thing, "colour": (thing["colours"][frame],)} if "colours" in thing else thing
            for thing in self.things
            if thing["seen"][frame]
        ]

    def count(self, phrase: Phrase, time: float | None = None) -> int | None:
        """How many objects there are that fit; None where it is not known of one."""
        found = [fits(thing, phrase.properties) for thing in self.at(time)]
        return None if None in found else sum(map(bool, found))

    def of(self, text: str, holds: Predicate, time: float | None = None) -> bool | None:
        """Whether something holds of the objects that a phrase names."""
        phrase = read_phrase(text)
        if phrase is None:
            return None
        fitting = [(thing, fits(thing, phrase.properties)) for thing in self.at(time)]
        if any(fit is None for _, fit in fitting):
            return None
        answers = {holds(thing) for thing, fit in fitting if fit}
        if answers in ({True}, {False}):
            return answers.pop()
        if not answers:
            return False
        return False if phrase.plural and None not in answers else None

    def event(self, thing: Thing, kind: str, time: float | None = None) -> Mapping[str, Any] | None:
        """What of a kind happens to an object, at about a time if one is given."""
        for event in self.scene.get("events", ()):
            involved = event["objects"] if event["type"] == "collide" else [event["object"]]
            if event["type"] == kind and thing["index"] in involved and self.near(event["time"], time):
                return event
        return None

    def near(self, moment: float, time: float | None) -> bool:
        """Whether a moment is the one that is told: less than half a frame away."""
        return time is None or abs(moment - time) < 0.5 / self.scene["rate"]


def _thing(kind: str, scene: Mapping[str, Any], at: int) -> Thing:
    """An object with the properties that claims name; a tuple is of values that it has at one time or another."""
    thing = {**scene["objects"][at], "index": at}
    if kind == "scene":
        thing["place"] = place_of(thing, scene["size"])
    if kind == "turns":
        thing["seen"] = [thing["start"] <= frame < thing["end"] for frame in range(scene["frames"])]
    if kind == "clip":
        thing["seen"] = thing["visible"]
        thing["colour"] = tuple(sorted({c for c, seen in zip(thing["colours"], thing["seen"], strict=True) if seen}))
    return thing


Parts = Mapping[str, str | None]


def _count(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    phrase = read_phrase(parts["one"] or "")
    if phrase is None:
        return None
    many = facts.count(phrase, time)
    if many is None:
        return None
    return many >= 1 if phrase.count is None else many == phrase.count


def _more(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    phrases = [read_phrase(parts[name] or "") for name in ("one", "other")]
    counts = [facts.count(phrase, time) if phrase else None for phrase in phrases]
    return None if counts[0] is None or counts[1] is None else counts[0] > counts[1]


def _most(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    things = facts.at(time)
    if any(isinstance(thing["colour"], tuple) and len(thing["colour"]) > 1 for thing in things):
        return None
    colours = [thing["colour"][0] if isinstance(thing["colour"], tuple) else thing["colour"] for thing in things]
    own = colours.count(str(parts["value"]))
    return bool(own) and all(own > colours.count(other) for other in {*colours} - {parts["value"]})


def _is(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    """Colour, shape or place of an object."""
    value = str(parts["value"])
    name = "shape" if value in SHAPES else "place" if re.fullmatch(PLACE, value) else "colour"

    def holds(thing: Thing) -> bool | None:
        own = thing.get(name)
        if own is None or (isinstance(own, tuple) and len(own) > 1 and value in own):
            return None
        return bool(own == (value,) if isinstance(own, tuple) else own == value) != bool(parts.get("not"))

    return facts.of(parts["one"] or "", holds, time)


def _relation(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    relation = str(parts["relation"]).replace("to the ", "")
    if facts.kind == "clip":
        return None  # it can change while things move

    def of(one: Thing) -> bool | None:
        def beside(other: Thing) -> bool | None:
            return None if one is other else relation_holds(one, other, relation)

        holds = facts.of(parts["other"] or "", beside, time)
        return None if holds is None else holds != bool(parts.get("not"))

    return facts.of(parts["one"] or "", of, time)


def _moves(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    if facts.kind != "clip":
        return None
    told = parts.get("direction")

    def holds(thing: Thing) -> bool | None:
        if thing["action"] == "collide":
            return bool(parts["way"]) if told in (None, "nowhere") else None
        event = facts.event(thing, "move")
        if told == "nowhere" or (told is None and not parts["way"]):
            return event is None
        found = event is not None and told in (None, event["direction"])
        return found == bool(parts["way"])

    return facts.of(parts["one"] or "", holds)


def _happens(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    """Something appears, vanishes or turns another colour."""
    kind = "recolour" if parts.get("value") else _DOES[str(parts["does"])]
    if facts.kind == "turns":
        return facts.of(parts["one"] or "", lambda thing: _seen_change(facts, thing, kind, time))
    if facts.kind != "clip":
        return None

    def holds(thing: Thing) -> bool:
        event = facts.event(thing, kind, time)
        return event is not None and parts.get("value") in (None, event.get("colour"))

    return facts.of(parts["one"] or "", holds)


def _seen_change(facts: SceneFacts, thing: Thing, kind: str, time: float | None) -> bool | None:
    if kind == "recolour":
        return False
    frame = thing["start" if kind == "appear" else "end"]
    within = 0 < frame < facts.scene["frames"] if kind == "vanish" else True
    return within and facts.near(frame / facts.scene["rate"], time)


def _collide(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    if facts.kind != "clip":
        return None

    def of(one: Thing) -> bool | None:
        event = facts.event(one, "collide", time)
        return facts.of(parts["other"] or "", lambda other: event is not None and other["index"] in event["objects"])

    return facts.of(parts["one"] or "", of)


def _order(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    """Which of two objects appears first."""
    if facts.kind != "turns":
        return None
    sign = 1 if parts["order"] == "before" else -1

    def of(one: Thing) -> bool | None:
        return facts.of(parts["other"] or "", lambda other: sign * one["start"] < sign * other["start"])

    return facts.of(parts["one"] or "", of)


def _end(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    """The object that appears first or last, with its colour or place."""
    if facts.kind != "turns":
        return None
    chosen = (min if parts["end"] == "first" else max)(facts.things, key=lambda thing: thing["start"])
    if parts.get("value"):
        return bool(parts["value"] in (chosen["colour"], chosen["place"]))
    return facts.of(parts["one"] or "", lambda thing: thing is chosen)


def _nothing(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    if facts.kind != "clip":
        return None
    events = [event for event in facts.scene["events"] if not parts.get("pair") or event["type"] == "collide"]
    return not events


def _any_collision(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    if facts.kind != "clip":
        return None
    return any(event["type"] == "collide" and facts.near(event["time"], time) for event in facts.scene["events"])


def _appear_count(facts: SceneFacts, parts: Parts, time: float | None) -> bool | None:
    return len(facts.things) == number(str(parts["many"])) if facts.kind == "turns" and time is None else None


_FORMS: list[tuple[re.Pattern[str], Callable[[SceneFacts, Parts, float | None], bool | None]]] = [
    (_form(rf"{_SHOWS} more ONE than OTHER"), _more),
    (_form(rf"{_SHOWS} ONE"), _count),
    (_form(r"ONE (?:is|are) (?:visible|there|present)"), _count),
    (_form(rf"most objects are (?P<value>{COLOUR})"), _most),
    (_form(rf"the object that appears (?P<end>first|last) is (?:at the |in the )?(?P<value>{COLOUR}|{PLACE})"), _end),
    (_form(rf"(?P<end>first) one appears (?:at|in) the (?P<value>{PLACE})"), _end),
    (_form(r"ONE appears (?P<end>first|last)"), _end),
    (_form(r"ONE appears (?P<order>before|after) OTHER"), _order),
    (_form(rf"ONE (?:is|are) {_NOT}(?P<relation>{_RELATION}) OTHER"), _relation),
    (_form(rf"ONE (?:is|are) {_NOT}(?:at the |in the )?(?P<value>{COLOUR}|{PLACE})"), _is),
    (_form(rf"the place of ONE is (?P<value>{PLACE})"), _is),
    (_form(rf"ONE (?:is|are) {_NOT}(?:an? )?(?P<value>{'|'.join(SHAPES)})s?"), _is),
    (_form(r"ONE (?P<way>moves)(?: (?P<direction>left|right|up|down|nowhere))?"), _moves),
    (_form(r"ONE does not (?P<way>)move(?: (?P<direction>left|right|up|down))?"), _moves),
    (_form(rf"ONE (?P<does>{'|'.join(_DOES)})"), _happens),
    (_form(rf"ONE turns (?P<value>{COLOUR})"), _happens),
    (_form(r"ONE and OTHER (?:collide|touch)"), _collide),
    (_form(r"ONE (?:collides with|touches) OTHER"), _collide),
    (_form(r"nothing moves or changes"), _nothing),
    (_form(r"no (?P<pair>two objects) (?:collide|touch)(?: in any frame)?"), _nothing),
    (_form(r"(?:two objects|they) collide"), _any_collision),
    (_form(r"(?P<many>\w+) objects? appears?"), _appear_count),
]
