"""The law of a step's cost, fitted to measured points: non-negative least squares of the relative error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

TERMS = ("step", "tokens", "positions", "scores", "patches", "reads")
"""What a step costs something per: itself, packed tokens, response positions (rows of the head), attention scores,
image patches, and prompt tokens that a response reads (group size x prompt), which should cost next to nothing."""

Array = NDArray[np.float64]


def fit_law(measured: Sequence[Mapping[str, Any]], width: int) -> dict[str, Any]:
    """Fit the law to the points of one width, and the cost of arithmetic to those of the axis of widths.

    Args:
        measured: points with their counts (`TERMS` but the first) and `cpu_seconds`.
        width: of the model that the law is for.

    Returns:
        `coefficients` (CPU seconds each), `error` and `worst` (median and largest relative error), `reads_share`: what
        a prompt token costs per response that reads it, over what it costs once (None if that is nothing); under
        `size` `fixed` seconds, `gflops`, `error`, or None with fewer than three widths.
    """
    own = [point for point in measured if point["width"] == width]
    law = _relative(np.array([[_count(point, term, "") for term in TERMS] for point in own]), own, TERMS)
    once, read = (law["coefficients"][term] for term in ("tokens", "reads"))
    return {**law, "reads_share": read / once if once else None, "size": _size(measured)}


def predicted(point: Mapping[str, Any], coefficients: Mapping[str, float], prefix: str = "") -> float:
    """CPU seconds that a law gives a point's counts; with the prefix `repeated_`, as if nothing were shared."""
    return float(sum(coefficients[term] * _count(point, term, prefix) for term in TERMS))


def nonnegative_fit(features: Array, target: Array) -> Array:
    """The x >= 0 of least |features x - target|, exactly: the best of the least-squares fits to each subset of columns
    whose coefficients are all positive, which for a handful of columns are few.

    Args:
        features: [points, terms].
        target: [points].
    """
    best, least = np.zeros(features.shape[1]), float(target @ target)
    for size in range(1, features.shape[1] + 1):
        for columns in map(list, combinations(range(features.shape[1]), size)):
            found, *_ = np.linalg.lstsq(features[:, columns], target, rcond=None)
            rest = features[:, columns] @ found - target
            if (found > 0).all() and float(rest @ rest) < least:
                best, least = np.zeros(features.shape[1]), float(rest @ rest)
                best[columns] = found
    return best


def _relative(features: Array, points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """A fit in which every point counts by its relative error, whatever its size."""
    seconds = np.array([point["cpu_seconds"] for point in points])
    scale = features.max(axis=0, initial=1.0)
    found = nonnegative_fit(features / scale / seconds[:, None], np.ones(len(points))) / scale
    errors = np.abs(features @ found / seconds - 1).tolist()
    coefficients = dict(zip(names, found.tolist(), strict=True))
    return {"coefficients": coefficients, "error": median(errors), "worst": max(errors)}


def _count(point: Mapping[str, Any], term: str, prefix: str) -> float:
    return 1.0 if term == "step" else float(point[prefix + term])


def _size(measured: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    points = [point for point in measured if point["axis"] == "width"]
    if len(points) < 3:
        return None
    law = _relative(np.array([[1.0, point["flop"]] for point in points]), points, ("fixed", "flop"))
    fixed, flop = law["coefficients"].values()
    return {"fixed": fixed, "gflops": 1e-9 / flop if flop else 0.0, "error": law["error"]}
