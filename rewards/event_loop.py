"""One event loop in a thread of its own, for async rewards and for calls in threads that have a time-out.

    caller's thread                  the loop's thread ("rewards")              beside it
    EventLoop.submit(call) --------> one task per call: gate, attempts, waits
                                       async reward:  awaited here
                                       sync reward:   ---------------------->     a daemon thread per call under way
    future.result()      <---------- values, or CallError                       the watch: is the loop still turning?

All async rewards share the loop, so they run at the same time as each other and as the caller. An attempt that is out
of time is left behind: a coroutine is cancelled; a thread cannot be, so its late result is dropped. A coroutine that
computes or sleeps without `await` stops all others: the watch says which it is, and ends the run once its time-out is
over, since such a call cannot be left.
"""

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, NamedTuple

from rewards.binding import BoundReward
from rewards.calls import Call, CallError, again, call_here
from rewards.outcome import Reading
from rewards.threads import DaemonThreads

logger = logging.getLogger(__name__)

MAX_STUCK = 16
"""Calls of one reward that may still be running after their time-out before the run stops: each holds a thread."""
BEAT_S = 0.1
BLOCKED_S = 1.0
"""An event loop that has not turned for so long is blocked."""
CANCEL_GRACE_S = 0.1

_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)


class Failure(NamedTuple):
    """Why no call can come to an end any more, and the call that is to blame, where it is known."""

    call: Call | None
    error: CallError


