"""The background of a reward set: what runs where, each part started when it is first needed.

async reward, or a sync one with a time-out     the event loop (rewards.event_loop)
parallel reward                                 daemon threads
isolated reward                                 daemon threads, each of which asks a process (rewards.isolation)
"""

import os
from collections.abc import Callable
from concurrent.futures import Future

from rewards.calls import Call, attempts, call_here
from rewards.event_loop import EventLoop, Failure
from rewards.isolation import IsolatedProcesses
from rewards.outcome import Reading
from rewards.threads import DaemonThreads


class Runner:
    """Runs calls that need not be waited for, each as often as its reward's policy says; ended by `close`."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._loop: EventLoop | None = None
        self._threads: dict[str, DaemonThreads] = {}
        self._processes: dict[str, IsolatedProcesses] = {}

    @property
    def is_mine(self) -> bool:
        """Return whether this process started it: threads do not survive a fork."""
        return self._owner == os.getpid()

    @property
    def failure(self) -> Failure | None:
        """Return why no call can come to an end any more; None if all is well."""
        return None if self._loop is None else self._loop.failure

    def submit(self, call: Call) -> "Future[list[Reading]]":
        """Start a call; the future gets one reading per sample, or the CallError of the last attempt."""
        item = call.item
        if item.kind == "async" or (item.kind == "threads" and item.policy.timeout_s is not None):
            if self._loop is None:
                self._loop = EventLoop()
            return self._loop.submit(call)
        if item.label not in self._threads:
            self._threads[item.label] = DaemonThreads(f"reward-{item.label}", item.concurrency)
        one = self._isolated(call) if item.kind == "isolated" else call_here
        return self._threads[item.label].submit(lambda: attempts(call, one))

    def close(self) -> None:
        """End what can be ended: coroutines, processes and idle threads. A forked child leaves its parent's alone."""
        if not self.is_mine:
            return
        for threads in self._threads.values():
            threads.close()
        for processes in self._processes.values():
            processes.close()
        if self._loop is not None:
            self._loop.close()

    def _isolated(self, call: Call) -> Callable[[Call], list[Reading]]:
        if call.item.label not in self._processes:
            self._processes[call.item.label] = IsolatedProcesses(call.item)
        return self._processes[call.item.label].call
