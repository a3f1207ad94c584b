"""A pool whose workers die, hang and fail: real processes with a fake engine, so that many moments can be tried."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import torch

from rollouts import EngineError, LongMode, ShortMode
from rollouts.engine import VLLMEngine
from rollouts.pool import EnginePool, make_engine
from rollouts.pool_config import PoolConfig
from rollouts.pool_start import ProcessStarter, log_of
from rollouts.ray_start import _connect
from rollouts.weights import checkpoint_shapes
from tests.rollouts import fake_worker
from tests.rollouts.conftest import CONFIG, make_requests
from tests.rollouts.kills import Striker

REQUESTS = make_requests(rows=6, samples=4, modes=[ShortMode(max_tokens=30), LongMode(max_tokens=120)], ignore_eos=True)


def config(workers=2, **changes):
    settings = {**CONFIG.model_dump(), "timeout_s": 300.0, "hang_s": 60.0, **changes}
    return PoolConfig(workers=workers, **settings)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A checkpoint that nobody loads."""
    return fake_worker.bare_checkpoint(tmp_path_factory.mktemp("bare"))


def one_engine(path):
    return VLLMEngine(path, CONFIG, tokenizer=fake_worker.Spelling())


@pytest.fixture
def make_pool(bare, monkeypatch):
    """Makes pools of fake workers, and closes them."""
    fake_worker.install(monkeypatch.setattr)
    pools = []

    def make(workers=2, **changes):
        pools.append(EnginePool(bare, config(workers, **changes), tokenizer=fake_worker.Spelling()))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def weights(path, value):
    """All tensors of the checkpoint, filled with a number."""
    return {name: torch.full(shape, value) for name, shape in checkpoint_shapes(path).items()}.items()


def answers(rollouts):
    return [(r.row, r.sample, r.response_ids, r.logprobs, r.policy_version) for r in rollouts]


def test_one_process_is_a_plain_engine(bare, monkeypatch):
    fake_worker.install(monkeypatch.setattr)
    with make_engine(bare, config(workers=1)) as engine:
        assert type(engine) is VLLMEngine
    with make_engine(bare, config(workers=2)) as engine:
        assert type(engine) is EnginePool
    assert PoolConfig(backend="ray").is_pool


def test_the_pool_answers_as_one_engine(make_pool, bare, monkeypatch):
    pool, told, progress = make_pool(3), [], []
    rollouts = pool.generate(
        REQUESTS, lambda done, total: progress.append((done, total)), lambda i, r: told.append((i, r))
    )
    with one_engine(bare) as engine:
        assert engine.generate(REQUESTS) == rollouts
        texts = [[1, 2, 3]] * 5, [[4, 5], [6], [], [7], [8, 9, 10]]
        assert pool.score(*texts) == engine.score(*texts)
    assert sorted(index for index, _ in told) == list(range(len(REQUESTS)))
    assert all(rollouts[index] == rollout for index, rollout in told)
    assert {total for _, total in progress} == {len(REQUESTS)}
    assert pool.generate([]) == []
    assert len(pool.pids) == 3


CHOICES = [[1, 2, n] for n in range(40)], [[4, 5 + n] for n in range(40)]


def test_named_tokens_come_from_a_pool_as_from_one_engine(make_pool, bare):
    pool, told, progress = make_pool(3), {}, []
    found = pool.next_logprobs(*CHOICES, lambda done, total: progress.append((done, total)), None, told.__setitem__)
    with one_engine(bare) as engine:
        assert engine.next_logprobs(*CHOICES) == found
    assert [told[index] for index in range(40)] == found


def test_a_worker_that_dies_between_choices_costs_none_of_them(make_pool):
    pool, told = make_pool(2), Counter()
    pool.wait_ready()

    def strike(index, _values):
        told[index] += 1
        if sum(told.values()) == 10:
            os.kill(pool.pids[0], signal.SIGKILL)

    found = pool.next_logprobs(*CHOICES, None, None, strike)
    assert told == Counter(range(40))
    assert found == pool.next_logprobs(*CHOICES)


def test_every_worker_gets_its_share(make_pool, monkeypatch):
    pool = make_pool(2)
    pool.wait_ready()
    shares = []
    for host in pool._team.hosts:
        ask = host.ask
        monkeypatch.setattr(host, "ask", lambda m, t, ask=ask: (shares.append(m[1]), ask(m, t)))
    pool.generate(REQUESTS)
    assert [len(share) for share in shares] == [12, 12]
    assert pool.lengths.means == {"short": 30, "long": 120}


