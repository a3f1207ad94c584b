"""Truth of claims about rendered pictures and clips, against hand-made descriptions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.object_words import ObjectWords, count_rendered
from recipes.render.captions import caption
from recipes.render.claim_phrases import mentions
from recipes.render.claim_truth import SceneFacts
from recipes.render.source import KINDS, RenderSource
from rl.claim_splitter import split_claims


def thing(colour, shape, centre, **more):
    return {"colour": colour, "shape": shape, "centre": list(centre), "radius": 10, **more}


SCENE = {
    "size": [300, 300],
    "objects": [
        thing("red", "circle", (40, 40), size="small"),
        thing("red", "circle", (150, 150), size="large"),
        thing("blue", "square", (260, 55), size="large"),
    ],
}
GRID = {
    "size": [100, 100],
    "cells": 2,
    "objects": [
        thing("red", "circle", (25, 25), place="top left"),
        thing("blue", "star", (75, 25), place="top right"),
        thing("red", "star", (25, 75), place="bottom left"),
    ],
}
TURNS = {
    **GRID,
    "frames": 6,
    "rate": 2,
    "objects": [
        item | {"start": start, "end": end}
        for item, start, end in zip(GRID["objects"], (0, 2, 3), (2, 6, 5), strict=True)
    ],
}
CLIP = {
    "size": [200, 200],
    "rate": 2,
    "frames": 6,
    "objects": [
        {"colour": "red", "shape": "circle", "action": "move", "visible": [True] * 6, "colours": ["red"] * 6},
        {"colour": "blue", "shape": "square", "action": "recolour", "visible": [True] * 6,
         "colours": ["blue"] * 3 + ["green"] * 3},
        {"colour": "pink", "shape": "star", "action": "appear", "visible": [False] * 2 + [True] * 4,
         "colours": ["pink"] * 6},
        {"colour": "black", "shape": "diamond", "action": "collide", "visible": [True] * 6, "colours": ["black"] * 6},
        {"colour": "cyan", "shape": "diamond", "action": "collide", "visible": [True] * 6, "colours": ["cyan"] * 6},
        {"colour": "brown", "shape": "heart", "action": "stay", "visible": [True] * 6, "colours": ["brown"] * 6},
    ],
    "events": [
        {"type": "move", "object": 0, "direction": "left", "time": 0.0},
        {"type": "appear", "object": 2, "time": 1.0},
        {"type": "recolour", "object": 1, "colour": "green", "time": 1.5},
        {"type": "collide", "objects": [3, 4], "time": 2.0},
    ],
}  # fmt: skip
CASES = {
    "scene": (SCENE, {
        "There is a red circle.": True,
        "There is a red square.": False,
        "There are 2 red circles in the picture.": True,
        "There are two red circles.": True,
        "There are 3 red circles.": False,
        "There is one blue square.": True,
        "There are no green objects.": True,
        "There are no red objects.": False,
        "The picture shows 3 objects.": True,
        "The picture shows a large blue square at the top right.": True,
        "The picture shows a large blue square at the bottom right.": False,
        "The square is blue.": True,
        "The square is not blue.": False,
        "The square isn't red.": True,
        "The star is red.": False,
        "The star is not red.": False,
        "The circle is red.": True,
        "The circle is small.": None,
        "The red object is a circle.": True,
        "The blue object is a circle.": False,
        "The small circle is left of the blue square.": True,
        "The small red circle is to the right of the square.": False,
        "The large circle is below the square.": True,
        "The small circle is above the square.": None,
        "The circle is left of the square.": True,
        "The large circle is left of the red circle.": None,
        "There are more red objects than blue objects.": True,
        "There are more squares than circles.": False,
        "Most objects are red.": True,
        "Most objects are blue.": False,
        "The dragon sleeps.": None,
        "": None,
    }),
    "grid": (GRID, {
        "The top left object is red.": True,
        "The object at the top right is red.": False,
        "The bottom right object is red.": False,
        "There is a star at the bottom left.": True,
        "There is an object at the bottom right.": False,
        "The star is red.": None,
        "The place of the blue object is top right.": True,
        "The blue object is at the top left.": False,
        "There is a large star.": None,
        "There is a large ring.": False,
    }),
    "turns": (TURNS, {
        "The top left object appears before the top right object.": True,
        "The bottom left object appears before the top left object.": False,
        "The blue object appears after the red circle.": True,
        "The object that appears first is red.": True,
        "The object that appears last is blue.": False,
        "The red circle appears first.": True,
        "3 objects appear.": True,
        "2 objects appear.": False,
        "At 1 second the blue star appears.": True,
        "At 2 seconds the blue star appears.": False,
        "At 0.5 seconds one object is visible.": True,
    }),
    "clip": (CLIP, {
        "The clip shows a red circle.": True,
        "The clip shows a green square.": True,
        "The clip shows 6 objects.": True,
        "The red circle moves left.": True,
        "The red circle moves right.": False,
        "The red circle moves.": True,
        "The red circle does not move.": False,
        "The brown heart does not move.": True,
        "The brown heart moves left.": False,
        "The black diamond moves left.": None,
        "The black diamond does not move.": False,
        "The yellow ring does not move.": False,
        "At 1 second the pink star appears.": True,
        "At 2 seconds the pink star appears.": False,
        "The pink star vanishes.": False,
        "After 1.5 seconds the blue square turns green.": True,
        "The blue square turns red.": False,
        "The blue square changes its colour at 1.5 seconds.": True,
        "The square is blue.": None,
        "At 0.5 seconds the square is blue.": True,
        "The square is green at 2.5 seconds.": True,
        "After 2 seconds the black diamond and the cyan diamond collide.": True,
        "The black diamond collides with the red circle.": False,
        "At 1 second the black diamond and the cyan diamond collide.": False,
        "No two objects touch in any frame.": False,
        "Nothing moves or changes.": False,
        "At 0 seconds 5 objects are visible.": True,
        "At 1 second 5 objects are visible.": False,
        "At 99 seconds 5 objects are visible.": False,
    }),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_hand_made_scenes(kind):
    scene, claims = CASES[kind]
    facts = SceneFacts(kind, scene)
    assert {claim: facts.truth(claim) for claim in claims} == claims


@pytest.mark.parametrize("kind", CASES)
def test_what_the_renderer_says_is_never_false_and_nearly_always_known(kind):
    from recipes.render.records import random_of

    source, known, total = RenderSource(mixture={kind: 1}), 0, 0
    for index in range(25):
        item = source.item("train", 7, index)
        facts = SceneFacts(kind, item.scene)
        questions = [KINDS[kind].ask(item.scene, random_of(index, number)) for number in range(3)]
        texts = [caption(item), *(q.answer if q.kind == "caption" else q.sentence for q in questions)]
        for claim in (claim for text in texts for claim in split_claims(text).claims):
            truth = facts.truth(claim.text)
            assert truth is not False, claim.text
            known, total = known + bool(truth), total + 1
    assert known >= 0.95 * total


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["red", "blue", "pink"]), st.sampled_from(["circle", "star"])), max_size=6),
    st.sampled_from(["red", "blue", "pink", ""]),
    st.sampled_from(["circle", "star", "object"]),
    st.integers(0, 7),
)
def test_counts_are_those_of_brute_force(looks, colour, shape, number):
    scene = {"size": [9, 9], "objects": [thing(*look, (5, 5), place="top") for look in looks]}
    what = " ".join(filter(None, (colour, shape)))
    matching = sum(colour in ("", c) and shape in ("object", s) for c, s in looks)
    facts = SceneFacts("grid", scene)
    assert facts.truth(f"There are {number} {what}s.") is (matching == number)
    assert facts.truth(f"There is a {what}.") is (matching > 0)
    assert facts.truth(f"There are no {what}s.") is (matching == 0)


SAID = [
    "there",
    "is",
    "are",
    "a",
    "an",
    "the",
    "no",
    "2",
    "red",
    "blue",
    "circle",
    "objects",
    "at",
    "top",
    "left",
    "moves",
    "turns",
    "not",
    "before",
    ".",
    ",",
    ":",
    "I",
    "see",
    "1.5",
    "seconds",
    "\x00",
]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300) | st.lists(st.sampled_from(SAID), max_size=30).map(" ".join))
def test_any_text_has_an_answer(text):
    for kind, (scene, _) in CASES.items():
        assert SceneFacts(kind, scene).truth(text) in (True, False, None)
        counts = count_rendered(text, kind, scene)
        assert 0 <= counts.hallucinated <= counts.mentioned
        assert 0 <= counts.covered <= counts.present == len(scene["objects"])
    assert split_claims(text).problem is None


@pytest.mark.parametrize("text", ["a " * 50_000, "the left red " * 8_000, "(" * 20_000, "left " * 20_000 + "circle"])
def test_long_texts_take_no_long_time(text):
    import time

    start = time.perf_counter()
    SceneFacts("grid", GRID).truth(text)
    mentions(text)
    ObjectWords({"red": [], "circle": ["a a a"]}).mentioned(text)
    split_claims(text[:20_000])
    assert time.perf_counter() - start < 5


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="claims about a rendered 'chart' cannot be checked"):
        SceneFacts("chart", {"objects": []})
