"""Pools of real vLLM workers against one engine."""

import os
import signal
import time

import pytest

from rollouts import LongMode
from rollouts.pool import EnginePool, make_engine
from rollouts.pool_config import PoolConfig
from tests.rollouts.conftest import CONFIG, largest_gap, make_requests, perturbed

pytestmark = pytest.mark.slow

REQUESTS = make_requests(rows=6, samples=4)
LONG = make_requests(rows=6, samples=6, modes=[LongMode(max_tokens=110)], ignore_eos=True)
TOLERANCE = 1e-5
"""Of a log-probability in float32: a worker with other responses beside it may sum in another order."""


def config(**changes):
    return PoolConfig(**{**CONFIG.model_dump(), "workers": 2, "hang_s": 120.0, **changes})


def same(rollouts, others, tolerance=TOLERANCE):
    """Equal token for token, and log-probabilities within the tolerance."""
    assert [r.response_ids for r in rollouts] == [r.response_ids for r in others]
    for one, other in zip(rollouts, others, strict=True):
        assert (one.row, one.sample, one.status, one.policy_version) == (
            other.row,
            other.sample,
            other.status,
            other.policy_version,
        )
        assert one.logprobs == pytest.approx(other.logprobs, abs=tolerance)
    return True


def test_two_processes_answer_as_one_engine_and_survive(tiny, engine):
    """Killed while loading, generating, syncing and idle; after each, all is there, once, as before."""
    times = {}
    with make_engine(tiny, config()) as pool:
        assert isinstance(pool, EnginePool)
        while len(pool.pids) < 2:
            time.sleep(0.01)
        os.kill(pool.pids[0], signal.SIGKILL)  # loading
        expected = engine.generate(LONG)
        assert same(pool.generate(LONG), expected)
        assert same(pool.generate(REQUESTS), engine.generate(REQUESTS))

        told = []

        def kill_once(index, rollout):
            if not told:
                os.kill(pool.pids[1], signal.SIGKILL)  # generating
            told.append(index)

        assert same(pool.generate(LONG, None, kill_once), expected)
        assert sorted(told) == list(range(len(LONG)))
        pool.wait_ready()

        changed = perturbed(tiny)
        load = pool._team.hosts[0].ask
        victim = pool.pids[0]
        pool._team.hosts[0].ask = lambda *a: (load(*a), os.kill(victim, signal.SIGKILL))  # syncing
        pool.load_weights(changed.named_parameters(), 3)
        started = time.perf_counter()
        pool.load_weights(changed.named_parameters(), 3)
        times["sync"] = time.perf_counter() - started
        engine.load_weights(changed.named_parameters(), 3)
        expected = engine.generate(REQUESTS)
        assert same(pool.generate(REQUESTS), expected)  # by the worker that is left
        pool.wait_ready()
        os.kill(pool.pids[1], signal.SIGKILL)  # idle
        rollouts = pool.generate(REQUESTS)
        assert same(rollouts, expected)
        assert largest_gap(changed, rollouts) < 1e-3
        texts = [r.prompt_ids for r in rollouts], [r.response_ids for r in rollouts]
        for ours, theirs in zip(pool.score(*texts), engine.score(*texts), strict=True):
            assert ours == pytest.approx(theirs, abs=TOLERANCE)
        times["recovery"] = [round(recovery.seconds, 1) for recovery in pool.recoveries]
    print(times)
    assert len(times["recovery"]) >= 3


def test_two_ray_actors_answer_as_one_engine(tiny, engine, tmp_path):
    pytest.importorskip("ray")
    with make_engine(tiny, config(backend="ray"), log_path=tmp_path / "engine.log") as pool:
        assert same(pool.generate(REQUESTS), engine.generate(REQUESTS))
        changed = perturbed(tiny)
        for each in (pool, engine):
            each.load_weights(changed.named_parameters(), 2)
        assert same(pool.generate(LONG), engine.generate(LONG))
    assert (tmp_path / "engine_1.log").exists()