def test_all_workers_get_new_weights(make_pool, bare):
    pool = make_pool(2)
    before = pool.generate(REQUESTS)
    pool.load_weights(weights(bare, 0.5), 3)
    half = pool.generate(REQUESTS)
    assert pool.version == 3
    assert {r.policy_version for r in half} == {3}
    assert all(a.response_ids != b.response_ids for a, b in zip(before, half, strict=True))
    pool.load_weights(weights(bare, 0.25), 4)
    pool.load_weights(weights(bare, 0.5), 5)
    assert [r.response_ids for r in pool.generate(REQUESTS)] == [r.response_ids for r in half]


def test_weights_that_are_loaded_before_anybody_is_ready(make_pool, bare):
    late, early = make_pool(2), make_pool(2)
    late.wait_ready()
    late.load_weights(weights(bare, 0.5), 1)
    early.load_weights(weights(bare, 0.5), 1)
    assert early.generate(REQUESTS) == late.generate(REQUESTS)


def test_unfit_weights_leave_the_old_ones_in_use(make_pool, bare):
    pool = make_pool(2)
    before = pool.generate(REQUESTS)
    with pytest.raises(ValueError, match="missing"):
        pool.load_weights([], 1)
    assert pool.generate(REQUESTS) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        (signal.SIGKILL, ["loading", "generating", "syncing", "idle"] * 5),
        (signal.SIGSTOP, ["generating", "syncing", "idle"]),
    ],
)
def test_workers_killed_or_stopped_at_random_moments_lose_and_double_nothing(make_pool, bare, kind, moments):
    pool = make_pool(3, hang_s=60.0 if kind == signal.SIGKILL else 2.0, max_restarts=50)
    steady = make_pool(2)
    striker = Striker(pool, kind, moments)
    striker.start()
    step = 0
    try:
        while striker.is_alive() or step < 3:
            step += 1
            requests = make_requests(rows=4, samples=4, modes=[ShortMode(max_tokens=60)], step=step, ignore_eos=True)
            striker.phase = "syncing"
            pool.load_weights(weights(bare, step / 64), step)
            striker.phase = "generating"
            told = Counter()
            rollouts = pool.generate(requests, None, lambda index, _, told=told: told.update([index]))
            striker.phase = "idle"
            assert told == Counter(range(16))
            steady.load_weights(weights(bare, step / 64), step)
            assert answers(rollouts) == answers(steady.generate(requests))
    finally:
        striker.stop.set()
        striker.join()
    pool.wait_ready()
    assert striker.struck == Counter(moments)
    seconds = [round(recovery.seconds, 2) for recovery in pool.recoveries]
    assert seconds  # fewer than moments: who dies before it is ready is counted with its successor
    print(f"{kind.name} {dict(striker.struck)} in {step} steps; seconds until replaced: {seconds}")


def test_a_stopped_worker_is_noticed_within_its_time(make_pool, caplog):
    pool = make_pool(2, hang_s=2.0)
    pool.wait_ready()
    stopped = pool.pids[1]
    os.kill(stopped, signal.SIGSTOP)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        rollouts = pool.generate(REQUESTS)
    assert time.monotonic() - started < 2.0 + 10.0  # a busy machine
    assert len(rollouts) == len(REQUESTS)
    assert "was silent for 2 s" in caplog.text
    assert stopped not in pool.pids


def test_the_others_take_over_while_a_replacement_starts(make_pool, monkeypatch):
    pool = make_pool(2)
    expected = pool.generate(REQUESTS)
    start = pool._team._starter.start
    hold = threading.Event()
    monkeypatch.setattr(pool._team._starter, "start", lambda place: (hold.wait(60), start(place))[1])
    os.kill(pool.pids[0], signal.SIGKILL)
    assert pool.generate(REQUESTS) == expected
    assert pool.generate(REQUESTS) == expected  # nor is the next call held up
    assert pool.recoveries == []
    hold.set()
    pool.wait_ready()
    [recovery] = pool.recoveries
    assert recovery.place == 0
    assert recovery.moved == 12
    assert "SIGKILL" in recovery.reason
    assert recovery.seconds > 0


def with_seed(seed):
    return [*REQUESTS[:7], make_requests(rows=1, samples=1)[0].__class__(**_fields(REQUESTS[7]) | {"seed": seed})]


def _fields(request):
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def test_a_request_that_no_worker_survives_ends_the_call(make_pool):
    pool = make_pool(2, max_restarts=2)
    with pytest.raises(EngineError, match=r"3 workers died in one call.*ended with status 3"):
        pool.generate(with_seed(666))
    assert len(pool.generate(REQUESTS)) == len(REQUESTS)


def test_a_failure_of_the_program_is_not_tried_again(make_pool):
    pool = make_pool(2)
    with pytest.raises(EngineError, match="the vLLM worker failed with ValueError: this request cannot be answered"):
        pool.generate(with_seed(667))
    assert pool.recoveries == []
    assert len(pool.generate(REQUESTS)) == len(REQUESTS)


