"""The child's side of the conversation: wait for a turn, do a step, report it.

parent sends            child answers
the job                 {"kind": "ready", ...} when everything is loaded
"step"                  {"kind": "step", ...} after one training step
"stop", or end of file  nothing: ends
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from multiprocessing.connection import Connection
from typing import Any

from rl.timing import cpu_seconds, peak_memory_gib

PHASES = ("generate", "reward", "learn", "sync", "other")


class PhaseClock:
    """Wall and CPU seconds by phase; what happens in a phase inside another counts for the inner one alone."""

    def __init__(self, read: Callable[[], tuple[float, float]] | None = None) -> None:
        """Args:
        read: gives (wall, CPU) seconds; None = the CPU seconds of this process and all below it, which cost
            milliseconds to find out.
        """
        self._read = read or (lambda: (time.perf_counter(), cpu_seconds()))
        self._open: list[str] = []
        self._totals: dict[str, tuple[float, float]] = {}
        self._last = (0.0, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block under ``name``."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    @property
    def inside(self) -> str | None:
        """The innermost open phase."""
        return self._open[-1] if self._open else None

    def wrap(self, owner: Any, method: str, name: str, *, only_in: str | None = None) -> None:
        """Count every call of ``owner.method`` under ``name``, or those alone that are made right inside the phase
        ``only_in``.
        """
        call: Callable[..., Any] = getattr(owner, method)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if only_in is not None and self.inside != only_in:
                return call(*args, **kwargs)
            with self.phase(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)

    def wrap_iterator(self, owner: Any, method: str, name: str) -> None:
        """Count under ``name`` what the iterators that ``owner.method`` returns take to make their items."""
        call: Callable[..., Iterator[Any]] = getattr(owner, method)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            made, end = call(*args, **kwargs), object()
            while True:
                with self.phase(name):
                    item = next(made, end)
                if item is end:
                    return
                yield item

        setattr(owner, method, timed)

    def take(self) -> dict[str, tuple[float, float]]:
        """(wall, CPU) seconds by phase since the last call."""
        totals, self._totals = self._totals, {}
        return totals

    def _turn(self) -> None:
        now = self._read()
        if self._open:
            wall, cpu = self._totals.get(self._open[-1], (0.0, 0.0))
            self._totals[self._open[-1]] = (wall + now[0] - self._last[0], cpu + now[1] - self._last[1])
        self._last = now


class TokenCount:
    """Tokens that really went through the training forward pass in one step, and a digest of the prompts."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start a new step."""
        self.prompt = self.response = self.positions = self.views = 0
        self.digest = ""

    def forwarded(self, *, prompt: int, response: int, positions: int) -> None:
        """Count one forward pass.

        Args:
            prompt: Prompt tokens that the responses saw, once per response.
            response: Response tokens that were scored.
            positions: Rows that the model computed, padding included.
        """
        self.prompt += prompt
        self.response += response
        self.positions += positions

    def asked(self, prompts: Sequence[Sequence[int]]) -> None:
        """Note the prompts of the step, one per response, in order."""
        text = json.dumps([list(map(int, ids)) for ids in prompts])
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return {
            "prompt": self.prompt,
            "response": self.response,
            "views": self.views,  # of images, that the vision tower computed
            "positions": self.positions,
            "prompts_digest": self.digest,
        }


class Session:
    """Measures steps and talks to the parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.clock = PhaseClock()
        self.tokens = TokenCount()
        self._start = (0.0, 0.0)

    def ready(self, **facts: Any) -> None:
        """Tell the parent that everything is loaded."""
        self._send({"kind": "ready", "facts": facts})

    def next_step(self) -> bool:
        """Block until the parent wants a step, and start its clock; False = there is none."""
        try:
            if self._connection.recv_bytes() != b"step":
                return False
        except EOFError:
            return False
        self.tokens.clear()
        self.clock.take()
        self._start = (time.perf_counter(), cpu_seconds())
        return True

    def report(
        self, phases: Mapping[str, tuple[float, float]] | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        """Stop the step's clock and tell the parent.

        Args:
            phases: (wall, CPU) seconds by phase; None = those of ``clock``.
            more: what else the record is to say, JSON-able.
        """
        seconds, cpu = time.perf_counter() - self._start[0], cpu_seconds() - self._start[1]
        self._send(
            {
                "kind": "step",
                "seconds": seconds,
                "cpu_seconds": cpu,
                "phases": with_other(phases or self.clock.take(), seconds, cpu),
                "tokens": self.tokens.to_dict(),
                "memory_gib": peak_memory_gib(),
                **(more or {}),
            }
        )

    def _send(self, message: Mapping[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(message).encode())


def with_other(phases: Mapping[str, tuple[float, float]], seconds: float, cpu: float) -> dict[str, dict[str, float]]:
    """All of ``PHASES``; ``other`` is what the named ones leave of the step."""
    named = {name: phases.get(name, (0.0, 0.0)) for name in PHASES[:-1]}
    rest = (seconds - sum(wall for wall, _ in named.values()), cpu - sum(used for _, used in named.values()))
    return {
        name: {"seconds": max(0.0, wall), "cpu_seconds": max(0.0, used)}
        for name, (wall, used) in {**named, "other": rest}.items()
    }
