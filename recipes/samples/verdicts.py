"""What a labeler learns from: questions about claims, true and false ones, and about whole responses, answered by yes
or no from what a rendered picture or clip was drawn from. They are asked as `rl.labeler` asks them.
"""

from __future__ import annotations

from random import Random

from recipes.render.captions import caption
from recipes.render.claim_truth import SceneFacts
from recipes.render.records import Item
from recipes.render.told import careless_caption, told_claims, with_error
from rl.claim_splitter import split_claims
from rl.labeler_config import LabelerConfig

_TRIES = 12


def verdict_exchanges(item: Item, rng: Random, number: int, whole_share: float) -> list[tuple[str, str]]:
    """Questions with their answers, yes as often as no.

    Args:
        item: Of one of KNOWN_KINDS of `recipes.render.claim_truth`.
        rng: What is drawn with.
        number: Questions wanted, at least 1.
        whole_share: Share of them that ask about a whole response.
    """
    facts, told = SceneFacts(item.kind, item.scene), told_claims(item, rng.getrandbits(31))
    asked = []
    for _ in range(number):
        wanted = rng.random() < 0.5
        make = _whole if rng.random() < whole_share else _claim
        found = None
        while found is None:  # a wrong one is not always found; a right one is
            found = make(item, facts, told, wanted, rng)
            wanted = True
        asked.append(found)
    return asked


def _claim(item: Item, facts: SceneFacts, told: list[str], wanted: bool, rng: Random) -> tuple[str, str] | None:
    """One claim that is true or false as wanted."""
    for _ in range(_TRIES):
        text = rng.choice(told) if wanted else with_error(rng.choice(told), rng)
        division = split_claims(text)
        if len(division.claims) == 1 and (wanted or facts.truth(text) is False):
            return LabelerConfig().question.replace("{question}", division.claims[0].question), _answer(wanted)
    assert not wanted, f"no claim about {item.kind} {item.index} can be asked"
    return None


def _whole(item: Item, facts: SceneFacts, told: list[str], wanted: bool, rng: Random) -> tuple[str, str] | None:
    """A whole response without a false claim, or with some: the caption as it is written, or sentence by sentence."""
    listing = rng.random() < 0.5
    for _ in range(_TRIES):
        if listing:
            text = caption(item)
            if not wanted:
                text = careless_caption(item, rng) if rng.random() < 0.5 else with_error(text, rng)
        else:
            text = " ".join(with_error(each, rng) if not wanted and rng.random() < 0.5 else each for each in told)
        if wanted or any(facts.truth(claim.text) is False for claim in split_claims(text).claims):
            return LabelerConfig().whole.replace("{response}", text), _answer(wanted)
    return None


def _answer(yes: bool) -> str:
    return "yes" if yes else "no"
