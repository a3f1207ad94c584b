"""From the records of single steps to medians, paired ratios and their spread; pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from recipes.benchmark.config import Shape
from recipes.benchmark.session import PHASES

Record = Mapping[str, Any]
"""One step of one library, as `session.Session.report` sends it, with `busy_elsewhere` added by the parent."""


def check_equal_work(records: Mapping[str, Sequence[Record]], expected: tuple[int, int]) -> None:
    """Refuse the figures unless every library trained on exactly what was asked for, in every step.

    Args:
        records: Counted steps by library, in the same order.
        expected: Prompt and response tokens of a step, the prompt once per response.

    Raises:
        ValueError: Naming the step and what each library forwarded.
    """
    for step, row in enumerate(zip(*records.values(), strict=True), start=1):
        counts = {name: (r["tokens"]["prompt"], r["tokens"]["response"]) for name, r in zip(records, row, strict=True)}
        if set(counts.values()) != {expected}:
            seen = ", ".join(
                f"{name} trained on {prompt} and {response}" for name, (prompt, response) in counts.items()
            )
            raise ValueError(
                f"counted step {step} should have trained on {expected[0]} prompt and {expected[1]} response tokens, "
                f"but {seen}: such times say nothing about each other"
            )
        if len({r["tokens"]["prompts_digest"] for r in row}) > 1:
            raise ValueError(f"counted step {step}: the libraries had different prompts; do not compare their times")


def summarise(
    shape: Shape, ours: Sequence[Record], theirs: Sequence[Record] | None, *, floor_s: float = 0.0
) -> dict[str, Any]:
    """The figures of one shape, as they stand in the JSON.

    Args:
        shape: Lengths of the texts.
        ours: Counted steps of Tandem.
        theirs: Counted steps of the peer, taken in turn with ours; None = no peer.
        floor_s: Longest wait that the peer's design puts into each of its steps, in seconds; the ratio is given without
            it too.
    """
    figures: dict[str, Any] = {"prompt": shape.prompt, "response": shape.response, "steps": len(ours)}
    figures |= _library(ours, "")
    if theirs is not None:
        figures |= _library(theirs, "peer_")
        for key, name in (("seconds", "speedup"), ("cpu_seconds", "cpu_speedup")):
            figures |= spread(name, [b[key] / a[key] for a, b in zip(ours, theirs, strict=True)])
        if floor_s:
            beyond = [(b["seconds"] - floor_s) / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
            figures |= {"peer_floor_seconds": floor_s, **spread("speedup_beyond_floor", beyond)}
    return figures


def _library(records: Sequence[Record], prefix: str) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for key in ("seconds", "cpu_seconds"):
        figures |= spread(prefix + key, [record[key] for record in records])
    figures[prefix + "phases"] = {
        phase: {key: median(r["phases"][phase][key] for r in records) for key in ("seconds", "cpu_seconds")}
        for phase in PHASES
    }
    figures[prefix + "memory_gib"] = max(record["memory_gib"] for record in records)
    figures[prefix + "tokens"] = {
        key: records[0]["tokens"].get(key, 0) for key in ("prompt", "response", "positions", "views")
    }
    figures[prefix + "busy_elsewhere"] = median(record["busy_elsewhere"] for record in records)
    return figures


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median under ``name``, least and largest under ``name_min`` and ``name_max``."""
    return {name: median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def noise(figures: Mapping[str, Any], name: str) -> float:
    """Half the distance from least to largest, relative to the median: 0.1 = "+- 10 %"."""
    middle = figures[name]
    return (figures[f"{name}_max"] - figures[f"{name}_min"]) / (2 * middle) if middle else math.nan
