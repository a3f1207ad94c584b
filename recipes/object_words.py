"""Objects that texts mention: by a list of words with synonyms for photos, by colour, shape and place for rendered
pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.render.claim_phrases import Phrase, fits, mentions
from recipes.render.claim_truth import SceneFacts

MAX_CHARACTERS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectCounts:
    """Objects of one response against those that are there; each is counted once per response."""

    mentioned: int
    """Different objects that the response mentions."""
    hallucinated: int
    """Of these, the ones that are not there."""
    present: int
    """Objects that are there."""
    covered: int
    """Of these, the ones that the response mentions."""


class ObjectWords:
    """Finds objects of a closed list in texts, as CHAIR does with the 80 objects of MSCOCO and their synonyms."""

    def __init__(self, synonyms: Mapping[str, Sequence[str]]) -> None:
        """Args:
        synonyms: Name of each object -> other words for it; a plural in -s or -es is understood.

        Raises:
            ValueError: there is no object, or a word stands for two of them.
        """
        self._names: dict[str, str] = {}
        for name, others in synonyms.items():
            for word in (name, *others):
                form = " ".join(word.lower().split())
                if self._names.setdefault(form, name) != name:
                    raise ValueError(f"{word!r} stands for {self._names[form]!r} and for {name!r}: give each word once")
        words = sorted(filter(None, self._names), key=len, reverse=True)  # hot dog before dog
        if not words:
            raise ValueError("there are no objects to look for: name some")
        self._pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, words))})(?:s|es)?(?!\w)")

    def mentioned(self, text: str) -> list[str]:
        """Names of the objects that a text mentions, each once, in its order.

        Example::

            ObjectWords({"cat": ["kitten"], "table": []}).mentioned("Two kittens and a cat.")  # ["cat"]
        """
        lowered = " ".join(text[:MAX_CHARACTERS].lower().split())
        return list(dict.fromkeys(self._names[found[1]] for found in self._pattern.finditer(lowered)))

    def count(self, text: str, present: Sequence[str]) -> ObjectCounts:
        """A response against the objects that its image is labelled with, by name or synonym."""
        there = {self._names.get(" ".join(name.lower().split()), name) for name in present}
        found = set(self.mentioned(text))
        return ObjectCounts(
            mentioned=len(found),
            hallucinated=len(found - there),
            present=len(there),
            covered=len(found & there),
        )


def count_rendered(text: str, kind: str, scene: Mapping[str, Any]) -> ObjectCounts:
    """A response against a rendered picture or clip.

    A mention names an object by any of its colour, shape, size and place; it is hallucinated if no object there has all
    of these. It covers one object, or as many as it counts.

    Raises:
        ValueError: a kind without objects; see `SceneFacts`.
    """
    things = SceneFacts(kind, scene).things
    found = sorted(mentions(text), key=lambda phrase: -len(phrase.properties))
    covered: set[int] = set()
    hallucinated = 0
    for phrase in found:
        fitting = [at for at, thing in enumerate(things) if fits(thing, phrase.properties) is not False]
        hallucinated += not fitting
        covered.update([at for at in fitting if at not in covered][: _most(phrase)])
    return ObjectCounts(mentioned=len(found), hallucinated=hallucinated, present=len(things), covered=len(covered))


def _most(phrase: Phrase) -> int | None:
    if phrase.count is None:
        return None if phrase.plural else 1
    return phrase.count
