"""How often the prompts of earlier runs were solved, from their rollouts.jsonl.

A prompt that is always or never solved teaches nothing: within a group only differences count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes.near_duplicates import normalised
from recipes.run_records import number

SOLVED = 0.5
"""Value of the metric from which on a response counts as right, as in an evaluation."""


@dataclass(kw_only=True, slots=True)
class SolveRates:
    """Counts by prompt and mode; prompts are the same when their last messages are."""

    counts: dict[bytes, dict[str, list[int]]] = field(default_factory=dict)
    """Prompt -> mode -> [responses, solved ones]."""
    responses: int = 0
    spoilt_lines: int = 0
    """Lines that could not be read, such as the last one of a killed run."""

    def of(self, content: Any) -> Mapping[str, Sequence[int]]:
        """Mode -> (responses, solved ones) of a last message's content; empty for a prompt that was not sampled."""
        return self.counts.get(_key(content), {})


def _key(content: Any) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content, default=repr, sort_keys=True)
    return hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def read_solve_rates(paths: Sequence[Path], metric: str) -> SolveRates:
    """Counts over several files, read line by line.

    Args:
        paths: Files as a run's rollouts.jsonl, or run directories.
        metric: The reward that says what is right; a response without a value of it is not counted.

    Raises:
        ValueError: a file is missing or holds no rollouts, or the metric occurs in none of its responses.
    """
    rates = SolveRates()
    for path in paths:
        file = path / "rollouts.jsonl" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(f"{file}: there is no such file; name a run directory or its rollouts.jsonl.")
        before, names = rates.responses, _read(file, metric, rates)
        if rates.responses == before:
            listed = f"it has {', '.join(sorted(names))}" if names else "it holds no rollouts with rewards"
            raise ValueError(f"{file} has no reward named {metric!r}; {listed}: set `metric`, or leave the file out.")
    return rates


def _read(file: Path, metric: str, rates: SolveRates) -> set[str]:
    """Adds one file's counts; returns the names of its rewards."""
    names: set[str] = set()
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            record = _record(line)
            if record is None:
                rates.spoilt_lines += bool(line.strip())
                continue
            names.update(map(str, record["rewards"]))
            value = number(record["rewards"], metric)
            if value is None:
                continue
            count = rates.counts.setdefault(_key(record["prompt"]), {}).setdefault(str(record.get("mode")), [0, 0])
            count[0] += 1
            count[1] += value >= SOLVED
            rates.responses += 1
    return names


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    good = isinstance(record, dict) and "prompt" in record and isinstance(record.get("rewards"), dict)
    return record if good else None
