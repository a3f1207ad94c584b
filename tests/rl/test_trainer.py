"""The loop with a real engine on a tiny model: what it counts, samples, refuses and writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.packed_lm import load_packed
from rl.filtering import StdFilterConfig
from rollouts.engine import EngineConfig, VLLMEngine
from tests.rl.small_run import lines, make_trainer
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[VLLMEngine]:
    config = EngineConfig(dtype="float32", max_model_len=128, max_num_seqs=16, kv_cache_gib=0.05, threads=1)
    with VLLMEngine(model_path, config) as started:
        yield started


def test_what_a_run_writes_adds_up(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", engine, model_path)
    assert trainer.train() == 3
    metrics, rollouts = lines(tmp_path / "run/metrics.jsonl"), lines(tmp_path / "run/rollouts.jsonl")
    ledger = json.loads((tmp_path / "run/ledger.json").read_text())
    assert [m["step"] for m in metrics] == [1, 2, 3]
    assert len(rollouts) == 3 * 4 * 4
    for mode in ("short", "long"):
        own = [r for r in rollouts if r["mode"] == mode]
        assert ledger["modes"][mode]["generated"] == sum(r["response_tokens"] for r in own)
        assert ledger["modes"][mode]["responses"] == len(own) == 3 * 2 * 4
        assert ledger["modes"][mode]["prompt"] == sum(group_first["prompt_tokens"] for group_first in own[::4])
    assert metrics[-1]["tokens/generated"] == ledger["total"]["generated"]
    assert max(r["response_tokens"] for r in rollouts if r["mode"] == "short") <= 5
    last = [r for r in rollouts if r["step"] == 3]
    assert metrics[-1]["reward/total"] == pytest.approx(sum(r["total"] for r in last) / len(last))
    assert metrics[-1]["reward/letter_share"] == metrics[-1]["reward/total"]
    for group in range(12):
        members = rollouts[4 * group : 4 * group + 4]
        assert len({(r["row"], r["mode"], r["step"]) for r in members}) == 1
        assert sum(r["advantage"] for r in members) == pytest.approx(0.0, abs=1e-6)


def test_the_engine_follows_the_learner(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    """fp32 on both sides: after every update the engine's log-probs are those of the learner's new weights."""
    trainer = make_trainer(tmp_path / "run", engine, model_path)
    trainer.train()
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert all(m["engine/logprob_gap_max"] < 1e-3 for m in metrics)
    moved = (
        (trainer.learner.weights()["model.norm.weight"] - load_packed(model_path).model.model.norm.weight).abs().max()
    )
    assert moved > 1e-4


def test_responses_generated_ahead_are_one_update_old(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    """The gap between the engine's log-probs and the trainer's is that of one update, and the engine catches up."""
    learner = {"importance_cap": 2.0}
    trainer = make_trainer(tmp_path / "run", engine, model_path, staleness=1, learner=learner)
    trainer.train()
    first, *others = lines(tmp_path / "run/metrics.jsonl")
    assert first["engine/logprob_gap_max"] < 1e-3
    assert first["engine/importance_mean"] == pytest.approx(1.0, abs=1e-4)
    assert [m["rollouts/staleness"] for m in others] == [1.0, 1.0]
    for metrics in others:
        assert metrics["engine/logprob_gap_mean"] > 1e-3
        assert 0 < metrics["engine/kl"] < 1
        assert metrics["engine/importance_truncated"] < 0.5
    assert trainer.check_engine() < 1e-4


def test_disagreement_between_engine_and_trainer_is_refused(
    tmp_path: Path, engine: VLLMEngine, model_path: Path
) -> None:
    trainer = make_trainer(tmp_path / "run", engine, model_path, learner_temperature=0.3)
    with pytest.raises(ValueError, match="engine and trainer differ by"):
        trainer.train()
    assert not (tmp_path / "run/metrics.jsonl").read_text()


def test_no_signal_moves_nothing_and_says_so(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", engine, model_path, reward_name="never_differs")
    before = {n: p.clone() for n, p in trainer.learner.weights().items()}
    trainer.train()
    assert all(torch.equal(p, before[n]) for n, p in trainer.learner.weights().items())
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert all(m["groups/trained"] == 0 and m["groups/generated"] == 4 for m in metrics)
    assert json.loads((tmp_path / "run/ledger.json").read_text())["total"]["trained"] == 0


def test_filtered_prompts_are_replaced_in_the_same_mode(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    """With a bar that few groups reach, slots are refilled from the data stream until the rounds are used up."""
    settings = StdFilterConfig(beta=1.05, warmup_steps=1, init_steps=1, max_generation_rounds=3)
    trainer = make_trainer(tmp_path / "run", engine, model_path, filter=settings)
    trainer.train()
    metrics, rollouts = lines(tmp_path / "run/metrics.jsonl"), lines(tmp_path / "run/rollouts.jsonl")
    assert metrics[0]["groups/generated"] == 4
    assert max(m["groups/generated"] for m in metrics[1:]) > 4
    assert trainer.state.position == sum(m["groups/generated"] for m in metrics)
    for step in (2, 3):
        modes = [r["mode"] for r in rollouts if r["step"] == step][::4]
        assert modes.count("short") <= 2
        assert modes.count("long") <= 2
    total = json.loads((tmp_path / "run/ledger.json").read_text())["total"]
    assert total["generated"] > sum(r["response_tokens"] for r in rollouts)  # filtered responses were paid for too
    assert total["responses"] == 4 * sum(m["groups/generated"] for m in metrics)


class CountingEngine:
    """The engine, with its calls counted."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._engine = engine
        self.requests: list[int] = []
        self.synced: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Any, *rest: Any, **more: Any) -> Any:
        self.requests.append(len(requests))
        return self._engine.generate(requests, *rest, **more)

    def load_weights(self, named_tensors: Any, version: int) -> None:
        tensors = list(named_tensors)
        self.synced.append(sum(tensor.nbytes for _, tensor in tensors))
        self._engine.load_weights(tensors, version)


def test_a_step_calls_the_engine_once_and_sends_every_weight_once(
    tmp_path: Path, engine: VLLMEngine, model_path: Path
) -> None:
    counting: Any = CountingEngine(engine)
    trainer = make_trainer(tmp_path / "run", counting, model_path, steps=2, check_prompts=2)
    trainer.train()
    assert counting.requests == [2, 4 * 4, 4 * 4]  # the check before the first step, then all of a step together
    weights = sum(weight.nbytes for weight in trainer.learner.model.parameters())  # a tied head is one of them
    assert counting.synced == [weights] * 3


def test_a_step_without_signal_sends_no_weights(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    counting: Any = CountingEngine(engine)
    make_trainer(tmp_path / "run", counting, model_path, reward_name="never_differs", steps=2).train()
    assert len(counting.synced) == 1  # before the first step
