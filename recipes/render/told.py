"""Sentences about a rendered picture or clip whose truth is known: what its caption and its answers tell, and the same
with errors.
"""

from __future__ import annotations

import re
from random import Random

from recipes.render.captions import caption
from recipes.render.clip import DIRECTIONS
from recipes.render.grid import PLACES, inventory
from recipes.render.records import Item, random_of
from recipes.render.shapes import COLOURS, SHAPES
from recipes.render.source import KINDS
from rl.claim_splitter import split_claims

SWAPS = (
    tuple(COLOURS),
    SHAPES,
    PLACES[2],
    ("left of", "right of"),
    ("above", "below"),
    ("appears", "vanishes"),
    ("before", "after"),
    tuple(f"moves {way}" for way in DIRECTIONS.values()),
)
"""Words that a wrong claim has one of in another's place."""
_COUNT = re.compile(r"(?<![\d.])\d+(?= [a-z])(?! seconds?\b)")


def told_claims(item: Item, seed: int) -> list[str]:
    """True sentences, each once: those of the caption, and of the answers to a few questions."""
    texts = [caption(item)]
    for number in range(3):
        question = KINDS[item.kind].ask(item.scene, random_of("told", seed, item.index, number))
        texts.append(question.sentence or (question.answer if question.kind == "caption" else ""))
    return list(dict.fromkeys(claim.text for text in texts for claim in split_claims(text).claims))


def careless_caption(item: Item, rng: Random) -> str:
    """A caption with one error: a grid's object at a place that is empty, elsewhere a wrong word. A full grid has no
    empty place, and its caption is right.
    """
    if item.kind != "grid":
        return with_error(caption(item), rng)
    things, places = list(item.scene["objects"]), PLACES[item.scene["cells"]]
    empty = [place for place in places if all(thing["place"] != place for thing in things)]
    if empty:
        at = rng.randrange(len(things))
        things[at] = {**things[at], "place": rng.choice(empty)}
    return inventory(sorted(things, key=lambda thing: places.index(thing["place"])))


def with_error(text: str, rng: Random) -> str:
    """The text with one colour, shape, relation, direction, event or number in another's place; it may be true still,
    and is the same where it has nothing to be changed."""
    places = [
        (found.start(), found.end(), [word for word in words if word != found[0]])
        for words in SWAPS
        for found in re.finditer(rf"\b(?:{'|'.join(words)})(?![a-z])", text)
    ]
    for found in _COUNT.finditer(text):
        count = int(found[0])
        places.append((found.start(), found.end(), [str(other) for other in (count - 1, count + 1) if other > 1]))
    places = [place for place in places if place[2]]
    if not places:
        return text
    start, end, words = rng.choice(places)
    changed = text[:start] + rng.choice(words) + text[end:]
    return re.sub(r"\b([Aa])n? (?=(\w))", lambda m: f"{m[1]}{'n' if m[2] in 'aeiou' else ''} ", changed)
