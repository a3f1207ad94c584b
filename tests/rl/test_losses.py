"""The loss against hand-computed values, a float64 numpy reference, finite differences, and TRL's own code."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rl.losses import policy_loss, token_weights
from rl.metrics import merge, to_floats

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(lambda lengths: sum(lengths) > 0)
AGGREGATIONS = ["token-mean", "sequence-mean", "constant"]


def make_batch(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Log-probs of a policy that has moved: about a third of the ratios lie outside the clip range."""
    generator = torch.Generator().manual_seed(seed)
    old_T = -3 * torch.rand(tokens, generator=generator, dtype=dtype) - 0.1
    noise = [torch.randn(tokens, generator=generator, dtype=dtype) for _ in range(3)]
    return {
        "logprobs": (old_T + 0.25 * noise[0]).clamp(max=-1e-3),
        "old": old_T,
        "engine": (old_T + 0.5 * noise[1]).clamp(max=-1e-3),
        "advantages": noise[2],
    }


def reference_loss(
    lengths: list[int], batch: dict[str, Tensor], aggregation: str, constant: int, low: float, high: float, cap: float
) -> float:
    """The formulas, response by response, in plain numpy: nothing shared with the implementation."""
    logprobs, old, engine, advantages = (batch[key].numpy() for key in ("logprobs", "old", "engine", "advantages"))
    ends = np.cumsum(lengths)
    sums = []
    for end, length in zip(ends, lengths, strict=True):
        total = 0.0
        for t in range(end - length, end):
            r = math.exp(logprobs[t] - old[t])
            surrogate = min(r * advantages[t], min(max(r, 1 - low), 1 + high) * advantages[t])
            total += -surrogate * min(math.exp(old[t] - engine[t]), cap)
        sums.append(total)
    if aggregation == "token-mean":
        return sum(sums) / sum(lengths)
    if aggregation == "sequence-mean":
        return sum(s / max(n, 1) for s, n in zip(sums, lengths, strict=True)) / len(lengths)
    return sum(sums) / (len(lengths) * constant)


# --- token weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("token-mean", [1 / 4] * 4),
        ("sequence-mean", [1 / 3, 1 / 9, 1 / 9, 1 / 9]),  # 3 responses, one of them empty
        ("constant", [1 / 30] * 4),
    ],
)
def test_token_weights_by_hand(aggregation: str, expected: list[float]) -> None:
    weights_T = token_weights([1, 0, 3], aggregation=aggregation, constant_length=10, dtype=torch.float64)  # type: ignore[arg-type]
    assert weights_T.tolist() == pytest.approx(expected, rel=1e-15)


@given(LENGTHS, LENGTHS, st.sampled_from(AGGREGATIONS))
def test_a_ranks_share_gets_the_weights_of_the_whole_step(
    first: list[int], second: list[int], aggregation: str
) -> None:
    lengths = first + second
    options: dict = {"aggregation": aggregation, "constant_length": 7}
    totals = {"batch_tokens": sum(lengths), "batch_sequences": len(lengths)}
    shares = torch.cat([token_weights(share, **options, **totals) for share in (first, second)])
    assert torch.equal(shares, token_weights(lengths, **options))


def test_weights_of_nothing() -> None:
    assert token_weights([]).tolist() == []
    assert token_weights([0, 0], aggregation="sequence-mean").tolist() == []


@pytest.mark.parametrize("constant_length", [None, 0])
def test_constant_needs_its_length(constant_length: int | None) -> None:
    with pytest.raises(ValueError, match="needs constant_length >= 1"):
        token_weights([1], aggregation="constant", constant_length=constant_length)


