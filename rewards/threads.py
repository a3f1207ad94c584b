"""Threads for calls that may never return.

`ThreadPoolExecutor` waits for its threads at the end of the program, so one call that hangs would keep the program
from ending; these are daemon threads, and a thread that is stuck is simply not used again.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Threads started as calls need them, kept for the next calls until `close`."""

    def __init__(self, name: str, limit: int | None = None) -> None:
        """Args:
        name: of the threads.
        limit: calls under way at the same time, the others wait; None = as many as there are.
        """
        self._name = name
        self._limit = limit
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Run a call in a thread; its result, or what it raised, is in the future. To be used from one thread."""
        future: Future[T] = Future()
        self._work.put((call, future))
        if not self._idle.acquire(blocking=False) and (self._limit is None or self._count < self._limit):
            self._count += 1
            threading.Thread(target=self._serve, daemon=True, name=f"{self._name}-{self._count}").start()
        return future

    def close(self) -> None:
        """Let the threads end, each after its present call; calls that wait are not made any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._work.get_nowait()
                if waiting is not None:
                    waiting[1].cancel()
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
