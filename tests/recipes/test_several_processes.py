"""The recipe under torchrun: two processes with a real engine, continued by one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.runs import ENVIRONMENT, ROOT, finish, grpo_config, records
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow


def test_two_processes_train_and_one_goes_on(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    config = grpo_config(tmp_path, model, trainer__steps=2, trainer__parallel={"kind": "fsdp"})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", "recipes.hybrid_grpo", str(config)],
        cwd=ROOT,
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("2 training processes (fsdp)") == 1
    assert done.stdout.count("done: 2 steps") == 1
    run = tmp_path / "run"
    assert (run / "checkpoints/step_2/model.safetensors").is_file()
    status, output = finish(str(config), "--resume", "true", "--trainer.steps", "3", "--trainer.parallel.kind", "ddp")
    assert status == 0, output
    metrics = records(run / "metrics.jsonl")
    assert [m["step"] for m in metrics] == [1, 2, 3]
    assert all(m["engine/logprob_gap_mean"] < 0.15 for m in metrics)  # the engine followed every update
    assert json.loads((run / "run.json").read_text())["steps"] == 3
