"""The DPO update: equal to TRL's DPOTrainer and to a float64 reference, however the work is cut."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.config import LoraSettings
from base_model.packed_lm import load_packed
from rl.preference_config import PreferenceLearnerConfig
from rl.preference_learner import EncodedPair, PreferenceLearner, SideLogprobs
from tests.tiny import make_tiny_model

LENGTHS = [(11, 6, 9), (5, 4, 4), (8, 1, 13), (3, 7, 2), (20, 5, 6)]
VARIANTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"beta": 0.1}, {"beta": 0.1, "loss_type": ["sigmoid"]}),
    ({"beta": 2.0}, {"beta": 2.0, "loss_type": ["sigmoid"]}),
    ({"beta": 3.0, "length_normalised": True}, {"beta": 3.0, "loss_type": ["sigmoid_norm"]}),
    (
        {"beta": 0.3, "sft_weight": 0.7},
        {"beta": 0.3, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
    ),
]
"""Our settings and TRL's for the same loss."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy, and a reference that differs from it."""
    folder = tmp_path_factory.mktemp("models")
    return make_tiny_model(folder / "policy"), make_tiny_model(folder / "reference", seed=1)


def make_pairs() -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(3)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 300, (n,), generator=generator).tolist())

    return [EncodedPair(prompt_ids=draw(p), chosen_ids=draw(c), rejected_ids=draw(r)) for p, c, r in LENGTHS]


def make_learner(path: Path, **settings: Any) -> PreferenceLearner:
    settings = {"precision": "float32", "learning_rate": 1e-3, "max_grad_norm": 0.0, "warmup_steps": 0, **settings}
    return PreferenceLearner(load_packed(path), PreferenceLearnerConfig(**settings), total_steps=10)


def reference_of(path: Path, pairs: list[EncodedPair]) -> list[SideLogprobs]:
    return make_learner(path).logprobs(pairs)


def gradients_of(learner: PreferenceLearner, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Filled with the gradients of the next update."""
    gradients: dict[str, Tensor] = {}
    optimizer = learner.optimisation.optimizer
    step = optimizer.step

    def record(*args: Any, **options: Any) -> Any:
        gradients.update({n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None})
        return step(*args, **options)

    monkeypatch.setattr(optimizer, "step", record)
    return gradients


def weights_of(learner: PreferenceLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


@pytest.fixture(scope="module")
def trl_trainer(paths: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer over the same two models; its loss settings are changed by the tests."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        per_device_train_batch_size=len(LENGTHS),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        max_length=None,
    )
    policy, reference = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in paths)
    text = {"prompt": "a", "chosen": "b", "rejected": "c"}
    return DPOTrainer(
        model=policy,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list([text]),
        processing_class=AutoTokenizer.from_pretrained(paths[0]),
    )


def trl_loss_and_gradients(trainer: Any, settings: dict[str, Any]) -> tuple[float, dict[str, Tensor], dict[str, Any]]:
    trainer.beta, trainer.loss_types = settings["beta"], settings["loss_type"]
    trainer.loss_weights = settings.get("loss_weights", [1.0])
    trainer.label_smoothing = settings.get("label_smoothing", 0.0)
    rows = [
        {"prompt_ids": list(p.prompt_ids), "chosen_ids": list(p.chosen_ids), "rejected_ids": list(p.rejected_ids)}
        for p in make_pairs()[: settings.get("pairs")]
    ]
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
    return float(loss.detach()), gradients, {name: values[-1] for name, values in trainer._metrics["train"].items()}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Within 1e-4 of each element, and of the length of the whole gradient, so that small ones do not pass unseen."""
    difference, size = 0.0, 0.0
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)
        difference += float((gradient - expected[name]).square().sum())
        size += float(expected[name].square().sum())
    assert math.sqrt(difference) < 1e-4 * math.sqrt(size)


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), VARIANTS)
def test_loss_and_gradients_equal_trl(
    paths: tuple[Path, Path],
    trl_trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
    ours: dict[str, Any],
    theirs: dict[str, Any],
) -> None:
    learner = make_learner(paths[0], **ours)
    gradients = gradients_of(learner, monkeypatch)
    metrics = learner.update(make_pairs(), reference_of(paths[1], make_pairs()))
    loss, expected, logged = trl_loss_and_gradients(trl_trainer, theirs)
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert gradients.keys() == expected.keys()
    assert_same_gradients(gradients, expected)
    assert metrics["logp/chosen"] == pytest.approx(logged["logps/chosen"], rel=1e-5)
    if "length_normalised" not in ours:
        assert metrics["reward/margin"] == pytest.approx(logged["rewards/margins"], abs=1e-4)
        assert metrics["reward/accuracy"] == pytest.approx(logged["rewards/accuracies"])


