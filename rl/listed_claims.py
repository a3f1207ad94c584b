"""Claims of a listing: objects after their places, as short captions tell them.

    I see: top left red circle, top right blue square.
    One after another: bottom red star, top left blue star.

Of each object it is asked whether there is one at that place, and what its colour is ("Is the top left object red?").
Of objects that appear one after another, the order of neighbours is asked about as well.
"""

from __future__ import annotations

import re
from itertools import pairwise

from rl.claims import Claim, ClaimKind, Dropped
from rl.english import COLOURS

_LISTING = re.compile(r"^(?P<head>(?:i|we) (?:can )?see|one after another)\s*:\s*(?P<items>.*)$", re.IGNORECASE)
_PLACE = re.compile(r"^(?:(?:top|bottom)(?: (?:left|right))?|left|right|middle)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?:,\s*and\b|[,;]|\band\b)\s*")
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


def listed_claims(sentence: str) -> list[Claim | Dropped] | None:
    """What a listing claims; None where the sentence is none.

    Example::

        [claim.text for claim in listed_claims("I see: top left red circle, middle star.")]
        # ["There is an object at the top left.", "The top left object is red.", "top left red circle" dropped,
        #  "There is a star in the middle."]
    """
    listing = _LISTING.match(sentence.strip())
    if listing is None:
        return None
    found: list[Claim | Dropped] = []
    places: list[str] = []
    for item in _BETWEEN.split(listing["items"].strip(" .!;,")):
        item = _ARTICLE.sub("", " ".join(item.split()))
        if item:
            place = _PLACE.match(item)
            found += _item(item, place[0].lower() if place else "")
            places += [place[0].lower()] if place else []
    if listing["head"].lower() == "one after another":
        found += [_order(first, second) for first, second in pairwise(places) if first != second]
    return found


def _item(item: str, place: str) -> list[Claim | Dropped]:
    rest = item[len(place) :].strip()
    colour, _, noun = rest.partition(" ")
    if not place or colour.lower() not in COLOURS:
        return [_there(rest or "object", place)]
    claim = Claim(
        text=f"The {place} object is {colour.lower()}.",
        question=f"Is the {place} object {colour.lower()}?",
        kind=ClaimKind.COLOUR,
    )
    found: list[Claim | Dropped] = [_there("object", place), claim]
    if noun and noun.lower() not in ("object", "one", "thing"):
        found.append(Dropped(text=item, reason="of a listed object its place and colour alone are asked about"))
    return found


def _there(what: str, place: str) -> Claim:
    article = "an" if what[:1].lower() in "aeiou" else "a"
    where = "" if not place else " in the middle" if place == "middle" else f" at the {place}"
    return Claim(
        text=f"There is {article} {what}{where}.",
        question=f"Is there {article} {what}{where}?",
        kind=ClaimKind.PRESENCE,
    )


def _order(first: str, second: str) -> Claim:
    return Claim(
        text=f"The {first} object appears before the {second} object.",
        question=f"Does the {first} object appear before the {second} object?",
        kind=ClaimKind.ACTION,
    )
