"""The benchmark against verl: configuration, counts and remarks without verl, and (`pytest -m verl`) a real run."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipes.benchmark.__main__ import main
from recipes.benchmark.config import BenchmarkConfig, Job, Shape
from recipes.benchmark.processes import child_environment
from recipes.benchmark.session import PHASES, with_other
from recipes.benchmark.summary import summarise
from recipes.benchmark.table import remarks, shape_table
from recipes.benchmark.verl_keys import verl_keys
from tests.tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
SHAPE = Shape(prompt=67, response=64)


def _record(seconds: float, cpu: float) -> dict[str, Any]:
    tokens = {"prompt": 10, "response": 10, "positions": 20, "prompts_digest": "a"}
    phases = with_other({"generate": (seconds / 2, cpu / 2)}, seconds, cpu)
    shared = {"phases": phases, "tokens": tokens, "memory_gib": 1.0, "busy_elsewhere": 0.0}
    return {"seconds": seconds, "cpu_seconds": cpu, **shared}


def _job(folder: Path, **changes: Any) -> Job:
    settings: dict[str, Any] = {"prompt": 67, "response": 64, "prompts": 4, "group_size": 8, "total_steps": 7}
    settings |= {"threads": 2, "max_model_len": 2048, "precision": "auto", "enforce_eager": True}
    settings |= {"peer_micro_batch": 5, "reference_tokens": 10, "model": "/m", "work_dir": str(folder)}
    return Job(**settings | changes)


# ---- configuration ----


def test_verl_makes_the_update_that_tandem_makes(tmp_path: Path) -> None:
    keys = verl_keys(_job(tmp_path), tmp_path, "bfloat16")
    actor = "actor_rollout_ref.actor."
    assert keys[actor + "ppo_mini_batch_size"] == 4  # prompts: one update per step
    assert keys[actor + "ppo_micro_batch_size_per_gpu"] == 4  # the largest up to 5 that divides 32 responses
    assert keys[actor + "fsdp_config.mixed_precision"]["param_dtype"] == "bf16"
    assert keys["data.max_prompt_length"] + keys["data.max_response_length"] == 67 + 64
    assert keys["actor_rollout_ref.rollout.n"] == 8
    assert keys["actor_rollout_ref.rollout.ignore_eos"]
    assert keys["trainer.total_training_steps"] == 8  # never the last one, which saves
    assert "ForcedLengths" in Path(keys["actor_rollout_ref.rollout.agent.agent_loop_config_path"]).read_text()
    single = verl_keys(_job(tmp_path), tmp_path, "float32")
    assert single[actor + "fsdp_config.mixed_precision"]["param_dtype"] == "fp32"


def test_verls_processes_get_what_the_other_childs_get_and_more() -> None:
    ours, verls = child_environment(2), child_environment(2, "verl")
    shared = {name: value for name, value in ours.items() if name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    assert {name: verls[name] for name in shared} == shared
    assert verls["RAY_worker_niceness"] == "0"
    assert "RAY_worker_niceness" not in ours


# ---- figures ----


def test_the_ratio_without_the_wait_of_verls_design() -> None:
    ours = [_record(2.0, 4.0), _record(1.0, 2.0), _record(4.0, 4.0)]
    theirs = [_record(6.0, 8.0), _record(6.0, 8.0), _record(10.0, 8.0)]
    figures = summarise(SHAPE, ours, theirs, floor_s=2.0)
    assert (figures["speedup"], figures["peer_floor_seconds"]) == (3.0, 2.0)
    # (6 - 2) / 2 = 2, (6 - 2) / 1 = 4, (10 - 2) / 4 = 2
    beyond = [figures[f"speedup_beyond_floor{end}"] for end in ("", "_min", "_max")]
    assert beyond == [2.0, 2.0, 4.0]
    assert "speedup_beyond_floor" not in summarise(SHAPE, ours, theirs)


def test_remarks_tell_the_wait_and_the_ratio_without_it() -> None:
    processes = {name: {"threads": 2, "precision": "bfloat16"} for name in ("tandem", "verl")}
    figures = summarise(SHAPE, [_record(2.0, 4.0)] * 2, [_record(6.0, 8.0)] * 2, floor_s=2.0)
    report = {"model": "m", "peer": "verl", "prompts": 4, "group_size": 8, "threads": 2, "warmup": 1}
    report |= {"enforce_eager": True, "shapes": [{**figures, "processes": processes}]}
    text = "\n".join(remarks(report))
    assert "every 2 s" in text
    assert "the ratio is 2.00x (2.00 to 2.00)" in text
    assert "Ray's for verl" in text
    assert "one of each in turn" in text
    assert [column.header for column in shape_table(figures, "verl").columns][3] == "verl"


# ---- refusals ----


def test_absent_verl_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"package verl is not installed.*tandem-rl\[verl\].*--peer none"):
        main(BenchmarkConfig(peer="verl"))


def test_stand_ins_that_are_not_there_are_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: name)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"tests/verl_cpu of the repository"):
        main(BenchmarkConfig(peer="verl"))


# ---- the real thing ----


@pytest.mark.verl
@pytest.mark.timeout(3600)
def test_tiny_model_against_verl(tmp_path: Path) -> None:
    """Both really train, on the same prompts and as many tokens, and the figures are complete."""
    model, out = make_tiny_model(tmp_path / "model"), tmp_path / "figures.json"
    command = [sys.executable, "-m", "recipes.benchmark", "--peer", "verl", "--model", str(model), "--threads", "1"]
    command += ["--shapes", "[{prompt: 20, response: 6}]", "--prompts", "2", "--group_size", "4"]
    done = subprocess.run(
        [*command, "--steps", "2", "--warmup", "1", "--json", str(out), "--timeout_s", "1700"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    assert "20+6   verl:" in done.stdout
    assert "every 2 s" in " ".join(done.stdout.split())
    report = json.loads(out.read_text())
    (figures,) = report["shapes"]
    assert figures["processes"]["verl"]["poll_interval_s"] == figures["peer_floor_seconds"] == 2.0
    assert figures["peer_tokens"] == {"prompt": 8 * 20, "response": 8 * 6, "positions": 8 * 26, "views": 0}
    for prefix in ("", "peer_"):
        assert 0 < figures[prefix + "seconds_min"] <= figures[prefix + "seconds"] <= figures[prefix + "seconds_max"]
        assert figures[prefix + "cpu_seconds"] > 0
        phases = figures[prefix + "phases"]
        assert set(phases) == set(PHASES)
        assert all(phases[name]["seconds"] > 0 for name in ("generate", "learn", "sync"))
    assert figures["speedup_beyond_floor_min"] < figures["speedup_min"]
