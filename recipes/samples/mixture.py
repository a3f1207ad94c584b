"""Which source gives which sample of a run: named sources with shares that may change along the run.

Samples are numbered from 0 on. They are dealt out in blocks of `BLOCK`: how many of a block come from each source
follows from the weights (what rounding leaves over is carried to the next block, so that even the smallest share is
met), and their order within the block is drawn from (seed, block). So the source of sample i, and how many samples it
gave before, are pure functions of (seed, i): a stream goes on anywhere, in any number of workers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from recipes.render.records import random_of

BLOCK = 256
"""Samples dealt out at once."""


def _ascending(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if not points:
        raise ValueError("no point is given: write [[0.8, 0], [1.0, 3]], or a single number")
    if any(at < 0 or at > 1 or weight < 0 for at, weight in points):
        raise ValueError(f"{points} holds a point outside the run (0 to 1), or a negative weight")
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        raise ValueError(f"{points} must ascend: each point lies later in the run than the one before it")
    return points


Points = Annotated[list[tuple[float, float]], AfterValidator(_ascending)]
Weight = Annotated[float, Field(ge=0)] | Points
"""A number, or points [share of the run that is over, weight] between which the weight changes evenly."""


def weight_at(weight: float | Sequence[tuple[float, float]], progress: float) -> float:
    """The weight when `progress` (0 to 1) of the run is over; constant before the first and after the last point.

    Example:
        weight_at([(0.8, 0.0), (1.0, 3.0)], 0.9) == 1.5
    """
    if isinstance(weight, int | float):
        return float(weight)
    after = bisect_right([at for at, _ in weight], progress)
    if after == 0 or after == len(weight):
        return float(weight[min(after, len(weight) - 1)][1])
    (start, low), (end, high) = weight[after - 1], weight[after]
    return low + (high - low) * (progress - start) / (end - start)


class Pick(NamedTuple):
    """Where a sample of the mixture comes from."""

    source: str
    position: int
    """How many samples the source gave before."""


class Plan:
    """The source of every sample of a run.

    Args:
        weights: Name -> weight relative to the other names here.
        shares: Name -> share of all samples; the others divide what is left.
        seed: Of the run.
        total: Samples of the run; needed where a weight changes along it.

    Raises:
        ValueError: shares exceed 1, all weights are 0 somewhere, or `total` is missing.

    Example::

        plan = Plan({"captions": 3, "ocr": 1}, {"text": 0.1}, seed=0)
        plan.pick(1000)  # Pick(source="captions", position=672)
    """

    def __init__(
        self, weights: Mapping[str, Weight], shares: Mapping[str, Weight], seed: int, total: int | None = None
    ) -> None:
        self.names = (*weights, *shares)
        assert len(set(self.names)) == len(self.names), self.names
        self._weights, self._shares = dict(weights), dict(shares)
        self._seed = seed
        self._total = total
        if total is None and not all(isinstance(w, int | float) for w in (*weights.values(), *shares.values())):
            raise ValueError("a weight changes along the run, whose number of samples is not known: give it.")
        self._given: list[tuple[int, ...]] = [(0,) * len(self.names)]  # samples of each source before each block
        self._sums: list[list[float]] = [[0.0] * len(self.names)]
        for point in self._turning_points():
            self.fractions(point)
        self._order: tuple[int, list[int]] = (-1, [])

    def _turning_points(self) -> set[float]:
        lists = [w for w in (*self._weights.values(), *self._shares.values()) if not isinstance(w, int | float)]
        return {0.0, 1.0, *(at for points in lists for at, _ in points)}

    def fractions(self, progress: float) -> tuple[float, ...]:
        """Share of each source, in the order of `names`, when so much of the run is over. Raises ValueError."""
        shares = [weight_at(share, progress) for share in self._shares.values()]
        weights = [weight_at(weight, progress) for weight in self._weights.values()]
        fixed, sum_of_weights = math.fsum(shares), math.fsum(weights)
        if fixed > 1 + 1e-9:
            raise ValueError(f"the shares add up to {fixed:g} at {progress:.0%} of the run, and 1 is all there is.")
        left = max(0.0, 1 - fixed)
        if left > 1e-9 and not sum_of_weights:
            raise ValueError(
                f"at {progress:.0%} of the run all weights are 0 and the shares add up to {fixed:g}: give a source a "
                "weight there, or shares that add up to 1."
            )
        return (*(left * weight / sum_of_weights if sum_of_weights else 0.0 for weight in weights), *shares)

    def pick(self, index: int) -> Pick:
        """The source of sample `index` >= 0, and how many samples it gave before."""
        assert index >= 0, index
        block, slot = divmod(index, BLOCK)
        order = self._block(block)
        source = order[slot]
        return Pick(self.names[source], self._given[block][source] + order[:slot].count(source))

    def counts(self, index: int) -> dict[str, int]:
        """How many of the samples before `index` come from each source."""
        block, slot = divmod(index, BLOCK)
        order = self._block(block)[:slot]
        return {name: self._given[block][at] + order.count(at) for at, name in enumerate(self.names)}

    def _block(self, block: int) -> list[int]:
        """The sources (as numbers) of a block's samples, in order."""
        while len(self._given) <= block + 1:
            self._deal()
        if self._order[0] != block:
            pairs = zip(self._given[block], self._given[block + 1], strict=True)
            order = [source for source, (before, after) in enumerate(pairs) for _ in range(after - before)]
            random_of("mixture order", self._seed, block).shuffle(order)
            self._order = (block, order)
        return self._order[1]

    def _deal(self) -> None:
        """Adds a block: each source gets the whole part of what it is owed, the largest rests one more."""
        block = len(self._given) - 1
        before = self._given[-1]
        owed = [due - given for due, given in zip(self._due(block + 1), before, strict=True)]
        counts = [max(0, math.floor(debt)) for debt in owed]
        while sum(counts) != BLOCK:
            step = 1 if sum(counts) < BLOCK else -1
            able = [at for at in range(len(counts)) if step > 0 or counts[at]]
            chosen = max(able, key=lambda at: step * (owed[at] - counts[at]))
            counts[chosen] += step
        self._given.append(tuple(a + b for a, b in zip(before, counts, strict=True)))

    def _due(self, blocks: int) -> list[float]:
        """Samples that each source should have given in the first blocks."""
        while len(self._sums) <= blocks:
            block = len(self._sums) - 1
            progress = min(1.0, (block + 0.5) * BLOCK / self._total) if self._total else 0.0
            parts = self.fractions(progress)
            self._sums.append([due + BLOCK * part for due, part in zip(self._sums[-1], parts, strict=True)])
        return self._sums[blocks]
