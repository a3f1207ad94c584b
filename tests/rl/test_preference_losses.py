"""DPO's losses against hand-computed values, a float64 reference in plain Python, and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rl.metrics import merge, to_floats
from rl.preference_losses import (
    PairLogprobs,
    dpo_loss,
    implicit_rewards,
    pair_metrics,
    sft_loss,
    sum_by_response,
)

LOGPROBS = st.floats(-300, -0.01)
SIX = st.tuples(LOGPROBS, LOGPROBS, LOGPROBS, LOGPROBS, st.integers(1, 400), st.integers(1, 400))


def make_pairs(rows: list[tuple[float, ...]], dtype: torch.dtype = torch.float64) -> PairLogprobs:
    names = ("chosen_P", "rejected_P", "ref_chosen_P", "ref_rejected_P", "chosen_tokens_P", "rejected_tokens_P")
    columns = [torch.tensor(column, dtype=dtype) for column in zip(*rows, strict=True)]
    return PairLogprobs(**dict(zip(names, columns, strict=True)))


def reference(row: tuple[float, ...], beta: float, smoothing: float, normalised: bool) -> float:
    """The formula, for one pair, with math.log1p instead of torch."""
    chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens = row
    ratios = [chosen - ref_chosen, rejected - ref_rejected]
    if normalised:
        ratios = [ratios[0] / chosen_tokens, ratios[1] / rejected_tokens]
    margin = beta * (ratios[0] - ratios[1])

    def softplus(x: float) -> float:
        return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

    return (1 - smoothing) * softplus(-margin) + smoothing * softplus(margin)


@given(st.lists(SIX, min_size=1, max_size=5), st.floats(0.01, 5), st.sampled_from([0.0, 0.1, 0.3]), st.booleans())
def test_the_loss_equals_the_reference(
    rows: list[tuple[float, ...]], beta: float, smoothing: float, normalised: bool
) -> None:
    found = dpo_loss(make_pairs(rows), beta=beta, label_smoothing=smoothing, length_normalised=normalised)
    expected = [reference(row, beta, smoothing, normalised) for row in rows]
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_by_hand() -> None:
    pairs = make_pairs([(-3.0, -6.0, -5.0, -5.0, 4, 2)])  # log-ratios 2 and -1
    assert dpo_loss(pairs, beta=0.5).item() == pytest.approx(math.log1p(math.exp(-1.5)))
    assert dpo_loss(pairs, beta=0.5, length_normalised=True).item() == pytest.approx(math.log1p(math.exp(-0.5)))
    smoothed = 0.9 * math.log1p(math.exp(-1.5)) + 0.1 * math.log1p(math.exp(1.5))
    assert dpo_loss(pairs, beta=0.5, label_smoothing=0.1).item() == pytest.approx(smoothed)
    assert sft_loss(pairs.chosen_P, 8).item() == pytest.approx(3 / 8)
    options = {"beta": 0.5, "length_normalised": True}
    rewards = implicit_rewards(pairs.chosen_P, pairs.ref_chosen_P, pairs.chosen_tokens_P, **options)
    assert rewards.item() == pytest.approx(0.25)


def test_at_the_reference_the_loss_is_log_2_and_its_gradient_beta_over_2() -> None:
    pairs = make_pairs([(-4.0, -9.0, -4.0, -9.0, 3, 3)])
    pairs.chosen_P.requires_grad_()
    loss = dpo_loss(pairs, beta=0.3)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert pairs.chosen_P.grad is not None
    assert pairs.chosen_P.grad.item() == pytest.approx(-0.15)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"length_normalised": True}])
def test_gradients_are_those_of_finite_differences(options: dict) -> None:
    rest = make_pairs([(-3.0, -6.0, -5.0, -5.0, 4, 2), (-40.0, -30.0, -33.0, -31.5, 9, 11)])

    def loss(shift: float) -> Tensor:
        return dpo_loss(
            replace(rest, chosen_P=chosen_P + shift, rejected_P=rejected_P - 2 * shift), beta=0.7, **options
        )

    chosen_P, rejected_P = rest.chosen_P.clone().requires_grad_(), rest.rejected_P.clone().requires_grad_()
    chosen, rejected = torch.autograd.grad(loss(0.0).sum(), (chosen_P, rejected_P))
    expected_P = (loss(1e-5) - loss(-1e-5)) / 2e-5
    torch.testing.assert_close(chosen - 2 * rejected, expected_P.detach(), rtol=1e-6, atol=1e-9)
    if "length_normalised" not in options:
        torch.testing.assert_close(rejected, -chosen)


def test_extreme_margins_give_finite_losses_and_gradients() -> None:
    pairs = make_pairs([(-1e4, -1.0, -1.0, -1e4, 5, 5), (-1.0, -1e4, -1e4, -1.0, 5, 5)], torch.float32)
    pairs.chosen_P.requires_grad_()
    loss = dpo_loss(pairs, beta=1.0, label_smoothing=0.1)
    loss.sum().backward()
    assert pairs.chosen_P.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(pairs.chosen_P.grad).all()


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0])
def test_smoothing_that_says_nothing_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        dpo_loss(make_pairs([(-1.0, -1.0, -1.0, -1.0, 1, 1)]), label_smoothing=smoothing)


def test_shapes_that_would_broadcast_are_refused() -> None:
    pairs = make_pairs([(-1.0, -1.0, -1.0, -1.0, 1, 1)] * 2)
    with pytest.raises(ValueError, match=r"one shape \[P\]"):
        dpo_loss(replace(pairs, ref_chosen_P=pairs.ref_chosen_P[:, None]))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_sums_by_response(lengths: list[int]) -> None:
    values_T = torch.arange(sum(lengths), dtype=torch.float32) - 3.5
    expected = [float(part.sum()) for part in values_T.split(lengths)]
    assert sum_by_response(values_T, lengths).tolist() == pytest.approx(expected)


def test_metrics_of_parts_merge_to_those_of_the_whole() -> None:
    rows = [(-3.0, -6.0, -5.0, -5.0, 4, 2), (-7.0, -6.0, -5.0, -5.0, 1, 9), (-5.0, -5.0, -5.0, -5.0, 2, 2)]
    whole = to_floats(pair_metrics(make_pairs(rows), beta=0.5))
    parts = to_floats(merge(*(pair_metrics(make_pairs([row]), beta=0.5) for row in rows)))
    assert parts == pytest.approx(whole)
    assert whole["reward/accuracy"] == pytest.approx(1 / 3)  # the tie is wrong
    assert whole["reward/margin"] == pytest.approx((1.5 - 0.5) / 3)
    assert whole["tokens/rejected"] == pytest.approx(13 / 3)
