"""Claims and whole responses to be verified, and captions with errors: the answers are the drawing's."""

import re
from collections import Counter

import pytest

from recipes.render.captions import caption
from recipes.render.claim_truth import KNOWN_KINDS, SceneFacts
from recipes.render.grid import PLACES
from recipes.render.records import random_of
from recipes.render.source import RenderSource
from recipes.render.told import careless_caption, told_claims, with_error
from recipes.samples.media import MediaSettings, Opening
from recipes.samples.rendered import RenderedSamples
from recipes.samples.verdicts import verdict_exchanges
from rl.claim_splitter import split_claims

SOURCE = RenderSource(mixture={"grid": 1}, side=(112, 112), cells=[2], shapes=["square"])


def items(kind, count):
    source = SOURCE.model_copy(update={"mixture": {kind: 1}})
    return [source.item("train", 0, index) for index in range(count)]


def truth_by_hand(question, things):
    """The answer to a question about a grid, read with patterns of its own; None = of another form."""
    by_place = {thing["place"]: thing for thing in things}
    if found := re.match(r"Is there an object at the (.+)\? ", question):
        return found[1] in by_place
    if found := re.match(r"Is the (top left|top right|bottom left|bottom right) object (\w+)\? ", question):
        return by_place.get(found[1], {}).get("colour") == found[2]
    if found := re.match(r"Are there (\d) objects\? ", question):
        return int(found[1]) == len(things)
    return None


def test_answers_are_right_and_yes_as_often_as_no():
    seen, checked = Counter(), 0
    for item in items("grid", 150):
        for question, answer in verdict_exchanges(item, random_of("q", item.index), 4, 0.0):
            assert question.endswith(" Answer with yes or no.")
            seen[answer] += 1
            expected = truth_by_hand(question, item.scene["objects"])
            if expected is not None:
                checked += 1
                assert answer == ("yes" if expected else "no"), (question, item.scene)
    assert checked > 400
    assert 0.43 < seen["yes"] / seen.total() < 0.57


@pytest.mark.parametrize("kind", KNOWN_KINDS)
def test_claims_of_every_kind_are_true_where_yes_is_the_answer(kind):
    seen = Counter()
    for item in items(kind, 40):
        facts = SceneFacts(kind, item.scene)
        claims = {}
        for text in told_claims(item, 0):
            claims |= {claim.question: claim.text for claim in split_claims(text).claims}
        for question, answer in verdict_exchanges(item, random_of("q", item.index), 6, 0.0):
            seen[answer] += 1
            text = claims.get(question.removesuffix(" Answer with yes or no."))
            if text is not None:  # told of the picture by another draw, so true
                assert facts.truth(text) is not False, (text, item.scene)
                assert answer == "yes", (question, item.scene)
    assert min(seen["yes"], seen["no"]) > 60


@pytest.mark.parametrize("kind", KNOWN_KINDS)
def test_whole_responses_are_told_as_they_are_or_with_something_false(kind):
    seen = Counter()
    for item in items(kind, 25):
        facts = SceneFacts(kind, item.scene)
        for question, answer in verdict_exchanges(item, random_of("q", item.index), 4, 1.0):
            text = question.removesuffix("\n\nIs every statement in this description true? Answer with yes or no.")
            assert text != question
            wrong = any(facts.truth(claim.text) is False for claim in split_claims(text).claims)
            assert answer == ("no" if wrong else "yes")
            seen[answer] += 1
    assert min(seen["yes"], seen["no"]) > 25


def test_a_careless_caption_puts_one_object_at_an_empty_place():
    full = 0
    for item in items("grid", 60):
        right, wrong = caption(item), careless_caption(item, random_of("c", item.index))
        things = item.scene["objects"]
        if len(things) == len(PLACES[2]):
            full += 1
            assert wrong == right
            continue
        told = re.findall(r"(top left|top right|bottom left|bottom right) (\w+) square", wrong)
        assert len(told) == len(things)
        assert sorted(colour for _, colour in told) == sorted(thing["colour"] for thing in things)
        assert [place for place, _ in told] == sorted((place for place, _ in told), key=PLACES[2].index)
        there = {thing["place"] for thing in things}
        assert sum(place not in there for place, _ in told) == 1
    assert 0 < full < 60


def test_elsewhere_a_careless_caption_has_a_wrong_word():
    changed = [careless_caption(item, random_of("c", item.index)) != caption(item) for item in items("scene", 20)]
    assert sum(changed) > 15


def test_an_error_changes_one_thing():
    rng = random_of("error")
    for item in items("grid", 40):
        for text in told_claims(item, 0):
            before, after = text.split(), with_error(text, rng).split()
            differing = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
            assert len(differing) <= 2, (text, after)  # the two words of a place


def test_the_share_of_careless_captions():
    def texts(careless):
        samples = RenderedSamples(task="caption", careless=careless, render=SOURCE)
        stream = samples.open(Opening(split="train", seed=0, media=MediaSettings()))
        return [stream.sample(index).messages for index in range(80)]

    right, some = texts(0.0), texts(0.5)
    assert [each[0] for each in right] == [each[0] for each in some]  # the same pictures and prompts
    share = sum(one[1] != other[1] for one, other in zip(right, some, strict=True)) / 80
    assert 0.2 < share < 0.5  # a third of the pictures are full


def test_claims_as_samples():
    samples = RenderedSamples(task="claims", rounds=3, render=SOURCE)
    stream = samples.open(Opening(split="train", seed=0, media=MediaSettings()))
    lengths = Counter()
    for index in range(30):
        sample = stream.sample(index)
        assert {turn["content"] for turn in sample.messages[1::2]} <= {"yes", "no"}
        assert sample.messages[0]["content"][0] == {"type": "image"}
        assert not sample.thinking
        lengths[len(sample.messages) // 2] += 1
    assert set(lengths) == {1, 2, 3}


def test_pages_have_no_claims():
    with pytest.raises(ValueError, match="task 'claims' needs pictures or clips of objects"):
        RenderedSamples(task="claims", render=RenderSource(mixture={"table": 1}))
