"""Frozen records of what is asked of an engine and what comes back: one object per response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from rollouts.modes import Mode, stable_hash


class Status(StrEnum):
    """How a response ended."""

    FINISHED = "finished"
    """The model ended its turn."""
    TRUNCATED = "truncated"
    """The budget or the context was used up."""
    FAILED = "failed"
    """The engine gave no usable response (log-probabilities that are not finite)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are drawn. The defaults draw from the model's own distribution.

    Log-probabilities are always those of the whole vocabulary at `temperature`, never renormalised over what top_p,
    top_k or min_p kept. So the ratio of a policy update is biased when these truncate: leave them off for training.
    """

    temperature: float = 1.0
    """0 = the most likely token (its log-probability is then given at temperature 1)."""
    top_p: float = 1.0
    """Smallest set of most likely tokens with at least this mass; 1 = disabled."""
    top_k: int = 0
    """Number of most likely tokens kept; 0 = disabled."""
    min_p: float = 0.0
    """Tokens below this share of the most likely one's probability are dropped; 0 = disabled."""

    def __post_init__(self) -> None:
        checks = [
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (disabled) or more"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
        ]
        for name, holds, wanted in checks:
            if not holds:
                raise ValueError(f"sampling.{name} is {getattr(self, name)}, but it must be {wanted}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptMedia:
    """Images and videos of a prompt, as an engine takes them. The requests of a group share one object."""

    text: str
    """The rendered prompt, prefill included, with one place for each image and video."""
    images: tuple[Any, ...] = ()
    """PIL images in mode RGB, in the order of their places."""
    videos: tuple[Any, ...] = ()
    """Videos as the model's processor takes them (ours: packages of frames and their times in seconds)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One response wanted. The requests of a group share `row` and `prompt_ids`.

    Example::

        Request(prompt_ids=(1, 504, 3575), mode=ShortMode(), row=7, sample=0, seed=request_seed(0, 3, 7, 0))
    """

    prompt_ids: tuple[int, ...]
    """Token ids of the rendered prompt, the mode's prefill included."""
    mode: Mode
    """Gives the budget and how the response is split."""
    row: int
    """Number of the data row."""
    sample: int
    """Number of the response within its group."""
    seed: int
    """Seed of this response alone; see `request_seed`."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn."""
    ignore_eos: bool = False
    """Whether to go on to the budget past the end of the turn (for benchmarks)."""
    media: PromptMedia | None = None
    """Images and videos; `prompt_ids` then holds their blocks, filled in as the model reads them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One response as generated. T = number of response tokens.

    Example::

        Rollout(row=7, sample=0, mode="long", prompt_ids=(1, 504), response_ids=(11, 12, 2), logprobs=(-0.1, -2.3, 0.0),
                response="3+4=7</think>7", thinking="3+4=7", answer="7", answer_start=2, status=Status.FINISHED,
                policy_version=3)
    """

    row: int
    """Number of the data row."""
    sample: int
    """Number of the response within its group."""
    mode: str
    """Name of the mode."""
    prompt_ids: tuple[int, ...]
    """Token ids of the prompt, prefill included."""
    response_ids: tuple[int, ...]
    """(T,) sampled token ids, the end-of-turn token included: it is trained on."""
    logprobs: tuple[float, ...]
    """(T,) log-probabilities of the sampled tokens at the sampling temperature."""
    response: str
    """Decoded response without special tokens; it follows the prefill."""
    thinking: str | None
    """Text of the think block, without the white space around it; None in a mode that does not think."""
    answer: str
    """Text after the think block, without the white space around it; the whole response in a mode that does not think;
    empty when the think block is never closed."""
    answer_start: int
    """Index into `response_ids` of the first token after the think block: 0 when there is none, T when never closed."""
    status: Status
    """How the response ended."""
    policy_version: int
    """Version of the weights that sampled it."""
    cached_tokens: int = 0
    """Prompt tokens that the engine took from its prefix cache."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able copy, from which `from_dict` makes an equal record."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"status": str(self.status)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_dict` was asked of, also when its values have been through JSON."""
        tuples = {name: tuple(values[name]) for name in ("prompt_ids", "response_ids", "logprobs")}
        return cls(**{**values, **tuples, "status": Status(values["status"])})


def request_seed(seed: int, step: int, row_position: int, sample: int) -> int:
    """Seed of one response in [0, 2**31): a stable hash of run seed, step, position of the prompt, and sample."""
    return stable_hash("request", seed, step, row_position, sample, bits=31)
