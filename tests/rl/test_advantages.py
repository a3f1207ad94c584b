"""Advantages against hand-computed values, an independent float64 reference and the statements of the papers."""

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rl.advantages import batch_advantages, group_advantages, has_signal, reward_std

REWARD = st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3))
GROUP = st.lists(REWARD, min_size=1, max_size=16)


def reference(rewards: list[float], scale: str, eps: float, batch_std: float) -> list[float]:
    """RLPR, section "Advantage": (R - mean) / (std + eps), unbiased std, zeros where std < 1e-6."""
    mean = math.fsum(rewards) / len(rewards)
    std = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    if std < 1e-6:
        return [0.0] * len(rewards)
    divisor = {"group": std + eps, "batch": batch_std + eps, "none": 1.0}[scale]
    return [(reward - mean) / divisor for reward in rewards]


def test_hand_computed() -> None:
    # mean 1/2; deviations +-1/2; unbiased variance 4 * 1/4 / 3 = 1/3; advantage 1/2 / sqrt(1/3) = sqrt(3)/2
    rewards_G = torch.tensor([1.0, 0.0, 0.0, 1.0])
    expected = math.sqrt(3) / 2
    assert group_advantages(rewards_G, eps=0.0).tolist() == pytest.approx([expected, -expected, -expected, expected])
    assert group_advantages(rewards_G, scale="none").tolist() == [0.5, -0.5, -0.5, 0.5]
    assert group_advantages(rewards_G, scale="batch", batch_std=2.0, eps=0.0).tolist() == [0.25, -0.25, -0.25, 0.25]


def test_eps_is_added_to_the_standard_deviation() -> None:
    # rewards 0 and 2: std = sqrt(2); 1 / (sqrt(2) + 1)
    expected = 1 / (math.sqrt(2) + 1)
    assert group_advantages(torch.tensor([0.0, 2.0]), eps=1.0).tolist() == pytest.approx([-expected, expected])


@settings(deadline=None)
@given(st.lists(GROUP, min_size=1, max_size=5), st.sampled_from(["group", "batch", "none"]))
def test_equals_the_reference_for_unequal_groups(groups: list[list[float]], scale: str) -> None:
    rewards = [reward for group in groups for reward in group]
    batch_std = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    for ours, group in zip(batch_advantages(groups, scale=scale), groups, strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.numpy(), reference(group, scale, 1e-6, batch_std), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("rewards", [[0.1 * 3] * 8, [1.0], [1.0, 1.0 + 1e-7], [-1e6] * 3])
def test_a_group_without_signal_gets_exact_zeros(rewards: list[float], scale: str) -> None:
    advantages_G = group_advantages(torch.tensor(rewards, dtype=torch.float64), scale=scale, batch_std=0.0)  # type: ignore[arg-type]
    assert advantages_G.tolist() == [0.0] * len(rewards)
    assert not has_signal(torch.tensor(rewards, dtype=torch.float64))


def test_a_small_difference_above_the_threshold_is_signal() -> None:
    rewards_G = torch.tensor([0.0, 2e-6], dtype=torch.float64)
    assert has_signal(rewards_G)
    assert group_advantages(rewards_G)[1] > 0


@settings(deadline=None)  # the first call pays for torch's start
@given(GROUP, st.floats(0.5, 4), st.integers(-8, 8))
def test_group_scale_ignores_shift_and_positive_scaling(group: list[float], factor: float, shift: int) -> None:
    rewards_G = torch.tensor(group, dtype=torch.float64)
    assume(reward_std(rewards_G) > 1e-2)
    ours, moved = (group_advantages(x, eps=0.0) for x in (rewards_G, rewards_G * factor + shift))
    torch.testing.assert_close(ours, moved, rtol=1e-6, atol=1e-6)
    assert abs(float(ours.sum())) < 1e-6


def test_float64_survives_a_large_offset() -> None:
    # In float32 the differences would be lost in 1e8 + 0.5.
    rewards_G = torch.tensor([1e8, 1e8 + 0.5], dtype=torch.float64)
    assert group_advantages(rewards_G, scale="none").tolist() == [-0.25, 0.25]


def test_empty_step_and_empty_group() -> None:
    assert batch_advantages([]) == []
    assert batch_advantages([[], [0.0, 1.0]], scale="none")[0].tolist() == []


@pytest.mark.parametrize(
    ("rewards", "options", "message"),
    [
        (torch.tensor([1.0, math.nan]), {}, "must be finite"),
        (torch.tensor([1.0, math.inf]), {}, "must be finite"),
        (torch.zeros(2, 2), {}, r"shape \[G\], got \[2, 2\]"),
        (torch.tensor([0.0, 1.0]), {"scale": "batch"}, "needs batch_std"),
        (torch.tensor([0.0, 1.0]), {"scale": "groups"}, "unknown scale 'groups'"),
    ],
)
def test_refusals(rewards: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, **options)


# --- parity with TRL -------------------------------------------------------------------------------------------------

REWARDS = [[1.0, 0.0, 0.25, 1.0], [0.5, 0.5, 0.5, 0.5], [-1.0, 2.0, 0.0, 0.0]]


def trl_advantages(scale: str, directory: str) -> torch.Tensor:
    """Let a real GRPOTrainer of a tiny model sample, score with the rewards above, and compute its advantages."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w1", eos_token="w2", unk_token="w0")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = GRPOConfig(
        output_dir=directory, scale_rewards=scale, num_generations=4, per_device_train_batch_size=12,
        max_completion_length=3, report_to=[], use_cpu=True, bf16=False, beta=0.0,
    )  # fmt: skip
    flat = [reward for group in REWARDS for reward in group]
    rows = [{"prompt": f"w{3 + i}"} for i in range(len(REWARDS))]
    trainer = GRPOTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)), args=config, processing_class=tokenizer,
        train_dataset=rows_to_dataset(rows), reward_funcs=lambda completions, **_: flat,
    )  # fmt: skip
    inputs = [row for row in rows for _ in range(4)]
    return trainer._generate_and_score_completions(inputs)["advantages"]


def rows_to_dataset(rows: list[dict]) -> object:
    from datasets import Dataset

    return Dataset.from_list(rows)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_parity_with_a_real_trl_trainer(tmp_path: Path, scale: str) -> None:
    pytest.importorskip("trl", reason="TRL, the parity oracle, is not installed")
    theirs = trl_advantages(scale, str(tmp_path))
    ours = torch.cat(batch_advantages(REWARDS, scale=scale, eps=1e-4))  # type: ignore[arg-type]  # TRL's eps
    assert theirs.abs().sum() > 1
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-6)
