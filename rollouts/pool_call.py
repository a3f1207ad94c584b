"""One call to a pool: its requests on their way through the workers, each answered exactly once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from rollouts.pool_host import Event, Host
from rollouts.pool_team import Team
from rollouts.process import EngineError
from rollouts.routing import Item, route

logger = logging.getLogger(__name__)


def wait_for_all(team: Team, *, starting_too: bool) -> None:
    """Returns when all workers have the current weights and have said so.

    Args:
        team: The workers.
        starting_too: Whether to wait for those that are not ready yet; otherwise they get the weights before their
            first request.
    """
    call = Call(team, "ping", [], [])
    while True:
        for host in team.hosts:
            if host.ready and host.job is None and host not in call.asked:
                call.ask(host, ("ping",), [])
        if not any(host.job is not None or (starting_too and not host.ready) for host in team.hosts):
            return
        call.take(team.events.get())


class Call:
    """Requests or texts that the workers share."""

    def __init__(
        self,
        team: Team,
        name: str,
        wire: Sequence[Any],
        items: Sequence[Item],
        on_progress: Callable[[int, int], None] | None = None,
        on_part: Callable[[int, Any], None] | None = None,
    ) -> None:
        """
        Args:
            team: The workers.
            name: Of the message: generate, choose or score.
            wire: What each request is to the worker.
            items: What each request is to the router.
            on_progress: Called with (done, total).
            on_part: Called with (index, result) as soon as there is one.
        """
        self.asked: set[Host] = set()
        self._team = team
        self._name = name
        self._wire = wire
        self._items = items
        self._on_progress_told = on_progress
        self._on_part_told = on_part
        self._results: dict[int, Any] = {}
        self._plan: dict[Host, list[int]] = {}
        """Requests of workers that are not ready yet."""
        self._orphans: list[int] = []
        """Requests whose worker died."""
        self._attempts = [0] * len(wire)
        self._deaths = [0] * len(team.hosts)
        self._running: dict[Host, int] = {}
        """How many of its requests a worker says it has finished, where these do not come one by one."""

    def run(self) -> list[Any]:
        """Results in the order of the requests.

        Raises:
            EngineError: A worker reported a failure of its own, or too many died.
        """
        while not self._team.events.empty():  # replacements that have become ready since the last call
            self.take(self._team.events.get())
        hosts = self._hosts_to_plan_for()
        for host, indices in zip(hosts, self._route(range(len(self._wire)), len(hosts)), strict=True):
            self._plan[host] = indices
        self._hand_out()
        while len(self._results) < len(self._wire) or any(host.job is not None for host in self._team.hosts):
            self.take(self._team.events.get())
            self._hand_out()
        return [self._results[index] for index in range(len(self._wire))]

    def _hosts_to_plan_for(self) -> list[Host]:
        """All workers, but for replacements that are still starting (unless nobody else is there)."""
        hosts = self._team.hosts
        return [host for host in hosts if not self._team.is_replacement(host)] or list(hosts)

    def _route(self, indices: Sequence[int], workers: int) -> list[list[int]]:
        routes = route([self._items[i] for i in indices], workers, prefill_cost=self._team.config.prefill_cost)
        return [[indices[at] for at in positions] for positions in routes]

    def _hand_out(self) -> None:
        """Gives every idle worker what is planned for it; the orphans go to those that have nothing else to do."""
        idle = []
        for host in self._team.hosts:
            if host.ready and host.job is None:
                indices = self._plan.pop(host, [])
                if indices:
                    self._give(host, indices)
                else:
                    idle.append(host)
        if self._orphans and idle:
            for host, indices in zip(idle, self._route(sorted(self._orphans), len(idle)), strict=True):
                if indices:
                    self._give(host, indices)
            self._orphans = []

    def _give(self, host: Host, indices: list[int]) -> None:
        stream = (True,) if self._name == "generate" else ()
        self.ask(host, (self._name, [self._wire[index] for index in indices], *stream), indices)

    def ask(self, host: Host, message: tuple[Any, ...], indices: list[int]) -> None:
        """Hands a message over, after the current weights."""
        self.asked.add(host)
        host.job = indices
        self._team.ask_for_weights(host)
        host.ask(message, self._team.config.hang_s)

    # -- what the workers say ------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Takes in one event; those of workers that have been replaced are dropped."""
        if self._team.current(event):
            getattr(self, f"_on_{event.kind}")(event.host, *event.content)

    def _on_ready(self, host: Host) -> None:
        self._team.note_ready(host)

    def _on_progress(self, host: Host, done: int, total: int) -> None:
        self._running[host] = done if self._name == "score" else 0
        self._tell_progress()

    def _tell_progress(self) -> None:
        if self._on_progress_told is not None and self._wire:
            done = len(self._results) + sum(self._running.values())
            self._on_progress_told(min(done, len(self._wire)), len(self._wire))

    def _on_part(self, host: Host, position: int, result: Any) -> None:
        assert host.job is not None
        self._keep(host, host.job[position], result)

    def _keep(self, host: Host, index: int, result: Any) -> None:
        if host.loaded != self._team.weights_number:
            raise EngineError(
                f"worker {host.place} answered with weights {host.loaded} instead of {self._team.weights_number}"
            )
        assert index not in self._results, "a request was answered twice"
        self._results[index] = result
        if self._on_part_told is not None:
            self._on_part_told(index, result)

    def _on_done(self, host: Host, name: str, answer: Any) -> None:
        if name == "load":
            host.loaded = self._team.weights_number
            return
        assert host.job is not None
        indices, host.job = host.job, None
        self._running.pop(host, None)
        if name == "score":
            for index, values in zip(indices, answer, strict=True):
                self._keep(host, index, values)
        assert all(index in self._results for index in indices), "a worker left a request unanswered"

    def _on_failed(self, host: Host, error: EngineError) -> None:
        raise error

    def _on_died(self, host: Host, error: EngineError) -> None:
        limit = self._team.config.max_restarts
        lost = [index for index in host.job or [] if index not in self._results]
        planned = self._plan.pop(host, [])
        self._deaths[host.place] += 1
        for index in lost:
            self._attempts[index] += 1
        deaths = max(self._deaths[host.place], *(self._attempts[index] for index in lost), 0)
        if deaths > limit:
            host.job = []  # it is replaced with the others that are at work
            dead = f"{deaths} workers" if deaths > 1 else "1 worker"
            raise EngineError(f"{dead} died in one call, the last one thus: {error}") from error
        self._running.pop(host, None)
        self._orphans += lost + planned
        logger.warning(
            "Worker %d: %s\nStarting another one (%d of %d); %d requests go to others.",
            host.place, error, self._deaths[host.place], limit, len(lost) + len(planned),
        )  # fmt: skip
        self._team.replace(host, str(error).splitlines()[0], len(lost) + len(planned))
