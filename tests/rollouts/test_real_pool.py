"""Pools of real vLLM workers, as processes and on Ray: the numbers of one engine, also when workers die or hang.

`python -m tests.rollouts.kills ray 20` strikes more often than there is time for here.
"""

import logging
import os
import signal
import time
from collections import Counter

import pytest
import torch

from rl.timing import cpu_seconds
from rollouts import VLLMEngine
from rollouts.pool import EnginePool
from rollouts.pool_config import PoolConfig
from tests.rl.small_run import lines, make_trainer
from tests.rollouts.conftest import CONFIG, model_of, perturbed
from tests.rollouts.kills import largest_difference, long_requests, survive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TOLERANCE = 1e-5
KILLS = {"process": ["generating", "idle"], "ray": ["syncing", "loading"]}
"""Moments at which a worker of each kind is killed here."""


@pytest.fixture(scope="module")
def single(tiny):
    """One engine of its own, which no test leaves as it was."""
    with VLLMEngine(tiny, CONFIG) as engine:
        yield engine


@pytest.fixture(scope="module", params=["process", "ray"])
def pool(request, tiny):
    """Two real workers."""
    if request.param == "ray":
        pytest.importorskip("ray")
    config = PoolConfig(workers=2, backend=request.param, **{**CONFIG.model_dump(), "max_restarts": 10, "hang_s": 90.0})
    with EnginePool(tiny, config) as started:
        started.wait_ready()
        yield started


class Recording:
    """An engine that keeps what it has generated."""

    def __init__(self, engine):
        self._engine = engine
        self.rollouts = []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def generate(self, *arguments, **options):
        found = self._engine.generate(*arguments, **options)
        self.rollouts += found
        return found


def trained(path, engine, tiny):
    """A short run's rollouts, metrics and final weights."""
    recording = Recording(engine)
    trainer = make_trainer(path, recording, tiny, group_size=8, steps=3)
    trainer.train()
    return recording.rollouts, lines(path / "metrics.jsonl"), trainer.learner.weights()


def test_two_workers_train_to_the_numbers_of_one(pool, single, tiny, tmp_path):
    rollouts, metrics, weights = trained(tmp_path / "pool", pool, tiny)
    expected, expected_metrics, expected_weights = trained(tmp_path / "single", single, tiny)
    assert len({host.pid for host in pool._team.hosts}) == 2
    assert [r.response_ids for r in rollouts] == [r.response_ids for r in expected]
    assert largest_difference(rollouts, expected) <= TOLERANCE
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
        assert ours["reward/total"] == theirs["reward/total"]
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=TOLERANCE)
    for name, tensor in weights.items():
        assert torch.allclose(tensor, expected_weights[name], rtol=0, atol=TOLERANCE), name


def test_killed_workers_lose_and_double_nothing(pool, single, tiny):
    moments = KILLS[pool.config.backend]
    cpu = cpu_seconds()
    striker, calls, gap = survive(pool, single, [model_of(tiny), perturbed(tiny)], moments)
    assert gap <= TOLERANCE
    assert pool.recoveries
    assert all(recovery.seconds > 0 and recovery.reason for recovery in pool.recoveries)
    assert Counter({moment: len(seconds) for moment, seconds in striker.seconds.items()}) == Counter(moments)
    print(f"{pool.config.backend}: {calls} calls, {striker.seconds}, {cpu_seconds() - cpu:.0f} CPU s")


def test_a_stopped_worker_is_replaced_within_its_time(pool, single, tiny, caplog):
    """What it had not finished goes to the other one. The last test of a pool: nobody waits for the replacement."""
    single.load_weights(model_of(tiny).named_parameters(), 5)
    pool.load_weights(model_of(tiny).named_parameters(), 5)
    expected, told = single.generate(long_requests(0)), Counter()
    stopped, times = pool.pids[1], []

    def count(index, _rollout):
        told[index] += 1

    pool._team.config = pool._team.config.model_copy(update={"hang_s": 4.0})
    os.kill(stopped, signal.SIGSTOP)
    started = time.monotonic()
    replace = pool._team.replace
    pool._team.replace = lambda *arguments: (times.append(time.monotonic()), replace(*arguments))
    with caplog.at_level(logging.WARNING):
        rollouts = pool.generate(long_requests(0), None, count)
    del pool._team.replace
    pool._team.config = pool._team.config.model_copy(update={"hang_s": 90.0})
    assert 4.0 <= times[0] - started < 4.0 + 8.0  # a busy machine
    assert "silent for 4 s" in caplog.text
    assert told == Counter(range(len(expected)))
    assert [r.response_ids for r in rollouts] == [r.response_ids for r in expected]
    assert largest_difference(rollouts, expected) <= TOLERANCE
    assert stopped not in pool.pids
