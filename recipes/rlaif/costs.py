"""What the stages have cost: `costs.jsonl`, one line for each time that a stage did something."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl.files import JsonLines

FILE = "costs.jsonl"
STAGES = ("instructions", "candidates", "divide", "conquer", "pairs", "DPO", "evaluation")


@contextmanager
def counted(run: Path, step: int, stage: str) -> Iterator[dict[str, Any]]:
    """Measure a stage; what the block puts into the record is kept with it, also when the stage is interrupted.

    Example::

        with counted(run, 1, "conquer") as cost:
            cost["asked"] = 120
    """
    record: dict[str, Any] = {"round": step, "stage": stage}
    started = time.perf_counter()
    try:
        yield record
    finally:
        lines = JsonLines(run / FILE)
        try:
            lines.append([{**record, "seconds": time.perf_counter() - started}])
        finally:
            lines.close()


def read_costs(run: Path) -> list[dict[str, Any]]:
    """One record for each round and stage, in order; interrupted stages are added up."""
    path = run / FILE
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        record = json.loads(line)
        whole = found.setdefault((record["round"], record["stage"]), {})
        for key, value in record.items():
            is_sum = isinstance(value, int | float) and key != "round"
            whole[key] = whole.get(key, 0) + value if is_sum else value
    return sorted(found.values(), key=lambda cost: (cost["round"], STAGES.index(cost["stage"])))
