"""Exact and normalised text, and the composite's routing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import build
from rewards.accuracy import accuracy
from rewards.exact import exact
from rewards.normalised import normalised
from rewards.text import normalise


@pytest.mark.parametrize(
    ("answer", "reference", "is_exact", "is_normalised"),
    [
        ("Paris", "Paris", 1.0, 1.0),
        (" Paris.\n", "Paris", 1.0, 1.0),
        ("The answer is Paris.", "Paris", 1.0, 1.0),
        ("\\boxed{Paris}", "Paris", 1.0, 1.0),
        ("paris", "Paris", 0.0, 1.0),
        ("the  Eiffel Tower!", "Eiffel tower", 0.0, 1.0),
        ("Paris or Rome", "Paris", 0.0, 0.0),
        ("1.5", "15", 0.0, 0.0),
        ("-3", "3", 0.0, 0.0),
        ("Rome", "Paris", 0.0, 0.0),
        ("\\boxed{Rome} Paris", "Paris", 0.0, 0.0),
        ("<think>Paris</think>Rome", "Paris", 0.0, 0.0),
        ("", "Paris", 0.0, 0.0),
        (None, "Paris", 0.0, 0.0),
        ("Paris", None, None, None),
        ("Paris", "", None, None),
        ("Lutetia", ["Paris", "Lutetia"], 1.0, 1.0),
        ("42", 42, 1.0, 1.0),
    ],
)
def test_text(answer, reference, is_exact, is_normalised):
    assert exact(answer=answer, reference=reference) == is_exact
    assert normalised(answer=answer, reference=reference) == is_normalised


@given(st.text(min_size=1, max_size=60))
def test_normalising_settles_and_ignores_case(text):
    once = normalise(text)
    assert normalise(once) == once
    assert "  " not in once


def test_accuracy_routes_by_reference_and_argument():
    assert accuracy(answer="\\boxed{\\frac{1}{2}}", reference="0.5") == 1.0
    assert accuracy(answer="\\boxed{\\frac{1}{2}}", reference="0.5", verifier="exact") == 0.0
    assert accuracy(answer="the answer is paris", reference="Paris", verifier="normalised") == 1.0
    assert accuracy(answer="The answer is Rome", reference="B", choices=["Oslo", "Rome"]) == 1.0
    assert accuracy(answer="The answer is Rome", reference="B") == 0.0
    assert accuracy(answer="x", reference=None) is None


def test_the_composite_from_yaml():
    specs = ["accuracy", {"name": "format", "weight": 0.5}, "repetition"]
    row = {"prompt": "", "thinking": None, "reference": "4", "mode": "short", "response_ids": [], "truncated": False}
    texts = ["The answer is 4", "<think>The answer is 4", "The answer is 5. " * 60]
    with build(specs) as rewards:
        right, broken, loop = rewards.score([[{**row, "response": text, "answer": text} for text in texts]])[0]
    assert right.breakdown == {"accuracy": 1.0, "format": 1.0, "repetition": 0.0}
    assert right.total == 1.5
    assert broken.total == 0.0
    assert loop.breakdown == {"accuracy": 0.0, "format": 1.0, "repetition": -1.0}
    assert loop.total == -0.5
