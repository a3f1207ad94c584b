"""The pool's benchmark: its arithmetic on made-up rounds, what it refuses, and one real round on a tiny model."""

import json

import pytest
from pydantic import ValidationError
from rich.console import Console

from recipes.benchmark.pool import PoolBenchmarkConfig, main, pool_table, remarks
from recipes.benchmark.pool_rounds import engine_configs, summarise, turns
from tests.tiny import make_tiny_model


def record(seconds, sync=0.1):
    return {
        "seconds": seconds, "cpu_seconds": 1.5 * seconds, "tokens": 100.0, "sync_seconds": sync,
        "sync_cpu_seconds": sync, "busy_elsewhere": 0.5,
    }  # fmt: skip


def test_ratios_are_of_pairs():
    """A machine that is twice as slow in one round slows both, and moves no ratio."""
    records = {
        "one engine": [record(2.0), record(4.0), record(2.0)],
        "pool, ray": [record(1.0), record(2.0), record(1.6, sync=0.3)],
    }
    figures = summarise(records)
    assert figures["one engine"]["speedup"] == 1.0
    pool = figures["pool, ray"]
    assert (pool["speedup"], pool["speedup_min"], pool["speedup_max"]) == (2.0, 1.25, 2.0)
    assert pool["cpu_speedup"] == 2.0
    assert pool["tokens_per_s"] == pytest.approx(62.5)
    assert (pool["sync_seconds"], pool["sync_seconds_max"]) == (0.1, 0.3)


def test_the_table_says_everything():
    config = PoolBenchmarkConfig().model_dump(mode="json")
    report = {"model": "m", "tokens": 100, "weight_bytes": 2e6, "threads": 2, "config": config}
    report["engines"] = summarise({"one engine": [record(2.0)], "pool, ray": [record(1.0)]})
    console = Console(width=80, record=True)
    console.print(pool_table(report))
    text = console.export_text()
    assert "2.0 MB of weights" in text
    assert "2.00x" in text
    assert "…" not in text
    assert any("0.5 cores busy" in line for line in remarks(report))


def test_everybody_goes_first_in_turn_and_has_the_same_cores():
    assert turns(["a", "b"], 2) == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]
    configs = engine_configs(PoolBenchmarkConfig(threads=4, workers=2), 128)
    assert [(name, c.workers, c.backend, c.threads) for name, c in configs.items()] == [
        ("one engine", 1, "process", 4),
        ("pool, process", 2, "process", 2),
        ("pool, ray", 2, "ray", 2),
    ]
    with pytest.raises(ValidationError, match="threads is 3, which 2 workers cannot share equally"):
        PoolBenchmarkConfig(threads=3)


def test_missing_ray_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="backends names ray, which is not installed"):
        main(PoolBenchmarkConfig(model="nowhere"))


@pytest.mark.slow
def test_a_real_round_on_a_tiny_model(tmp_path):
    model = make_tiny_model(tmp_path / "model")
    config = PoolBenchmarkConfig(
        model=str(model), backends=["process"], prompts=2, group_size=4, prompt=20, response=16, rounds=2, threads=2,
        dtype="float32", json_path=tmp_path / "pool.json",
    )  # fmt: skip
    main(config)
    report = json.loads((tmp_path / "pool.json").read_text())
    assert report["tokens"] == 2 * 4 * 16
    assert report["weight_bytes"] == 4 * sum_of_sizes(model)
    assert list(report["engines"]) == ["one engine", "pool, process"]
    for figures in report["engines"].values():
        assert figures["tokens_per_s"] > 0
        assert 0 < figures["sync_seconds"] < 60
        assert figures["cpu_seconds"] > 0


def sum_of_sizes(model):
    from rollouts.weights import checkpoint_shapes

    total = 0
    for shape in checkpoint_shapes(model).values():
        count = 1
        for size in shape:
            count *= size
        total += count
    return total
