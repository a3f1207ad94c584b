"""The learner's update against a float64 reference written from the formulas, and its invariance to how work is cut."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.branches import Branch
from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup
from rl.config import LearnerConfig
from rl.learner import Learner, TrainGroup
from rl.train_groups import response_spans
from tests.tiny import make_tiny_model

LENGTHS = [(11, (6, 9, 1)), (5, (4, 4)), (8, (3, 7, 5))]
ADVANTAGES = [(1.0, -0.5, -0.5), (0.0, 0.0), (-1.2, 0.2, 1.0)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def make_groups() -> list[TrainGroup]:
    generator = torch.Generator().manual_seed(3)

    def draw(n: int) -> list[int]:
        return torch.randint(3, 300, (n,), generator=generator).tolist()

    groups = []
    for (prompt, lengths), advantages in zip(LENGTHS, ADVANTAGES, strict=True):
        tokens = TokenGroup(prompt=draw(prompt), responses=[draw(n) for n in lengths])
        engine = tuple(tuple((-5.0 - torch.rand(n, generator=generator)).tolist()) for n in lengths)
        groups.append(TrainGroup(tokens=tokens, advantages_G=advantages, engine_logprobs=engine))
    return groups


def make_learner(path: Path, **settings: object) -> Learner:
    settings = {"precision": "float32", "learning_rate": 1e-3, "max_grad_norm": 0.0, **settings}
    return Learner(load_packed(path), LearnerConfig(**settings), total_steps=10)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


def reference_loss(path: Path, groups: list[TrainGroup]) -> tuple[float, dict[str, Tensor]]:
    """-sum A log-prob / N over plain unpacked float64 rows: the on-policy gradient of the clipped objective at
    ratio 1.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")
    tokens = sum(len(r) for g in groups for r in g.tokens.responses)
    loss = torch.zeros((), dtype=torch.float64)
    value = 0.0
    for group in groups:
        for advantage, response in zip(group.advantages_G, group.tokens.responses, strict=True):
            ids = torch.tensor([[*group.tokens.prompt, *response]])
            logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
            chosen = logprobs.gather(1, ids[0, 1:, None])[-len(response) :, 0]
            loss = loss - advantage * chosen.sum() / tokens
            value -= advantage * len(response) / tokens
    loss.backward()
    return value, {n: p.grad for n, p in model.named_parameters()}


