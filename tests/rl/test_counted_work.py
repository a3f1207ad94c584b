"""The work of an update, counted: so that doing more of it is noticed without a clock.

Elsewhere: a tower sees a prompt's views once (tests/base_model/vlm/test_packed_media.py, test_preference_media.py);
engine calls and synced bytes of a step (test_trainer.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from base_model import packed_lm
from base_model.branches import Branch
from base_model.flops import FlopCount
from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup, pack_groups
from base_model.training_settings import PARTS
from rl.config import LearnerConfig
from rl.learner import Learner, TrainGroup
from tests.tiny import make_tiny_model

PROMPTS, GROUP, LENGTH = (50, 30), 4, 12


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def make_learner(path: Path, **settings: Any) -> Learner:
    return Learner(load_packed(path), LearnerConfig(**{"precision": "float32", **settings}), total_steps=5)


def make_groups(branches: tuple[Branch, ...] = ()) -> list[TrainGroup]:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return torch.randint(3, 300, (count,), generator=generator).tolist()

    return [
        TrainGroup(
            tokens=TokenGroup(prompt=draw(prompt), responses=[draw(LENGTH) for _ in range(GROUP)]),
            advantages_G=() if branches else (1.0, -1.0, 0.5, -0.5),
            engine_logprobs=((-1.0,) * LENGTH,) * GROUP,
            branches=branches,
        )
        for prompt in PROMPTS
    ]


class Calls:
    """Rows that each call of the decoder and of the head has got, and how often the optimizer stepped."""

    def __init__(self, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoder: list[int] = []
        self.with_gradient: list[bool] = []
        self.head: dict[str, list[int]] = {"head_loss": [], "head_logprobs": []}
        self.steps = self.backward = 0
        learner.packed.causal_lm.model.register_forward_pre_hook(self._saw_decoder, with_kwargs=True)
        for name, seen in self.head.items():
            monkeypatch.setattr(packed_lm, name, _noting(getattr(packed_lm, name), seen))
        learner.optimizer.register_step_post_hook(lambda *_: self._count("steps"))
        plain = learner.accelerator.backward
        monkeypatch.setattr(learner.accelerator, "backward", lambda loss: (self._count("backward"), plain(loss))[1])

    def _saw_decoder(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        self.decoder.append(kwargs["input_ids"].numel())
        self.with_gradient.append(torch.is_grad_enabled())

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)


def _noting(plain: Callable[..., Any], seen: list[int]) -> Callable[..., Any]:
    def noted(hidden_TD: Tensor, *rest: Any) -> Any:
        seen.append(len(hidden_TD))
        return plain(hidden_TD, *rest)

    return noted


def test_an_update_forwards_each_prompt_once_and_only_responses_reach_the_head(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(model_path)
    calls = Calls(learner, monkeypatch)
    learner.update(make_groups())
    assert calls.decoder == [sum(PROMPTS) + 2 * GROUP * LENGTH]
    assert calls.head == {"head_loss": [2 * GROUP * LENGTH], "head_logprobs": []}
    assert (calls.backward, calls.steps) == (1, 1)


def test_micro_batches_add_no_work(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(model_path, micro_batch_tokens=100)
    calls = Calls(learner, monkeypatch)
    learner.update(make_groups())
    assert calls.decoder == [prompt + GROUP * LENGTH for prompt in PROMPTS]
    assert calls.head["head_loss"] == [GROUP * LENGTH] * 2
    assert (calls.backward, calls.steps) == (2, 1)


def test_references_are_scored_in_passing_by_their_own_tokens_alone(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(model_path)
    calls = Calls(learner, monkeypatch)
    branches = tuple(Branch(tokens=(7, 8, 9), response=number, keep=5) for number in range(GROUP))
    learner.update(make_groups(branches), lambda _number, _logprobs: (1.0, -1.0, 0.5, -0.5))
    assert calls.decoder == [sum(PROMPTS) + 2 * GROUP * LENGTH, 2 * GROUP * 3]
    assert calls.with_gradient == [True, False]
    assert calls.head == {"head_loss": [2 * GROUP * LENGTH], "head_logprobs": [2 * GROUP * 3]}


def test_several_updates_per_step_score_the_sampling_policy_once(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(model_path, updates_per_step=2)
    calls = Calls(learner, monkeypatch)
    learner.update(make_groups())
    sizes = [prompt + GROUP * LENGTH for prompt in PROMPTS]
    assert calls.decoder == [*sizes, *sizes]
    assert calls.with_gradient == [False, False, True, True]
    assert (calls.backward, calls.steps) == (2, 2)


def test_an_update_does_the_arithmetic_that_it_needs(model_path: Path) -> None:
    """Every matrix product of forward, head and backward pass, as PyTorch counts them, against the formula."""
    learner, groups = make_learner(model_path), make_groups()
    with FlopCounterMode(display=False) as counter:
        learner.update(groups)
    count = FlopCount(learner.packed.causal_lm, PARTS)
    needed = count.count(pack_groups([group.tokens for group in groups]))
    assert counter.get_total_flops() == pytest.approx(needed, rel=0.01)


def test_the_parts_of_the_arithmetic_are_those_of_the_passes(model_path: Path) -> None:
    packed, batch = load_packed(model_path), pack_groups([group.tokens for group in make_groups()])
    count = FlopCount(packed.causal_lm, PARTS)
    with FlopCounterMode(display=False) as ahead:
        loss, _ = packed(batch, lambda logprobs_C, _span: -logprobs_C.sum())
    with FlopCounterMode(display=False) as back:
        loss.backward()
    targets = len(batch.targets_T)
    assert ahead.get_total_flops() == pytest.approx(count.forward(batch) + count.head_step(targets), rel=0.01)
    assert back.get_total_flops() == pytest.approx(count.backward(batch), rel=0.01)
    assert count.forward(batch) + count.head_step(targets) + count.backward(batch) == count.count(batch)


def test_sampling_is_counted_token_by_token(model_path: Path) -> None:
    """Against a sum over single tokens, each with the keys that it sees."""
    count = FlopCount(load_packed(model_path).causal_lm, PARTS)
    layout = pack_groups([group.tokens for group in make_groups()]).layout
    total = 0.0
    for group in layout:
        total += 2 * group.prompt * count.per_token + 4 * group.prompt**2 * count.per_score
        for length in group.responses:
            for token in range(length):  # the first is predicted by the prompt, the others by the one before
                total += 2 * count.head
                if token:
                    total += 2 * count.per_token + 4 * (group.prompt + token) * count.per_score
    assert count.generation(layout) == pytest.approx(total)
