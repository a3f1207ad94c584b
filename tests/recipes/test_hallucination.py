"""Hallucination figures by hand, and accuracy of verdicts against scikit-like references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.evaluation import wilson_interval
from recipes.hallucination import CheckedResponse, figure_lines, hallucination
from recipes.holistic_comparison import compare_judgements, comparison_lines
from recipes.object_words import ObjectCounts, ObjectWords, count_rendered
from recipes.render.claim_phrases import mentions
from recipes.verdict_accuracy import CheckedVerdict, accuracy_table, area_under_curve, table_lines
from rl.claims import Claim, ClaimKind, ScoreConfig, Verdict, judge
from tests.recipes.render.test_claim_truth import CLIP, GRID, SCENE

WORDS = ObjectWords(
    {"cat": ["kitten", "kitty"], "dog": ["puppy"], "hot dog": [], "dining table": ["table"], "glass": []}
)


def counts(mentioned, hallucinated, present, covered):
    return ObjectCounts(mentioned=mentioned, hallucinated=hallucinated, present=present, covered=covered)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two kittens and a cat at the table.", ["cat", "dining table"]),
        ("A hot dog.", ["hot dog"]),
        ("Hot dogs and a dog; glasses", ["hot dog", "dog", "glass"]),
        ("concatenate tables of doggerel", ["dining table"]),
        ("A CAT!", ["cat"]),
        ("", []),
    ],
)
def test_words_in_a_text(text, expected):
    assert WORDS.mentioned(text) == expected


def test_a_photo_response_by_hand():
    assert WORDS.count("A kitten and a puppy on a table.", ["cat", "table", "glass"]) == counts(3, 1, 3, 2)


def test_words_that_mean_two_objects_are_refused():
    with pytest.raises(ValueError, match="'kitty' stands for 'cat' and for 'tiger'"):
        ObjectWords({"cat": ["kitty"], "tiger": ["kitty"]})
    with pytest.raises(ValueError, match="no objects to look for"):
        ObjectWords({})


@pytest.mark.parametrize(
    ("text", "kind", "scene", "expected"),
    [
        ("I see: top left red circle, top right blue star, bottom left red star.", "grid", GRID, (3, 0, 3, 3)),
        ("I see: top left red, top right red.", "grid", GRID, (2, 1, 3, 1)),
        ("The top left object is blue. The top right object is blue.", "grid", GRID, (2, 1, 3, 1)),
        ("There is a red circle and a green ring. No pink star is there, and no blue ring.", "scene", SCENE,
         (2, 1, 3, 1)),
        ("There are 2 red circles.", "scene", SCENE, (1, 0, 3, 2)),
        ("The picture shows red circles.", "scene", SCENE, (1, 0, 3, 2)),
        ("There is a red circle. The red circle is left of the blue square.", "scene", SCENE, (2, 0, 3, 2)),
        ("The clip shows a green square and a yellow square.", "clip", CLIP, (2, 1, 6, 1)),
        ("Nice objects.", "scene", SCENE, (0, 0, 3, 0)),
    ],
)  # fmt: skip
def test_a_rendered_response_by_hand(text, kind, scene, expected):
    assert count_rendered(text, kind, scene) == counts(*expected)


def test_negated_phrases_are_no_mentions():
    assert mentions("There are no red circles and 0 blue stars.") == []


def test_chair_by_hand():
    responses = [
        CheckedResponse(row=0, objects=counts(3, 1, 4, 2), tokens=10, claims=4),
        CheckedResponse(row=1, objects=counts(2, 0, 2, 2), tokens=20, claims=None),
        CheckedResponse(row=2, objects=counts(0, 0, 2, 0), tokens=0, claims=0),
        CheckedResponse(row=3, objects=counts(5, 2, 2, 1), tokens=30, claims=5),
    ]
    found = hallucination(responses)
    assert found.chair_s.value == 0.5
    assert (found.chair_s.low, found.chair_s.high) == wilson_interval(2, 4)
    assert found.chair_i.value == pytest.approx(3 / 10)
    assert found.coverage.value == pytest.approx(5 / 10)
    assert found.chair_i.low <= found.chair_i.value <= found.chair_i.high
    assert (found.objects, found.tokens, found.claims) == (2.5, 15.0, 3.0)
    assert (found.responses, found.images) == (4, 4)
    assert any("CHAIR_i) 0.300" in line for line in figure_lines(found))


def test_responses_to_one_image_are_one_piece_of_evidence():
    one = CheckedResponse(row=0, objects=counts(2, 1, 2, 1), tokens=5)
    other = CheckedResponse(row=1, objects=counts(2, 0, 2, 1), tokens=5)
    few, many = hallucination([one, other]), hallucination([one, other] * 50)
    assert (few.images, many.images) == (2, 2)
    assert many.chair_i.high - many.chair_i.low == few.chair_i.high - few.chair_i.low
    with pytest.raises(ValueError, match="no responses"):
        hallucination([])


def test_nothing_mentioned_is_no_hallucination():
    found = hallucination([CheckedResponse(row=0, objects=counts(0, 0, 0, 0), tokens=0)])
    assert (found.chair_i.value, found.coverage.value, found.claims) == (0, 0, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=25))
def test_auc_is_the_share_of_ordered_pairs(items):
    true, false = ([s for s, label in items if label is wanted] for wanted in (True, False))
    found = area_under_curve([s for s, _ in items], [label for _, label in items])
    if not true or not false:
        assert found is None
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in true for b in false]
    assert found[0] == pytest.approx(np.mean(pairs))
    assert 0 <= found[1] <= found[2] <= 1


def verdict(p_yes, kind=ClaimKind.COLOUR):
    claim = Claim(text="x", question="x?", kind=kind)
    if p_yes is None:
        return Verdict(claim=claim, p_yes=None, p_no=None, accepted=None, problem="broken")
    return judge(claim, p_yes, 1 - p_yes, ScoreConfig())


def test_accuracy_per_kind_by_hand():
    checked = [
        CheckedVerdict(verdict=verdict(0.9), truth=True, group="image"),
        CheckedVerdict(verdict=verdict(0.8), truth=False, group="image"),
        CheckedVerdict(verdict=verdict(0.1), truth=False, group="image"),
        CheckedVerdict(verdict=verdict(0.2, ClaimKind.COUNT), truth=True, group="video"),
        CheckedVerdict(verdict=verdict(None), truth=True, group="image"),
    ]
    rows = {row["name"]: row for row in accuracy_table(checked)}
    assert list(rows) == ["all", "colour", "count", "image", "video"]
    assert (rows["all"]["claims"], rows["all"]["problems"], rows["all"]["accuracy"]) == (4, 1, 0.5)
    assert (rows["all"]["accuracy_low"], rows["all"]["accuracy_high"]) == wilson_interval(2, 4)
    assert rows["all"]["auc"] == pytest.approx(3 / 4)
    assert rows["colour"]["accuracy"] == pytest.approx(2 / 3)
    assert (rows["count"]["accuracy"], rows["count"]["auc"]) == (0.0, None)
    assert "1 without a verdict" in table_lines(accuracy_table(checked))[0]
    assert "no verdict" in table_lines(accuracy_table([checked[-1]]))[0]


def test_divided_against_whole_by_hand():
    faultless = [True, True, False, False, True]
    scores = [0.0, -1.0, -2.0, -1.0, None]
    found = compare_judgements(faultless, scores, [verdict(p) for p in (0.9, 0.8, 0.7, 0.4, 0.9)])
    assert (found["responses"], found["left_out"], found["faultless"]) == (4, 1, 2)
    assert (found["divided"]["accuracy"], found["whole"]["accuracy"]) == (0.75, 0.75)
    assert found["divided"]["auc"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found["whole"]["auc"] == 1.0
    assert found["difference"] == 0
    assert len(comparison_lines(found)) == 4
    assert compare_judgements([True], [None], [verdict(0.5)]) is None