def test_loss_and_gradient_equal_the_float64_reference(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(model_path)
    gradients: dict[str, Tensor] = {}
    step = learner.optimizer.step
    monkeypatch.setattr(
        learner.optimizer,
        "step",
        lambda: (gradients.update({n: p.grad.clone() for n, p in learner.model.named_parameters()}), step()),
    )
    metrics = learner.update(make_groups())
    value, expected = reference_loss(model_path, make_groups())
    assert metrics["loss"] == pytest.approx(value, abs=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.double(), expected[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean", "constant"])
def test_the_micro_batch_size_does_not_change_the_update(model_path: Path, aggregation: str) -> None:
    """A budget below one group also splits its responses, each part with its own copy of the prompt."""
    results = []
    for budget in (0, 40, 12):
        learner = make_learner(
            model_path, micro_batch_tokens=budget, aggregation=aggregation, constant_length=16, importance_cap=2.0
        )
        metrics = learner.update(make_groups())
        results.append((metrics, weights_of(learner)))
    for metrics, weights in results[1:]:
        assert metrics["loss"] == pytest.approx(results[0][0]["loss"], abs=1e-6)
        assert metrics["grad_norm"] == pytest.approx(results[0][0]["grad_norm"], rel=1e-4)
        assert metrics["engine/logprob_gap_mean"] == pytest.approx(results[0][0]["engine/logprob_gap_mean"], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, results[0][1][name], atol=2e-5, rtol=1e-4)


def test_a_group_without_signal_is_counted_but_never_forwarded(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(model_path)
    seen: list[int] = []
    forward = learner._forward
    monkeypatch.setattr(
        learner, "_forward", lambda batch, loss: (seen.append(batch.input_ids.shape[1]), forward(batch, loss))[1]
    )
    groups = make_groups()
    learner.update(groups)
    assert seen == [groups[0].tokens.packed_tokens + groups[2].tokens.packed_tokens]


def test_no_signal_at_all_leaves_the_weights_alone(model_path: Path) -> None:
    learner = make_learner(model_path)
    before = weights_of(learner)
    metrics = learner.update([make_groups()[1]])
    assert metrics["loss"] == 0.0
    assert "grad_norm" not in metrics
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight, before[name])


def test_a_non_finite_gradient_refuses_its_step(model_path: Path) -> None:
    learner = make_learner(model_path)
    before = weights_of(learner)
    group = make_groups()[0]
    broken = TrainGroup(tokens=group.tokens, advantages_G=(math.inf, -0.5, 0.0), engine_logprobs=group.engine_logprobs)
    metrics = learner.update([broken])
    assert metrics["skipped"] == 1.0
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight, before[name])
    assert learner.update(make_groups())["skipped"] == 0.0
    assert not torch.equal(weights_of(learner)["model.norm.weight"], before["model.norm.weight"])


def test_several_updates_use_the_ratio_to_the_first_policy(model_path: Path) -> None:
    learner = make_learner(model_path, updates_per_step=3, learning_rate=0.02)
    metrics = learner.update(make_groups())
    assert metrics["ratio/max"] > 1.05  # the later updates see a policy that has moved
    assert metrics["clip_fraction"] > 0.0
    on_policy = make_learner(model_path).update(make_groups())
    assert on_policy["ratio/mean"] == pytest.approx(1.0)
    assert on_policy["clip_fraction"] == 0.0


def test_gradient_clipping_bounds_the_step(model_path: Path) -> None:
    free, clipped = make_learner(model_path), make_learner(model_path, max_grad_norm=1e-9)
    norms = [learner.update(make_groups())["grad_norm"] for learner in (free, clipped)]
    assert norms[0] == pytest.approx(norms[1])  # the norm reported is the one before clipping


def test_the_schedule_moves_with_the_steps(model_path: Path) -> None:
    learner = make_learner(model_path, lr_scheduler="linear", learning_rate=1e-2)
    rates = [learner.update(make_groups())["lr"] for _ in range(3)]
    assert rates == pytest.approx([1e-2, 0.9e-2, 0.8e-2])


def test_learning_raises_the_probability_of_what_was_rewarded(model_path: Path) -> None:
    learner = make_learner(model_path, precision="float32", learning_rate=3e-3)
    group = make_groups()[0]

    def chosen() -> list[float]:
        sums = learner.logprobs([group.tokens]).split([len(r) for r in group.tokens.responses])
        return [float(s.sum()) for s in sums]

    before = chosen()
    for _ in range(3):
        learner.update([group])
    after = chosen()
    assert after[0] > before[0]
    assert after[1] < before[1]


def testresponse_spans_fit_the_budget_where_they_can() -> None:
    tokens = TokenGroup(prompt=[0] * 10, responses=[[0] * 5] * 4)
    assert response_spans(tokens, 0) == [slice(None)]
    assert response_spans(tokens, 30) == [slice(None)]
    assert response_spans(tokens, 20) == [slice(0, 2), slice(2, 4)]
    assert response_spans(tokens, 5) == [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)]


BRANCHES = [
    (Branch(response=1, keep=4, tokens=(7, 8, 9)),),
    (),
    (Branch(tokens=(5,)), Branch(response=2, tokens=(4, 6))),
]


def late_groups() -> list[TrainGroup]:
    """Groups 0 and 2 wait for their branches; group 1 has no signal."""
    return [
        replace(group, branches=branches, advantages_G=() if branches else group.advantages_G)
        for group, branches in zip(make_groups(), BRANCHES, strict=True)
    ]


@pytest.mark.parametrize(
    "settings", [{}, {"micro_batch_tokens": 40}, {"micro_batch_tokens": 12}, {"updates_per_step": 3}]
)
def test_late_advantages_update_as_early_ones_do(model_path: Path, settings: dict) -> None:
    """In passing, over several micro-batches, and (groups cut, several updates) from a pass of their own."""
    early, late = make_learner(model_path, **settings), make_learner(model_path, **settings)
    expected = dict(zip((0, 1, 2), early.branch_logprobs(late_groups()), strict=True))
    asked: dict[int, list[list[float]]] = {}

    def advantages(number: int, logprobs: list[list[float]]) -> tuple[float, ...]:
        assert number not in asked
        asked[number] = logprobs
        return ADVANTAGES[number]

    metrics = late.update(late_groups(), advantages)
    assert metrics == pytest.approx(early.update(make_groups()), rel=1e-4, abs=1e-6)
    for name, weight in weights_of(late).items():
        torch.testing.assert_close(weight, weights_of(early)[name], atol=2e-5, rtol=1e-4)
    assert asked.keys() == {0, 2}
    for number, logprobs in asked.items():
        assert [len(own) for own in logprobs] == [len(branch.tokens) for branch in BRANCHES[number]]
        for own, other in zip(logprobs, expected[number], strict=True):
            assert own == pytest.approx(other, abs=1e-5)


def test_late_advantages_of_zero_train_nothing(model_path: Path) -> None:
    learner = make_learner(model_path)
    before = weights_of(learner)
    metrics = learner.update(late_groups(), lambda number, _: (0.0,) * len(ADVANTAGES[number]))
    assert metrics["loss"] == 0.0
    assert "grad_norm" not in metrics
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight, before[name])


def test_branches_of_a_prompt_without_responses(model_path: Path) -> None:
    """What the baseline of the probability reward asks for."""
    learner = make_learner(model_path)
    bare = TrainGroup(
        tokens=TokenGroup(prompt=[5, 6, 7], responses=[]),
        advantages_G=(),
        engine_logprobs=(),
        branches=(Branch(tokens=(8, 9)),),
    )
    (found,) = learner.branch_logprobs([bare])
    same = learner.logprobs([TokenGroup(prompt=[5, 6, 7], responses=[[8, 9]])]).tolist()
    assert found == [pytest.approx(same, abs=1e-5)]
