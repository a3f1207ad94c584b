"""The probability reward in the loop, with a real engine: its values; how it is computed changes nothing."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import rewards
from base_model.packed_lm import load_packed
from recipes.tasks import EpochOrder, Row
from rewards import reward
from rl.config import LearnerConfig, ReferenceConfig, TrainerConfig
from rl.environment import Environment
from rl.filtering import StdFilterConfig
from rl.learner import Learner
from rl.run_directory import RunDirectory
from rl.trainer import Trainer
from rollouts.engine import EngineConfig, VLLMEngine
from rollouts.modes import LongMode, ModeSampler, ModesConfig, ShortMode
from rollouts.prompts import render_prompt
from rollouts.records import Rollout, Sampling
from rollouts.reference import prompt_span, reference_span
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow
# Random text holds the letter that closes the think block often enough for both kinds of responses.
MODES = ModesConfig(
    mode="hybrid", short=ShortMode(max_tokens=6), long=LongMode(max_tokens=12, think_close="e", prefill="<think>\n")
)


@reward("vowels")
def vowels(*, response: str) -> float:
    """A signal that random text has in every mode."""
    return sum(c in "aeiou" for c in response) / 10


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), spread=0.3)


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[VLLMEngine]:
    config = EngineConfig(dtype="float32", max_model_len=128, max_num_seqs=16, kv_cache_gib=0.05, threads=1)
    with VLLMEngine(model_path, config) as started:
        yield started


class Watched:
    """The engine, with the rollouts of every call kept."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._engine = engine
        self.rollouts: list[list[Rollout]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Any], on_progress: Any = None, on_result: Any = None) -> list[Rollout]:
        self.rollouts.append(self._engine.generate(requests, on_progress, on_result))
        return self.rollouts[-1]


def make_trainer(path: Path, engine: Any, model_path: Path, learner: dict | None = None, **settings: Any) -> Trainer:
    rows = [
        Row(index=i, messages=({"role": "user", "content": f"Say {i}"},), reference=f"the {i}é", columns={})
        for i in range(5)
    ]
    environment = Environment(
        rows=rows,
        order=EpochOrder(len(rows), 0),
        modes=ModeSampler(MODES, 0),
        rewards=rewards.build(["vowels", "probability"], [], None),
        tokenizer=engine.tokenizer,
        sampling=Sampling(),
        group_size=6,
        seed=0,
    )
    config = LearnerConfig(**{"learning_rate": 1e-3, "precision": "float32", **(learner or {})})
    return Trainer(
        config=TrainerConfig(**{"steps": 2, "prompts_per_step": 4, "save_every": 1, **settings}),
        environment=environment,
        engine=engine,
        learner=Learner(load_packed(model_path), config, total_steps=2),
        run=RunDirectory.create(path, {}, resume=(path / "config.yaml").is_file()),
        tokenizer=engine.tokenizer,
        initial_policy=lambda: Learner(load_packed(model_path), config, total_steps=1).branch_logprobs,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mean_probability(model: Any, prefix: Sequence[int], span: Any) -> float:
    ids = torch.tensor([[*prefix, *span.tokens]])
    with torch.no_grad():
        probs = model(input_ids=ids, use_cache=False).logits[0].double().softmax(-1)
    return sum(float(probs[len(prefix) - 1 + i, span.tokens[i]]) for i in span.scored) / len(span.scored)


def expected_values(trainer: Trainer, rollouts: Sequence[Rollout], model: Any) -> list[float]:
    """Plain forward passes over whole sequences."""
    tokenizer, values = trainer.tokenizer, []
    for rollout in rollouts:
        row = trainer.environment.rows[rollout.row]
        bare = render_prompt(tokenizer, row.messages, MODES.short)
        mode = MODES.short if rollout.mode == "short" else MODES.long
        span = reference_span(
            tokenizer,
            prompt_ids=rollout.prompt_ids,
            response_ids=rollout.response_ids,
            mode=mode,
            reference=row.reference,
        )
        if span is None:
            values.append(0.0)
            continue
        after = mean_probability(model, [*rollout.prompt_ids, *rollout.response_ids[: span.keep]], span)
        before = mean_probability(model, bare, prompt_span(tokenizer, prompt_ids=bare, reference=row.reference))
        values.append(min(max(after - before, 0.0), 1.0))
    return values


def test_rollouts_carry_the_published_reward(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    watched = Watched(engine)
    trainer = make_trainer(tmp_path / "run", watched, model_path)
    trainer.train()
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation="eager")
    first = [r for r in lines(tmp_path / "run/rollouts.jsonl") if r["step"] == 1]
    expected = expected_values(trainer, watched.rollouts[1], model)  # the call before the steps is the engine's check
    assert [r["rewards"]["probability"] for r in first] == pytest.approx(expected, abs=1e-5)
    assert sum(value > 0 for value in expected) >= 4
    assert sum(value == 0 for value in expected) >= 4
    for r in first:
        assert r["total"] == pytest.approx(r["rewards"]["vowels"] + r["rewards"]["probability"])
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert metrics[0]["reward/probability"] == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    assert metrics[0]["groups/trained"] == 4


@pytest.mark.parametrize(
    ("settings", "learner"),
    [
        ({"scale_rewards": "batch"}, {}),
        ({"filter": StdFilterConfig()}, {}),
        ({}, {"updates_per_step": 2}),
        ({}, {"micro_batch_tokens": 30}),
        ({"reference": ReferenceConfig(baseline="current")}, {}),
        ({"reference": ReferenceConfig(baseline="none")}, {}),
    ],
)
def test_every_other_way_gives_the_same_rewards(
    tmp_path: Path, engine: VLLMEngine, model_path: Path, settings: dict, learner: dict
) -> None:
    """In the first step all policies are the same one."""
    make_trainer(tmp_path / "a", engine, model_path, steps=1).train()
    make_trainer(tmp_path / "b", engine, model_path, learner, steps=1, **settings).train()
    a, b = (lines(tmp_path / name / "rollouts.jsonl") for name in "ab")
    assert [r["response"] for r in a] == [r["response"] for r in b]
    if settings.get("reference", ReferenceConfig()).baseline == "none":
        assert all(y["rewards"]["probability"] >= x["rewards"]["probability"] for x, y in zip(a, b, strict=True))
        assert a != b
        return
    for x, y in zip(a, b, strict=True):
        assert x["rewards"] == pytest.approx(y["rewards"], abs=1e-6)


def test_the_baseline_stays_that_of_the_initial_policy(tmp_path: Path, engine: VLLMEngine, model_path: Path) -> None:
    """Also for rows that a resumed, longer run meets first: they are scored with the initial weights, loaded again."""
    whole = make_trainer(tmp_path / "whole", engine, model_path, steps=3)
    whole.train()
    with (cut := make_trainer(tmp_path / "cut", engine, model_path, steps=1)).run:
        cut.train()
    known = json.loads((tmp_path / "cut/baselines.json").read_text())
    assert len(known) == 4
    again = make_trainer(tmp_path / "cut", engine, model_path, steps=3)
    assert again.resume() == 1
    again.train()
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        a, b = lines(tmp_path / "whole" / name), lines(tmp_path / "cut" / name)
        for x, y in zip(a, b, strict=True):
            assert {k: v for k, v in x.items() if not k.startswith(("time/", "memory/"))} == {
                k: v for k, v in y.items() if not k.startswith(("time/", "memory/"))
            }
    a, b = (json.loads((tmp_path / name / "baselines.json").read_text()) for name in ("whole", "cut"))
    assert a == b
