"""A vLLM worker in simulated time: how long it takes for given responses, without generating them.

A step of the engine gives one token to each running response and costs `step_s + running * sequence_s`; reading a
prompt costs `prompt_token_s` per token that is not in the cache. Both lines fit what engines show when they are
measured (`fit_latency`).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Speed of one worker."""

    step_s: float
    """Seconds of a step, whatever the number of responses."""
    sequence_s: float
    """Seconds that each running response adds to a step."""
    prompt_token_s: float = 0.0
    """Seconds per prompt token read."""


def fit_latency(step_seconds: Mapping[int, float], prompt_token_s: float = 0.0) -> Latency:
    """The straight line through measured steps with the least squared relative error.

    Args:
        step_seconds: Seconds of one step by number of running responses; at least two numbers.
        prompt_token_s: Seconds per prompt token, measured apart.

    Raises:
        ValueError: Fewer than two points.
    """
    if len(step_seconds) < 2:
        raise ValueError(f"a line needs two measured batch sizes, and there are {len(step_seconds)}")
    weights = {n: 1 / seconds**2 for n, seconds in step_seconds.items()}
    total = sum(weights.values())
    mean_n = sum(weights[n] * n for n in step_seconds) / total
    mean_s = sum(weights[n] * s for n, s in step_seconds.items()) / total
    covariance = sum(weights[n] * (n - mean_n) * (s - mean_s) for n, s in step_seconds.items())
    slope = covariance / sum(weights[n] * (n - mean_n) ** 2 for n in step_seconds)
    slope = max(0.0, slope)
    return Latency(step_s=max(0.0, mean_s - slope * mean_n), sequence_s=slope, prompt_token_s=prompt_token_s)


def busy_seconds(lengths: Sequence[int], prompt_tokens: int, latency: Latency, max_num_seqs: int = 10**9) -> float:
    """Seconds until a worker has generated all responses.

    Args:
        lengths: Tokens of each response, in the order in which they start.
        prompt_tokens: Prompt tokens to read, those in the prefix cache left out.
        latency: The worker's speed.
        max_num_seqs: Most responses that run at the same time; the next starts when one ends.
    """
    seconds = prompt_tokens * latency.prompt_token_s
    waiting = iter(lengths)
    running: list[int] = []  # a heap of the steps at which they end
    step = 0
    for length in waiting:
        heapq.heappush(running, step + length)
        if len(running) < max_num_seqs:
            continue
        seconds, step = _to_next_end(running, seconds, step, latency)
    while running:
        seconds, step = _to_next_end(running, seconds, step, latency)
    return seconds


def _to_next_end(running: list[int], seconds: float, step: int, latency: Latency) -> tuple[float, int]:
    """Steps until one of the running responses ends, and takes it away."""
    count, end = len(running), heapq.heappop(running)
    return seconds + (end - step) * (latency.step_s + count * latency.sequence_s), end
