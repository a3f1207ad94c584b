"""Settings of the benchmark, and the job that each child gets; free of torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recipes.models import SMOLLM2

CONTEXT = 2048
"""Longest prompt plus response of either engine, in tokens, unless the model takes less: Tandem's default."""


class Shape(BaseModel):
    """How long the texts of a step are."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    prompt: int = Field(ge=1)
    """Tokens of every prompt."""
    response: int = Field(ge=1)
    """Tokens of every response; the end of the turn is ignored."""


class BenchmarkConfig(BaseModel):
    """What is compared, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    peer: Literal["trl", "verl", "probability", "repeated", "none"] = "trl"
    """What to compare with: a library; Tandem itself with the probability reward added (what that costs), or with the
    prompt and its images computed once per response (what sharing them saves); none."""
    model: str = SMOLLM2
    """Checkpoint folder, name on the Hugging Face hub, or `smollm2-135m-instruct`."""
    shapes: list[Shape] = Field([Shape(prompt=67, response=64), Shape(prompt=300, response=24)], min_length=1)
    """Lengths to measure, one after the other, each in fresh processes."""
    images: int = Field(0, ge=0)
    """Images of every prompt, beside its text; 0 = none. They need a vision-language model, and peer repeated or
    none."""
    image_side: int = Field(448, ge=14)
    """Width and height of an image, in pixels."""
    prompts: int = Field(4, ge=1)
    """Prompts per step."""
    group_size: int = Field(8, ge=2)
    """Responses per prompt."""
    steps: int = Field(6, ge=1)
    """Counted steps of each library and shape."""
    warmup: int = Field(1, ge=1)
    """Steps before those, not counted."""
    threads: int = Field(0, ge=0)
    """Threads of every process; 0 = as many as there are usable cores."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision of training on both sides, over fp32 weights; auto = bf16 where the machine multiplies it in
    hardware.
    """
    reference_tokens: int = Field(10, ge=1)
    """Tokens of every reference answer, for --peer probability."""
    enforce_eager: bool = True
    """Whether vLLM compiles nothing, on both sides. Compiling takes a minute at the start and needs g++."""
    peer_micro_batch: int = Field(4, ge=1)
    """Most responses per forward pass of the peer (one that divides a step's is taken); larger ones were slower."""
    profile: bool = False
    """Look at Tandem alone, phase by phase: time, tokens, arithmetic, memory traffic, and the share of what the machine
    can do. No other library runs; peer probability or repeated says which step is looked at."""
    save_every: int = Field(50, ge=1)
    """With --profile: steps over which the time of one checkpoint is spread."""
    plot_path: Path | None = None
    """With --profile: PNG file for a chart of the phases; null = none."""
    json_path: Path | None = None
    """File for the figures; null = only the table."""
    timeout_s: float = Field(900.0, gt=0)
    """Longest silence of a child, in seconds, before the benchmark gives up."""

    @model_validator(mode="after")
    def _images_need_tandem(self) -> Self:
        if self.images and not self.profile and self.peer not in ("repeated", "none"):
            raise ValueError(
                f"images is {self.images} and peer {self.peer!r}, which is measured on text alone: set peer to "
                "repeated or none"
            )
        return self

    @model_validator(mode="after")
    def _plot_needs_profile(self) -> Self:
        if self.plot_path is not None and not self.profile:
            raise ValueError(f"plot_path is {self.plot_path}, and only a profile is drawn: add --profile")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one child is to do; it travels as JSON."""

    model: str
    prompt: int
    response: int
    prompts: int
    group_size: int
    total_steps: int
    threads: int
    max_model_len: int
    precision: Literal["auto", "bfloat16", "float32"]
    enforce_eager: bool
    peer_micro_batch: int
    reference_tokens: int
    images: int = 0
    image_side: int = 448
    profile: bool = False
    work_dir: str
    """A folder that the parent removes afterwards."""

    @property
    def batch(self) -> int:
        """Responses of a step."""
        return self.prompts * self.group_size

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job in a message of the parent."""
        return cls(**json.loads(text))


def context_length(model: Path, shapes: list[Shape]) -> int:
    """Context of both engines.

    Raises:
        ValueError: A shape does not fit the model.
    """
    config = json.loads((model / "config.json").read_text())
    text = config.get("text_config") or {}
    limit = config.get("max_position_embeddings") or text.get("max_position_embeddings") or CONTEXT
    for shape in shapes:
        if shape.prompt + shape.response > limit:
            raise ValueError(
                f"shapes: prompt {shape.prompt} and response {shape.response} are {shape.prompt + shape.response} "
                f"tokens, but the model {model.name} takes {limit}: choose shorter texts or another model."
            )
    longest = max(shape.prompt + shape.response for shape in shapes)
    return min(limit, max(CONTEXT, longest + 1))
