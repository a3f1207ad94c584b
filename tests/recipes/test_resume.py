"""A run that is killed again and again ends exactly where one that was never killed ends."""

import hashlib
import random
import signal
import time
from pathlib import Path

import pytest

from tests.recipes.runs import comparable, finish, grpo_config, records, start
from tests.tiny import make_tiny_model

KILLS = 12
STEPS = 30
"""Enough that the run does not end before the last kill; ten rows, so ten epochs and more."""


def fingerprint(run: Path) -> dict[str, object]:
    """Everything of a run that must not depend on interruptions."""
    checkpoint = run / "checkpoints" / f"step_{STEPS}"
    return {
        "metrics": comparable(records(run / "metrics.jsonl")),
        "rollouts": records(run / "rollouts.jsonl"),
        "ledger": (run / "ledger.json").read_text(),
        "weights": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        "optimizer": hashlib.sha256((checkpoint / "optimizer.safetensors").read_bytes()).hexdigest(),
    }


def wait_for_moment(run: Path, moment: str, rng: random.Random, process: object) -> None:
    """Let the run reach a moment worth killing it in; returns early when it ends."""
    deadline = time.monotonic() + 120
    lines = len(records(run / "metrics.jsonl")) if (run / "metrics.jsonl").exists() else 0

    def reached() -> bool:
        if moment == "saving":
            return any((run / "checkpoints").glob(".*"))
        if moment == "stepping":
            metrics = run / "metrics.jsonl"
            return metrics.exists() and len(metrics.read_text().splitlines()) > lines
        return True

    while not reached() and process.poll() is None and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(0.002)
    longest = {"saving": 0.05, "stepping": 0.6, "starting": 12.0}[moment]
    time.sleep(rng.uniform(0, longest))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_runs_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    status, output = finish(str(grpo_config(tmp_path / "a", model, trainer__steps=STEPS)))
    assert status == 0, output
    expected = fingerprint(tmp_path / "a" / "run")
    assert len(expected["metrics"]) == STEPS  # type: ignore[arg-type]
    assert len({r["row"] for r in expected["rollouts"]}) > 4  # type: ignore[union-attr]

    rng = random.Random(7)
    config, run = str(grpo_config(tmp_path / "b", model, trainer__steps=STEPS)), tmp_path / "b" / "run"
    moments = (["saving", "stepping", "starting"] * KILLS)[:KILLS]
    killed = 0
    for moment in moments:
        resume = ["--resume", "true"] if (run / "config.yaml").exists() else []
        process = start(config, *resume)
        wait_for_moment(run, moment, rng, process)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed >= 10, f"only {killed} of {KILLS} kills struck a running process"
    status, output = finish(config, "--resume", "true")
    assert status == 0, output

    actual = fingerprint(run)
    for name, value in expected.items():
        assert actual[name] == value, f"{name} differs after {killed} kills"


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_goes_on(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    config, run = str(grpo_config(tmp_path, model, trainer__save_every=0, trainer__steps=400)), tmp_path / "run"
    process = start(config)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(records(run / "metrics.jsonl")) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    done = len(records(run / "metrics.jsonl"))
    assert f"stopped after step {done}" in output
    assert (run / "checkpoints" / f"step_{done}" / "state.json").exists()
    status, output = finish(config, "--resume", "true", "--trainer.steps", str(done + 1))
    assert status == 0, output
    assert [m["step"] for m in records(run / "metrics.jsonl")] == list(range(1, done + 2))
