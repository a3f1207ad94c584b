"""The workers of a pool between calls: who is there, who has which weights, who replaced whom."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from rollouts.pool_host import Event, Host

if TYPE_CHECKING:
    from rollouts.pool_config import PoolConfig
    from rollouts.pool_start import Starter

logger = logging.getLogger(__name__)
GRACE_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """A worker that was replaced."""

    place: int
    """Number of the worker in the pool."""
    reason: str
    """Why, in one line."""
    moved: int
    """Unfinished requests that went to others."""
    seconds: float
    """Seconds from the notice of its death until its successor was ready."""


class Team:
    """The hosts of a pool. All methods are called from the pool's thread."""

    def __init__(self, config: PoolConfig, starter: Starter) -> None:
        """Starts the workers in the background."""
        self.config = config
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.recoveries: list[Recovery] = []
        self.weights_path = ""
        self.weights_number = 0
        """Number of the current weights; 0 = those of the checkpoint."""
        self._starter = starter
        self._deaths: dict[Host, tuple[float, str, int]] = {}
        """Moment, reason and number of moved requests of the death that each replacement is there for."""
        self._leaving: list[Host] = []
        """Replaced hosts that may still be ending their workers."""
        self.hosts = [self._new_host(place) for place in range(config.workers)]

    def _new_host(self, place: int) -> Host:
        starter = self._starter
        return Host(place, lambda: starter.start(place), self.events, self.config.timeout_s)

    def current(self, event: Event) -> bool:
        """Whether an event is of a worker that is still in the team."""
        return self.hosts[event.host.place] is event.host

    def is_replacement(self, host: Host) -> bool:
        """Whether the worker is on its way in place of one that died."""
        return host in self._deaths

    def set_weights(self, path: str) -> None:
        """Makes an image the current weights; each worker reads it before its next request."""
        self.weights_path = path
        self.weights_number += 1
        self._starter.weights_changed()

    def ask_for_weights(self, host: Host) -> None:
        """Hands the current weights over unless the worker has them."""
        if host.loaded != self.weights_number:
            host.ask(("load", self.weights_path), self.config.hang_s)

    def replace(self, host: Host, reason: str, moved: int) -> None:
        """Ends a worker and starts another one in its place."""
        host.end()
        self._leaving = [other for other in self._leaving if not other.join(0.0)] + [host]
        moment, _, _ = self._deaths.pop(host, (time.monotonic(), "", 0))  # it may have died before it was ready
        successor = self._new_host(host.place)
        self.hosts[host.place] = successor
        self._deaths[successor] = (moment, reason, moved)

    def note_ready(self, host: Host) -> None:
        """A worker is ready; keeps how long that took if it is a replacement."""
        host.ready = True
        if host not in self._deaths:
            return
        moment, reason, moved = self._deaths.pop(host)
        seconds = time.monotonic() - moment
        self.recoveries.append(Recovery(place=host.place, reason=reason, moved=moved, seconds=seconds))
        logger.warning("Worker %d is ready again after %.1f s.", host.place, seconds)

    def close(self) -> None:
        """Ends all workers: those at rest may put their things away."""
        for host in self.hosts:
            host.close()
        deadline = time.monotonic() + GRACE_S
        for host in self.hosts:
            if not host.join(max(0.0, deadline - time.monotonic())):
                host.end()
        for host in (*self.hosts, *self._leaving):
            host.join(GRACE_S)
        self._starter.close()

    def abandon(self) -> None:
        """Ends all workers at once, without waiting: for a pool that nobody closed."""
        for host in self.hosts:
            host.end()
        self._starter.close()
