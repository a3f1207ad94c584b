"""Whose CPU seconds and memory a step is charged with."""

import os
import subprocess
import sys
import time

import psutil

from rl.timing import cpu_seconds, family, peak_memory_gib

CHILD = """
import subprocess, sys, time
started = subprocess.Popen([sys.executable, "-c", "print(sum(range(30_000_000)), flush=True); input()"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
started.stdout.readline()
print(started.pid, flush=True)
input()
"""


def test_children_of_children_are_counted() -> None:
    before = cpu_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        grandchild = int(one.stdout.readline())
        found = family()
        assert found[0] == os.getpid()
        assert {one.pid, grandchild} <= set(found)
        assert set(found) == {os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))}
        times = psutil.Process(grandchild).cpu_times()
        assert cpu_seconds() - before >= times.user > 0.1
        assert peak_memory_gib() > psutil.Process().memory_info().rss / 2**30 / 2
        psutil.Process(grandchild).kill()
        one.kill()
    while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert one.pid not in family()