def test_a_worker_without_memory_is_replaced(make_pool, caplog):
    pool = make_pool(2, max_restarts=1)
    with caplog.at_level(logging.WARNING), pytest.raises(EngineError, match="2 workers died"):
        pool.generate(with_seed(668))
    assert "out of memory: tried to allocate" in caplog.text


def test_no_restarts_means_none(make_pool):
    pool = make_pool(2, max_restarts=0)
    pool.wait_ready()
    os.kill(pool.pids[0], signal.SIGKILL)
    with pytest.raises(EngineError, match="1 worker died in one call"):
        pool.generate(REQUESTS)


def test_an_interrupted_call_leaves_the_pool_usable(make_pool):
    pool = make_pool(2)
    expected = pool.generate(REQUESTS)

    def interrupt(index, rollout):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.generate(REQUESTS, None, interrupt)
    assert pool.generate(REQUESTS) == expected


def test_a_call_within_a_call_is_refused(make_pool, bare):
    pool = make_pool(2)
    for inner in (lambda: pool.load_weights(weights(bare, 1.0), 9), lambda: pool.generate(REQUESTS)):
        with pytest.raises(EngineError, match="in a call already"):
            pool.generate(REQUESTS, None, lambda index, rollout, inner=inner: inner())
    assert pool.version == 0


def test_closing_leaves_nothing(make_pool):
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    pool = make_pool(3)
    pool.wait_ready()
    pids = pool.pids
    pool.close()
    pool.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    with pytest.raises(EngineError, match="the engine is closed"):
        pool.generate(REQUESTS)


def test_a_pool_that_nobody_closed_ends_its_workers(bare, monkeypatch):
    fake_worker.install(monkeypatch.setattr)
    pool = EnginePool(bare, config(2), tokenizer=fake_worker.Spelling())
    pool.wait_ready()
    hosts = list(pool._team.hosts)
    del pool
    assert all(host.join(20.0) for host in hosts)


def test_gpus_are_dealt_out_in_turn(bare):
    def dealt(devices, size, workers):
        starter = ProcessStarter(config(workers, devices=devices, tensor_parallel_size=size), bare, None)
        return [starter.devices_of(place) for place in range(workers)]

    assert dealt([2, 3, 5, 7], 2, 2) == [["2", "3"], ["5", "7"]]
    assert dealt([0], 1, 3) == [["0"], ["0"], ["0"]]
    assert dealt([4, 5, 6], 2, 2) == [["4", "5"], ["4", "5"]]
    with pytest.raises(ValueError, match="tensor_parallel_size is 2, but only 1 GPUs"):
        ProcessStarter(config(2, devices=[0], tensor_parallel_size=2), bare, None)


def test_each_worker_has_its_log(tmp_path):
    assert [log_of(tmp_path / "engine.log", place) for place in (0, 1)] == [
        tmp_path / "engine.log",
        tmp_path / "engine_1.log",
    ]
    assert log_of(None, 1) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backend": "ray", "devices": [0]}, "devices is for backend: process"),
        ({"ray_address": "auto"}, "backend is process; set backend: ray"),
        ({"backend": "ray", "gpus_per_worker": 2, "tensor_parallel_size": 4}, "a worker uses exactly that many GPUs"),
    ],
)
def test_settings_that_do_not_fit_together(keys, message):
    with pytest.raises(ValueError, match=message):
        PoolConfig(workers=2, **keys)


def test_cores_are_shared(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert PoolConfig(workers=2).threads_per_worker() == 4
    assert PoolConfig(workers=16).threads_per_worker() == 1
    assert PoolConfig(workers=2, threads=3).threads_per_worker() == 3


class SlowRay:
    """Stands for Ray on a busy machine: its first attempts leave a process behind."""

    __file__ = "/somewhere/ray/__init__.py"

    def __init__(self, failures):
        self.left = []
        self._failures = failures

    def init(self, **_):
        if len(self.left) < self._failures:
            command = [sys.executable, "-c", "import time; time.sleep(600)", "/somewhere/ray/gcs_server"]
            self.left.append(subprocess.Popen(command))
            raise Exception("The current node timed out during startup.")  # as Ray does

    def shutdown(self):
        pass


def test_ray_is_given_another_chance_and_its_leftovers_are_ended():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        ray = SlowRay(2)
        _connect(ray, config(backend="ray"))
        with pytest.raises(EngineError, match="Ray did not start on this machine in 3 attempts"):
            _connect(never := SlowRay(9), config(backend="ray"))
        assert len(ray.left) == 2
        assert len(never.left) == 3
        assert not any(os.path.exists(f"/proc/{process.pid}") for process in (*ray.left, *never.left))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
