"""The process behind `rewards.sandbox`: a supervisor that forks, watches and kills the child which does the work.

    python -m rewards.sandbox_worker MEMORY_MIB [MODULE ...]

Reads one JSON request per line from stdin and writes one JSON answer per line to stdout. It never looks at the texts.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
CALLS_PER_CHILD = 1000
"""A child is replaced after this many calls: sympy's caches grow, and a fork gives the fresh state back."""


def main(memory_mib: int, modules: list[str]) -> None:
    """Import the modules, say `ready`, then serve until stdin ends."""
    # Ctrl-C in a terminal reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    for name in modules:
        module = importlib.import_module(name)
        getattr(module, "warm_up", lambda: None)()
    # Whatever a library prints about model text is noise from here on.
    os.dup2(null, 2)
    gc.freeze()
    os.write(replies, b"ready\n")
    _serve(requests, replies, memory_mib)


class _Child:
    """A forked child and the two pipes to it."""

    def __init__(self, memory_mib: int) -> None:
        ask_read, self.ask = os.pipe()
        self.answer, answer_write = os.pipe()
        self.calls = 0
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _confine(memory_mib, supervisor)
                _work(ask_read, answer_write)
            finally:
                os._exit(1)
        os.close(ask_read)
        os.close(answer_write)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.ask)
        os.close(self.answer)


def _serve(requests: int, replies: int, memory_mib: int) -> None:
    child = _Child(memory_mib)
    while (line := _line(requests)) is not None:
        reply = _ask(child, line, requests)
        if reply is None:
            return  # the parent is gone: the child dies with this process
        os.write(replies, reply + b"\n")
        child.calls += 1
        if json.loads(reply)["status"] in ("timeout", "memory", "crash") or child.calls >= CALLS_PER_CHILD:
            child.kill()
            child = _Child(memory_mib)


def _ask(child: _Child, line: bytes, requests: int) -> bytes | None:
    """Return the child's answer, or what happened instead of one; None if the parent's pipe closed meanwhile."""
    deadline = time.monotonic() + json.loads(line)["limit_s"]
    try:
        _write(child.ask, line + b"\n")
    except OSError:
        return json.dumps({"status": "crash"}).encode()
    answer = b""
    while not answer.endswith(b"\n"):
        left = deadline - time.monotonic()
        ready = select.select([child.answer, requests], [], [], max(left, 0))[0]
        if requests in ready:
            return None  # requests come one at a time: anything here before the answer is the end of the stream
        if not ready:
            return json.dumps({"status": "timeout"}).encode()
        chunk = os.read(child.answer, 1 << 16)
        if not chunk:
            return json.dumps({"status": "crash"}).encode()
        answer += chunk
    return answer[:-1]


def _confine(memory_mib: int, supervisor: int) -> None:
    """Limit what the child can take, and tie its life to the supervisor's."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)
    with open("/proc/self/statm") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    limit = present + memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.dont_write_bytecode = True


def _work(requests: int, replies: int) -> None:
    while (line := _line(requests)) is not None:
        reply = _perform(json.loads(line))
        _write(replies, json.dumps(reply).encode() + b"\n")


def _perform(request: dict[str, Any]) -> dict[str, Any]:
    """Call the function; an exception is an answer here, since the text decides whether there is one."""
    module, _, name = request["function"].partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    try:
        return {"status": "ok", "value": function(*request["args"])}
    except MemoryError:
        return {"status": "memory"}
    except Exception as error:
        return {"status": "error", "value": f"{type(error).__name__}: {str(error)[:200]}"}


_rest: dict[int, bytes] = {}


def _line(source: int) -> bytes | None:
    """Return the next line of a file descriptor, None at its end."""
    while b"\n" not in _rest.setdefault(source, b""):
        chunk = os.read(source, 1 << 16)
        if not chunk:
            return None
        _rest[source] += chunk
    line, _, _rest[source] = _rest[source].partition(b"\n")
    return line


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