def test_unknown_aggregation() -> None:
    with pytest.raises(ValueError, match="unknown aggregation 'mean': use"):
        token_weights([1], aggregation="mean")  # type: ignore[arg-type]


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: the gradient is -A
        (1.5, 1.0, -1.27, 0.0, 1),  # pushed far enough up: cut at 1 + 0.27, no gradient
        (1.5, -1.0, 1.5, 1.5, 0),  # moved up, but should go down: kept, r A in full
        (0.5, 1.0, -0.5, -0.5, 0),  # moved down, but should go up: kept
        (0.5, -1.0, 0.8, 0.0, 1),  # pushed far enough down: cut at 1 - 0.2
        (0.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_clip_by_hand(ratio: float, advantage: float, loss: float, gradient: float, clipped: int) -> None:
    logprobs_T = torch.tensor([math.log(ratio) - 2.0], dtype=torch.float64, requires_grad=True)
    old_T, advantages_T, one = (torch.tensor([x], dtype=torch.float64) for x in (-2.0, advantage, 1.0))
    value, metrics = policy_loss(logprobs_T, old_T, advantages_T, one, clip_low=0.2, clip_high=0.27)
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert logprobs_T.grad is not None
    assert logprobs_T.grad.item() == pytest.approx(gradient)
    assert to_floats(metrics)["clip_fraction"] == clipped
    assert to_floats(metrics)["ratio/mean"] == pytest.approx(ratio)


def test_the_docstring_example() -> None:
    logprobs_T = torch.tensor([1.5, 1.5]).log()
    loss, _ = policy_loss(logprobs_T, torch.zeros(2), torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.5]))
    assert loss.item() == pytest.approx(0.15)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 1000), st.sampled_from(AGGREGATIONS), st.sampled_from([0.0, 0.1, 0.2, 0.27, 0.5]))
def test_equals_the_numpy_reference(lengths: list[int], seed: int, aggregation: str, high: float) -> None:
    batch = make_batch(sum(lengths), seed)
    weights_T = token_weights(lengths, aggregation=aggregation, constant_length=9, dtype=torch.float64)  # type: ignore[arg-type]
    loss, _ = policy_loss(
        batch["logprobs"], batch["old"], batch["advantages"], weights_T,
        clip_low=0.2, clip_high=high, engine_logprobs_T=batch["engine"], importance_cap=1.3,
    )  # fmt: skip
    assert loss.item() == pytest.approx(reference_loss(lengths, batch, aggregation, 9, 0.2, high, 1.3), rel=1e-12)


@pytest.mark.parametrize("cap", [None, 1.2])
def test_gradient_equals_finite_differences(cap: float | None) -> None:
    batch = make_batch(24, seed=5)
    weights_T = token_weights([10, 14], aggregation="sequence-mean", dtype=torch.float64)
    engine_T = batch["engine"] if cap else None

    def loss(logprobs_T: Tensor) -> Tensor:
        options: dict = {"clip_high": 0.27, "engine_logprobs_T": engine_T, "importance_cap": cap}
        return policy_loss(logprobs_T, batch["old"], batch["advantages"], weights_T, **options)[0]

    assert torch.autograd.gradcheck(loss, batch["logprobs"].clone().requires_grad_())


def test_old_logprobs_get_no_gradient() -> None:
    batch = make_batch(6)
    old_T = batch["old"].requires_grad_()
    logprobs_T = batch["logprobs"].requires_grad_()
    policy_loss(logprobs_T, old_T, batch["advantages"], token_weights([6], dtype=torch.float64))[0].backward()
    assert old_T.grad is None


