"""Whole runs on verl's trainer, on CPU: Ray, FSDP2 on gloo, a vLLM server. `pytest -m verl`; minutes each."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

import rewards
from recipes.compare import CompareConfig, compare
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.run_records import load_run
from rl.advantages import group_advantages
from rollouts.modes import ModeSampler
from tests.recipes import runs
from tests.recipes.runs import ROOT, grpo_config, records
from tests.tiny import make_tiny_model
from tests.verl_cpu import OVERRIDES, environment

pytestmark = [pytest.mark.verl, pytest.mark.timeout(3600)]
STEPS, PROMPTS, GROUP = 6, 4, 4
LIMIT_S = 1700
"""Longest run, in seconds: a minute on a quiet machine."""


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run in a process group of its own and the file of what it says; nothing that it started outlives the block."""
    log = folder / "output.log"
    command = [sys.executable, "-m", "recipes.hybrid_grpo", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in family:
                with suppress(psutil.Error):
                    child.kill()


def ended(process: subprocess.Popen[bytes], log: Path) -> str:
    """What a run said, which must have succeeded."""
    assert process.wait(LIMIT_S) == 0, log.read_text()[-8000:]
    return log.read_text()


def finish(folder: Path, *arguments: str) -> str:
    """Output of a whole run, which must succeed."""
    with started(folder, *arguments) as run:
        return ended(*run)


def verl_config(folder: Path, model: Path, **changes: Any) -> Path:
    return grpo_config(
        folder,
        model,
        backend="verl",
        group_size=GROUP,
        rewards=[f"{ROOT}/tests/recipes/letters.py:letters", {"name": "format", "weight": 0.5}],
        learner={"learning_rate": 1e-3, "precision": "float32", "updates_per_step": 2},
        trainer={"steps": STEPS, "prompts_per_step": PROMPTS, "save_every": 3, "keep_last": 1},
        verl={"gpus_per_node": 1, "overrides": OVERRIDES, "timeout_s": 1500},
        engine__dtype="float32",
        engine__gpu_memory_utilization=0.1,
        **changes,
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run that got Ctrl-C after its first step, and what it said."""
    folder = tmp_path_factory.mktemp("verl")
    config = verl_config(folder, make_tiny_model(folder / "model"))
    metrics = folder / "run/metrics.jsonl"
    with started(folder, str(config)) as (process, log):
        while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        said = ended(process, log)
    saved = [path.name for path in (folder / "run/checkpoints").iterdir()]
    steps = len(records(metrics))
    assert saved == [f"step_{steps}"]
    assert 0 < steps < STEPS
    assert f"stopped after step {steps} of {STEPS}; continue with --resume" in said
    return folder, said


@pytest.fixture(scope="module")
def finished(interrupted: tuple[Path, str]) -> Path:
    """The run directory after the run was resumed to its end."""
    folder, _ = interrupted
    finish(folder, str(folder / "config.yaml"), "--resume", "true")
    return folder / "run"


@pytest.fixture(scope="module")
def config(finished: Path) -> HybridGrpoConfig:
    return HybridGrpoConfig.model_validate(yaml.safe_load((finished / "config.yaml").read_text()))


def test_ctrl_c_saves_at_the_end_of_the_step(interrupted: tuple[Path, str]) -> None:
    folder, said = interrupted
    assert "SIGINT: finishing this step and saving" in said
    assert not (folder / "run/stop").exists()


def test_every_step_is_there_once(finished: Path) -> None:
    metrics, rollouts = records(finished / "metrics.jsonl"), records(finished / "rollouts.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert len(rollouts) == STEPS * PROMPTS * GROUP
    assert all(math.isfinite(line["grad_norm"]) and line["grad_norm"] > 0 for line in metrics)
    assert all(line["time/generate"] > 0 for line in metrics)
    ledger = json.loads((finished / "ledger.json").read_text())["total"]
    assert ledger["generated"] == sum(rollout["response_tokens"] for rollout in rollouts)
    assert metrics[-1]["tokens/generated"] == ledger["generated"]


def test_modes_rewards_and_advantages_are_the_librarys(finished: Path, config: HybridGrpoConfig) -> None:
    rollouts = records(finished / "rollouts.jsonl")
    with rewards.build(config.rewards, [], None) as reward_set:  # type: ignore[arg-type]
        for at in range(0, len(rollouts), GROUP):
            group = rollouts[at : at + GROUP]
            samples = [
                {name: rollout[name] for name in ("prompt", "response", "thinking", "answer", "reference", "mode")}
                | {"truncated": rollout["status"] == "truncated"}
                for rollout in group
            ]
            scores = reward_set.score([samples])[0]
            assert [rollout["total"] for rollout in group] == pytest.approx([score.total for score in scores])
            assert [rollout["rewards"] for rollout in group] == [dict(score.breakdown) for score in scores]
            totals = torch.tensor([rollout["total"] for rollout in group], dtype=torch.float64)
            advantages = group_advantages(totals).tolist()
            assert [rollout["advantage"] for rollout in group] == pytest.approx(advantages)
    sampler = ModeSampler(config.modes, config.seed)
    for step in range(1, STEPS + 1):
        expected = [mode.name for mode in sampler.mode_batch(step, PROMPTS)]
        own = [rollout for rollout in rollouts if rollout["step"] == step]
        assert [rollout["mode"] for rollout in own[::GROUP]] == expected
        budgets = {mode.name: mode.max_tokens for mode in config.modes.active()}
        assert all(rollout["response_tokens"] <= budgets[rollout["mode"]] for rollout in own)


def test_engine_and_trainer_run_the_same_policy_after_each_sync(finished: Path) -> None:
    """In float32, on both sides of a resumption; the policy moves by more than that in a step."""
    gaps = [line["engine/prob_gap_mean"] for line in records(finished / "metrics.jsonl")]
    assert max(gaps) < 1e-5, gaps


def test_the_policy_has_moved_and_loads_everywhere(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rollouts.engine import EngineConfig, VLLMEngine
    from rollouts.modes import ShortMode
    from rollouts.records import Request

    path = finished / "checkpoints" / f"step_{STEPS}"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert list(path.glob("*.safetensors"))
    trained = AutoModelForCausalLM.from_pretrained(path).eval()
    assert trained.dtype == torch.float32  # as it was trained, without being asked
    start = AutoModelForCausalLM.from_pretrained(finished.parent / "model", dtype=torch.float32)
    assert not torch.allclose(trained.get_input_embeddings().weight, start.get_input_embeddings().weight, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(path)
    prompt = tuple(tokenizer("What is 3 + 4?", add_special_tokens=False)["input_ids"])
    settings = EngineConfig(dtype="float32", max_model_len=64, max_num_seqs=2, kv_cache_gib=0.05, threads=1)
    with VLLMEngine(path, settings) as engine:
        (rollout,) = engine.generate(
            [Request(prompt_ids=prompt, mode=ShortMode(max_tokens=8), row=0, sample=0, seed=1)]
        )
    ids = torch.tensor([[*prompt, *rollout.response_ids]])
    with torch.no_grad():
        logprobs = trained(ids).logits[0].log_softmax(-1)
    expected = [float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(rollout.response_ids)]
    assert list(rollout.logprobs) == pytest.approx(expected, abs=1e-3)


def test_both_engines_side_by_side(finished: Path) -> None:
    run = load_run(finished)
    assert (run.steps, run.mode, run.finished) == (STEPS, "hybrid", True)
    assert run.problems == []
    assert (finished / "report.html").is_file()
    folder = finished.parent / "tandem"
    folder.mkdir()
    own = grpo_config(
        folder,
        finished.parent / "model",
        group_size=GROUP,
        trainer={"steps": STEPS, "prompts_per_step": PROMPTS, "save_every": 0},
        learner={"learning_rate": 1e-3, "precision": "float32", "updates_per_step": 2},
        engine__dtype="float32",
    )
    status, said = runs.finish(str(own), timeout=LIMIT_S)
    assert status == 0, said
    out = finished.parent / "comparison"
    assert compare(CompareConfig(runs=[finished, folder / "run"], out=out)) == 0
    figures = json.loads((out / "compare.json").read_text())["runs"]
    assert [(own["mode"], own["steps"]) for own in figures] == [("hybrid", STEPS)] * 2
    assert all(own["rl_tokens"] > 0 and own["seconds"] > 0 for own in figures)
    asked = [
        [(rollout["step"], rollout["row"], rollout["mode"], rollout["prompt"]) for rollout in records(path)]
        for path in (finished / "rollouts.jsonl", folder / "run/rollouts.jsonl")
    ]
    assert asked[0] == asked[1]


def test_probability_filter_and_preferences_of_groups(tmp_path: Path) -> None:
    """Log-probs of references from verl's servers, a group reward, and filtered prompts that are drawn again."""
    model = make_tiny_model(tmp_path / "model")
    path = verl_config(tmp_path, model)
    config = yaml.safe_load(path.read_text())
    config["rewards"] = ["probability", f"{ROOT}/tests/recipes/letters.py:letters"]
    config["trainer"] |= {
        "steps": 3,
        "filter": {"warmup_steps": 1, "init_steps": 1, "beta": 1.0, "max_generation_rounds": 2},
    }
    path.write_text(yaml.safe_dump(config))
    finish(tmp_path, str(path))
    metrics, rollouts = records(tmp_path / "run/metrics.jsonl"), records(tmp_path / "run/rollouts.jsonl")
    assert len(metrics) == 3
    assert any(line["groups/generated"] > PROMPTS for line in metrics)
    assert all(0 <= rollout["rewards"]["probability"] <= 1 for rollout in rollouts)
    assert (tmp_path / "run/baselines.json").is_file()
