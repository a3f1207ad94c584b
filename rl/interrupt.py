"""Ctrl-C and SIGTERM end a run at the end of its step, with a checkpoint; a second signal ends it at once."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class InterruptGuard:
    """Inside the context, the first SIGINT or SIGTERM only sets ``requested``; the second raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, it does nothing. A ``quiet`` one says nothing.
    """

    def __init__(self, *, quiet: bool = False, then: Callable[[], object] | None = None) -> None:
        """Args:
        quiet: say nothing.
        then: called at the first signal, from its handler: passes the wish on to another process, say.
        """
        self.requested = False
        self._quiet = quiet
        self._then = then
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "InterruptGuard":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._then is not None:
            self._then()
        if self._quiet:
            return
        print(
            f"\n{signal.Signals(number).name}: finishing this step and saving; once more to stop at once",
            file=sys.stderr,
            flush=True,
        )