def test_the_first_update_has_the_policy_gradient() -> None:
    """With no old log-probs the ratio is 1 and d loss / d logprob_t = -weight_t A_t, whatever the clip range."""
    batch = make_batch(6)
    logprobs_T = batch["logprobs"].clone().requires_grad_()
    weights_T = token_weights([2, 4], dtype=torch.float64)
    loss, metrics = policy_loss(logprobs_T, None, batch["advantages"], weights_T, clip_low=0.0, clip_high=0.0)
    loss.backward()
    torch.testing.assert_close(logprobs_T.grad, -weights_T * batch["advantages"])
    assert to_floats(metrics)["ratio/mean"] == 1.0


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 99), st.lists(st.integers(0, 36), max_size=4), st.sampled_from(AGGREGATIONS))
def test_cutting_anywhere_changes_nothing(lengths: list[int], seed: int, cuts: list[int], aggregation: str) -> None:
    """Chunks, micro-batches, ranks: loss, gradient and metrics of the parts add up to those of the whole."""
    tokens = sum(lengths)
    batch = make_batch(tokens, seed)
    weights_T = token_weights(lengths, aggregation=aggregation, constant_length=8, dtype=torch.float64)  # type: ignore[arg-type]
    bounds = [0, *sorted(min(cut, tokens) for cut in cuts), tokens]
    whole = run_parts(batch, weights_T, [(0, tokens)])
    parts = run_parts(batch, weights_T, list(pairwise(bounds)))
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-12, atol=1e-14)
    assert torch.equal(parts[1], whole[1])
    assert parts[2] == pytest.approx(whole[2], rel=1e-12)


def run_parts(batch: dict[str, Tensor], weights_T: Tensor, spans: list[tuple[int, int]]) -> tuple[Tensor, Tensor, dict]:
    logprobs_T = batch["logprobs"].clone().requires_grad_()
    total, metrics = torch.zeros((), dtype=torch.float64), {}
    for a, b in spans:
        loss, part = policy_loss(
            logprobs_T[a:b], batch["old"][a:b], batch["advantages"][a:b], weights_T[a:b],
            engine_logprobs_T=batch["engine"][a:b], importance_cap=2.0,
        )  # fmt: skip
        loss.backward()
        total, metrics = total + loss.detach(), merge(metrics, part)
    assert logprobs_T.grad is not None
    return total, logprobs_T.grad, to_floats(metrics)


def test_a_group_without_signal_can_be_dropped_after_the_weights_are_made() -> None:
    lengths, batch = [3, 4, 5], make_batch(12)
    advantages_T = batch["advantages"].clone()
    advantages_T[3:7] = 0.0
    weights_T = token_weights(lengths, dtype=torch.float64)
    keep = torch.ones(12, dtype=torch.bool)
    keep[3:7] = False
    whole, _ = policy_loss(batch["logprobs"], batch["old"], advantages_T, weights_T)
    kept, _ = policy_loss(batch["logprobs"][keep], batch["old"][keep], advantages_T[keep], weights_T[keep])
    torch.testing.assert_close(kept, whole)


# --- the engine's log-probs ------------------------------------------------------------------------------------------


