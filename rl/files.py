"""Files and directories that are complete or absent, whatever happens while they are written.

Everything is written under a temporary name in the same directory, flushed to the disk and renamed. A process that is
killed leaves at most such a temporary (`.name.tmp-<pid>`), which `remove_leftovers` clears at the next start. An error
of the operating system, a full disk above all, becomes one sentence (`WriteError`) that names the file and says that
nothing was half-written.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class WriteError(OSError):
    """A file or directory could not be written; what was there before is unchanged."""


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`: afterwards the file has the new content, or on an error still the old one.

    Raises:
        WriteError: The operating system refused (disk full, no permission, ...).
    """
    with atomic_file(Path(path)) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write_text(path: str | Path, text: str) -> None:
    """`atomic_write_bytes` of UTF-8 text."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: str | Path, value: Any) -> None:
    """`atomic_write_bytes` of indented JSON; numbers that are not finite become null."""
    atomic_write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to; renamed to `path` when the block ends well, removed when it does not."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary directory to fill; flushed and renamed to `path` when the block ends well, removed when it does not.

    An existing directory at `path` is replaced: it is set aside under a temporary name first, and `remove_leftovers`
    puts it back if the process dies before the new one is in place.

    Raises:
        WriteError: The operating system refused; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    aside = path.with_name(f".{path.name}.old-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same process id
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists() and not path.exists():
            aside.rename(path)
        shutil.rmtree(aside, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Delete a directory so that it is never seen half deleted: it loses its name first."""
    doomed = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Clear what killed processes have left half-written in `directory`; only for the process that may write there."""
    for aside in directory.glob(".*.old-*"):
        original = directory / aside.name[1:].rpartition(".old-")[0]
        if not original.exists():
            aside.rename(original)
    for leftover in [*directory.glob(".*.tmp-*"), *directory.glob(".*.old-*")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def is_leftover(path: Path) -> bool:
    """Whether a name is that of something half-written, which `remove_leftovers` would clear."""
    return path.match(".*.tmp-*") or path.match(".*.old-*")


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until everything is written: on a nearly full disk a single call may take only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power failure."""
    _sync(directory)


def write_error(error: OSError, path: Path) -> OSError:
    """The one sentence for the user; an error that already is one is passed on."""
    if isinstance(error, WriteError):
        return error
    reason = error.strerror or str(error)
    return WriteError(
        f"cannot write {path}: {reason}; nothing was half-written, what was there before is unchanged: "
        "make room (or give write permission) and start again"
    )


def finite(value: Any) -> Any:
    """A copy of JSON-able data in which numbers that JSON cannot hold (NaN, infinity) are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _sync_tree(root: Path) -> None:
    for path in [*root.rglob("*"), root]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class JsonLines:
    """An append-only file of JSON records: each is on the disk as one whole line, or not at all.

    A process killed in the middle of an append can leave a torn last line; opening the file again cuts it off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise write_error(error, path) from error
        self._drop_torn_line()

    def append(self, records: list[dict[str, Any]]) -> None:
        """Append records, one line each, in one write.

        Raises:
            WriteError: The disk is full or the like; the file ends where it ended before.
        """
        lines = (json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        data = "".join(lines).encode()
        size = os.fstat(self._descriptor).st_size
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise write_error(error, self.path) from error

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> int:
        """Rewrite the file atomically to the `wanted` records, byte for byte; returns how many were dropped."""
        with open(self.path, "rb") as source:
            dropped = sum(not wanted(json.loads(line)) for line in source)
        if dropped:
            with atomic_file(self.path) as temporary, open(self.path, "rb") as source, open(temporary, "wb") as target:
                target.writelines(line for line in source if wanted(json.loads(line)))
                target.flush()
                os.fsync(target.fileno())
            self._reopen()
        return dropped

    def sync(self) -> None:
        """Make everything appended so far survive a power failure."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; the object cannot be used afterwards."""
        os.close(self._descriptor)

    def _reopen(self) -> None:
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def _drop_torn_line(self) -> None:
        """Cut the file after its last newline."""
        end = os.fstat(self._descriptor).st_size
        while end:
            start = max(0, end - 65536)
            newline = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        os.ftruncate(self._descriptor, end)
