"""Which samples share a packed batch: first-fit over a window of samples, deterministic and without starvation.

Sequence packing (MiniCPM-V 4.5, arXiv 2509.18154, section 3): samples are laid end to end up to a fixed number of
tokens.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a batch may hold at most."""

    tokens: int
    views: int = 0
    """Images, slices and frames; 0 = any number."""

    def fits(self, tokens: int, views: int) -> bool:
        """Whether so much is within the budget."""
        return tokens <= self.tokens and (not self.views or views <= self.views)


@dataclass(frozen=True, slots=True)
class Sized(Generic[ItemT]):
    """Something to pack, and what it takes of the budget."""

    item: ItemT
    tokens: int
    views: int = 0


@dataclass(slots=True)
class Packer(Generic[ItemT]):
    """Makes batches out of a window of waiting items.

    A batch begins with the item that has waited longest; then every item of the window is taken, in order of arrival,
    that still fits. So no item waits for ever, and the result depends on nothing but the order of the items.

    Args:
        budget: of a batch; an item that exceeds it alone is refused by `add`.
        window: items that wait at least before a batch is made (the look-ahead).
    """

    budget: Budget
    window: int
    waiting: deque[Sized[ItemT]] = field(default_factory=deque)

    def add(self, item: Sized[ItemT]) -> bool:
        """Put an item into the window; False if it would not fit an empty batch."""
        if not self.budget.fits(item.tokens, item.views):
            return False
        self.waiting.append(item)
        return True

    @property
    def ready(self) -> bool:
        """Whether the window is full, so that a batch can be made."""
        return len(self.waiting) >= self.window

    def batch(self) -> list[Sized[ItemT]]:
        """Take a batch out of the window; empty if nothing waits."""
        taken: list[Sized[ItemT]] = []
        left: deque[Sized[ItemT]] = deque()
        tokens = views = 0
        for item in self.waiting:
            if self.budget.fits(tokens + item.tokens, views + item.views):
                taken.append(item)
                tokens, views = tokens + item.tokens, views + item.views
            else:
                left.append(item)
        self.waiting = left
        return taken

    def rest(self) -> Iterator[list[Sized[ItemT]]]:
        """Batches of everything that waits, the last ones not full."""
        while self.waiting:
            yield self.batch()
