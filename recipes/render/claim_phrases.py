"""Objects as claims about rendered pictures name them: `a large red circle`, `the top left object`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recipes.render.shapes import COLOURS, SHAPES, SIZES
from rl.english import NUMBERS

PLACE = r"(?:(?:top|bottom)(?: (?:left|right))?|left|right|middle)"
COLOUR = "|".join(COLOURS)
_NOUN = "|".join([*SHAPES, "objects?", "things?", "one"])
_COUNT = "|".join(["a", "an", "the", "no", "any", "some", r"\d{1,4}", *NUMBERS])
PHRASE = (
    rf"(?:(?:{_COUNT})\b ?)?(?:{PLACE}\b ?)?(?:(?:{'|'.join(SIZES)})\b ?)?(?:(?:{COLOUR})\b ?)?"
    rf"(?:\b(?:{_NOUN})(?:s|es)?\b)?(?: (?:that appears )?(?:at|in) the {PLACE}\b)?"
)
"""Every part may be missing; `read_phrase` refuses what names nothing."""
_PARTS = re.compile(
    rf"^(?:(?P<count>{_COUNT})\b ?)?(?:(?P<place>{PLACE})\b ?)?(?:(?P<size>{'|'.join(SIZES)})\b ?)?"
    rf"(?:(?P<colour>{COLOUR})\b ?)?(?:(?P<noun>{_NOUN})(?P<plural>s|es)?)?"
    rf"(?: (?:that appears )?(?:at|in) the (?P<where>{PLACE}))?$"
)
_MENTION = re.compile(
    rf"(?:\b(?P<count>{_COUNT}) )?(?:\b(?P<place>{PLACE}) )?(?:\b(?P<size>{'|'.join(SIZES)}) )?"
    rf"(?:\b(?P<colour>{COLOUR})\b)?(?: ?\b(?P<noun>{_NOUN})(?P<plural>s|es)?\b)?"
    rf"(?: (?:that appears )?(?:at|in) the (?P<where>{PLACE})\b)?(?: (?:is|are) (?P<told>{COLOUR})\b)?"
)
MAX_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a phrase says of the objects that it names."""

    properties: Mapping[str, str]
    """Of place, size, colour and shape those that it tells."""
    count: int | None
    """How many it says there are; None for a, the and the like."""
    plural: bool


def read_phrase(text: str) -> Phrase | None:
    """A phrase in lower case; None where it names no object.

    Example::

        read_phrase("the top left red circle").properties
        # {"place": "top left", "colour": "red", "shape": "circle"}
    """
    found = _PARTS.match(text.strip())
    return None if found is None or not (found["noun"] or found["place"]) else _phrase(found)


def mentions(text: str) -> list[Phrase]:
    """The objects that a text says are there, each once; those that it says are not there (`no red circle`), and
    phrases that tell neither colour nor shape, are left out.
    """
    found: dict[tuple[tuple[str, str], ...], Phrase] = {}
    for match in _mentions(" ".join(text[:MAX_CHARACTERS].lower().split())):
        phrase = _phrase(match)
        key = tuple(sorted(phrase.properties.items()))
        known = found.get(key)
        if known is None or (known.count or 0) < (phrase.count or 0):
            found[key] = phrase
    return list(found.values())


def _mentions(text: str) -> Iterator[re.Match[str]]:
    for match in _MENTION.finditer(text):
        named = match["noun"] or match["place"]
        tells = match["colour"] or match["told"] or (match["noun"] and not _is_any(match["noun"]))
        if named and tells and match["count"] not in ("no", "0"):
            yield match


def _phrase(match: re.Match[str]) -> Phrase:
    parts = match.groupdict()
    noun = parts["noun"] or ""
    shape = None if _is_any(noun) else noun
    given = {
        "place": parts["place"] or parts["where"],
        "size": parts["size"],
        "colour": parts["colour"] or parts.get("told"),
        "shape": shape or None,
    }
    return Phrase(
        {name: value for name, value in given.items() if value},
        number(parts["count"] or ""),
        bool(parts["plural"]) or noun in ("objects", "things"),
    )


def number(word: str) -> int | None:
    """The number that a word says; None for an article and the like."""
    if word.isdigit():
        return int(word)
    return NUMBERS.index(word) + 1 if word in NUMBERS else 0 if word == "no" else None


def _is_any(noun: str) -> bool:
    return noun.rstrip("s") in ("", "object", "thing", "one")


def fits(thing: Mapping[str, Any], properties: Mapping[str, str]) -> bool | None:
    """Whether an object has the properties; None where it has all those that are known of it, and others are told."""
    unknown = False
    for name, value in properties.items():
        if name not in thing:
            unknown = True
        elif value not in thing[name] if isinstance(thing[name], tuple) else value != thing[name]:
            return False
    return None if unknown else True
