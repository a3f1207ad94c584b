"""Rows of JSONL files by position in an endless, shuffled stream, read through `datasets` one after the other.

Position p of a stream is a pure function of (files, seed, p): each epoch reads the files in order, without blank lines
and, where asked for, without lines that came before, and shuffles windows of consecutive rows by (seed, epoch,
window). Rows are read as text, so that a malformed one is an error of its own and nobody else's, and memory holds some
windows and, against duplicates, eight bytes (about a hundred with Python's own) for each row.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from recipes.render.records import random_of
from recipes.samples.sample import Rejected

_KEPT = 3
"""Windows in memory: the present one and those that stand-ins and slower readers may still need."""
_BATCH = 1024
"""Lines taken from `datasets` at a time."""


class Line(NamedTuple):
    """One row as text."""

    text: str
    path: Path
    number: int
    """Line of the file, from 1."""
    duplicates: int
    """Equal rows that the first epoch left out since the row before it; those at its end are told at the second one's
    start."""

    @property
    def place(self) -> str:
        """`data.jsonl, line 3`"""
        return f"{self.path}, line {self.number}"

    def values(self) -> dict[str, Any]:
        """The row. Raises Rejected when it is not a JSON object."""
        try:
            row = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            told = getattr(error, "msg", None) or "nested too deeply, or a number too long"
            raise Rejected("malformed", f"{self.place}: malformed JSON ({told}).") from None
        if not isinstance(row, dict):
            raise Rejected("malformed", f"{self.place}: a row must be an object, and this is a {type(row).__name__}.")
        return row


class RowReader:
    """Rows by position; fast where positions mostly ascend.

    Args:
        paths: Files, in order.
        seed: Of the shuffling.
        window: Rows shuffled together; 1 = the order of the files.
        distinct: Whether lines that came before in the same epoch are left out.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, paths: Sequence[Path], seed: int, *, window: int = 4096, distinct: bool = True) -> None:
        for path in paths:
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file.")
        assert window > 0, window
        self._paths, self._seed, self._window_rows, self._distinct = tuple(paths), seed, window, distinct
        self.count: int | None = None
        """Rows of an epoch; None until one is over."""
        self._last_duplicates = 0
        self._rewind(0)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a copy in a worker process reads for itself."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name in ("_paths", "_seed", "_window_rows", "_distinct", "count", "_last_duplicates")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rewind(0)

    def row(self, position: int) -> Line:
        """The row at a position >= 0. Raises ValueError for files without rows."""
        assert position >= 0, position
        while True:
            epoch, offset = (0, position) if self.count is None else divmod(position, self.count)
            window, slot = divmod(offset, self._window_rows)
            rows = self._window(epoch, window)
            if slot < len(rows):
                return rows[slot]
            assert self.count is not None  # the window is the last one, so the next attempt knows the epoch

    def _window(self, epoch: int, window: int) -> list[Line]:
        for known in self._windows:
            if known[0] == (epoch, window):
                return known[1]
        if epoch != self._epoch or window < self._next:
            self._rewind(epoch)
        rows: list[Line] = []
        while self._next <= window:
            rows = list(islice(self._rows, self._window_rows))
            if len(rows) < self._window_rows:
                self._end(self._next * self._window_rows + len(rows))
                if not rows:
                    return rows
            random_of("window", self._seed, epoch, self._next).shuffle(rows)
            self._windows.append(((epoch, self._next), rows))
            self._next += 1
            if self.count is not None and self._next * self._window_rows >= self.count and self._next <= window:
                return []
        return rows

    def _end(self, count: int) -> None:
        if not count:
            raise ValueError(f"{', '.join(map(str, self._paths))} has no rows: check that the data is the right one.")
        if self.count is not None and self.count != count:
            raise ValueError(
                f"{', '.join(map(str, self._paths))} had {self.count} rows and has {count}: data must not change "
                "while it is trained on."
            )
        self.count = count

    def _rewind(self, epoch: int) -> None:
        self._epoch, self._next, self._rows = epoch, 0, self._read(epoch)
        self._windows: deque[tuple[tuple[int, int], list[Line]]] = deque(maxlen=_KEPT)

    def _read(self, epoch: int) -> Iterator[Line]:
        """The rows of an epoch in order."""
        seen: set[bytes] = set()
        duplicates = self._last_duplicates if epoch == 1 else 0
        for path in self._paths:
            for number, text in enumerate(read_lines(path), start=1):
                if not text.strip():
                    continue
                if self._distinct:
                    digest = hashlib.blake2b(text.strip().encode(), digest_size=8).digest()
                    if digest in seen:
                        duplicates += epoch == 0
                        continue
                    seen.add(digest)
                yield Line(text, path, number, duplicates)
                duplicates = 0
        if epoch == 0:
            self._last_duplicates = duplicates


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, streamed. Bytes that are not UTF-8 become escapes that no JSON holds.

    Raises:
        ValueError: it cannot be read.
    """
    import datasets

    try:
        data = datasets.load_dataset(
            "text",
            data_files=glob.escape(str(path.absolute())),
            split="train",
            streaming=True,
            encoding="utf-8-sig",
            encoding_errors="backslashreplace",
        )
        for table in data.with_format("arrow").iter(batch_size=_BATCH):
            yield from table["text"].to_pylist()
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
