"""A pool of Ray actors with a fake engine: real Ray, real deaths."""

import os
import signal
import threading
import time

import pytest

pytest.importorskip("ray")

import rollouts.ray_start
from rollouts.pool import EnginePool
from rollouts.ray_actor import ImageCopy, machine
from rollouts.ray_start import RayStarter, bundle_of
from tests.rollouts import fake_worker
from tests.rollouts.test_pool import REQUESTS, config, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A checkpoint that nobody loads."""
    return fake_worker.bare_checkpoint(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def pool(bare):
    """Two fake workers as Ray actors, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts.ray_start, "VLLMActor", fake_worker.FakeActor)
        made = EnginePool(bare, config(2, backend="ray", max_restarts=5), tokenizer=fake_worker.Spelling())
        yield made
        made.close()


@pytest.fixture(scope="module")
def expected(pool, bare):
    """What the pool answers when nobody disturbs it, with weights 0.5."""
    pool.load_weights(weights(bare, 0.5), 1)
    return pool.generate(REQUESTS)


def links(pool):
    pool.wait_ready()
    return [host._link for host in pool._team.hosts]


def test_actors_answer_as_processes_do(pool, expected, bare, monkeypatch):
    fake_worker.install(monkeypatch.setattr)
    told = []
    with EnginePool(bare, config(2), tokenizer=fake_worker.Spelling()) as processes:
        processes.load_weights(weights(bare, 0.5), 1)
        assert processes.generate(REQUESTS) == expected
        texts = [[1, 2, 3]] * 3, [[4, 5], [6], [7]]
        assert pool.score(*texts) == processes.score(*texts)
    assert pool.generate(REQUESTS, None, lambda index, rollout: told.append(index)) == expected
    assert sorted(told) == list(range(len(REQUESTS)))


def test_weights_through_the_object_store_are_the_same(pool, expected, bare):
    ways = set()
    for link in links(pool):
        link._transport = "object_store"
    pool.load_weights(weights(bare, 0.25), 2)
    quarter = pool.generate(REQUESTS)
    for link in links(pool):
        ways.add(link._transport)
        link._transport = "auto"
    assert ways == {"object_store"}
    assert all(a.response_ids != b.response_ids for a, b in zip(quarter, expected, strict=True))
    pool.load_weights(weights(bare, 0.5), 1)
    assert pool.generate(REQUESTS) == expected
    pool.load_weights(weights(bare, 0.25), 2)
    assert pool.generate(REQUESTS) == quarter
    pool.load_weights(weights(bare, 0.5), 1)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("who", ["actor_pid", "pid"])
def test_actor_and_worker_killed_or_stopped(pool, expected, kind, who):
    link, told = links(pool)[0], []
    pids = link.actor_pid, link.pid
    before = len(pool.recoveries)
    if kind == signal.SIGSTOP:
        limits = pool._team.config
        pool._team.config = limits.model_copy(update={"hang_s": 3.0})

    def strike(index, rollout):
        if not told:
            os.kill(getattr(link, who), kind)
        told.append(index)

    started = time.monotonic()
    assert pool.generate(REQUESTS, None, strike) == expected
    assert sorted(told) == list(range(len(REQUESTS)))
    noticed = time.monotonic() - started
    if kind == signal.SIGSTOP:
        pool._team.config = limits
    pool.wait_ready()
    assert len(pool.recoveries) == before + 1
    assert gone(pids)
    print(f"{kind.name} of {who}: call {noticed:.1f} s, ready again after {pool.recoveries[-1].seconds:.1f} s")


def gone(pids, within_s=20.0):
    """Whether processes end within some seconds (a zombie has ended)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_more_workers_than_the_cluster_holds_are_refused(pool, bare):
    for changes, message in (
        ({"cpus_per_worker": 500.0}, "lower engine.workers"),
        ({"gpus_per_worker": 1.0}, "2 with 1 CPU each|0 GPU in all"),
    ):
        with pytest.raises(ValueError, match=message):
            RayStarter(config(2, backend="ray", **changes), bare, None)


def test_what_is_reserved():
    assert bundle_of(config(2, backend="ray"), cluster_gpus=0) == {"CPU": 1.0}
    assert bundle_of(config(2, backend="ray", tensor_parallel_size=4), cluster_gpus=8) == {"CPU": 1.0, "GPU": 4.0}
    assert bundle_of(config(2, backend="ray", gpus_per_worker=0.5), cluster_gpus=8) == {"CPU": 1.0, "GPU": 0.5}


def test_a_copy_of_the_weights_is_written_in_place():
    copy = ImageCopy()
    path = copy.write(b"abcd" * 1000)
    with open(path, "rb") as file:
        assert file.read() == b"abcd" * 1000
        assert copy.write(memoryview(b"xyz!" * 1000)) == path
        file.seek(0)
        assert file.read() == b"xyz!" * 1000
    copy.close()
    assert threading.active_count() >= 1
    assert machine() == machine()
