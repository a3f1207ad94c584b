"""The parent's side of a child process: start it, give it a turn, notice that it died, end it with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from recipes.benchmark.config import Job
from recipes.benchmark.verl_parts import verl_environment

_ROOT = Path(__file__).resolve().parents[2]
_LOG_LINES = 15
_POLL_S = 0.5
_KEEP = 34359738368
"""Bytes up to which freed memory is kept by the allocator: both libraries take a quarter less CPU time with it."""


class ChildError(ValueError):
    """A child ended, or was silent for too long."""


def child_environment(threads: int, library: str = "tandem") -> dict[str, str]:
    """The environment of every child, the same for both libraries: the best found for either on CPU. verl's has more.

    Args:
        threads: OpenMP threads of every process.
        library: whose it is.
    """
    more = verl_environment(threads) if library == "verl" else {}
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": "1000",  # spinning long disturbs the other library, not at all puts both threads on one core
        "MALLOC_MMAP_THRESHOLD_": str(_KEEP),
        "MALLOC_TRIM_THRESHOLD_": str(_KEEP),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        **more,
    }


class Child:
    """One library's process. It starts loading at once; ``ready`` waits for it."""

    def __init__(self, library: str, job: Job, timeout_s: float) -> None:
        self.library = library
        self._timeout_s = timeout_s
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed by `close`)
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: a file in the user's working directory must not shadow a module of the child
            command = [sys.executable, "-P", "-m", "recipes.benchmark.child", library, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                env=child_environment(job.threads, library),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal goes to the parent alone
            )
        self._connection = Connection(ours.detach())
        self._send(job.to_json())

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ready(self) -> dict[str, Any]:
        """Wait until it could start to train; returns what it says about itself."""
        return self._receive("ready")

    def step(self) -> dict[str, Any]:
        """Let it do one training step; returns its record."""
        self._send("step")
        return self._receive("step")

    def close(self) -> None:
        """End it and everything that it started; may be called again."""
        self._connection.close()
        if self._process.returncode is None:
            family = _family(self._process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own
            self._process.wait()
            for process in family:  # an engine has a session of its own
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(family, timeout=5)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, text: str) -> None:
        try:
            self._connection.send_bytes(text.encode())
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def _receive(self, kind: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        try:
            while not self._connection.poll(_POLL_S):
                if time.monotonic() > deadline:
                    raise ChildError(
                        f"the {self.library} process was silent for {self._timeout_s:g} s; raise timeout_s if this "
                        f"machine is that slow{self._where()}"
                    )
            message = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        assert message["kind"] == kind, f"expected {kind}, got {message}"
        return message

    def _died(self) -> ChildError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return ChildError(f"the {self.library} process stopped answering{self._where()}")
        reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        hint = " (the machine may be out of memory)" if code == -signal.SIGKILL else ""
        return ChildError(f"the {self.library} process {reason}{hint}{self._where()}")

    def _where(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 20_000, max(0, size - 20_000)).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and " WARNING " not in line]
        return "\nlast lines of its log:\n" + "\n".join(lines[-_LOG_LINES:]) if lines else ""


def _family(pid: int) -> list[psutil.Process]:
    """Every living process below this one."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
