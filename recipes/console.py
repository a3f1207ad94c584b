"""What a person sees while a recipe runs: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One line for the user."""
    console.print(message, markup=False)


class StepBar:
    """A bar over the steps of a run, with what the current step is doing; off a terminal, only ``line`` prints."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not sys.stdout.isatty(),
            transient=True,
        )
        self._task = self._progress.add_task(what, total=total, completed=done, note="")
        self._last = 0.0

    def __enter__(self) -> "StepBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, note: str = "") -> None:
        """Completed steps, and what is going on."""
        self._progress.update(self._task, completed=done, note=note)

    def note(self, done: int, total: int, what: str) -> None:
        """Progress inside a step, such as ``generate 12/64``."""
        self._progress.update(self._task, note=f"{what} {done}/{total}" if total > 1 else what)

    def line(self, text: str, *, every_s: float = 0.0) -> None:
        """A line above the bar, at most one in ``every_s`` seconds."""
        now = time.monotonic()
        if now - self._last >= every_s:
            self._last = now
            self._progress.console.print(text, markup=False)
