"""Several vLLM workers behind the interface of one.

    generate(requests) -> rollouts.routing: each request to a worker, groups together, loads equal
        worker 0  <- its requests      its results, one by one ->  \\
        worker 1  <- its requests      its results             ->   each index once, in the caller's thread
        ...                                                        /
    load_weights -> one image in shared memory, read by all of them

A worker that dies, runs out of memory or is silent for `hang_s` is replaced, and what it has not finished goes to those
that are idle, its successor among them. Every response has its own seed, so it is the same wherever it is generated,
but for the last bits of its log-probabilities: these may depend on how many responses a worker computes at the same
time. Who answers what is a pure function of the requests and of the mean lengths seen so far, so without a death the
same calls give the same bits.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollouts.engine import OnResult, Progress, VLLMEngine
from rollouts.pool_call import Call, wait_for_all
from rollouts.pool_config import PoolConfig
from rollouts.pool_start import make_starter
from rollouts.pool_team import Recovery, Team
from rollouts.process import EngineError
from rollouts.records import Request, Rollout
from rollouts.routing import Item, LengthPredictor
from rollouts.wire import WireChoice

if TYPE_CHECKING:
    from torch import Tensor


def make_engine(
    model_path: str | Path, config: PoolConfig, *, tokenizer: Any = None, log_path: str | Path | None = None
) -> VLLMEngine:
    """The engine that a configuration asks for: a `VLLMEngine`, or a pool.

    Raises:
        ValueError: The directory is not a checkpoint, or the machine or cluster has no room for the workers.
    """
    kind = EnginePool if config.is_pool else VLLMEngine
    return kind(model_path, config, tokenizer=tokenizer, log_path=log_path)


class EnginePool(VLLMEngine):
    """A pool of vLLM workers. Calls are made one at a time; another one meanwhile is refused.

    Example::

        with make_engine("models/smollm2", PoolConfig(workers=2), log_path=run / "engine.log") as engine:
            rollouts = engine.generate(requests)
            engine.load_weights(model.named_parameters(), version=1)
    """

    config: PoolConfig

    def __init__(
        self,
        model_path: str | Path,
        config: PoolConfig,
        *,
        tokenizer: Any = None,
        log_path: str | Path | None = None,
    ) -> None:
        """Starts the workers in the background; see `VLLMEngine`. Worker 1 writes to `log_path` with `_1` in its name.

        Raises:
            ValueError: The directory is not a checkpoint, or the machine or cluster has no room for the workers.
        """
        self.lengths = LengthPredictor()
        self._expected: list[float] = []
        self._in_call = threading.Lock()
        self._team: Team | None = None
        super().__init__(model_path, config, tokenizer=tokenizer, log_path=log_path)

    @property
    def pid(self) -> int | None:
        """Process id of the first worker; None when there is none."""
        return next(iter(self.pids), None)

    @property
    def pids(self) -> list[int]:
        """Process ids of the vLLM workers, as far as they are known."""
        return [host.pid for host in self._team.hosts if host.pid] if self._team is not None else []

    @property
    def recoveries(self) -> list[Recovery]:
        """Workers that were replaced and whose successors are ready, in the order of these."""
        return list(self._team.recoveries) if self._team is not None else []

    def wait_ready(self) -> None:
        """Returns when all workers are ready to generate."""
        with self._one_call():
            super().wait_ready()

    def generate(
        self,
        requests: Sequence[Request],
        on_progress: Progress | None = None,
        on_result: OnResult | None = None,
    ) -> list[Rollout]:
        """One rollout per request, in the same order; see `VLLMEngine.generate`."""
        with self._one_call():
            self._expected = [self.lengths.predict(r.mode.name, r.mode.max_tokens) for r in requests]
            rollouts = super().generate(requests, on_progress, on_result)
        seen: dict[str, list[int]] = {}
        for rollout in rollouts:
            seen.setdefault(rollout.mode, []).append(len(rollout.response_ids))
        self.lengths.observe(seen)
        return rollouts

    def score(self, *args: Any, **kwargs: Any) -> list[list[float]]:
        """Log-probabilities of continuations; see `VLLMEngine.score`."""
        with self._one_call():
            return super().score(*args, **kwargs)

    def next_logprobs(self, *args: Any, **kwargs: Any) -> list[list[float]]:
        """Log-probabilities of first tokens; see `VLLMEngine.next_logprobs`."""
        with self._one_call():
            return super().next_logprobs(*args, **kwargs)

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replaces all weights in all workers; see `VLLMEngine.load_weights`.

        A worker that is still starting gets them before its first request.
        """
        with self._one_call():
            super().load_weights(named_tensors, version)

    def state_dict(self) -> dict[str, Any]:
        """The mean lengths seen so far: they decide who answers what, and so the last bits of log-probabilities."""
        return {"lengths": dict(self.lengths.means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from the lengths of an earlier pool; one engine has left none behind."""
        self.lengths = LengthPredictor(state.get("lengths"))

    def close(self) -> None:
        """Ends the workers; may be called again."""
        if self._team is not None:
            self._team_finalizer.detach()
            self._team.close()
            self._team = None
        super().close()

    @contextlib.contextmanager
    def _one_call(self) -> Iterator[None]:
        """Refuses a second call while one is under way: its responses could mix two policies."""
        if not self._in_call.acquire(blocking=False):
            raise EngineError("the pool is in a call already; calls are made one at a time")
        try:
            yield
        finally:
            self._in_call.release()

    def _open(self) -> None:
        local = self.config.backend == "process"  # other machines see the checkpoint, and not the links to its files
        path = self._servable.path if local else self._path
        self._team = Team(self.config, make_starter(self.config, path, self._log_path))
        self._team_finalizer = weakref.finalize(self, self._team.abandon)

    def _call(
        self,
        message: tuple[Any, ...],
        on_progress: Progress | None = None,
        on_part: Callable[[int, Any], None] | None = None,
    ) -> Any:
        """Answer of the pool as a whole; whatever ends a call early also ends the workers that are at work for it."""
        if self._team is None:
            raise EngineError("the engine is closed; make a new one")
        name, *arguments = message
        try:
            if name == "load":
                self._team.set_weights(arguments[0])
            if name in ("load", "ping"):
                return wait_for_all(self._team, starting_too=name == "ping")
            items = self._items(name, arguments[0])
            return Call(self._team, name, arguments[0], items, on_progress, on_part).run()
        except BaseException:
            for host in list(self._team.hosts):
                if host.job is not None:
                    self._team.replace(host, "the call was interrupted", len(host.job))
            raise

    def _items(self, name: str, wire: Sequence[Any]) -> list[Item]:
        """What the router is told of requests to generate, of prompts to choose after, or of texts to score."""
        if name == "score":
            return [Item(index, len(text[0]), 1.0) for index, text in enumerate(wire)]
        if name == "choose":  # questions about one image stay together
            return [
                Item(_media_names(choice) or index, len(choice.prompt_ids), 1.0) for index, choice in enumerate(wire)
            ]
        return [
            Item(request.prompt_ids, len(request.prompt_ids), min(expected, request.max_tokens))
            for request, expected in zip(wire, self._expected, strict=True)
        ]


def _media_names(choice: WireChoice) -> tuple[str, ...]:
    """What tells the images and videos of a prompt apart from those of others."""
    media = choice.media
    return tuple(item.uuid for item in (*media.images, *media.videos)) if media else ()
