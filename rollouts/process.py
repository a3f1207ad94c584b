"""The parent's side of the worker process: start it, talk to it, notice that it died, end it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

LOG_LINES = 15
POLL_S = 1.0
_NOISE = re.compile(r" WARNING |FutureWarning|^\[?W\d{4}|^  (if hasattr|wrapper = )|Loading safetensors")
_LAUNCH = re.compile(r"TORCHELASTIC_.*|(MASTER|GROUP|ROLE|LOCAL)_.*|RANK|WORLD_SIZE")
"""What torchrun says about the training processes; vLLM would take itself for one of them and wait for the others."""
_ROOT = Path(__file__).resolve().parent.parent


class EngineError(RuntimeError):
    """The engine cannot do what was asked: its program failed, not its input."""


class WorkerDiedError(EngineError):
    """The worker process is gone or stuck; a new one may do better."""


class WorkerProcess:
    """One `python -m rollouts.worker`. Its socket is inherited, so that no other process can talk to it."""

    def __init__(self, engine_args: dict[str, Any], environment: dict[str, str], log_path: Path | None) -> None:
        self._log: IO[bytes] = _open_log(log_path)
        self._log_path = log_path
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: a file in the user's working directory must not shadow a module of the worker
            command = [sys.executable, "-P", "-m", "rollouts.worker", str(theirs.fileno()), json.dumps(engine_args)]
            self._process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal goes to the parent alone
            )
        self._connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def send(self, message: tuple[Any, ...]) -> None:
        """Sends one message; raises `WorkerDiedError` when nobody is there."""
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._died() from error

    def receive(
        self,
        timeout_s: float,
        on_progress: Callable[[int, int], None] | None = None,
        on_part: Callable[[int, Any], None] | None = None,
    ) -> Any:
        """Waits for the answer to a message.

        Args:
            timeout_s: Longest silence, in seconds; progress and parts of the answer end a silence.
            on_progress: Called with (done, total) at each progress message.
            on_part: Called with (index, part) at each part of the answer that is sent ahead.

        Raises:
            WorkerDiedError: The process ended, or was silent for too long (and has been killed).
            EngineError: The worker reported a failure of its own.
        """
        while True:
            self._wait(timeout_s)
            try:
                kind, *content = self._connection.recv()
            except (EOFError, ConnectionResetError) as error:
                raise self._died() from error
            if kind == "progress":
                if on_progress is not None:
                    on_progress(content[0], content[1])
            elif kind == "part":
                if on_part is not None:
                    on_part(content[0], content[1])
            elif kind == "error":
                raise EngineError(f"the vLLM worker failed with {content[0]}{self._where()}")
            else:
                return content[0] if content else None

    def _wait(self, timeout_s: float) -> None:
        """Returns when a message or the end of the connection is there to be read."""
        deadline = time.monotonic() + timeout_s
        while not self._connection.poll(min(POLL_S, timeout_s)):
            if time.monotonic() > deadline:
                self.kill()
                raise WorkerDiedError(f"the vLLM worker was silent for {timeout_s:g} s and was ended{self._where()}")

    def kill(self) -> None:
        """Ends the process and what it started, at once; may be called again."""
        if self._process.returncode is None:  # not yet waited for, so its number cannot be another's
            os.killpg(self._process.pid, signal.SIGKILL)  # its session, with the ranks of a tensor-parallel engine
            self._process.wait()
        self._connection.close()

    def close(self, idle: bool, grace_s: float = 10.0) -> None:
        """Ends the process; one that waits for messages may put its things away first."""
        if idle:
            with contextlib.suppress(WorkerDiedError):
                self.send(("close",))
                self._wait_for_end(grace_s)
        self.kill()
        self._log.close()

    def _wait_for_end(self, seconds: float) -> None:
        """Waits for the process to end, but leaves it to be waited for, so that its group can still be ended."""
        deadline = time.monotonic() + seconds
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while self._process.returncode is None and time.monotonic() < deadline:
            if os.waitid(os.P_PID, self._process.pid, flags) is not None:
                return
            time.sleep(0.01)

    def log_tail(self) -> str:
        """Last lines that the worker wrote, warnings left out."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 20_000, max(0, size - 20_000)).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and not _NOISE.search(line)]
        return "\n".join(lines[-LOG_LINES:])

    def _died(self) -> WorkerDiedError:
        self._wait_for_end(5.0)
        self.kill()
        code = self._process.returncode
        reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        hint = " (the machine may be out of memory)" if code == -signal.SIGKILL else ""
        return WorkerDiedError(f"the vLLM worker {reason}{hint}{self._where()}")

    def _where(self) -> str:
        tail = self.log_tail()
        place = f"; full log: {self._log_path}" if self._log_path else ""
        return f"{place}\nlast lines of its log:\n{tail}" if tail else place


def _open_log(path: Path | None) -> IO[bytes]:
    """File for the worker's output, appended to; one without a name when no path is given."""
    if path is None:
        return tempfile.TemporaryFile("a+b")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+b")


def worker_environment(threads: int, eager: bool) -> dict[str, str]:
    """Environment of the worker: this process's own, with what vLLM needs on a machine that it shares.

    Args:
        threads: OpenMP threads.
        eager: Whether nothing is to be compiled; compiling one small function costs 20 s at the first token.
    """
    fixed = {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default puts every engine on the first core
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # requests are added synchronously: scheduling is deterministic
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # Tandem's sampler is written for the first one
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    if eager:
        fixed["TORCH_COMPILE_DISABLE"] = "1"
    defaults = {
        "GOMP_SPINCOUNT": "1000",  # waiting threads must not take the cores that the trainer needs for long
        "MALLOC_MMAP_THRESHOLD_": str(2**30),  # freed buffers are kept: a quarter of the CPU time otherwise
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    own = {name: value for name, value in os.environ.items() if not _LAUNCH.fullmatch(name)}
    return defaults | own | fixed
