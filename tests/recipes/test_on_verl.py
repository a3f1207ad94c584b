"""The recipe on verl, as far as it can be tested without verl: translation, refusals, batches, the session."""

import asyncio
import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from base_model.branches import Branch
from base_model.packing import TokenGroup
from recipes.cli import CONFIGS, load_config
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.on_verl.batches import at_last_token, by_group, group_relative
from recipes.on_verl.launch import Watchdog
from recipes.on_verl.metrics import step_line
from recipes.on_verl.plan import plan_of_verl
from recipes.on_verl.refusals import check_config, check_rewards, check_rows
from recipes.on_verl.scorer import ServerScorer
from recipes.on_verl.translate import verl_keys
from recipes.plan import H200, ModelShape, work_of
from rl.advantages import group_advantages
from rl.learner import TrainGroup

TWO_NODES = CONFIGS / "verl_two_nodes.yaml"
DEFAULT = CONFIGS / "hybrid_grpo.yaml"


def load(*arguments: str) -> HybridGrpoConfig:
    return load_config(HybridGrpoConfig, [str(TWO_NODES), *arguments], default_config=DEFAULT)


def keys(*arguments: str) -> dict[str, Any]:
    return verl_keys(load(*arguments), Path("/shared/models/qwen3-8b"), Path("/home/me"))


def test_the_two_node_example_in_verls_words() -> None:
    """Every key that the recipe sets, written out: a change of one is a change of what verl does."""
    golden = yaml.safe_load((Path(__file__).parent / "verl_two_nodes_keys.yaml").read_text())
    found = keys()
    found["actor_rollout_ref.rollout.agent.agent_loop_config_path"] = Path(
        found["actor_rollout_ref.rollout.agent.agent_loop_config_path"]
    ).name
    assert found == golden


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--learner.aggregation", "sequence-mean"], {"actor.loss_agg_mode": "seq-mean-token-mean"}),
        (
            ["--learner.aggregation", "constant", "--learner.constant_length", "100"],
            {"actor.loss_agg_mode": "seq-mean-token-sum-norm", "actor.loss_scale_factor": 100},
        ),
        (["--learner.max_grad_norm", "0"], {"actor.grad_clip": 1e9, "actor.optim.clip_grad": 1e9}),
        (["--learner.warmup_steps", "7"], {"actor.optim.lr_warmup_steps": 0}),  # as transformers' constant schedule
        (
            ["--learner.lr_scheduler", "constant_with_warmup", "--learner.warmup_steps", "7"],
            {"actor.optim.lr_scheduler_type": "constant", "actor.optim.lr_warmup_steps": 7},
        ),
        (["--learner.lr_scheduler", "cosine"], {"actor.optim.lr_scheduler_type": "cosine"}),
        (["--learner.micro_batch_tokens", "0"], {"actor.ppo_max_token_len_per_gpu": 128 * 8 * 10240}),
        (["--learner.micro_batch_tokens", "100"], {"actor.ppo_max_token_len_per_gpu": 10240}),
        (["--sampling.top_p", "0.9"], {"rollout.top_p": 0.9}),
    ],
)
def test_settings_of_the_learner(arguments: list[str], expected: dict[str, Any]) -> None:
    found = keys(*arguments)
    assert {name: found[f"actor_rollout_ref.{name}"] for name in expected} == expected


def test_precision_is_that_of_the_products() -> None:
    """verl's `fsdp_config.dtype` is another thing: with it alone, float32 runs multiplied in bf16."""
    name = "actor_rollout_ref.actor.fsdp_config.mixed_precision"
    assert keys()[name]["param_dtype"] == "bf16"
    assert keys("--learner.precision", "float32")[name]["param_dtype"] == "fp32"


def test_the_importance_cap_is_verls_rollout_correction() -> None:
    assert keys()["algorithm.rollout_correction.rollout_is"] is None
    found = keys("--learner.importance_cap", "2.5")
    assert found["algorithm.rollout_correction.rollout_is"] == "token"
    assert found["algorithm.rollout_correction.rollout_is_threshold"] == 2.5