def test_importance_is_truncated_and_has_no_gradient() -> None:
    old_T = torch.tensor([-1.0, -1.0], dtype=torch.float64)
    engine_T = old_T - torch.tensor([math.log(1.5), math.log(4.0)], dtype=torch.float64)  # old / engine = 1.5 and 4
    logprobs_T = old_T.clone().requires_grad_()
    ones_T = torch.ones(2, dtype=torch.float64)
    loss, metrics = policy_loss(logprobs_T, None, ones_T, ones_T, engine_logprobs_T=engine_T, importance_cap=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(-3.5)  # -(1.5 + 2)
    assert logprobs_T.grad is not None
    assert logprobs_T.grad.tolist() == pytest.approx([-1.5, -2.0])
    assert to_floats(metrics)["engine/importance_mean"] == pytest.approx(1.75)
    assert to_floats(metrics)["engine/logprob_gap_mean"] == pytest.approx(math.log(6) / 2)
    assert to_floats(metrics)["engine/logprob_gap_max"] == pytest.approx(math.log(4))
    assert to_floats(metrics)["engine/importance_truncated"] == 0.5
    assert to_floats(metrics)["engine/kl"] == pytest.approx((0.5 - math.log(1.5) + 3 - math.log(4)) / 2)  # r - 1 - ln r


def test_the_distance_to_the_engine_is_not_lost_in_float32() -> None:
    """Gaps of 1e-4 give a KL of 5e-9, far below what float32 holds beside 1."""
    engine_T = torch.full((4,), -1.0)
    logprobs_T = engine_T + 1e-4 * torch.tensor([1.0, -1.0, 1.0, -1.0])
    _, metrics = policy_loss(logprobs_T, None, torch.ones(4), torch.ones(4), engine_logprobs_T=engine_T)
    gaps = logprobs_T.double() - engine_T.double()
    assert to_floats(metrics)["engine/kl"] == pytest.approx(float((gaps.exp() - 1 - gaps).mean()), rel=1e-3)
    assert to_floats(metrics)["engine/kl"] == pytest.approx(5e-9, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stale_responses_are_corrected_token_by_token(dtype: torch.dtype) -> None:
    """Against sums written out: policy pi, engine mu two updates back, cap 2, clipping at 0.8 and 1.27."""
    generator = torch.Generator().manual_seed(3)
    mu_T = -3 * torch.rand(200, generator=generator, dtype=torch.float64)
    old_T = mu_T + 0.8 * torch.randn(200, generator=generator, dtype=torch.float64)
    pi_T = old_T + 0.3 * torch.randn(200, generator=generator, dtype=torch.float64)
    advantages_T = torch.randn(200, generator=generator, dtype=torch.float64)
    weights_T = token_weights([120, 80], dtype=torch.float64)
    logprobs_T = pi_T.to(dtype).requires_grad_()
    loss, metrics = policy_loss(
        logprobs_T, old_T.to(dtype), advantages_T.to(dtype), weights_T.to(dtype), clip_low=0.2, clip_high=0.27,
        engine_logprobs_T=mu_T.to(dtype), importance_cap=2.0,
    )  # fmt: skip
    loss.backward()
    expected, slopes, truncated = 0.0, [], 0
    for pi, old, mu, advantage, weight in torch.stack([pi_T, old_T, mu_T, advantages_T, weights_T], 1).tolist():
        ratio, whole = math.exp(pi - old), math.exp(old - mu)
        factor = weight * min(whole, 2.0)
        truncated += whole > 2.0
        clipped = min(max(ratio, 0.8), 1.27)
        expected -= factor * min(ratio * advantage, clipped * advantage)
        slopes.append(-factor * ratio * advantage if ratio * advantage <= clipped * advantage else 0.0)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    assert loss.item() == pytest.approx(expected, rel=tolerance)
    assert logprobs_T.grad is not None
    assert logprobs_T.grad.tolist() == pytest.approx(slopes, rel=10 * tolerance, abs=tolerance)
    assert 10 < truncated < 100
    assert to_floats(metrics)["engine/importance_truncated"] == truncated / 200


def test_engine_logprobs_alone_are_only_measured() -> None:
    batch = make_batch(5)
    weights_T = token_weights([5], dtype=torch.float64)
    arguments = (batch["logprobs"], batch["old"], batch["advantages"], weights_T)
    plain, _ = policy_loss(*arguments)
    measured, metrics = policy_loss(*arguments, engine_logprobs_T=batch["engine"])
    assert torch.equal(plain, measured)
    assert "engine/logprob_gap_mean" in metrics
    assert "engine/importance_mean" not in metrics


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("gap", [200.0, -200.0])
def test_absurd_ratios_stay_finite(gap: float, advantage: float) -> None:
    logprobs_T = torch.tensor([-1.0], requires_grad=True)
    loss, _ = policy_loss(logprobs_T, torch.tensor([-1.0 - gap]), torch.tensor([advantage]), torch.ones(1))
    loss.backward()
    assert math.isfinite(loss.item())
    assert logprobs_T.grad is not None
    assert math.isfinite(logprobs_T.grad.item())


def test_no_tokens_is_a_zero_that_can_be_differentiated() -> None:
    empty_T = torch.zeros(0, requires_grad=True)
    loss, metrics = policy_loss(empty_T, None, torch.zeros(0), torch.zeros(0), engine_logprobs_T=torch.zeros(0))
    loss.backward()
    assert loss.item() == 0.0
    assert to_floats(metrics) == {}


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \[T\], got \[\[3\], \[3, 1\]"):
        policy_loss(torch.zeros(3), torch.zeros(3, 1), torch.zeros(3), torch.zeros(3))


def test_a_cap_without_engine_logprobs_is_refused() -> None:
    with pytest.raises(ValueError, match="importance_cap needs engine_logprobs_T"):
        policy_loss(torch.zeros(1), None, torch.zeros(1), torch.zeros(1), importance_cap=2.0)


# --- parity with TRL -------------------------------------------------------------------------------------------------


class SpyAccelerator:
    """The few calls TRL's loss makes on accelerate, for one process."""

    num_processes = 1

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor


def trl_loss(
    lengths: list[int], batch: dict[str, Tensor], loss_type: str, max_length: int, cap: float | None
) -> tuple[Tensor, float]:
    """Run the real `GRPOTrainer._compute_loss` on our tokens, padded as TRL wants them; logprobs keep their graph."""
    from collections import defaultdict

    from trl.trainer.grpo_trainer import GRPOTrainer

    def pad(values_T: Tensor) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(values_T.split(lengths)), batch_first=True)

    mask = pad(torch.ones(sum(lengths)))
    logprobs, old, engine, advantages = (pad(batch[key]) for key in ("logprobs", "old", "engine", "advantages"))
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logprobs, torch.zeros_like(logprobs), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, beta=0.0, loss_type=loss_type,
        importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.27, max_completion_length=max_length,
        args=SimpleNamespace(delta=None, steps_per_generation=1), use_vllm=cap is not None,
        vllm_importance_sampling_correction=cap is not None, model=SimpleNamespace(training=True),
        accelerator=SpyAccelerator(), current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(len(lengths), 1, dtype=torch.int64),
        "prompt_mask": torch.ones(len(lengths), 1),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "num_items_in_batch": torch.tensor(float(sum(lengths))),
        "importance_sampling_ratio": torch.exp(old - engine).clamp(max=cap or math.inf),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss, trainer._metrics["train"]["clip_ratio/region_mean"][0]


@pytest.mark.slow
@pytest.mark.parametrize("cap", [None, 1.3])
@pytest.mark.parametrize(
    ("aggregation", "loss_type"), [("token-mean", "dapo"), ("sequence-mean", "grpo"), ("constant", "dr_grpo")]
)
def test_parity_with_trl(aggregation: str, loss_type: str, cap: float | None) -> None:
    pytest.importorskip("trl", reason="TRL, the parity oracle, is not installed")
    lengths = [3, 1, 7, 5]
    batch = make_batch(sum(lengths), seed=3)
    theirs_T, ours_T = (batch["logprobs"].clone().requires_grad_() for _ in range(2))
    their_loss, their_clip_fraction = trl_loss(
        lengths, {**batch, "logprobs": theirs_T}, loss_type, max_length=8, cap=cap
    )
    their_loss.backward()
    weights_T = token_weights(lengths, aggregation=aggregation, constant_length=8, dtype=torch.float64)  # type: ignore[arg-type]
    our_loss, metrics = policy_loss(
        ours_T, batch["old"], batch["advantages"], weights_T,
        clip_high=0.27, engine_logprobs_T=batch["engine"], importance_cap=cap,
    )  # fmt: skip
    our_loss.backward()
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours_T.grad, theirs_T.grad, rtol=1e-6, atol=1e-8)
    clip_fraction = to_floats(metrics)["clip_fraction"]
    assert clip_fraction > 0
    assert clip_fraction == pytest.approx(their_clip_fraction)
