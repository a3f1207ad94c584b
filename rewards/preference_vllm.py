"""A reward model in vLLM's pooling runner, in a process of its own: the parent's side of `rewards.pooling_worker`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from rewards.registry import RewardError

TIMEOUT_S = 1800.0
"""Longest wait for one step's scores, the start of vLLM included."""
_ROOT = Path(__file__).resolve().parent.parent


class VllmPreferenceModel:
    """Scores token ids as `rewards.preference_model.PreferenceModel` does; the process starts with the first call."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str,
        max_length: int,
        batch_tokens: int,
        gpu_memory_utilization: float,
        trust_remote_code: bool,
        pad: int,
    ) -> None:
        """Take the model's options; see `rewards.preference.Preference`.

        Args:
            pad: token id of padding, which transformers' models ignore at the end of a text.
        """
        self._pad = pad
        self._options = {
            "model": str(folder),
            "dtype": dtype,
            "max_model_len": max_length,
            "max_num_batched_tokens": max(batch_tokens, max_length),
            "gpu_memory_utilization": gpu_memory_utilization,
            "trust_remote_code": trust_remote_code,
            "enforce_eager": True,
            "seed": 0,
        }
        self._process: _Process | None = None

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return the model's output for each text of token ids.

        Raises:
            RewardError: vLLM failed, or its process died.
        """
        if self._process is None:
            self._process = _Process(self._options)
        return self._process.ask([_stripped(text, self._pad) for text in texts])

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    def __init__(self, options: dict[str, Any]) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as the process
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT_S)
        with theirs:
            # -P: a file in the user's working directory must not shadow a module of the worker
            command = [sys.executable, "-P", "-m", "rewards.pooling_worker", str(theirs.fileno()), json.dumps(options)]
            self._process = subprocess.Popen(
                command,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._socket = ours
        self._lines = ours.makefile("rw", encoding="ascii")
        self.end = weakref.finalize(self, _end, self._process, ours)  # also where nobody closes the rewards

    def ask(self, texts: list[list[int]]) -> list[float]:
        try:
            self._lines.write(json.dumps(texts) + "\n")
            self._lines.flush()
            line = self._lines.readline()
        except OSError as error:
            raise RewardError(f"the reward model's vLLM process is gone ({error}).{self._tail()}") from error
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process died"}
        if "error" in answer:
            raise RewardError(f"the reward model's vLLM failed: {answer['error']}.{self._tail()}")
        return answer["scores"]

    def _tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 3000, max(0, size - 3000)).decode(errors="replace")
        return f"\nlast lines of its log:\n{text}" if text else ""


def _end(process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
    """End the process and the ranks it started, at once: it has nothing to save."""
    connection.close()
    if process.returncode is None:  # not yet waited for, so its number cannot be another's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    """Return this process's environment, with what vLLM needs on a machine that it shares."""
    fixed = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default puts every engine on the first core
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TORCH_COMPILE_DISABLE": "1",
    }
    defaults = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return defaults | dict(os.environ) | fixed


def _stripped(text: Sequence[int], pad: int) -> list[int]:
    """Return the text up to the token whose state is scored: vLLM takes the last, transformers the last but padding."""
    ids = list(text)
    while len(ids) > 1 and ids[-1] == pad:
        ids.pop()
    return ids
