"""Killable workers: limits, replacement, threads, forks, the end of the parent."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rewards import RewardError
from rewards.sandbox import SUPERVISOR_GRACE_S, Sandbox

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(workers=2, time_limit_s=0.5, memory_mib=256)
    box.start()
    yield box
    box.close()


def call(box, function, *args):
    start = time.perf_counter()
    return box.call(f"sandbox_calls:{function}", *args), time.perf_counter() - start


@pytest.fixture(scope="module", autouse=True)
def _path():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT / "tests" / "rewards")
    yield
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def test_values_and_errors_come_back(sandbox):
    assert call(sandbox, "echo", ["ä", "\ud800", 1.5, None])[0].value == ["ä", "\ud800", 1.5, None]
    failed = call(sandbox, "fail", "no")[0]
    assert failed.status == "error"
    assert failed.value == "ValueError: no"


@pytest.mark.parametrize("function", ["spin", "sleep", "deaf", "c_loop"])
def test_a_call_that_does_not_end_is_killed_in_time(sandbox, function):
    outcome, seconds = call(sandbox, function)
    assert outcome.status == "timeout"
    assert seconds < 0.5 + SUPERVISOR_GRACE_S
    assert call(sandbox, "echo", 1)[0].value == 1


def test_memory_is_bounded():
    box = Sandbox(workers=1, time_limit_s=30.0, memory_mib=256)
    try:
        assert call(box, "eat")[0].status == "memory"
        assert call(box, "echo", 2)[0].value == 2
    finally:
        box.close()


def test_a_dead_child_is_a_crash_and_is_replaced(sandbox):
    assert call(sandbox, "die")[0].status == "crash"
    assert call(sandbox, "segfault")[0].status == "crash"
    assert call(sandbox, "echo", 3)[0].value == 3


def test_no_file_can_be_written(sandbox, tmp_path):
    call(sandbox, "write", str(tmp_path / "canary"))
    assert not (tmp_path / "canary").exists() or (tmp_path / "canary").stat().st_size == 0


def test_what_a_call_prints_does_not_reach_the_protocol(sandbox):
    assert call(sandbox, "noisy")[0].value == "quiet"


def test_many_threads_share_the_workers(sandbox):
    results = {}

    def work(number):
        results[number] = [call(sandbox, "echo", [number, i])[0].value for i in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [[number, i] for i in range(20)] for number in range(8)}


def test_a_killed_supervisor_is_a_crash_and_is_replaced():
    box = Sandbox(workers=1, time_limit_s=1.0)
    try:
        box.start()
        victim = box._all[0]._process.pid
        os.kill(victim, signal.SIGKILL)
        assert box.call("sandbox_calls:echo", 1).status == "crash"
        assert box.call("sandbox_calls:echo", 1).value == 1
        assert box.counts == {"crash": 1, "ok": 1}
    finally:
        box.close()


def test_a_worker_that_cannot_start_is_one_sentence():
    box = Sandbox(workers=1, preload=("no_such_module_at_all",))
    with pytest.raises(RewardError, match="worker process cannot start"):
        box.start()
    box.close()


def test_a_closed_sandbox_refuses():
    box = Sandbox(workers=1)
    box.close()
    with pytest.raises(RewardError, match="closed"):
        box.call("sandbox_calls:echo", 1)


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_when_the_parent_is_killed():
    code = """
        import sys, threading, time
        from rewards.sandbox import SUPERVISOR_GRACE_S, Sandbox
        box = Sandbox(workers=1, time_limit_s=60.0)
        box.start()
        threading.Thread(target=box.call, args=("sandbox_calls:spin",), daemon=True).start()
        time.sleep(0.5)
        print("up", flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert parent.stdout.readline() == b"up\n"
        supervisors = children_of(parent.pid)
        family = supervisors + [pid for item in supervisors for pid in children_of(item)]
        assert len(family) == 2
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, family))


def test_a_forked_child_gets_workers_of_its_own():
    code = """
        import os
        from rewards.math import math
        assert math(answer="x+1", reference="1+x") == 1.0
        pid = os.fork()
        if pid == 0:
            os._exit(0 if math(answer="x+2", reference="2+x") == 1.0 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert math(answer="x+3", reference="3+x") == 1.0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT, timeout=120)


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from rewards.math import math\nprint(math(answer='x+1', reference='1+x'))\n")
    # A file named like a library in the user's folder is not imported by the worker.
    (tmp_path / "mpmath.py").write_text("raise RuntimeError('shadowed')\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120, check=True)
    assert done.stdout == "1.0\n"
