"""The closed lists of English words by which `rl.clauses` knows a clause's parts."""

from __future__ import annotations

import re


def words(text: str) -> tuple[str, ...]:
    """The words of a list."""
    return tuple(text.split())


NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DETERMINERS = frozenset(
    words("a an the this that these those no some several many few all both each every another its his her their")
)
PRONOUNS = frozenset(words("it they he she this these those them"))
COLOURS = frozenset(
    words(
        "red blue green yellow orange purple pink brown black cyan white grey gray violet magenta gold silver "
        "beige turquoise tan"
    )
)
RELATIONS = re.compile(
    r"\b(?:left of|right of|above|below|next to|beside|behind|in front of|between|under|underneath|over|on top of|near"
    r"|inside|outside|on the (?:left|right)|(?:larger|smaller|bigger|taller|shorter|closer|farther) than)\b"
)
BE = {"is": "is", "are": "is", "was": "was", "were": "was"}
AUXILIARIES = {**BE, "has": "has", "have": "has", "does": "does", "do": "does"}
AUXILIARIES |= dict.fromkeys(("had", "did", "can", "cannot", "will", "would", "should", "must"), "")
SHOWING = frozenset(words("show contain include depict feature display"))
_REGULAR = words(
    "move turn appear disappear touch stay change remain contain include depict feature display walk jump "
    "play look cover surround overlap enter stop start bounce rotate collide use open close follow "
    "push pull pass smile rest happen cook talk work cross point face hang show watch wait climb rain"
)
_IRREGULAR = {
    "vanish": ("vanishes", "vanished"), "have": ("has", "had"), "stand": ("stands", "stood"), "sit": ("sits", "sat"),
    "lie": ("lies", "lay"), "hold": ("holds", "held"), "wear": ("wears", "wore"), "run": ("runs", "ran"),
    "eat": ("eats", "ate"), "drink": ("drinks", "drank"), "leave": ("leaves", "left"), "begin": ("begins", "began"),
    "fall": ("falls", "fell"), "rise": ("rises", "rose"), "grow": ("grows", "grew"), "shrink": ("shrinks", "shrank"),
    "ride": ("rides", "rode"), "fly": ("flies", "flew"), "swim": ("swims", "swam"), "read": ("reads", "read"),
    "say": ("says", "said"), "become": ("becomes", "became"), "come": ("comes", "came"), "go": ("goes", "went"),
    "throw": ("throws", "threw"), "catch": ("catches", "caught"), "hit": ("hits", "hit"), "drive": ("drives", "drove"),
    "meet": ("meets", "met"), "carry": ("carries", "carried"),
}  # fmt: skip
NOUNS_TOO = frozenset(words("left cross point face show rest work crosses points faces shows rests works looks"))
"""Verb forms that are more often something else: taken as verbs only after a whole subject, never as the base form."""


def _regular(base: str) -> tuple[str, str]:
    third = f"{base}es" if base.endswith(("s", "x", "sh", "ch")) else f"{base}s"
    past = f"{base}d" if base.endswith("e") else f"{base}ped" if base == "stop" else f"{base}ed"
    return third, past


FORMS = {base: _regular(base) for base in _REGULAR} | _IRREGULAR
THIRD = {third: base for base, (third, _) in FORMS.items()}
PAST = {past: base for base, (_, past) in FORMS.items() if past != "left"}
MEETING = frozenset(words("collide touch meet overlap"))
PARTICIPLES = frozenset(words("been thrown caught fallen gone become taken eaten broken written made left"))
