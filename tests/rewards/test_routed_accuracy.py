"""Which route a reference takes, what each gives, and that the route is recorded."""

import json

import pytest

from rewards import RewardError, build
from rewards.routed_accuracy import choose, routed_accuracy


@pytest.mark.parametrize(
    ("reference", "route"),
    [
        ("42", "math"),
        ("-3.5e-4", "math"),
        ("$\\frac{1}{2}$", "math"),
        ("\\boxed{x^2 + 1}", "math"),
        ("\\sin x", "math"),
        ("(1, 2]", "math"),
        ("B", "math"),
        (7, "math"),
        ([1, 2], "math"),
        ("\\begin{pmatrix}1 & 0 \\\\ 0 & 1\\end{pmatrix}", "math"),
        ("6 \\text{ and } 8", "math"),
        ("(-infinity, 5)", "math"),
        ("e^{cosh(4x)}", "math"),
        ("\\text{Even}", "normalised"),
        ("\\text{The midpoints form a regular hexagon}", "probability"),
        ("12 km", "number"),
        ("3.2 m/s^2", "number"),
        ("Yes", "yes_no"),
        ("false.", "yes_no"),
        (True, "yes_no"),
        ("Paris", "normalised"),
        ("Paul Revere", "normalised"),
        ("東京", "normalised"),
        ("It targeted crops Africans don't grow and eat.", "probability"),
        ("33% decomposition", "probability"),
        ("the endpoint would be before the ideal equivalence point", "probability"),
        ("x = 3 where the curve turns", "probability"),
        ("世界で最も高い山です", "probability"),
        ("7 " * 200, "probability"),
    ],
)
def test_the_criterion(reference, route):
    assert choose(reference) == route


def test_rows_and_constants_go_before_the_criterion():
    assert choose("Paris", choices=["Rome", "Paris"]) == "choice"
    assert choose("Paris", route="probability") == "probability"
    assert choose("Paris", choices=["Rome", "Paris"], route="probability") == "probability"
    assert choose("a long text that no rule reads", route="rule") == "math"
    assert choose("a long text that no rule reads", verifier="anls") == "anls"
    assert choose("Paul Revere", max_words=1) == "probability"
    with pytest.raises(RewardError, match="`route` must be auto, rule, probability, got 'maybe'"):
        choose("x", route="maybe")


def test_values_and_recorded_routes():
    rows = [
        {"answer": "It is 4.", "reference": "4", "reference_probs": [0.1], "baseline_probs": [0.0]},
        {"answer": "no idea", "reference": "a text of more than two words", "reference_probs": [0.9, 0.7]},
        {"answer": "x", "reference": None, "reference_probs": []},
        {"answer": "Paris", "reference": "Paris", "reference_probs": [0.2], "route": "probability"},
    ]
    samples = [
        {"baseline_probs": [0.3], "route": None, "prompt": "", "messages": [], "response": "", "thinking": None}
        | {"mode": "long", "response_ids": [], "truncated": False}
        | row
        for row in rows
    ]
    with build(["routed_accuracy"], columns=["route"]) as rewards:
        assert rewards.deferred
        scores = rewards.score([samples])[0]
    assert [score.breakdown["routed_accuracy"] for score in scores] == [1.0, pytest.approx(0.5), None, 0.0]
    assert [score.info.get("routed_accuracy/route") for score in scores] == [
        "rule:math",
        "probability",
        None,
        "probability",
    ]
    json.dumps([dict(score.info) for score in scores])


def test_references_of_the_probability_route_pass_the_check_of_gold_answers():
    with build(["routed_accuracy"]) as rewards:
        rewards.check_gold(
            [{"reference": text} for text in ("4", "12 km", "yes", "a text that no rule can read", True)]
        )


@pytest.mark.parametrize("args", [{"route": "both"}, {"max_words": -1}, {"max_words": True}])
def test_bad_constants_are_refused(args):
    with pytest.raises(RewardError, match="must be"):
        build([{"name": "routed_accuracy", "args": args}])


def test_it_is_a_plain_function():
    outcome = routed_accuracy(answer="no", reference="yes", reference_probs=None)
    assert (outcome.value, outcome.info) == (0.0, {"route": "rule:yes_no"})