@pytest.mark.slow
def test_label_smoothing_equals_trl(
    paths: tuple[Path, Path], trl_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL smooths the sigmoid loss only in `aot`, which sorts within the batch: of one pair it is the same loss."""
    learner = make_learner(paths[0], beta=0.2, label_smoothing=0.2)
    gradients = gradients_of(learner, monkeypatch)
    pairs = make_pairs()[:1]
    metrics = learner.update(pairs, reference_of(paths[1], pairs))
    settings = {"beta": 0.2, "loss_type": ["aot"], "label_smoothing": 0.2, "pairs": 1}
    loss, expected, _ = trl_loss_and_gradients(trl_trainer, settings)
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert_same_gradients(gradients, expected)


def float64_loss(path: Path, pairs: list[EncodedPair], reference: list[SideLogprobs], **s: Any) -> tuple[Any, Any]:
    """DPO over plain unpacked float64 rows, from the formula."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")

    def logprob(prompt: tuple[int, ...], response: tuple[int, ...]) -> Tensor:
        ids = torch.tensor([[*prompt, *response]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        return logits.gather(1, ids[0, 1:, None])[-len(response) :, 0].sum()

    loss = torch.zeros((), dtype=torch.float64)
    tokens = sum(len(pair.chosen_ids) for pair in pairs)
    for pair, ref in zip(pairs, reference, strict=True):
        chosen, rejected = logprob(pair.prompt_ids, pair.chosen_ids), logprob(pair.prompt_ids, pair.rejected_ids)
        margin = s["beta"] * ((chosen - ref.chosen) - (rejected - ref.rejected))
        e = s.get("label_smoothing", 0.0)
        loss = loss + ((1 - e) * torch.log1p(torch.exp(-margin)) + e * torch.log1p(torch.exp(margin))) / len(pairs)
        loss = loss - s.get("sft_weight", 0.0) * chosen / tokens
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in model.named_parameters()}


SETTINGS = {"beta": 0.3, "label_smoothing": 0.15, "sft_weight": 0.4}


def test_loss_and_gradients_equal_the_float64_reference(
    paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(paths[0], **SETTINGS)
    gradients = gradients_of(learner, monkeypatch)
    pairs = make_pairs()
    reference = reference_of(paths[1], pairs)
    metrics = learner.update(pairs, reference)
    value, expected = float64_loss(paths[0], pairs, reference, **SETTINGS)
    assert metrics["loss"] == pytest.approx(value, abs=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.double(), expected[name], atol=1e-5, rtol=1e-3)


def test_the_micro_batch_size_does_not_change_the_update(paths: tuple[Path, Path]) -> None:
    pairs = make_pairs()
    reference = reference_of(paths[1], pairs)
    results = []
    for budget in (0, 40, 1):
        learner = make_learner(paths[0], micro_batch_tokens=budget, **SETTINGS)
        results.append((learner.update(pairs, reference), weights_of(learner)))
    for metrics, weights in results[1:]:
        assert metrics == pytest.approx(results[0][0], rel=1e-4, abs=1e-6)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, results[0][1][name], atol=2e-5, rtol=1e-4)


def test_learning_widens_the_margin_and_evaluation_sees_it(paths: tuple[Path, Path]) -> None:
    learner, pairs = make_learner(paths[0], learning_rate=3e-3), make_pairs()
    reference = learner.logprobs(pairs)
    before = learner.evaluate(pairs, reference)
    assert all(score.reward_chosen == score.reward_rejected == 0.0 for score in before)
    assert [score.loss for score in before] == pytest.approx([math.log(2)] * len(pairs))
    for _ in range(3):
        metrics = learner.update(pairs, reference)
    after = learner.evaluate(pairs, reference)
    assert all(score.reward_chosen > score.reward_rejected for score in after)
    assert metrics["reward/margin"] > 0.1
    assert sum(s.loss for s in after) < sum(s.loss for s in before)


def test_a_non_finite_gradient_refuses_its_step(paths: tuple[Path, Path]) -> None:
    learner, pairs = make_learner(paths[0]), make_pairs()[:1]
    before = weights_of(learner)
    metrics = learner.update(pairs, [SideLogprobs(math.nan, 0.0)])
    assert metrics["skipped"] == 1.0
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight, before[name])


def test_the_schedule_warms_up_over_a_twentieth(paths: tuple[Path, Path]) -> None:
    config = PreferenceLearnerConfig(learning_rate=1e-3, precision="float32")
    learner = PreferenceLearner(load_packed(paths[0]), config, total_steps=40)
    pairs = make_pairs()[:1]
    reference = learner.logprobs(pairs)
    rates = [learner.update(pairs, reference)["lr"] for _ in range(4)]
    assert rates[:3] == pytest.approx([0.0, 5e-4, 1e-3])
    assert rates[3] < 1e-3


def test_adapters_start_at_the_reference_even_with_dropout(paths: tuple[Path, Path]) -> None:
    lora = LoraSettings(rank=4, dropout=0.5)
    config = PreferenceLearnerConfig(precision="float32", learning_rate=1e-2)
    learner = PreferenceLearner(load_packed(paths[0], lora=lora), config, total_steps=4)
    pairs = make_pairs()
    found, plain = learner.logprobs(pairs), reference_of(paths[0], pairs)
    assert [tuple(sides) for sides in found] == [pytest.approx(tuple(sides), abs=1e-4) for sides in plain]
    assert learner.packed.training
    for _ in range(3):
        learner.update(pairs, found)
    assert learner.logprobs(pairs) == learner.logprobs(pairs)  # dropout is off
    assert learner.logprobs(pairs) != found