class EventLoop:
    """Runs calls in the background, each as often as its reward's policy says; ended by `close`."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        """Set when no call can come to an end any more."""
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._stuck: Counter[str] = Counter()
        self._threads = DaemonThreads("reward")
        self._calls: weakref.WeakKeyDictionary[Any, Call] = weakref.WeakKeyDictionary()
        self._ended = threading.Event()
        self._beat = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(self._new_task)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._turn, daemon=True, name="rewards")
        self._thread.start()
        threading.Thread(target=self._watch, daemon=True, name="rewards-watch").start()

    def submit(self, call: Call) -> "Future[list[Reading]]":
        """Start a call; the future gets one reading per sample, or the CallError of the last attempt."""
        return asyncio.run_coroutine_threadsafe(self._run(call), self._loop)

    def close(self) -> None:
        """End what can be ended: coroutines and idle threads."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._threads.close()
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(BLOCKED_S)  # a blocked loop is left behind: its thread ends with the program

    # -- a call, in the loop -------------------------------------------------------------------------------------------

    async def _run(self, call: Call) -> list[Reading]:
        waits = iter(call.item.policy.waits)
        attempts = 0
        while True:
            attempts += 1
            try:
                async with self._gate(call.item):
                    return await self._attempt(call)
            except CallError as error:
                wait = next(waits, None)
                if error.fatal or wait is None:
                    raise again(error, attempts) from error.__cause__
            await asyncio.sleep(wait)

    async def _attempt(self, call: Call) -> list[Reading]:
        task = self._loop.create_task(self._start(call), context=_context(call))
        try:
            await asyncio.wait({task}, timeout=call.item.policy.timeout_s)
        except asyncio.CancelledError:  # nobody wants the result any more
            task.cancel()
            raise
        if not task.done():
            raise await self._left_behind(call, task)
        if task.cancelled():
            raise CallError(f"{call.failed('failed')}: it was cancelled")
        return task.result()

    async def _start(self, call: Call) -> list[Reading]:
        if call.item.kind == "async":
            try:
                returned = await call.item.reward.function(**call.arguments)
            except (Exception, SystemExit) as error:  # SystemExit would end the loop
                raise call.raised(error) from error
            return call.read(returned)
        return await asyncio.wrap_future(self._threads.submit(lambda: call_here(call)))

    async def _left_behind(self, call: Call, task: "asyncio.Task[Any]") -> CallError:
        """Give an attempt up, and return the failure; one that cannot be ended counts as stuck until it ends."""
        label, limit_s = call.item.label, call.item.policy.timeout_s
        if call.item.kind == "async":
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        if not task.done():
            self._stuck[label] += 1
            task.add_done_callback(lambda late: self._drop(label, late))
        sentence = f"{call.failed('timed out')}: no answer within {limit_s:g} s"
        if self._stuck[label] > MAX_STUCK:
            more = f", and {self._stuck[label]} of its calls are still running after that: isolate: true would end them"
            return CallError(sentence + more, fatal=True)
        if not task.done():
            sentence += " (the call goes on, its result will be dropped; isolate: true would end it)"
        return CallError(sentence)

    def _drop(self, label: str, late: "asyncio.Task[Any]") -> None:
        """Take note that a call which was given up has ended after all; what it gave is dropped."""
        self._stuck[label] -= 1
        if not late.cancelled():
            late.exception()  # looked at, so that asyncio does not report it as forgotten

    def _gate(self, item: BoundReward) -> asyncio.Semaphore:
        if item.label not in self._gates:
            self._gates[item.label] = asyncio.Semaphore(item.concurrency)
        return self._gates[item.label]

    # -- the loop and its watch ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._tick()
        ending: BaseException | None = None
        try:
            self._loop.run_forever()
        except BaseException as error:  # such as a sys.exit() in a task that a user's coroutine has started
            ending = error
        if not self._ended.is_set():
            self.failure = Failure(None, CallError(f"the event loop of the async rewards ended: {ending!r}"))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with contextlib.suppress(Exception, SystemExit):
            self._loop.run_until_complete(asyncio.sleep(0))  # the cancelled tasks end
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._loop.call_later(BEAT_S, self._tick)

    def _new_task(self, loop: Any, coroutine: Coroutine[Any, Any, Any], **options: Any) -> "asyncio.Task[Any]":
        """Make a task, and remember for which call it works: those that a user's coroutine starts, too."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        context = options.get("context")
        call = context.get(_current) if context is not None else _current.get()
        if call is not None:
            self._calls[task] = call
        return task

    def _watch(self) -> None:
        warned: set[str] = set()
        before: tuple[Any, float] | None = None
        while not self._ended.wait(BEAT_S):
            beat, late_s = self._beat, time.monotonic() - self._beat
            task = asyncio.current_task(self._loop) if late_s > BLOCKED_S else None
            call = None if task is None else self._calls.get(task)
            # Seen twice: a machine that was asleep, or a starved thread, is no blocked loop.
            if call is not None and before == (task, beat):
                self._blocked(call, late_s, warned)
            before = (task, beat)

    def _blocked(self, call: Call, late_s: float, warned: set[str]) -> None:
        """Say which reward blocks the loop; end the run if its time-out is over."""
        remedy = "use an async client in it, make it a plain function marked parallel=True, or set isolate: true"
        label, limit_s = call.item.label, call.item.policy.timeout_s
        if label not in warned:
            warned.add(label)
            logger.warning("reward %r blocks the event loop of all async rewards%s: %s", label, self._place(), remedy)
        if limit_s is not None and late_s > limit_s + BLOCKED_S and self.failure is None:
            sentence = (
                f"{call.failed('has blocked the event loop of all async rewards')} for {late_s:.1f} s{self._place()}, "
                f"longer than its timeout_s of {limit_s:g}: {remedy}"
            )
            self.failure = Failure(call, CallError(sentence, "".join(traceback.format_list(self._stack()))))

    def _place(self) -> str:
        stack = self._stack()
        return f" ({stack[-1].filename}:{stack[-1].lineno})" if stack else ""

    def _stack(self) -> list[traceback.FrameSummary]:
        """Return where the loop's thread is just now."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return list(traceback.extract_stack(frame)) if frame is not None else []


def _context(call: Call) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(_current.set, call if call.item.kind == "async" else None)
    return context
