"""Counted operations against PyTorch's own counter over a real step."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from base_model import packed_attention
from base_model.example_packing import pack_examples
from base_model.flops import FlopCount, measure_bandwidth, measure_peak
from base_model.packed_lm import PackedCausalLM
from base_model.trainable import set_trainable
from base_model.training_settings import PARTS, PartName
from tests.base_model.vlm.examples import mixed_examples
from tests.base_model.vlm.small import tiny


@pytest.mark.parametrize("trained", [["resampler"], ["resampler", "vision tower"], list(PARTS), ["language model"]])
def test_the_count_is_that_of_a_real_step(trained: list[PartName]) -> None:
    model, processor = tiny()
    packed_attention.register()
    model.llm.set_attn_implementation(packed_attention.NAME)
    set_trainable(model, trained)
    batch = pack_examples(mixed_examples(processor))
    # The counter does not know the fused attention kernel of CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss, _ = PackedCausalLM(model)(batch, lambda logprobs, _: -logprobs.sum())
        loss.backward()
    assert FlopCount(model, trained).count(batch) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_copies_are_plausibly_fast() -> None:
    assert 1e8 < measure_bandwidth(torch.device("cpu"), seconds=0.05) < 1e13


def test_the_peak_is_a_plausible_speed() -> None:
    assert 1e9 < measure_peak(torch.device("cpu"), torch.float32, seconds=0.05) < 1e14
