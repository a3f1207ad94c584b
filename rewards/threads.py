"""Threads for calls that may never return.

`ThreadPoolExecutor` waits for its threads at the end of the program, so one call that hangs would keep the program
from ending; these are daemon threads, and a thread that is stuck is simply not used again.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class DaemonThreads:
    """As many threads as calls under way, kept for the next calls until `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, call: Callable[[], Any]) -> "Future[Any]":
        """Run a call in a thread; its result, or what it raised, is in the future."""
        future: Future[Any] = Future()
        self._work.put((call, future))
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._serve, daemon=True, name=f"{self._name}-{self._count}").start()
        return future

    def close(self) -> None:
        """Let the threads end, each after its present call."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            call, future = item
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # whatever ends a call must reach who waits for it
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del item, call, future
            self._idle.release()
