"""The probability reward on hand-made probabilities: the paper's formula, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.probability import probability


@pytest.mark.parametrize(
    ("reference_probs", "baseline_probs", "expected"),
    [
        ([0.9, 0.5], [0.2, 0.2], 0.5),  # arithmetic mean: 0.7 - 0.2
        ([1.0, 1.0, 0.0], [0.5], 2 / 3 - 0.5),  # one impossible token does not sink the rest
        ([0.3], [0.4, 0.4], 0.0),  # clipped at 0
        ([1.0], [0.0], 1.0),
        ([0.25, 0.75], None, 0.5),  # nothing to subtract
        ([], [0.2], 0.0),  # no answer that could be replaced
        ([], None, 0.0),
    ],
)
def test_the_papers_formula(reference_probs, baseline_probs, expected):
    value = probability(reference="x", reference_probs=reference_probs, baseline_probs=baseline_probs)
    assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reference", [None, "", "  \n"])
def test_without_a_reference_it_does_not_apply(reference):
    assert probability(reference=reference, reference_probs=[0.5], baseline_probs=[0.1]) is None


def test_before_the_policy_was_asked_it_does_not_apply():
    assert probability(reference="x", reference_probs=None) is None


PROBS = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(PROBS, PROBS)
def test_it_lies_between_0_and_1_and_rises_with_every_probability(reference_probs, baseline_probs):
    value = probability(reference="x", reference_probs=reference_probs, baseline_probs=baseline_probs)
    assert 0.0 <= value <= 1.0
    raised = [min(1.0, p + 0.1) for p in reference_probs]
    assert probability(reference="x", reference_probs=raised, baseline_probs=baseline_probs) >= value - 1e-12
