"""What crosses the socket between the engine's client and its worker process."""

from __future__ import annotations

from typing import NamedTuple


class WireRequest(NamedTuple):
    """A `Request` reduced to what the worker needs: it knows neither modes nor text."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop_ids: tuple[int, ...]


class WireResult(NamedTuple):
    """What the engine returned for one `WireRequest`; `stopped` = it ended with a stop token (kept in the ids)."""

    ids: list[int]
    logprobs: list[float]
    stopped: bool
    cached_tokens: int
