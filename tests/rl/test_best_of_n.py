"""Best of n by hand, against brute force, and with real models."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from base_model.packed_lm import load_packed
from rl.best_of_n import Candidates, best_of_n, response_logprobs
from tests.tiny import make_tiny_model

RESPONSES = st.lists(st.tuples(st.floats(-500, 0), st.floats(-500, 0), st.integers(1, 300)), min_size=1, max_size=9)


def test_by_hand() -> None:
    best, rewards = best_of_n([-4.0, -6.0], [-5.0, -9.0], [5, 10], beta=0.1)
    assert best == 1
    assert rewards == pytest.approx([0.02, 0.03])
    assert best_of_n([-4.0, -6.0], [-5.0, -7.5], [5, 10])[0] == 0  # length-normalised 0.2 against 0.15
    assert best_of_n([-4.0, -6.0], [-5.0, -7.5], [5, 10], length_normalised=False)[0] == 1  # 1 against 1.5
    assert best_of_n([-1.0, -1.0], [-2.0, -2.0], [4, 4])[0] == 0  # of equal ones the first
    assert best_of_n([math.nan, -1.0], [-2.0, -2.0], [4, 4])[0] == 1


@given(RESPONSES, st.booleans())
def test_equals_brute_force(rows: list[tuple[float, float, int]], normalised: bool) -> None:
    policy, reference, tokens = zip(*rows, strict=True)
    best, rewards = best_of_n(policy, reference, tokens, beta=0.3, length_normalised=normalised)
    expected = [0.3 * (p - r) / (n if normalised else 1) for p, r, n in rows]
    assert rewards == pytest.approx(expected)
    assert rewards[best] == max(rewards)
    assert max(rewards) > max([*rewards[:best], -math.inf])


@pytest.mark.parametrize("values", [[], [math.nan, math.inf]])
def test_nothing_to_choose_from_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="none is the best"):
        best_of_n(values, [0.0] * len(values), [1] * len(values))


def test_logprobs_are_those_of_plain_passes(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = make_tiny_model(tmp_path / "model")
    groups = [
        Candidates(prompt_ids=(5, 6, 7), responses=((8, 9, 2), (10, 2))),
        Candidates(prompt_ids=(11,), responses=((12, 13, 14, 2),)),
    ]
    found = response_logprobs(load_packed(path), groups, micro_batch_tokens=8)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")
    for group, sums in zip(groups, found, strict=True):
        for response, value in zip(group.responses, sums, strict=True):
            ids = torch.tensor([[*group.prompt_ids, *response]])
            logprobs = plain(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            assert value == pytest.approx(logprobs[-len(response) :].sum().item(), abs=1e-4)
