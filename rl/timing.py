"""Where a step's time goes: wall and CPU seconds per phase, the engine's process included."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


def cpu_seconds() -> float:
    """CPU seconds used so far by this process and every living child process."""
    total = 0.0
    for pid in family():
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def peak_memory_gib() -> float:
    """Largest resident size so far of this process plus those of its children, in GiB (Linux's VmHWM)."""
    total = 0
    for pid in family():
        try:
            with open(f"/proc/{pid}/status") as status:
                total += next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)
        except OSError:
            continue
    return total / 2**20


def family() -> list[int]:
    """This process and every living one below it, by id.

    Linux names the children of each thread; elsewhere all processes of the machine are looked through, which takes
    tens of milliseconds.
    """
    me = os.getpid()
    if not os.path.exists(f"/proc/{me}/task/{me}/children"):
        return [me, *(process.pid for process in psutil.Process(me).children(recursive=True))]
    found = [me]
    for pid in found:
        found += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    children = []
    with suppress(OSError):  # it has ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                children += [int(child) for child in file.read().split()]
    return children


class PhaseTimer:
    """Adds up wall and CPU seconds by phase within one step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside under ``name``; phases may repeat, and must not nest."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            self._add(name, time.perf_counter() - wall)
            self._add(f"{name}_cpu", max(0.0, cpu_seconds() - cpu))

    def metrics(self) -> dict[str, float]:
        """``time/<phase>`` and ``time/<phase>_cpu`` so far, and ``time/step``: seconds since the timer was made."""
        named = {f"time/{name}": seconds for name, seconds in self._seconds.items()}
        return {**named, "time/step": time.perf_counter() - self._start}

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
