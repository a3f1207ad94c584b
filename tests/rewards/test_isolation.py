"""Rewards in processes of their own: the same values, found by name, ended with their parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rewards import RewardError, build
from rewards.registry import REGISTRY, reward
from tests.rewards.test_running import FILE, responses, spec
from tests.rewards.test_sandbox import ROOT, alive, children_of


def totals(one, answers=("a", "bb", "ccc"), **keys):
    with build([one], **keys) as reward_set:
        return [score.total for score in reward_set.score([responses(*answers)])[0]]


@pytest.mark.parametrize("isolate", [False, True])
def test_isolation_changes_no_value(isolate):
    odd = ("", "ä\u2028\ud800", "x" * 200_000)
    assert totals(spec("fine", isolate=isolate), odd) == [0.0, 3.0, 200_000.0]
    assert totals(spec("Scaled", isolate=isolate, args={"factor": 0.5})) == [0.5, 1.0, 1.5]
    assert totals(spec("prints", isolate=isolate)) == [1.0] * 3


def test_every_way_of_naming_a_reward_works(tmp_path, monkeypatch):
    (tmp_path / "near.py").write_text("import neighbour\ndef near(answer):\n    return neighbour.VALUE\n")
    (tmp_path / "neighbour.py").write_text("VALUE = 7.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert totals({"name": "near.py:near", "isolate": True}, base_dir=tmp_path) == [7.0] * 3
    assert totals({"name": "near:near", "isolate": True}) == [7.0] * 3
    assert totals({"name": "exact", "isolate": True}, ("1", "2")) == [1.0, 0.0]


def test_a_registered_name_is_found_by_its_module_or_refused(tmp_path):
    (tmp_path / "registering.py").write_text(
        "from rewards import reward\n@reward('by_its_module')\ndef other_name(answer):\n    return 3.0\n"
    )
    before = dict(REGISTRY)
    sys.path.insert(0, str(tmp_path))
    try:
        import registering  # noqa: F401

        assert totals({"name": "by_its_module", "isolate": True}) == [3.0] * 3

        @reward("local_one")
        def local_one(answer):
            return 1.0

        with pytest.raises(RewardError, match=r"'local_one' .* cannot be found by the process that isolates it"):
            build([{"name": "local_one", "isolate": True}])
    finally:
        sys.path.remove(str(tmp_path))
        REGISTRY.clear()
        REGISTRY.update(before)


def test_one_process_by_default_and_as_many_as_asked_for():
    assert len(set(totals(spec("process_id", isolate=True), ["a"] * 4))) == 1
    own = set(totals(spec("process_id", isolate=True, concurrency=2), ["a"] * 8))
    assert len(own) <= 2
    assert float(os.getpid()) not in own


def test_after_a_death_the_next_call_has_a_new_process(tmp_path):
    path = tmp_path / "mortal.py"
    path.write_text("import os\ndef mortal(answer):\n    return float(os.getpid()) if answer else os._exit(1)\n")
    one = {"name": f"{path}:mortal", "isolate": True, "on_error": "missing", "max_missing": 1.0}
    with build([one]) as reward_set:
        [first, dead, second] = reward_set.score([responses("a", "", "a")])[0]
    assert dead.missing == ("mortal",)
    assert first.complete
    assert second.complete
    assert first.total != second.total


def test_what_a_killed_call_has_started_is_killed_with_it(tmp_path):
    path = tmp_path / "parent.py"
    code = "import subprocess, time\ndef parent(answer, file):\n    child = subprocess.Popen(['sleep', '60'])\n"
    path.write_text(code + "    open(file, 'w').write(str(child.pid))\n    time.sleep(60)\n")
    one = {"name": f"{path}:parent", "isolate": True, "timeout_s": 1.0, "args": {"file": str(tmp_path / "pid")}}
    with build([one]) as reward_set, pytest.raises(RewardError, match="timed out"):
        reward_set.score([responses("a")])
    assert ended([int((tmp_path / "pid").read_text())])


def ended(pids, limit_s=10.0):
    deadline = time.monotonic() + limit_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.mark.parametrize("function", ["sleeps", "holds_the_interpreter"])
def test_processes_end_when_the_parent_is_killed(function):
    code = f"""
        from tests.rewards.test_running import responses, spec
        from rewards import build
        build([spec("{function}", isolate=True)]).score([responses("a")])
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 20
        while not (family := children_of(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(family) == 1
        time.sleep(0.5)  # the call has begun
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert ended(family)


def test_a_program_ends_although_a_thread_is_stuck_and_nothing_was_closed():
    code = """
        from tests.rewards.test_running import responses, spec
        from rewards import build
        once = {"on_error": "missing", "max_missing": 1.0, "timeout_s": 0.2}
        rewards = build([spec("sleeps", **once), {**spec("sleeps", isolate=True, **once), "label": "own"}])
        print(rewards.score([responses("a")])[0][0].missing)
    """
    start = time.monotonic()
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=25, check=True)
    assert done.stdout == "('bad', 'own')\n"
    assert time.monotonic() - start < 15


def test_closing_ends_the_processes():
    with build([spec("fine", isolate=True)]) as reward_set:
        reward_set.score([responses("a")])
        [worker] = reward_set._background._processes["bad"]._all
        assert alive(worker._process.pid)
    assert ended([worker._process.pid], 1.0)


def test_an_argument_that_is_no_plain_data_is_refused_by_name():
    with build([spec("fine", isolate=True, on_error="missing", max_missing=1.0)]) as reward_set:
        [good] = responses("a")
        message = r"'bad' is isolated, and its argument 'answer' \(b'x'\) is no plain data.*isolate: false"
        with pytest.raises(RewardError, match=message):
            reward_set.score([[{**good, "answer": b"x"}]])


def test_a_reward_that_cannot_be_loaded_in_its_process_stops_whatever_on_error_says(tmp_path):
    path = tmp_path / "once.py"
    path.write_text(
        "from pathlib import Path\nmark = Path(__file__).with_suffix('.mark')\n"
        "assert not mark.exists(), 'only once'\nmark.touch()\ndef f(answer):\n    return 1.0\n"
    )
    one = {"name": f"{path}:f", "isolate": True, "on_error": "missing", "max_missing": 1.0, "retries": 3}
    with (
        build([one]) as reward_set,
        pytest.raises(RewardError, match=r"'f': in its isolated process, the reward file .* AssertionError: only once"),
    ):
        reward_set.score([responses("a")])


def test_concurrency_of_a_plain_reward_is_refused():
    with pytest.raises(RewardError, match=r"concurrency is 4, but its calls run one after the other.*isolate: true"):
        build([{"name": f"{FILE}:fine", "concurrency": 4}])
    assert Path(FILE).is_file()


def test_a_forked_child_has_a_background_of_its_own_and_leaves_its_parents_alone():
    code = """
        import os, sys
        from tests.rewards.test_running import responses, spec
        from rewards import build
        rewards = build([spec("process_id", isolate=True), {**spec("fails_once_per"), "label": "x", "weight": 0,
                         "on_error": "missing", "max_missing": 1.0, "timeout_s": 5, "args": {"folder": "/nowhere"}}])
        before = rewards.score([responses("a")])[0][0].total
        pid = os.fork()
        if pid == 0:
            mine = rewards.score([responses("a")])[0][0].total
            rewards.close()
            sys.exit(0 if mine != before else 1)  # with all that runs at a normal end
        assert os.waitpid(pid, 0)[1] == 0
        assert rewards.score([responses("a")])[0][0].total == before
        rewards.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True, timeout=60)
