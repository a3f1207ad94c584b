"""One place of a pool: a worker, and the thread that talks to it.

    pool's thread                        host's thread                         worker
    Host(...)                            start, wait for "ready"       -->     loads the model
    ask(message)      --inbox-->         send, receive                 <->     answers
    events            <--events--        ready | progress | part | done | died | failed
    end() / close()   --interrupt-->     kill / close                          gone

A host has one worker in its life: when that one dies the pool drops the host, whatever it may still say, and makes
another. So no event of an old worker can be taken for one of its successor.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from rollouts.process import EngineError, WorkerDiedError, WorkerProcess

OUT_OF_MEMORY = ("OutOfMemory", "out of memory", "MemoryError", "Cannot allocate memory")


class Link(Protocol):
    """What a host needs of a worker, wherever it runs. All but `interrupt` are called from the host's thread."""

    @property
    def pid(self) -> int:
        """Process id of vLLM on its machine; 0 = not known yet."""
        ...

    def send(self, message: tuple[Any, ...]) -> None:
        """Sends one message."""
        ...

    def receive(
        self,
        timeout_s: float,
        on_progress: Callable[[int, int], None] | None = None,
        on_part: Callable[[int, Any], None] | None = None,
    ) -> Any:
        """Waits for the answer; see `WorkerProcess.receive`."""
        ...

    def interrupt(self) -> None:
        """Ends the worker from another thread: what waits for an answer raises `WorkerDiedError`."""
        ...

    def kill(self) -> None:
        """Ends the worker at once; may be called again."""
        ...

    def close(self, idle: bool) -> None:
        """Ends the worker; one that waits for messages may put its things away first."""
        ...


class ProcessLink(WorkerProcess):
    """A worker process of this machine that another thread may end."""

    def __init__(self, engine_args: dict[str, Any], environment: dict[str, str], log_path: Path | None) -> None:
        super().__init__(engine_args, environment, log_path)
        self._lock = threading.Lock()
        self._pidfd = os.pidfd_open(self.pid)

    def interrupt(self) -> None:
        """Ends the worker; the thread that waits for it cleans up."""
        with self._lock:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # a zombie at most: its thread waits for it

    def kill(self) -> None:
        """Ends the worker and what it started, at once; may be called again."""
        with self._lock:
            super().kill()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a host has to tell."""

    host: Host
    kind: str
    """ready | progress (done, total) | part (index, result) | done (message name, answer) | died (error) |
    failed (error)
    """
    content: tuple[Any, ...] = ()


class Host:
    """A worker from its start to its end. The attributes below belong to the pool's thread."""

    def __init__(
        self,
        place: int,
        start: Callable[[], Link],
        events: SimpleQueue[Event],
        start_timeout_s: float,
        died_at: float | None = None,
    ) -> None:
        """Starts the worker in the background.

        Args:
            place: Number of the worker in its pool.
            start: Makes the worker; called in the host's thread.
            events: Where the host tells what happens.
            start_timeout_s: Longest silence until the worker is ready.
            died_at: `time.monotonic()` of the death that made this host necessary; None = it is no replacement.
        """
        self.place = place
        self.died_at = died_at
        self.ready = False
        self.loaded = 0
        """Number of the weights that the worker has; 0 = those of the checkpoint."""
        self.job: list[int] | None = None
        """Indices of the requests that the worker was given; None = it waits for some."""
        self._start = start
        self._events = events
        self._start_timeout_s = start_timeout_s
        self._inbox: SimpleQueue[tuple[tuple[Any, ...], float] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True, name=f"vllm-worker-{place}")
        self._thread.start()

    @property
    def pid(self) -> int:
        """Process id of vLLM; 0 = not known yet."""
        return self._link.pid if self._link is not None else 0

    def ask(self, message: tuple[Any, ...], timeout_s: float) -> None:
        """Hands a message over; its answer comes as events, in the order of asking."""
        self._inbox.put((message, timeout_s))

    def end(self) -> None:
        """Ends the worker at once; returns without waiting for it."""
        with self._lock:
            self._ended = True
            link = self._link
        if link is not None:
            link.interrupt()
        self._inbox.put(None)

    def close(self) -> None:
        """Lets a worker that has nothing to do put its things away; any other is ended."""
        if self.ready and self.job is None:
            self._inbox.put(None)
        else:
            self.end()

    def join(self, timeout_s: float) -> bool:
        """Waits for the worker to be gone; returns whether it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        try:
            link = self._open()
        except EngineError as error:
            return self._tell("died" if isinstance(error, WorkerDiedError) else "failed", error)
        except Exception as error:  # whatever starting raised, the pool's thread is to hear it
            return self._tell("failed", EngineError(f"a worker could not be started: {type(error).__name__}: {error}"))
        idle = False
        try:
            self._converse(link)
            idle = True
        except WorkerDiedError as error:
            self._tell("died", error)
        except EngineError as error:
            self._tell("died" if _is_out_of_memory(error) else "failed", error)
        except Exception as error:  # a defect of ours must not leave the pool waiting for ever
            self._tell("failed", EngineError(f"talking to a worker failed: {type(error).__name__}: {error}"))
        finally:
            link.close(idle=idle and not self._ended)
        return None

    def _open(self) -> Link:
        link = self._start()
        with self._lock:
            self._link = link
            ended = self._ended
        if ended:
            link.kill()
        return link

    def _converse(self, link: Link) -> None:
        link.receive(self._start_timeout_s)
        self._tell("ready")
        while (asked := self._inbox.get()) is not None:
            message, timeout_s = asked
            link.send(message)
            answer = link.receive(
                timeout_s,
                lambda done, total: self._tell("progress", done, total),
                lambda index, part: self._tell("part", index, part),
            )
            self._tell("done", message[0], answer)

    def _tell(self, kind: str, *content: Any) -> None:
        self._events.put(Event(self, kind, content))


def _is_out_of_memory(error: EngineError) -> bool:
    """Whether a worker's own report says that its memory was not enough, which another attempt may survive."""
    first = str(error).split("\nlast lines", 1)[0]
    return any(sign in first for sign in OUT_OF_MEMORY)
