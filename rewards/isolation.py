"""A user's reward in processes of its own: for code that blocks, eats memory, or dies.

    a thread of the caller  --JSON line: arguments-->  worker (rewards.isolation_worker): the function, loaded by name
                            <--JSON line: values-----  in a session of its own, its memory limited

A worker whose call is out of time is killed with everything it started, and the next call starts a new one. Only plain
data crosses: nothing is pickled. Unlike the verifiers' sandbox, the code is the user's own and trusted: it may open
files and connections, and a worker is not forked, so that any library can be used in it.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rewards.binding import BoundReward
from rewards.calls import Call, CallError
from rewards.outcome import Reading, short

START_LIMIT_S = 120.0
MAX_REPLY_BYTES = 2**24


class IsolatedProcesses:
    """The workers of one reward, started when first needed; `call` may be used from several threads."""

    def __init__(self, item: BoundReward) -> None:
        assert item.source is not None, item.label
        self._item = item
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    def call(self, call: Call) -> list[Reading]:
        """Make one call in a worker.

        Raises:
            CallError: it raised, timed out, ran out of memory, died, or returned what a reward may not return.
        """
        request = _request(call)
        worker = self._take()
        try:
            reply = worker.ask(request, self._item.policy.timeout_s)
        except _NoAnswerError as error:
            self._drop(worker)
            raise CallError(f"{call.failed(error.verb)}: {error}") from None
        except BaseException:
            self._drop(worker)
            raise
        if reply["status"] == "memory":
            self._drop(worker)  # whatever could not be allocated may be half done
            limit = self._item.policy.memory_mb
            raise CallError(f"{call.failed('ran out of memory')}: its calls may add {limit} MiB (memory_mb)")
        with self._lock:
            self._idle.append(worker)
        if reply["status"] == "raised":
            raise CallError(f"{call.failed('failed')}: {reply['error']}", reply["trace"])
        if reply["status"] == "refused":
            raise CallError(reply["error"].rstrip("."))
        return [Reading(values, info) for values, info in reply["readings"]]

    def close(self) -> None:
        """Kill all workers, also those that work."""
        with self._lock:
            self._closed = True
            workers, self._all, self._idle = self._all, set(), []
        for worker in workers:
            worker.kill()

    def _take(self) -> "_Worker":
        with self._lock:
            if self._idle:
                return self._idle.pop()
        worker = _Worker(self._item)
        with self._lock:
            if not self._closed:
                self._all.add(worker)
        if self._closed:
            worker.kill()
        return worker

    def _drop(self, worker: "_Worker") -> None:
        worker.kill()
        with self._lock:
            self._all.discard(worker)


class _NoAnswerError(Exception):
    """A worker gave no answer; the text says why."""

    def __init__(self, verb: str, reason: str) -> None:
        super().__init__(reason)
        self.verb = verb


class _Worker:
    """One worker process and the two pipes to it."""

    def __init__(self, item: BoundReward) -> None:
        """Starts the process and waits until the function is loaded.

        Raises:
            CallError: it cannot be loaded there; fatal, since no other call would do better.
        """
        # -P: a json.py in the user's folder must not shadow a module of the worker.
        command = [sys.executable, "-P", "-m", "rewards.isolation_worker", str(item.policy.memory_mb)]
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal goes to the parent alone; killed with its own children
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        os.set_blocking(self._to.fileno(), False)
        self._killing = threading.Lock()
        try:
            reply = self.ask(_introduction(item), START_LIMIT_S)
        except _NoAnswerError as error:
            self.kill()
            raise CallError(f"reward {item.label!r}: its isolated process cannot start: {error}", fatal=True) from None
        except BaseException:
            self.kill()
            raise
        if reply["status"] != "ready":
            self.kill()
            raise CallError(f"reward {item.label!r}: in its isolated process, {reply['error']}", fatal=True)

    def ask(self, request: bytes, limit_s: float | None) -> dict[str, Any]:
        """Send a line and return the answer; _NoAnswerError if there is none in time."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        try:
            self._send(request, deadline)
            line = self._read_line(deadline)
        except TimeoutError:
            raise _NoAnswerError("timed out", f"no answer within {limit_s:g} s") from None
        except (OSError, ValueError, EOFError):  # ValueError: closed by another thread
            raise _NoAnswerError("died", self._obituary()) from None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """Kill the process and what it started; may be called again, from any thread."""
        with self._killing:
            if self._process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._to.close()
            self._from.close()

    def _send(self, data: bytes, deadline: float | None) -> None:
        view = memoryview(data)
        while view:
            if not select.select([], [self._to], [], _left(deadline))[1]:
                raise TimeoutError
            view = view[os.write(self._to.fileno(), view) :]

    def _read_line(self, deadline: float | None) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while not (chunks and chunks[-1].endswith(b"\n")):
            if not select.select([self._from], [], [], _left(deadline))[0]:
                raise TimeoutError
            chunk = os.read(self._from.fileno(), 1 << 16)
            if not chunk:
                raise EOFError
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_REPLY_BYTES:
                raise _NoAnswerError("failed", f"it answered with more than {MAX_REPLY_BYTES >> 20} MiB")
        return b"".join(chunks)

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        code = self._process.returncode
        if code is None:
            return "its process closed its pipe"
        if code >= 0:
            return f"its process ended with status {code}"
        hint = " (the machine may be out of memory)" if code == -signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _introduction(item: BoundReward) -> bytes:
    assert item.source is not None, item.label
    source = {
        "name": item.source.name,
        "args": item.source.args,
        "base_dir": item.source.base_dir,
        "style": item.source.style,
    }
    return json.dumps({"sys_path": sys.path, "label": item.label, **source}).encode() + b"\n"


def _request(call: Call) -> bytes:
    """Return the call as a line; CallError for an argument that is no plain data."""
    for key, value in call.arguments.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise CallError(
                f"reward {call.item.label!r} is isolated, and its argument {key!r} ({short(value)}) is no plain data "
                "that can be sent to another process. Set isolate: false, or make the column text or numbers",
                fatal=True,
            ) from None
    request = {"arguments": dict(call.arguments), "where": call.where, "size": call.size}
    return json.dumps(request).encode() + b"\n"
