"""Costly results on the disk, by key: what a killed run has paid for is not paid for again.

One JSON line per result. A result is written as soon as it is known, a torn last line is cut off at the next start, and
the first result of a key is kept for good, so that everything computed from it later is the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl.files import JsonLines, write_error


class DiskCache:
    """Results by key, in memory and in a file; one process at a time. A context manager."""

    def __init__(self, path: str | Path) -> None:
        """Args:
        path: The file; made, with its folder, when it is not there.

        Raises:
            ValueError: Another process has it.
            WriteError: The operating system refused.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise write_error(error, self.path) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ValueError(
                f"the cache {self.path} is in use by another process: wait for it to end, or name another file"
            ) from None
        self._lines = JsonLines(self.path)
        self._values = self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Any:
        """The result of a key; None where there is none."""
        return self._values.get(key)

    def add(self, results: Mapping[str, Any]) -> None:
        """Keep some results, in one write; of a key that is known already the old one stays.

        Raises:
            WriteError: The disk is full or the like; none of them is kept.
        """
        fresh = {key: value for key, value in results.items() if key not in self._values}
        if fresh:
            self._lines.append([{"key": key, "value": value} for key, value in fresh.items()])
            self._values.update(fresh)

    def close(self) -> None:
        """Make everything survive a power failure, and let another process have the file."""
        self._lines.sync()
        self._lines.close()
        os.close(self._lock)

    def __enter__(self) -> DiskCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        """All results; a spoilt line is left out, so its result is computed again."""
        values: dict[str, Any] = {}
        spoilt = 0
        with open(self.path, "rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    values.setdefault(str(record["key"]), record["value"])
                except (ValueError, TypeError, KeyError, RecursionError):
                    spoilt += 1
        if spoilt:
            warnings.warn(f"{self.path} has {spoilt} spoilt lines, whose results are computed again", stacklevel=3)
        return values


def content_key(*parts: Any) -> str:
    """A key of JSON-able parts: equal for equal parts, on every machine."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def file_fingerprint(paths: list[Path]) -> str:
    """A hash of the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    return digest.hexdigest()
