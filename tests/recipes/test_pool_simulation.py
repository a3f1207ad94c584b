"""The simulated pool: the router beats round-robin, and the files are there."""

import json

import pytest

from recipes.pool_simulation import LengthsConfig, PoolSimulationConfig, check_recorded, main, simulate

SMALL = PoolSimulationConfig(workers=[1, 16], steps=4)


@pytest.fixture(scope="module")
def records():
    return {(r["workers"], r["assignment"].split(",")[-1].strip()): r for r in simulate(SMALL)}


def test_one_worker_is_balanced(records):
    assert all(r["balance"] == pytest.approx(1.0) for (workers, _), r in records.items() if workers == 1)
    assert all(r["prompts_read"] == 1 for (workers, _), r in records.items() if workers == 1)


def test_the_router_is_closer_to_ideal_than_round_robin(records):
    router = records[16, "mean length of each mode"]
    for name in ("responses", "groups"):
        assert router["balance"] < records[16, name]["balance"] - 0.1
        assert router["seconds"] < records[16, name]["seconds"]
    assert router["prompts_read"] < records[16, "responses"]["prompts_read"] / 2
    assert records[16, "lengths known"]["balance"] < router["balance"]


def test_equal_lengths_are_balanced_but_for_the_speed_of_the_workers():
    same = {"spread_prompts": 0, "spread_responses": 0}
    config = PoolSimulationConfig(
        workers=[4],
        steps=2,
        speed_spread=0,
        short=LengthsConfig(median=100, budget=200, **same),
        long=LengthsConfig(median=400, budget=800, **same),
    )
    for record in simulate(config):
        if record["assignment"].startswith("router"):
            assert record["balance"] < 1.05


def test_a_run_gives_the_lengths_and_the_files_are_written(tmp_path):
    lines = [
        {"mode": mode, "step": 0, "row": row, "response_tokens": 10 * (row + 1) * (5 if mode == "long" else 1)}
        for mode in ("short", "long")
        for row in range(3)
        for _ in range(2)
    ]
    (tmp_path / "rollouts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = PoolSimulationConfig(workers=[2], steps=2, rollouts=tmp_path / "rollouts.jsonl", out=tmp_path / "out")
    main(config)
    written = json.loads((tmp_path / "out" / "pool_balance.json").read_text())
    assert written["records"] == simulate(config)
    assert written["settings"]["workers"] == [2]
    assert (tmp_path / "out" / "pool_balance.png").read_bytes().startswith(b"\x89PNG")


def test_rollouts_without_a_mode_are_refused(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    with pytest.raises(ValueError, match="no such file"):
        check_recorded(PoolSimulationConfig(rollouts=path))
    path.write_text(json.dumps({"mode": "long", "step": 0, "row": 0, "response_tokens": 3}))
    with pytest.raises(ValueError, match="no response in short mode: set long_share to 1"):
        check_recorded(PoolSimulationConfig(rollouts=path))
    check_recorded(PoolSimulationConfig(rollouts=path, long_share=1.0))
