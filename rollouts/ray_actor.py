"""The Ray actor that owns one vLLM worker process; free of Ray, which only carries its calls.

pool's machine: RayLink        actor (any machine)                              its child: rollouts.worker
answer(message) --Ray-->       WorkerProcess.send, receive         <-socket->   vLLM
                <--stream--    lists of ("progress" | "part" | "result" | "died" | "error", ...)
image (object store) -->       written to a memfd of the actor     --path-->    mapped by vLLM
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rollouts.process import EngineError, WorkerDiedError, WorkerProcess, worker_environment

LAST = ("result", "died", "error")


class VLLMActor:
    """One vLLM worker, on whatever machine Ray has placed it."""

    def __init__(self, engine_args: dict[str, Any], threads: int, eager: bool, log_path: str | None) -> None:
        """Starts the worker process; `log_path` is used where its folder exists."""
        log = Path(log_path) if log_path is not None and Path(log_path).parent.is_dir() else None
        self._worker = WorkerProcess(engine_args, worker_environment(threads, eager), log)
        self._image = ImageCopy()

    def where(self) -> tuple[str, int, int]:
        """Machine, and process ids of this actor and of vLLM."""
        return machine(), os.getpid(), self._worker.pid

    def answer(self, message: tuple[Any, ...] | None, timeout_s: float, image: Any = None) -> Iterator[list[Any]]:
        """Passes a message on, and streams what comes back.

        Args:
            message: For the worker; None = only wait until it is ready.
            timeout_s: Longest silence of the worker, in seconds, after which it is ended.
            image: Bytes of new weights that ("load", ...) is about; None = the message holds a path of this machine.
        """
        if image is not None:
            message = ("load", self._image.write(image))
        said: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        threading.Thread(target=self._converse, args=(message, timeout_s, said), daemon=True).start()
        while True:
            batch = [said.get()]
            while not said.empty():
                batch.append(said.get())
            yield batch
            if batch[-1][0] in LAST:
                return

    def _converse(self, message: tuple[Any, ...] | None, timeout_s: float, said: SimpleQueue[tuple[Any, ...]]) -> None:
        try:
            if message is not None:
                self._worker.send(message)
            result = self._worker.receive(
                timeout_s,
                lambda done, total: said.put(("progress", done, total)),
                lambda index, part: said.put(("part", index, part)),
            )
            said.put(("result", result))
        except WorkerDiedError as error:
            said.put(("died", str(error)))
        except EngineError as error:
            said.put(("error", str(error)))
        except Exception as error:  # the stream must end whatever happens
            said.put(("error", f"{type(error).__name__}: {error}"))

    def close(self, idle: bool) -> None:
        """Ends the worker process."""
        self._worker.close(idle)


def machine() -> str:
    """The same text in two processes that can end each other and open each other's memory under /proc."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.getuid()}"


class ImageCopy:
    """A machine's own copy of the weights in anonymous shared memory, written again at every update."""

    def __init__(self) -> None:
        self._fd = -1
        self._size = 0

    def write(self, data: Any) -> str:
        """Replaces the content by `data` (a buffer of bytes); returns where a child of this process opens it."""
        view = memoryview(data).cast("B")
        if self._size != len(view):
            self.close()
            self._fd = os.memfd_create("tandem-weights", os.MFD_CLOEXEC)
            os.posix_fallocate(self._fd, 0, len(view))  # refuses now, where a write could only kill the process
            self._size = len(view)
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done : done + 2**30], done)
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        """Gives the memory back; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = -1, 0