def test_the_users_own_keys_of_verl() -> None:
    assert keys("--verl.overrides", "{data.seed: 3}")["data.seed"] == 3
    with pytest.raises(ValueError, match=r"sets actor_rollout_ref\.actor\.clip_ratio_high, which the recipe sets"):
        keys("--verl.overrides", "{actor_rollout_ref.actor.clip_ratio_high: 0.3}")


REFUSED = {
    "adapters": (["--lora.rank", "8"], "lora is set"),
    "evaluations": (["--trainer.eval_every", "10"], "trainer.eval_every is 10"),
    "uneven updates": (["--learner.updates_per_step", "3"], "updates_per_step 3 does not divide"),
    "generation ahead": (["--trainer.filter", "null", "--trainer.staleness", "1"], "trainer.staleness is 1"),
    "schedule": (["--learner.lr_scheduler", "polynomial"], "lr_scheduler polynomial is unknown to verl"),
    "a pool": (["--engine.workers", "4"], "engine.workers and engine.backend are for backend: tandem"),
    "parallelism": (["--engine.tensor_parallel_size", "3"], "tensor_parallel_size 3 does not divide the 16 GPUs"),
    "batch": (["--verl.nodes", "3"], "cannot share equally: make it a multiple of 24"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    arguments, expected = REFUSED[case]
    with pytest.raises(ValueError, match=expected) as refused:
        check_config(load(*arguments))
    assert all(line.endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789")) for line in str(refused.value).splitlines())


def test_the_example_is_not_refused() -> None:
    check_config(load())


def test_rows_with_media_and_probabilities_at_another_temperature_are_refused() -> None:
    text = SimpleNamespace(index=0, images=[], videos=[])
    check_rows([text])
    with pytest.raises(ValueError, match="row 3 has images or videos"):
        check_rows([text, SimpleNamespace(index=3, images=["a.png"], videos=[])])
    check_rewards(load("--sampling.temperature", "0.7"), deferred=False)
    with pytest.raises(ValueError, match=r"temperature is 0\.7"):
        check_rewards(load("--sampling.temperature", "0.7"), deferred=True)


def test_responses_find_their_groups() -> None:
    assert by_group(["3-10_1_0", "3-9_0_0", "3-10_0_0", "3-9_11_0", "3-9_2_0"]) == {"3-10": [2, 0], "3-9": [1, 4, 3]}


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_are_those_of_the_library(scale: Any) -> None:
    rewards = {"a": [1.0, 0.0, 0.5], "b": [2.0, 2.0]}
    rows = [("a", 1.0, 2), ("b", 2.0, 1), ("a", 0.0, 3), ("b", 2.0, 2), ("a", 0.5, 1), ("pad", 0.0, 0)]
    tokens, mask = torch.zeros(6, 3), torch.zeros(6, 3)
    for row, (_, total, length) in enumerate(rows):
        mask[row, :length] = 1
        if length:
            tokens[row, :length] = at_last_token(total, length)
    advantages, returns = group_relative(tokens, mask, [group for group, _, _ in rows], scale)
    expected = {name: iter(group_advantages(torch.tensor(own), scale=scale).tolist()) for name, own in rewards.items()}
    for row, (group, _, length) in enumerate(rows):
        value = next(expected[group]) if length else 0.0
        assert advantages[row].tolist() == pytest.approx([value] * length + [0.0] * (3 - length))
    assert torch.equal(advantages, returns)


def test_rows_that_fill_a_batch_do_not_move_its_deviation() -> None:
    tokens = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    mask = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    filled, _ = group_relative(tokens, mask, ["a", "a", "pad", "pad"], "batch")
    plain, _ = group_relative(tokens[:2], mask[:2], ["a", "a"], "batch")
    assert torch.equal(filled[:2], plain)
    assert filled[2:].tolist() == [[0.0], [0.0]]


def test_a_step_in_our_words_keeps_what_is_verls() -> None:
    measured = {"actor/grad_norm": 0.5, "actor/lr": 1e-6, "actor/ppo_kl": 0.01, "words": "text", "bad": float("nan")}
    assert step_line(measured, {"gen": 3.0, "adv": 0.1, "update_actor": 4.0}, 9.0) == {
        "grad_norm": 0.5,
        "lr": 1e-6,
        "verl/actor/ppo_kl": 0.01,
        "time/generate": 3.0,
        "time/learn": 4.0,
        "time/step": 9.0,
    }


class _Servers:
    """Answers as verl's client does: entry i of the log-probs is about token i + 1, and the last is a filler."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        assert sampling_params["prompt_logprobs"] == 0
        assert sampling_params["max_tokens"] == 1
        self.asked.append(prompt_ids)
        await asyncio.sleep(0)
        ids = [[token] for token in prompt_ids[1:]] + [[0]]
        return SimpleNamespace(
            extra_fields={"prompt_ids": ids, "prompt_logprobs": [[-float(token[0])] for token in ids]}
        )


def test_branches_are_scored_where_they_stand() -> None:
    scorer = ServerScorer()
    scorer.client = servers = _Servers()
    tokens = TokenGroup(prompt=(1, 2), responses=[(3, 4, 5), (6, 7)])
    branches = (Branch(response=0, keep=2, tokens=(8, 9)), Branch(response=1, keep=0, tokens=(10,)))
    group = TrainGroup(tokens=tokens, advantages_G=(), engine_logprobs=(), branches=branches)
    bare = TrainGroup(
        tokens=TokenGroup(prompt=(1,), responses=[]),
        advantages_G=(),
        engine_logprobs=(),
        branches=(Branch(tokens=(11,)),),
    )
    assert scorer([group, bare]) == [[[-8.0, -9.0], [-10.0]], [[-11.0]]]
    assert sorted(servers.asked) == [[1, 2, 3, 4, 8, 9], [1, 2, 10], [1, 11]]


def test_the_plan_counts_the_cluster() -> None:
    shape = ModelShape(layers=2, hidden=8, intermediate=16, heads=4, kv_heads=2, head_dim=2, vocab=100, tied=True)
    config = load()
    lines = plan_of_verl(config, shape, work_of(config), H200)
    assert lines[0].startswith("verl on Ray: 2 nodes x 8 GPUs = 16 training workers (FSDP2)")
    assert "8 vLLM servers of 2 GPUs" in lines[0]
    # 128 prompts x 8 responses at half 2048, half 8192 tokens; 1024 responses fill 8 servers x 128 once
    assert any("5242880 generated = 128 prompts x 8 responses x 5120, in 1 rounds" in line for line in lines)
    assert any("2 kept" in line for line in lines)


def test_the_configuration_survives_its_own_yaml(tmp_path: Path) -> None:
    config = load()
    assert HybridGrpoConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_a_run_without_a_step_is_ended(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with Watchdog(metrics, 0.5, poll_s=0.05) as watchdog:
        deadline = time.monotonic() + 20
        while not watchdog.silent and time.monotonic() < deadline:
            time.sleep(0.05)
    assert watchdog.silent


def test_a_run_with_steps_goes_on_while_processes_are_started(tmp_path: Path) -> None:
    """Ray starts its own with a function that runs after the fork: the watching thread must not be in the way."""
    metrics = tmp_path / "metrics.jsonl"
    with Watchdog(metrics, 1.5, poll_s=0.02) as watchdog:
        for step in range(20):
            metrics.write_text("{}\n" * (step + 1))
            subprocess.run(["true"], preexec_fn=lambda: None, check=True, timeout=20)
            time.sleep(0.1)
    assert not watchdog.silent
