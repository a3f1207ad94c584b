"""Metrics that know how they are reduced, so that no mean of means can happen.

A value measured on one chunk, micro-batch or rank is kept as what can be added exactly (a sum and a count, or a
maximum), merged with `merge`, and turned into plain numbers once per step with `to_floats`.

Example::

    step = merge({"clip_fraction": Mean(1.0, 4)}, {"clip_fraction": Mean(0.0, 12)})
    to_floats(step)  # {"clip_fraction": 0.0625}, not the 0.125 of a mean of means
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean, kept as the `sum` of the observations and their `count`."""

    sum: float
    count: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """The mean of `values`; an empty iterable gives the neutral element."""
        observed = [float(value) for value in values]
        return cls(math.fsum(observed), len(observed))

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.sum + other.sum, self.count + other.count)

    def result(self) -> float | None:
        """The mean, or None when nothing was observed."""
        return self.sum / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Sum:
    """A total: tokens, seconds, counted events."""

    sum: float

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.sum + other.sum)

    def result(self) -> float:
        """The total."""
        return self.sum


@dataclass(frozen=True, slots=True)
class Max:
    """A maximum; `Max()` is neutral, so a rank that saw nothing cannot erase a real one."""

    value: float = -math.inf

    def __add__(self, other: Max) -> Max:
        if math.isnan(self.value) or math.isnan(other.value):
            return Max(math.nan)  # Python's max() drops or keeps a NaN depending on the order of its arguments
        return Max(max(self.value, other.value))

    def result(self) -> float | None:
        """The maximum, or None when nothing was observed."""
        return None if self.value == -math.inf else self.value


Metric: TypeAlias = Mean | Sum | Max
Metrics: TypeAlias = dict[str, Metric]


def merge(*parts: Mapping[str, Metric]) -> Metrics:
    """Reduce metrics of several chunks, micro-batches or ranks into one; a name missing in a part counts as not
    observed there.

    Raises:
        TypeError: The same name has two kinds (a programming error).
    """
    merged: Metrics = {}
    for part in parts:
        for name, metric in part.items():
            seen = merged.get(name)
            if seen is not None and type(seen) is not type(metric):
                raise TypeError(
                    f"metric {name!r} is a {type(seen).__name__} in one part and a {type(metric).__name__} in another"
                )
            merged[name] = metric if seen is None else seen + metric  # type: ignore[operator]
    return merged


def to_floats(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Plain numbers for `metrics.jsonl`; names without any observation are left out."""
    results = {name: metric.result() for name, metric in metrics.items()}
    return {name: value for name, value in results.items() if value is not None}
