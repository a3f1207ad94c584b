"""Strikes at the workers of a pool at chosen moments, and how long each place takes to be served again.

As a script it kills real vLLM workers of a tiny model, and says how long each kind of moment cost:

    python -m tests.rollouts.kills process|ray KILLS [WORKERS]
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

MOMENTS = ("generating", "loading", "syncing", "idle")
WAIT_S = 0.002


class Striker(threading.Thread):
    """Sends a signal to a worker at each of the given moments, some random time after it has begun."""

    def __init__(self, pool, kind, moments, longest_s=0.03, patient=False):
        """
        Args:
            pool: The `EnginePool`.
            kind: The signal.
            moments: Of `MOMENTS`, in turn.
            longest_s: Most seconds between the beginning of a moment and the signal; for "loading" ten times as many.
            patient: Whether two workers must be ready before a strike, unless that is to strike while one loads: so
                one is left that goes on.
        """
        super().__init__(daemon=True)
        self.phase = ""
        """What the test is doing: syncing, generating or idle."""
        self.struck = Counter()
        self.seconds = {}
        """By moment: seconds from each strike until its place has a worker that is ready (seen while calls run)."""
        self.stop = threading.Event()
        self._pool, self._kind, self._moments = pool, kind, moments
        self._longest_s, self._patient = longest_s, patient
        self._draw = random.Random(int(kind))
        self._pids = set()
        self._open = []

    def run(self):
        for moment in self._moments:
            host = None
            while host is None and not self.stop.wait(WAIT_S):
                self._note_served()
                host = self._victim(moment)
            if self.stop.wait(self._draw.uniform(0, self._longest_s * (10 if moment == "loading" else 1))):
                return
            pids = _pids(host)
            self._pids.update(pids)
            os.kill(self._draw.choice(pids), self._kind)
            self._open.append((moment, host, time.monotonic()))
            self.struck[moment] += 1
        while self._patient and self._open and not self.stop.wait(WAIT_S):
            self._note_served()

    def _victim(self, moment):
        if moment not in ("loading", self.phase):
            return None
        fresh = [host for host in self._pool._team.hosts if host.pid and host.pid not in self._pids]
        hosts = [host for host in fresh if host.ready != (moment == "loading")]
        needed = 2 if self._patient and moment != "loading" else 1
        return self._draw.choice(hosts) if len(hosts) >= needed else None

    def _note_served(self):
        """Takes down the struck places that have a worker again that is ready."""
        for moment, host, struck_at in list(self._open):
            current = self._pool._team.hosts[host.place]
            if current is not host and current.ready:
                self.seconds.setdefault(moment, []).append(time.monotonic() - struck_at)
                if self._patient:
                    print(f"{moment}: worker {host.place} is back after {self.seconds[moment][-1]:.1f} s", flush=True)
                self._open.remove((moment, host, struck_at))


def _pids(host):
    """The processes that make up a worker: vLLM's, and its Ray actor's if it has one."""
    actor = getattr(host._link, "actor_pid", 0)
    return [host.pid, actor] if actor else [host.pid]


def survive(pool, single, models, moments, kind=signal.SIGKILL, longest_s=0.5):
    """Makes calls until all strikes are done and made good, and compares each with an undisturbed engine.

    Args:
        pool: The pool that is struck.
        single: One engine of the same model, left in peace.
        models: Models whose weights are loaded in turn.
        moments: See `Striker`.
        kind: The signal.
        longest_s: See `Striker`.

    Returns:
        (striker, calls made, largest difference of a log-probability)
    """
    striker = Striker(pool, kind, moments, longest_s, patient=True)
    expected, gaps, step = {}, [0.0], 0
    striker.start()
    try:
        while striker.is_alive() or step < 2:
            step += 1
            requests, number = long_requests(step % 2), step % len(models)
            striker.phase = "syncing"
            pool.load_weights(models[number].named_parameters(), step)
            striker.phase = "generating"
            told = Counter()
            rollouts = pool.generate(requests, None, lambda index, _, told=told: told.update([index]))
            striker.phase = "idle"
            assert told == Counter(range(len(requests)))
            assert {rollout.policy_version for rollout in rollouts} == {step}
            case = step % 2, number
            if case not in expected:
                single.load_weights(models[number].named_parameters(), step)
                expected[case] = single.generate(requests)
            assert [r.response_ids for r in rollouts] == [r.response_ids for r in expected[case]]
            gaps.append(largest_difference(rollouts, expected[case]))
            time.sleep(0.1)
            if sum(host.ready for host in pool._team.hosts) < 2:
                pool.wait_ready()  # further calls would only take the cores that the others need to start
    finally:
        striker.stop.set()
        striker.join()
    assert striker.struck == Counter(moments)
    return striker, step, max(gaps)


def long_requests(step):
    """16 requests of two rows that take about a second."""
    from rollouts import LongMode
    from tests.rollouts.conftest import make_requests

    return make_requests(rows=2, samples=8, modes=[LongMode(max_tokens=120)], step=step, ignore_eos=True)


def largest_difference(rollouts, others):
    """Largest difference between the log-probabilities of the same tokens."""
    pairs = [pair for r, o in zip(rollouts, others, strict=True) for pair in zip(r.logprobs, o.logprobs, strict=True)]
    return max(abs(a - b) for a, b in pairs)


def main(backend, kills, workers=2):
    """Kills real workers, and prints what each kind of moment cost."""
    from rollouts import VLLMEngine
    from rollouts.pool import EnginePool
    from rollouts.pool_config import PoolConfig
    from tests.rollouts.conftest import CONFIG, model_of, perturbed
    from tests.tiny import make_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        path = make_tiny_model(Path(folder) / "model")
        settings = {**CONFIG.model_dump(), "max_restarts": 10, "hang_s": 300.0}
        config = PoolConfig(workers=workers, backend=backend, **settings)
        moments = [MOMENTS[n % len(MOMENTS)] for n in range(kills)]
        with VLLMEngine(path, CONFIG) as single, EnginePool(path, config) as pool:
            single.wait_ready()
            pool.wait_ready()
            started = time.monotonic()
            striker, calls, gap = survive(pool, single, [model_of(path), perturbed(path)], moments)
            took = time.monotonic() - started
            reported = [recovery.seconds for recovery in pool.recoveries]
    print(f"{backend}, {workers} workers: {kills} kills in {calls} calls of 16 responses, {took:.0f} s")
    print(f"  token ids those of an undisturbed engine, log-probs within {gap:.1e}")
    for moment, seconds in striker.seconds.items():
        print(f"  {moment:>10}: {len(seconds)} kills, median {statistics.median(seconds):.1f} s, {max(seconds):.1f} s")
    print(f"  recoveries: {len(reported)}, median {statistics.median(reported):.1f} s, at most {max(reported):.1f} s")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
