"""What happens when the worker, or its parent, dies or hangs. Real processes are killed."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rollouts import EngineError, LongMode, VLLMEngine
from tests.rollouts.conftest import CONFIG, largest_gap, make_requests, perturbed
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow

REQUESTS = make_requests(rows=4, samples=8, modes=[LongMode(max_tokens=110)], ignore_eos=True)


@pytest.fixture(scope="module")
def victim(tiny):
    """An engine with loaded weights (version 7), whose workers the tests kill."""
    with VLLMEngine(tiny, CONFIG) as engine:
        engine.load_weights(perturbed(tiny).named_parameters(), 7)
        yield engine


@pytest.fixture(scope="module")
def undisturbed(victim):
    """What the victim generates when nobody kills it."""
    return victim.generate(REQUESTS)


def left_in_shared_memory(pid: int) -> list[str]:
    """Files in /dev/shm that carry the project's name or the worker's number (others belong to other programs)."""
    return [name for name in os.listdir("/dev/shm") if "tandem" in name or str(pid) in name]


def gone(pid: int, within_s: float) -> bool:
    """Whether a process has ended (a zombie counts as ended) within some seconds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_worker_killed_while_generating_is_replaced_without_a_trace(victim, undisturbed, tiny, caplog):
    killed = []

    def kill_once(done: int, total: int) -> None:
        if not killed:
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        rollouts = victim.generate(REQUESTS, kill_once)
    assert killed
    assert killed != [victim.pid]
    assert rollouts == undisturbed
    assert largest_gap(perturbed(tiny), rollouts) < 1e-3  # the new worker got the loaded weights
    assert "was ended by SIGKILL" in caplog.text


def test_worker_killed_between_calls_is_replaced(victim, undisturbed):
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.generate(REQUESTS) == undisturbed


def test_worker_killed_before_a_sync_is_replaced_and_gets_the_new_weights(victim, undisturbed, tiny):
    os.kill(victim.pid, signal.SIGKILL)
    victim.load_weights(perturbed(tiny, seed=2).named_parameters(), 8)
    assert largest_gap(perturbed(tiny, seed=2), victim.generate(REQUESTS)) < 1e-3
    victim.load_weights(perturbed(tiny).named_parameters(), 7)
    assert victim.generate(REQUESTS) == undisturbed


def test_worker_that_hangs_is_replaced(tiny, caplog):
    with VLLMEngine(tiny, CONFIG) as engine:
        before = engine.generate(REQUESTS)
        hung = engine.pid
        os.kill(hung, signal.SIGSTOP)
        _limit_silence(engine, first_s=2.0, then_s=300.0)
        with caplog.at_level(logging.WARNING):
            assert engine.generate(REQUESTS) == before
        assert engine.pid != hung
        assert gone(hung, 5)
        assert "was silent for 2 s" in caplog.text


def _limit_silence(engine: VLLMEngine, first_s: float, then_s: float) -> None:
    """Allows the present worker a short silence, and the ones after it time to start."""
    receive = engine._worker.receive
    engine.config = engine.config.model_copy(update={"timeout_s": then_s})
    engine._worker.receive = lambda timeout_s, *callbacks: receive(first_s, *callbacks)


def test_interrupted_call_leaves_the_engine_usable(victim, undisturbed):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        victim.generate(REQUESTS, interrupt)
    assert victim.generate(REQUESTS) == undisturbed


def test_worker_does_not_see_ctrl_c(victim, undisturbed):
    victim.wait_ready()
    pid = victim.pid
    os.kill(pid, signal.SIGINT)
    assert victim.generate(REQUESTS) == undisturbed
    assert victim.pid == pid
    assert os.getpgid(pid) != os.getpgid(0)


def test_workers_that_keep_dying_end_the_call(tiny, tmp_path):
    config = CONFIG.model_copy(update={"max_restarts": 1})
    with VLLMEngine(tiny, config, log_path=tmp_path / "engine.log") as engine:
        stop = threading.Event()

        def reaper() -> None:
            while not stop.wait(0.1):
                if engine.pid is not None and not gone(engine.pid, 0.01):
                    os.kill(engine.pid, signal.SIGKILL)

        thread = threading.Thread(target=reaper)
        thread.start()
        try:
            with pytest.raises(EngineError, match=r"2 workers died in one call.*SIGKILL"):
                engine.generate(REQUESTS)
        finally:
            stop.set()
            thread.join()


def test_worker_that_cannot_start_says_why(tmp_path):
    path = make_tiny_model(tmp_path / "model", head_dim=24)  # no attention kernel of vLLM takes it
    log = tmp_path / "logs" / "engine.log"
    with VLLMEngine(path, CONFIG, log_path=log) as engine, pytest.raises(EngineError) as caught:
        engine.generate(REQUESTS)
    message = str(caught.value)
    assert "the vLLM worker failed with" in message
    assert "head" in message
    assert str(log) in message
    assert "last lines of its log:\n" in message
    assert "Traceback" in log.read_text()


def test_what_is_not_a_checkpoint_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        VLLMEngine(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="holds no"):
        VLLMEngine(tmp_path)


def test_closing_is_prompt_and_leaves_nothing(tiny):
    descriptors = len(os.listdir("/proc/self/fd"))
    engine = VLLMEngine(tiny, CONFIG)
    engine.load_weights(perturbed(tiny).named_parameters(), 1)
    pid = engine.pid
    start = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - start < 3
    assert gone(pid, 0.1)
    assert left_in_shared_memory(pid) == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.generate(REQUESTS)


def test_closing_while_the_worker_starts(tiny):
    engine = VLLMEngine(tiny, CONFIG)
    pid = engine.pid
    engine.close()
    assert gone(pid, 0.1)


PARENT = """
import os, signal, sys
from tests.rollouts.conftest import CONFIG, perturbed
from tests.rollouts.test_process import REQUESTS
from rollouts import VLLMEngine

engine = VLLMEngine(sys.argv[1], CONFIG)
engine.load_weights(perturbed(sys.argv[1]).named_parameters(), 1)

def die(done, total):
    print(engine.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

engine.generate(REQUESTS, die)
"""


def test_worker_dies_with_a_parent_that_is_killed(tiny):
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", PARENT, str(tiny)], cwd=root, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert gone(int(result.stdout), within_s=5)
    assert left_in_shared_memory(int(result.stdout)) == []
