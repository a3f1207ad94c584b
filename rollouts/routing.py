"""Which worker of a pool answers which request: a pure function of the requests, so that a run can be repeated.

A worker's time grows with the tokens it generates and with the prompts it reads, so both are balanced. The responses of
a group share the keys and values of their prompt, which one worker has to compute once; so a group stays together
unless the balance demands that it is split. It does in two cases: the group does not fit under the mean load of the
workers, or it is a large share of that load. The lengths of a group's responses are uncertain together (a hard prompt
makes all of them long), so a worker with a few whole groups can be far off its expected load; pieces of more groups
average that out. Large groups and long responses are placed first: what comes late is small, and fills the gaps
(Graham's rule of the longest processing time, 1969).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

PREFILL_COST = 0.2
"""Cost of reading one prompt token, in generated tokens: about 0.4 measured on CPU, 0.02 to 0.1 on GPUs."""
PIECE_SHARE = 0.1
"""Largest share of a worker's mean load in one piece of a group ..."""
PIECE_OVER_PREFIX = 10.0
"""... unless the piece would cost less than this many times the reading of its prompt."""
SLACK = 0.02
"""Load above the mean, as a share of it, that a worker may get so that a group stays whole."""


class Item(NamedTuple):
    """A request as the router sees it."""

    group: Hashable
    """What the requests that share a prompt have in common, e.g. the ids of the prompt."""
    prompt_tokens: int
    """Tokens of the prompt."""
    response_tokens: float
    """Expected length of the response."""


@dataclass(slots=True)
class _Group:
    """The requests that share a prompt, the longest first."""

    prefix: float
    members: list[tuple[float, int]] = field(default_factory=list)
    """(expected tokens, index)"""

    @property
    def cost(self) -> float:
        return self.prefix + sum(tokens for tokens, _ in self.members)


def route(items: Sequence[Item], workers: int, *, prefill_cost: float = PREFILL_COST) -> list[list[int]]:
    """Assigns each request to a worker.

    A group goes as a whole to the worker with the least load if it fits under the mean load (and `SLACK`) and is small
    enough (`PIECE_SHARE`), otherwise in pieces. Workers with equal loads are taken in order.

    Args:
        items: The requests.
        workers: Number of workers, at least 1; they are taken to be alike and idle.
        prefill_cost: Cost of reading one prompt token, in generated tokens.

    Returns:
        One list per worker with the indices of its requests, in increasing order; some are empty when there are fewer
        requests than workers.

    Example::

        route([Item("a", 120, 100), Item("a", 120, 100), Item("b", 120, 200)], workers=2)  # [[0, 1], [2]]
    """
    if workers < 1:
        raise ValueError(f"the pool has {workers} workers, and needs at least 1")
    groups = sorted(_groups(items, prefill_cost), key=lambda group: -group.cost)
    mean = sum(group.cost for group in groups) / workers
    limit = mean * (1 + SLACK)
    loads = [(0.0, worker) for worker in range(workers)]  # a heap: the least loaded is the first
    given: list[list[int]] = [[] for _ in range(workers)]
    for group in groups:
        _place(group, limit, loads, given)
    return [sorted(indices) for indices in given]


def _groups(items: Sequence[Item], prefill_cost: float) -> list[_Group]:
    found: dict[Hashable, _Group] = {}
    for index, item in enumerate(items):
        group = found.setdefault(item.group, _Group(prefill_cost * item.prompt_tokens))
        group.members.append((item.response_tokens, index))
    for group in found.values():
        group.members.sort(key=lambda member: (-member[0], member[1]))
    return list(found.values())


def _place(group: _Group, limit: float, loads: list[tuple[float, int]], given: list[list[int]]) -> None:
    """Gives a group to the least loaded worker, or pieces of it to several."""
    members = group.members
    largest = max(PIECE_SHARE * limit, PIECE_OVER_PREFIX * group.prefix)
    while members:
        load, worker = heapq.heappop(loads)
        load += group.prefix
        taken = _fill(members, min(limit - load, largest))
        given[worker] += [index for _, index in taken]
        heapq.heappush(loads, (load + sum(tokens for tokens, _ in taken), worker))
        chosen = {index for _, index in taken}
        members = [member for member in members if member[1] not in chosen]


def _fill(members: list[tuple[float, int]], room: float) -> list[tuple[float, int]]:
    """The members that fit into the room, the longest first; the longest one in any case."""
    taken, room = members[:1], room - members[0][0]
    for member in members[1:]:
        if member[0] <= room:
            taken.append(member)
            room -= member[0]
    return taken


def round_robin(count: int, workers: int) -> list[list[int]]:
    """Request i goes to worker i modulo their number: what `route` is compared with."""
    return [list(range(worker, count, workers)) for worker in range(workers)]


class LengthPredictor:
    """Expected length of a response: the running mean of its mode, or its budget as long as the mode is unknown.

    Only ratios between modes matter to the balance; no length is promised.

    Example::

        predictor = LengthPredictor()
        predictor.predict("long", budget=1024)   # 1024.0
        predictor.observe({"long": [300, 500]})
        predictor.predict("long", budget=1024)   # 400.0
        predictor.predict("long", budget=64)     # 64.0
    """

    def __init__(self, means: Mapping[str, float] | None = None, weight: float = 0.3) -> None:
        """
        Args:
            means: Mean length by mode, e.g. `means` of an earlier predictor.
            weight: Weight of the newest call in the running mean, in (0, 1].
        """
        self.means = dict(means or {})
        self._weight = weight

    def predict(self, mode: str, budget: int) -> float:
        """Expected tokens of a response that may take `budget`."""
        return min(float(budget), self.means.get(mode, math.inf))

    def observe(self, lengths: Mapping[str, Sequence[int]]) -> None:
        """Takes in the lengths of one call's responses, by mode."""
        for mode, values in lengths.items():
            if values:
                mean = max(1.0, sum(values) / len(values))
                old = self.means.get(mode, mean)
                self.means[mode] = old + self._weight * (mean - old)
