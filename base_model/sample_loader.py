"""Packed batches of numbered samples: exact order with any number of workers, resumable anywhere.

A sample is a pure function of its phase and number; so the position is a few numbers, and a resumed loader goes on bit
for bit.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from base_model.example_packing import pack_examples, view_count
from base_model.sample_packer import Budget, Packer, Sized
from base_model.training_example import TrainingExample


class Labelled(NamedTuple):
    """An example, and where it comes from."""

    source: str
    example: TrainingExample
    notes: Any = None
    """What else is known, passed on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Batches made of the same numbered samples."""

    batches: int
    sample: Callable[[int], Labelled]
    """Sample n, counted from 0 in each phase; a pure function."""


class Place(NamedTuple):
    """Which sample."""

    phase: int
    number: int


Held = tuple[Place, Labelled]
"""A sample in the window."""

MOST_DROPPED = 1000
"""Samples too large in succession after which the budget is taken for unusable."""


@dataclass(kw_only=True, slots=True)
class Position:
    """Where a loader is: what comes next depends on nothing else."""

    batch: int = 0
    """Batches made."""
    phase: int = 0
    """Of the newest sample drawn."""
    number: int = 0
    """The next sample of that phase."""
    waiting: list[Place] = field(default_factory=list)
    """Samples in the window, in order."""

    def dump(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "batch": self.batch,
            "phase": self.phase,
            "number": self.number,
            "waiting": [list(place) for place in self.waiting],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Position":
        """What `dump` returned."""
        waiting = [Place(int(phase), int(number)) for phase, number in dumped["waiting"]]
        return cls(batch=dumped["batch"], phase=dumped["phase"], number=dumped["number"], waiting=waiting)


class PackedLoader(IterableDataset[dict[str, Any]]):
    """Packed batches of all phases: ``{"batch": PackedBatch, "samples": [Labelled, ...], "position": {...}}``.

    Args:
        phases: one after the other. Samples that wait at the end of one are the first of the next.
        budget: of a batch; a sample that exceeds it alone is left out.
        window: samples among which a batch is chosen (look-ahead).
        workers: processes that make samples; 0 = this one. They change nothing but the time.
        position: where to go on, as a batch told it; None = from the start.

    Raises:
        ValueError: while iterating: a sample cannot be made, or `MOST_DROPPED` in succession exceed the budget.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        budget: Budget,
        *,
        window: int = 64,
        workers: int = 0,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        self.phases, self.budget, self.window, self.workers = list(phases), budget, window, workers
        self.position = dict(position) if position else Position().dump()
        self.dropped = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        position = Position.load(self.position)
        packer: Packer[Held] = Packer(self.budget, self.window)
        again = [Ticket(place, is_new=False) for place in position.waiting]
        end = 0
        for number, phase in enumerate(self.phases):
            end += phase.batches
            if position.batch < end:
                if number != position.phase:
                    position.phase, position.number = number, 0
                tickets = chain(again, _tickets(number, position.number))
                with closing(self._fetched(tickets)) as fetched:
                    yield from self._batches(fetched, packer, position, end)
                again = []

    def _batches(
        self, fetched: Iterator["Fetched"], packer: Packer[Held], position: Position, end: int
    ) -> Iterator[dict[str, Any]]:
        while position.batch < end:
            self._fill(fetched, packer, position)
            taken = [each.item[1] for each in packer.batch()]
            position.batch += 1
            position.waiting = [each.item[0] for each in packer.waiting]
            batch = pack_examples([each.example for each in taken])
            yield {"batch": batch, "samples": taken, "position": position.dump()}

    def _fill(self, fetched: Iterator["Fetched"], packer: Packer[Held], position: Position) -> None:
        """Draw until the window is full."""
        dropped = 0
        while not packer.ready:
            ticket, sample = next(fetched)
            if ticket.is_new:
                position.number = ticket.place.number + 1
            example = sample.example
            if packer.add(Sized((ticket.place, sample), len(example.ids), view_count(example))):
                dropped = 0
                continue
            self.dropped, dropped = self.dropped + 1, dropped + 1
            if dropped >= MOST_DROPPED:
                raise ValueError(
                    f"{dropped} samples in succession exceed a batch's {self.budget.tokens} tokens or "
                    f"{self.budget.views} views, the last one of {sample.source!r} with {len(example.ids)} tokens and "
                    f"{view_count(example)} views: raise the budget"
                )

    def _fetched(self, tickets: Iterable["Ticket"]) -> Generator["Fetched", None, None]:
        """The samples of the tickets, in order."""
        loader = DataLoader(
            _Fetching(self.phases, in_worker=self.workers > 0),
            batch_size=None,
            sampler=tickets,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # the global one is none of its business
        )
        for ticket, sample in loader:
            yield Fetched(ticket, _inputs_mapped(sample, np.ndarray, torch.from_numpy))


class Ticket(NamedTuple):
    """A sample that is wanted."""

    place: Place
    is_new: bool
    """Whether it was not drawn before."""


class Fetched(NamedTuple):
    """What came of a ticket."""

    ticket: Ticket
    sample: Labelled


def _tickets(phase: int, start: int) -> Iterator[Ticket]:
    return (Ticket(Place(phase, number), is_new=True) for number in count(start))


class _Fetching(Dataset[Fetched]):
    """The phases' samples as torch's loader sees them."""

    def __init__(self, phases: Sequence[Phase], *, in_worker: bool) -> None:
        self.phases, self.in_worker = phases, in_worker

    def __getitem__(self, ticket: Ticket) -> Fetched:
        sample = self.phases[ticket.place.phase].sample(ticket.place.number)
        # Between processes torch passes a file handle for each tensor, and a window has thousands.
        return Fetched(ticket, _inputs_mapped(sample, Tensor, Tensor.numpy) if self.in_worker else sample)


def _as_it_is(item: Any) -> Any:
    return item


def _inputs_mapped(sample: Labelled, kind: type, change: Callable[[Any], Any]) -> Labelled:
    inputs = sample.example.inputs
    if not inputs:
        return sample
    changed = {name: _mapped(value, kind, change) for name, value in inputs.items()}
    return sample._replace(example=replace(sample.example, inputs=changed))


def _mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        return [_mapped(each, kind, change) for each in value]
    return value
