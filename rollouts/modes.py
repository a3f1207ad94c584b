"""Modes: whether a prompt is answered briefly or after thinking, and which prompt of a step gets which.

The mode is controlled by the prompt (MiniCPM-V 4.5, arXiv 2509.18154, App. A): the prefill of long mode opens a think
block, the prefill of short mode is an empty one. The prefill belongs to the prompt, so it is never trained on.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ModeName = Literal["short", "long", "hybrid"]


class Mode(BaseModel):
    """One way of answering: what is added to the prompt and how many tokens the response may take."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = Field(min_length=1)
    """Name in metrics, rollouts and reports."""
    instruction: str = ""
    """Text appended to the last user message after a blank line; empty = disabled."""
    prefill: str = ""
    """Start of the assistant's turn, written for the model; it belongs to the prompt and is never trained on."""
    max_tokens: int = Field(default=256, ge=1)
    """Response budget in tokens, the end-of-turn token included; the context may leave less."""
    thinks: bool = False
    """Whether a response starts inside a think block, so that it is split into thinking and answer."""
    think_open: str = Field(default="<think>", min_length=1)
    """Tag that opens a think block."""
    think_close: str = Field(default="</think>", min_length=1)
    """Tag that closes a think block; what follows the first one is the answer."""
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the chat template, e.g. {enable_thinking: false} for Qwen3."""

    @model_validator(mode="after")
    def _prefill_agrees_with_thinks(self) -> Mode:
        inside = self.prefill.rfind(self.think_open) > self.prefill.rfind(self.think_close)
        if inside and not self.thinks:
            raise ValueError(
                f"mode {self.name!r} has thinks=false but its prefill {self.prefill!r} leaves a think block open; "
                f"close it with {self.think_close!r} or set thinks=true"
            )
        if self.thinks and self.think_close in self.prefill and not inside:
            raise ValueError(
                f"mode {self.name!r} has thinks=true but its prefill {self.prefill!r} closes the think block; "
                f"end it with {self.think_open!r} or set thinks=false"
            )
        return self


class ShortMode(Mode):
    """Answers at once: an empty think block is pre-filled."""

    name: str = Field(default="short", min_length=1)
    """Name in metrics, rollouts and reports."""
    prefill: str = "<think>\n\n</think>\n\n"
    """Start of the assistant's turn, written for the model; it belongs to the prompt and is never trained on."""


class LongMode(Mode):
    """Thinks first: a think block is opened."""

    name: str = Field(default="long", min_length=1)
    """Name in metrics, rollouts and reports."""
    prefill: str = "<think>\n"
    """Start of the assistant's turn, written for the model; it belongs to the prompt and is never trained on."""
    max_tokens: int = Field(default=1024, ge=1)
    """Response budget in tokens, the end-of-turn token included; the context may leave less."""
    thinks: bool = True
    """Whether a response starts inside a think block, so that it is split into thinking and answer."""


class ModesConfig(BaseModel):
    """Which modes a run trains, and what they are."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    mode: ModeName = "hybrid"
    """short or long: every prompt in this mode; hybrid: each prompt in one of the two."""
    long_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Hybrid only: share of the prompts of a step that are answered in long mode."""
    short: ShortMode = Field(default_factory=ShortMode)
    """The short mode."""
    long: LongMode = Field(default_factory=LongMode)
    """The long mode."""

    @field_validator("short", "long", mode="before")
    @classmethod
    def _accept_any_mode(cls, value: Any) -> Any:
        """Takes a plain `Mode` too, completed with the defaults of its place."""
        return value.model_dump(exclude_unset=True) if type(value) is Mode else value

    @model_validator(mode="after")
    def _names_differ(self) -> ModesConfig:
        if self.short.name == self.long.name:
            raise ValueError(f"both modes are named {self.short.name!r}; give them different names")
        return self

    def active(self) -> tuple[Mode, ...]:
        """Modes that this run can draw, short first."""
        return {"short": (self.short,), "long": (self.long,), "hybrid": (self.short, self.long)}[self.mode]


class ModeSampler:
    """Assigns a mode to every prompt, as a pure function of (seed, step, index).

    Hybrid runs use systematic sampling: with U uniform in [0, 1) drawn per step and s the long share, the prompt at
    position i is long iff floor((i + 1) s + U) > floor(i s + U). So each prompt is long with probability s, and among
    the first n prompts of a step, whatever n, exactly floor(n s) or ceil(n s) are long: the remainder is rounded
    stochastically and without bias. Prompts must be shuffled beforehand, since positions, not contents, decide.

    Example::

        sampler = ModeSampler(ModesConfig(mode="hybrid", long_share=0.5), seed=0)
        [mode.name for mode in sampler.mode_batch(step=3, count=4)]  # ['long', 'short', 'long', 'short']
    """

    _BITS = 32

    def __init__(self, config: ModesConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._share = round(config.long_share * 2**self._BITS)  # fixed point: floor is exact, on every machine

    def mode(self, step: int, index: int) -> Mode:
        """Mode of the prompt at position `index` of step `step`."""
        if self.config.mode != "hybrid":
            return self.config.active()[0]
        phase = stable_hash("mode", self.seed, step, bits=self._BITS)
        before, after = ((i * self._share + phase) >> self._BITS for i in (index, index + 1))
        return self.config.long if after > before else self.config.short

    def mode_batch(self, step: int, count: int) -> list[Mode]:
        """Modes of the first `count` prompts of step `step`."""
        return [self.mode(step, index) for index in range(count)]


def stable_hash(*parts: int | str, bits: int) -> int:
    """Hash of the parts in [0, 2**bits), the same on every machine and in every process; `bits` <= 64."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - bits)
