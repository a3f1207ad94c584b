"""The run directory: everything a run has done, in plain files, owned by one process at a time.

    runs/<name>/
        config.yaml         the resolved configuration; it is written last at the start, so a directory with it is a run
        provenance.json     commit, versions, machine, command line, of the start and of every resumption
        metrics.jsonl       one flat record per step
        rollouts.jsonl      one record per response
        evaluations.jsonl   one record per periodic evaluation
        ledger.json         tokens by mode
        checkpoints/step_N/ complete or absent
        run.json            written at the end of the run

A directory that holds something is never overwritten unless it is asked for, and never when it is not a run.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rl.files import JsonLines, atomic_write_json, atomic_write_text, is_leftover, remove_leftovers, write_error
from rl.provenance import provenance

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
LOCK = ".lock"
_NUMBER = re.compile(r"\.\d+\.")

MAY_CHANGE = frozenset({"steps", "save_every", "keep_last", "log_every", "evaluate_every"})
"""Dotted configuration keys that may differ when a run is resumed, unless the caller names others."""

MOST_SHOWN = 3
"""Differences of the configuration that an error names."""


class RunDirectory:
    """An open, locked run directory. Use `create`; `close` (or leaving the `with` block) gives the lock back."""

    def __init__(self, path: Path, lock: _Lock | None) -> None:
        self.path = path
        self._lock = lock
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.rollouts = JsonLines(path / "rollouts.jsonl")
        self.evaluations = JsonLines(path / "evaluations.jsonl")

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool = False,
        may_change: Collection[str] = MAY_CHANGE,
    ) -> RunDirectory:
        """Start a run in `path`, or continue the one that is there.

        Args:
            path: The directory; made, with its parents, if it is not there.
            config: The resolved configuration, of JSON-able values (`model_dump(mode="json")`).
            resume: Continue: the run must exist and have the same configuration.
            overwrite: Delete the run that is there first.
            may_change: Dotted keys whose values may differ on `resume`, `N` standing for a place in a list; the new
                values are then written down.

        Raises:
            ValueError: The directory is in use, holds a run (without `resume` or `overwrite`), holds something else, or
                on `resume` holds no run or one with another configuration.
            WriteError: The operating system refused to write.
        """
        path = Path(path)
        _refuse_foreign(path, resume=resume, overwrite=overwrite)
        lock = _Lock(path)
        try:
            _prepare(path, _plain(config), resume=resume, overwrite=overwrite, may_change=may_change)
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def attach(cls, path: str | Path) -> RunDirectory:
        """The run directory of another process that holds it with `create` and writes no records meanwhile."""
        return cls(Path(path), None)

    @staticmethod
    def check(
        path: str | Path,
        config: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool = False,
        may_change: Collection[str] = MAY_CHANGE,
    ) -> None:
        """Refuse what `create` would refuse, before anything slow is done; nothing is written or locked.

        Whether another process has the run is for `create` to say.

        Raises:
            ValueError: as `create`.
        """
        path = Path(path)
        _refuse_foreign(path, resume=resume, overwrite=overwrite)
        if overwrite or not (path / CONFIG).exists():
            return
        if not resume:
            raise ValueError(_refusal(path))
        _check_differences(path, _plain(config), may_change)

    @property
    def checkpoints(self) -> Path:
        """Where `rl.checkpoint` keeps its directories."""
        return self.path / "checkpoints"

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one step's metrics."""
        self.metrics.append([dict(record)])

    def append_rollouts(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append the responses of a step, all or none."""
        self.rollouts.append([dict(record) for record in records])

    def append_evaluation(self, record: Mapping[str, Any]) -> None:
        """Append one periodic evaluation."""
        self.evaluations.append([dict(record)])

    def write_ledger(self, ledger: Mapping[str, Any]) -> None:
        """Replace `ledger.json`."""
        atomic_write_json(self.path / "ledger.json", ledger)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `run.json`, which says that the run has ended."""
        atomic_write_json(self.path / "run.json", summary)

    def truncate_after(self, step: int) -> None:
        """Forget every record of a later step: a resumed run does them again. Also forgets that the run had ended."""
        (self.path / "run.json").unlink(missing_ok=True)
        for records in (self.metrics, self.rollouts, self.evaluations):
            records.keep(lambda record: record["step"] <= step)

    def sync(self) -> None:
        """Make all records survive a power failure; to be called before a checkpoint that counts on them."""
        for records in (self.metrics, self.rollouts, self.evaluations):
            records.sync()

    def close(self) -> None:
        """Close the files and let another process have the directory."""
        for records in (self.metrics, self.rollouts, self.evaluations):
            records.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_config(path: str | Path) -> dict[str, Any]:
    """The configuration a run was made with.

    Raises:
        ValueError: There is no run in `path`.
    """
    try:
        loaded = yaml.safe_load((Path(path) / CONFIG).read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no run in {path} (no {CONFIG}): check the name") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{Path(path) / CONFIG} is not valid YAML: {error}") from None
    return loaded or {}


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, each with its old and new value; None where a side has no such key."""
    old_leaves, new_leaves = _leaves(old), _leaves(new)
    keys = sorted(old_leaves.keys() | new_leaves.keys())
    pairs = {key: (old_leaves.get(key), new_leaves.get(key)) for key in keys}
    different = {key: values for key, values in pairs.items() if values[0] != values[1]}
    # A mapping that became empty shows by the keys it lost.
    return {
        key: values
        for key, values in different.items()
        if {} not in values or not any(other.startswith(f"{key}.") for other in different)
    }


def _prepare(path: Path, config: dict[str, Any], *, resume: bool, overwrite: bool, may_change: Collection[str]) -> None:
    """Bring the locked directory into the state a run starts or continues from."""
    remove_leftovers(path)
    remove_leftovers(path / "checkpoints")
    if not _is_new(path):
        if overwrite:
            _delete_run(path)
        elif resume:
            _continue(path, config, may_change)
            return
        else:
            raise ValueError(_refusal(path))
    atomic_write_json(path / PROVENANCE, {**provenance(), "resumptions": []})
    _write_config(path, config)


def _refuse_foreign(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a path that holds no run and is no place for one, before a lock is left there. Raises ValueError."""
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: continue the run, or delete it and start again")
    if resume and not path.is_dir():
        raise ValueError(f"there is no run in {path} to resume: check the name, or leave --resume out to start one")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, but the run needs a directory of that name: choose another name")
    if path.is_dir() and not (path / CONFIG).exists() and not _is_new(path):
        raise ValueError(_refusal(path))


def _check_differences(path: Path, config: dict[str, Any], may_change: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """How the configuration of a resumed run differs from its old one. Raises ValueError where it may not."""
    differences = config_differences(read_config(path), config)
    refused = [
        f"{key} was {_shown(old)} and is now {_shown(new)}"
        for key, (old, new) in differences.items()
        if _NUMBER.sub(".N.", key) not in may_change
    ]
    if refused:
        more = f"; and {len(refused) - MOST_SHOWN} more" if len(refused) > MOST_SHOWN else ""
        listed = "; ".join(refused[:MOST_SHOWN]) + more
        raise ValueError(
            f"the run in {path} cannot be resumed with another configuration ({listed}): "
            "give the old values back, or start a new run under another name"
        )
    return differences


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _continue(path: Path, config: dict[str, Any], may_change: Collection[str]) -> None:
    differences = _check_differences(path, config, may_change)
    history = json.loads((path / PROVENANCE).read_text())
    history["resumptions"].append(provenance())
    atomic_write_json(path / PROVENANCE, history)
    if differences:
        _write_config(path, config)


def _is_new(path: Path) -> bool:
    """Nothing is there, or only what a start that was killed before `config.yaml` leaves."""
    return all(entry.name in (LOCK, PROVENANCE) or is_leftover(entry) for entry in path.iterdir())


def _refusal(path: Path) -> str:
    if (path / CONFIG).exists():
        return (
            f"the run directory {path} exists already: continue it with --resume, choose another name, "
            "or delete it with --overwrite true"
        )
    return f"{path} exists, is not empty, and is not a run (no {CONFIG} in it): choose another name"


def _delete_run(path: Path) -> None:
    """Delete a run, its `config.yaml` last; anything that is not a run is left alone."""
    if not (path / CONFIG).exists():
        raise ValueError(_refusal(path))
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == CONFIG):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _write_config(path: Path, config: dict[str, Any]) -> None:
    atomic_write_text(path / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as JSON would hold it, so that what is written and what is read back compare equal."""
    try:
        return json.loads(json.dumps(config))
    except TypeError as error:
        raise ValueError(f"the configuration must be made of JSON-able values: {error}") from None


def _leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(place): item for place, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


class _Lock:
    """An exclusive lock on a directory, held by this process and given back by the system when it dies, however it
    dies.

    A forked child shares the parent's lock and would keep it after the parent's death, so children close their copy at
    once. (Programs started with `subprocess` never get one.)
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise write_error(error, directory) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 64, 0).decode().strip() or "unknown"
            self.release()
            raise ValueError(
                f"the run directory {directory} is in use by another process (process id {owner}): "
                "wait for it to end, or choose another name"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; in a forked child: only forget it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


_held: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _forget_locks() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_locks)
