"""Bounded calls: hostile input is read in worker processes that can be killed.

    caller's thread  --JSON line-->  supervisor (one process per worker, imports done once)
                                        |  fork, 10 ms
                                        v
                                     child: address space limited, no file writes; killed at the time limit, forked anew

A caller waits at most the time limit once a worker is ready, whatever the text does. Supervisors end when their pipe
closes, so also when the parent is killed; a child ends with its supervisor. They are plain subprocesses, not forks of
the caller: threads, torch and vLLM in the caller's process do not matter, and no `__main__` guard is needed.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.registry import RewardError

TIME_LIMIT_S = 1.5
MEMORY_MIB = 512
START_LIMIT_S = 120.0
SUPERVISOR_GRACE_S = 3.0
"""How much later than its child's time limit a supervisor may answer before it is killed itself."""


CUT_OFF = ("timeout", "memory", "crash")
"""How a call ends that met a limit."""

_own = threading.local()


def cut_calls() -> int:
    """Return how many calls of this thread met a limit: a verifier of several parts asks no more after one has."""
    return getattr(_own, "cut", 0)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a bounded call ended."""

    status: str
    """ok | error (it raised) | timeout | memory | crash (the child died)"""
    value: Any = None
    """Result of the call; for `error`, the exception as text."""


class Sandbox:
    """A pool of killable workers, started when first needed; `call` may be used from any thread."""

    def __init__(
        self,
        *,
        workers: int | None = None,
        time_limit_s: float = TIME_LIMIT_S,
        memory_mib: int = MEMORY_MIB,
        preload: tuple[str, ...] = (),
    ) -> None:
        """Args:
        workers: processes at most; None = one per CPU core, 4 at most.
        time_limit_s: wall time of one call, in seconds.
        memory_mib: address space that one call may add, in MiB.
        preload: modules imported before a worker counts as ready; their `warm_up()` is called if there is one.
        """
        self.workers = workers or max(1, min(4, os.cpu_count() or 1))
        self.time_limit_s = time_limit_s
        self.memory_mib = memory_mib
        self.preload = preload
        self.counts: Counter[str] = Counter()
        self._lock = threading.Condition()
        self._idle: list[_Supervisor] = []
        self._all: list[_Supervisor] = []
        self._starting = 0
        self._failure: BaseException | None = None
        self._closed = False

    def start(self) -> None:
        """Start one worker and wait until it is ready."""
        self._give_back(self._take())

    def call(self, function: str, *args: Any) -> Outcome:
        """Call `module:function` in a worker, with arguments and a result that JSON can carry.

        Raises:
            RewardError: the workers cannot start.
        """
        supervisor = self._take()
        outcome = supervisor.ask(function, args, self.time_limit_s)
        with self._lock:
            self.counts[outcome.status] += 1
        if outcome.status in CUT_OFF:
            _own.cut = cut_calls() + 1
        self._give_back(supervisor)
        return outcome

    def close(self) -> None:
        """End all workers; a later call is refused."""
        with self._lock:
            self._closed = True
            supervisors, self._all, self._idle = self._all, [], []
            self._lock.notify_all()
        for item in supervisors:
            item.end()

    def abandon(self) -> None:
        """Forget the workers without ending them: they belong to the process this one was forked from."""
        self._closed = True
        self._all, self._idle = [], []

    def _take(self) -> "_Supervisor":
        with self._lock:
            while True:
                if self._closed:
                    raise RewardError("the verifier's workers are closed.")
                if self._idle:
                    return self._idle.pop()
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise RewardError(f"the verifier's worker process cannot start: {failure}") from failure
                # Started beside the wait: a worker that becomes idle meanwhile serves this caller sooner.
                if self._starting == 0 and len(self._all) < self.workers:
                    self._starting += 1
                    threading.Thread(target=self._start_one, daemon=True, name="sandbox-start").start()
                self._lock.wait()

    def _start_one(self) -> None:
        supervisor, failure = None, None
        try:
            supervisor = _Supervisor(self.preload, self.memory_mib)
        except Exception as error:
            failure = error
        with self._lock:
            self._starting -= 1
            self._failure = failure
            if supervisor is not None and not self._closed:
                self._all.append(supervisor)
                self._idle.append(supervisor)
            self._lock.notify_all()
        if supervisor is not None and self._closed:
            supervisor.end()

    def _give_back(self, supervisor: "_Supervisor") -> None:
        with self._lock:
            if supervisor.alive and not self._closed:
                self._idle.append(supervisor)
            elif supervisor in self._all:
                self._all.remove(supervisor)
            self._lock.notify_all()


class _Supervisor:
    """The caller's end of one supervisor process."""

    def __init__(self, preload: tuple[str, ...], memory_mib: int) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # One BLAS thread: a child is forked from this process, and threads do not survive a fork.
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # -P: a sympy.py in the user's folder must not be imported here.
        command = [sys.executable, "-P", "-m", "rewards.sandbox_worker", str(memory_mib), *preload]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._rest = b""
        self.alive = True
        if self._read_line(START_LIMIT_S) != b"ready":
            self.end()
            raise OSError(f"`{' '.join(command[2:])}` ended or stayed silent for {START_LIMIT_S:.0f} s")

    def ask(self, function: str, args: tuple[Any, ...], limit_s: float) -> Outcome:
        request = json.dumps({"function": function, "args": args, "limit_s": limit_s}).encode() + b"\n"
        try:
            self._to.write(request)
            reply = self._read_line(limit_s + SUPERVISOR_GRACE_S)
        except OSError:
            reply = None
        if reply is None:
            self.end()
            return Outcome(status="crash")
        return Outcome(**json.loads(reply))

    def end(self) -> None:
        """Kill the process; its child goes with it."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()

    def _read_line(self, limit_s: float) -> bytes | None:
        """Return the next line, or None at the end of the stream or of the time."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                return None
            chunk = os.read(self._from.fileno(), 1 << 16)
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line


_shared: Sandbox | None = None
_shared_lock = threading.Lock()


def shared() -> Sandbox:
    """Return the sandbox of this process, which all verifiers use."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Sandbox(preload=("rewards.math_compare",))
        return _shared


def close_shared() -> None:
    """End this process's verifier workers; the next use starts new ones."""
    global _shared
    with _shared_lock:
        sandbox, _shared = _shared, None
    if sandbox is not None:
        sandbox.close()


def _after_fork() -> None:
    # The child of a fork would share its parent's pipes and mix up the answers, and may have copied a held lock.
    global _shared, _shared_lock
    if _shared is not None:
        _shared.abandon()
    _shared, _shared_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close_shared)
