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


def check_equal_work(ours: Sequence[Record], theirs: Sequence[Record], expected: tuple[int, int]) -> None:
    """Refuse to compare unless both libraries trained on the same tokens in every step.

    Args:
        ours: Steps of Tandem.
        theirs: Steps of the peer, in the same order.
        expected: Prompt and response tokens of a step, the prompt once per response.

    Raises:
        ValueError: Naming the step and what each library forwarded.
    """
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1):
        counts = [(r["tokens"]["prompt"], r["tokens"]["response"]) for r in (a, b)]
        if counts[0] != counts[1] or counts[0] != expected:
            raise ValueError(
                f"counted step {step}: Tandem trained on {counts[0][0]} prompt and {counts[0][1]} response tokens, "
                f"the peer on {counts[1][0]} and {counts[1][1]}, and {expected[0]} and {expected[1]} were asked for: "
                "their times cannot be compared"
            )
        if a["tokens"]["prompts_digest"] != b["tokens"]["prompts_digest"]:
            raise ValueError(
                f"counted step {step}: the two libraries had different prompts; do not compare their times"
            )


def summarise(shape: Shape, ours: Sequence[Record], theirs: Sequence[Record] | None) -> dict[str, Any]:
    """The figures of one shape, as they stand in the JSON.

    Args:
        shape: Lengths of the texts.
        ours: Counted steps of Tandem.
        theirs: Counted steps of the peer, taken in turn with ours; None = no peer.
    """
    figures: dict[str, Any] = {"prompt": shape.prompt, "response": shape.response, "steps": len(ours)}
    figures |= _library(ours, "")
    if theirs is not None:
        figures |= _library(theirs, "peer_")
        for key, name in (("seconds", "speedup"), ("cpu_seconds", "cpu_speedup")):
            figures |= spread(name, [b[key] / a[key] for a, b in zip(ours, theirs, strict=True)])
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
    figures[prefix + "tokens"] = {key: records[0]["tokens"][key] for key in ("prompt", "response", "positions")}
    figures[prefix + "busy_elsewhere"] = median(record["busy_elsewhere"] for record in records)
    return figures


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median under ``name``, least and largest under ``name_min`` and ``name_max``."""
    return {name: median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def noise(figures: Mapping[str, Any], name: str) -> float:
    """Half the distance from least to largest, relative to the median: 0.1 = "+- 10 %"."""
    middle = figures[name]
    return (figures[f"{name}_max"] - figures[f"{name}_min"]) / (2 * middle) if middle else math.nan
