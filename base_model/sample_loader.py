"""Packed batches without end, from a mixture of sources: exact order with any number of workers, resumable anywhere.

Which source comes next is a pure function of the position, and a sample a pure function of (source, number); so the
position is a few numbers, and a resumed loader goes on bit for bit.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from base_model.example_packing import pack_examples, view_count
from base_model.sample_packer import Budget, Packer, Sized
from base_model.training_example import TrainingExample

Draw = tuple[str, int]
"""(source, number): the source's sample that is wanted, counted from 0."""

Fetch = Callable[[str, int], TrainingExample | None]
"""Makes the sample of a draw; None = it is left out (filtered). It must be a pure function."""

Held = tuple[Draw, TrainingExample]
"""A sample in the window."""

MOST_DROPPED = 10_000
"""Samples left out in succession after which the sources are taken for unusable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Batches drawn from the same mixture."""

    batches: int
    source_of: Callable[[int], str]
    """The source of the loader's n-th sample, counted from 0 and on through the phases; a pure function."""


@dataclass(kw_only=True, slots=True)
class Position:
    """Where a loader is: what comes next depends on nothing else."""

    batch: int = 0
    """Batches made."""
    draw: int = 0
    """Samples drawn."""
    counts: dict[str, int] = field(default_factory=dict)
    """Samples drawn from each source."""
    waiting: list[Draw] = field(default_factory=list)
    """Samples in the window, in order."""

    def dump(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "batch": self.batch,
            "draw": self.draw,
            "counts": dict(self.counts),
            "waiting": [list(draw) for draw in self.waiting],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Position":
        """What `dump` returned."""
        waiting = [(str(source), int(number)) for source, number in dumped["waiting"]]
        return cls(batch=dumped["batch"], draw=dumped["draw"], counts=dict(dumped["counts"]), waiting=waiting)


class PackedLoader(IterableDataset[dict[str, Any]]):
    """Packed batches of all phases, in order: ``{"batch": PackedBatch, "samples": [(source, example), ...],
    "position": {...}}``.

    Args:
        fetch: makes a sample.
        phases: mixtures of the sources, one after the other. Samples that wait at the end of one are the first of the
            next.
        budget: of a batch; a sample that exceeds it alone is left out.
        window: samples among which a batch is chosen (look-ahead).
        workers: processes that make samples; 0 = this one. They change nothing but the time.
        position: where to go on, as a batch told it; None = from the start.

    Raises:
        ValueError: while iterating: a fetch failed, or `MOST_DROPPED` samples in succession were left out.
    """

    def __init__(
        self,
        fetch: Fetch,
        phases: Sequence[Phase],
        budget: Budget,
        *,
        window: int = 64,
        workers: int = 0,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        self.fetch, self.phases, self.budget = fetch, list(phases), budget
        self.window, self.workers = window, workers
        self.position = dict(position) if position else Position().dump()
        self.dropped = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        position = Position.load(self.position)
        packer: Packer[Held] = Packer(self.budget, self.window)
        again = [Ticket(draw, None) for draw in position.waiting]
        end = 0
        for phase in self.phases:
            end += phase.batches
            if position.batch < end:
                tickets = chain(again, self._tickets(phase, position))
                with closing(self._fetched(tickets)) as fetched:
                    yield from self._batches(fetched, packer, position, end)
                again = []

    def _batches(
        self, fetched: Iterator["Fetched"], packer: Packer["Held"], position: Position, end: int
    ) -> Iterator[dict[str, Any]]:
        while position.batch < end:
            self._fill(fetched, packer, position)
            taken = [each.item for each in packer.batch()]
            position.batch += 1
            position.waiting = [each.item[0] for each in packer.waiting]
            batch = pack_examples([example for _, example in taken])
            samples = [(source, example) for (source, _), example in taken]
            yield {"batch": batch, "samples": samples, "position": position.dump()}

    def _fill(self, fetched: Iterator["Fetched"], packer: Packer["Held"], position: Position) -> None:
        """Draw until the window is full."""
        dropped = 0
        while not packer.ready:
            each = next(fetched)
            if each.ticket.after is not None:
                position.draw, position.counts = each.ticket.after
            sample = each.sample
            if sample is not None and packer.add(
                Sized((each.ticket.draw, sample), len(sample.ids), view_count(sample))
            ):
                dropped = 0
                continue
            self.dropped, dropped = self.dropped + 1, dropped + 1
            if dropped >= MOST_DROPPED:
                source, number = each.ticket.draw
                raise ValueError(
                    f"{dropped} samples in succession were left out, the last one number {number} of {source!r}: "
                    "they are filtered, or exceed the budget of a batch; change the filters or raise the budget"
                )

    def _tickets(self, phase: Phase, position: Position) -> Iterator["Ticket"]:
        """Draws from the position on."""
        draw, counts = position.draw, position.counts
        while True:
            name = phase.source_of(draw)
            number = counts.get(name, 0)
            draw, counts = draw + 1, {**counts, name: number + 1}
            yield Ticket((name, number), (draw, counts))

    def _fetched(self, tickets: Iterable["Ticket"]) -> Generator["Fetched", None, None]:
        """The samples of the tickets, in order."""
        loader = DataLoader(
            _Fetching(self.fetch, in_worker=self.workers > 0),
            batch_size=None,
            sampler=tickets,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # the global one is none of its business
        )
        for ticket, sample in loader:
            yield Fetched(ticket, _with_tensors(sample))


class Ticket(NamedTuple):
    """A draw, and what the position is after it."""

    draw: Draw
    after: tuple[int, dict[str, int]] | None
    """(samples drawn, samples drawn from each source); None = it was drawn before."""


class Fetched(NamedTuple):
    """What came of a ticket."""

    ticket: Ticket
    sample: TrainingExample | None


def _sized(draw: Draw, example: TrainingExample) -> Sized[Held]:
    return Sized((draw, example), len(example.ids), view_count(example))


class _Fetching(Dataset[tuple[Ticket, TrainingExample | None]]):
    """The sources as a data loader sees them."""

    def __init__(self, fetch: Fetch, *, in_worker: bool) -> None:
        self.fetch, self.in_worker = fetch, in_worker

    def __getitem__(self, ticket: Ticket) -> tuple[Ticket, TrainingExample | None]:
        sample = self.fetch(*ticket.draw)
        return ticket, _with_arrays(sample) if self.in_worker else sample


def _as_it_is(item: Any) -> Any:
    return item


def _with_arrays(sample: TrainingExample | None) -> TrainingExample | None:
    """Tensors as arrays: between processes torch passes a file handle for each tensor, and a window has thousands."""
    return _inputs_mapped(sample, Tensor, lambda tensor: tensor.numpy())


def _with_tensors(sample: TrainingExample | None) -> TrainingExample | None:
    return _inputs_mapped(sample, np.ndarray, torch.from_numpy)


def _inputs_mapped(sample: TrainingExample | None, kind: type, change: Callable[[Any], Any]) -> TrainingExample | None:
    if sample is None or not sample.inputs:
        return sample
    return replace(sample, inputs={name: _mapped(value, kind, change) for name, value in sample.inputs.items()})


def _mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        return [_mapped(each, kind, change) for each in value]
    return value
