"""Settings of learner and trainer; free of torch, so that a command line can list them at once."""

from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rl.filtering import StdFilterConfig

Aggregation: TypeAlias = Literal["token-mean", "sequence-mean", "constant"]
Schedule: TypeAlias = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]
Scale: TypeAlias = Literal["group", "batch", "none"]


class LearnerConfig(BaseModel):
    """How the policy is updated."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    learning_rate: float = Field(1e-6, gt=0, allow_inf_nan=False)
    """Peak learning rate of AdamW."""
    lr_scheduler: Schedule = "constant"
    """Schedule of transformers."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first moment decay."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second moment decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 = off."""
    updates_per_step: int = Field(1, ge=1)
    """Optimiser steps per batch of rollouts; 1 is on-policy, RLPR uses 4."""
    micro_batch_tokens: int = Field(16384, ge=0)
    """Packed tokens of one forward pass, the unit of gradient accumulation; 0 = the whole batch at once."""
    clip_low: float = Field(0.2, ge=0)
    """The probability ratio is clipped at 1 - clip_low."""
    clip_high: float = Field(0.27, ge=0)
    """The probability ratio is clipped at 1 + clip_high (RLPR's clip-higher)."""
    aggregation: Aggregation = "token-mean"
    """Every token counts the same (token-mean), every response (sequence-mean), or a fixed length divides
    (constant).
    """
    constant_length: int | None = None
    """Divisor in tokens of aggregation: constant."""
    importance_cap: float | None = Field(None, gt=0)
    """Truncated importance correction between engine and trainer: the weight's upper bound; null = off."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision over fp32 weights; auto = bf16 where the machine multiplies it in hardware."""

    @model_validator(mode="after")
    def _constant_needs_its_length(self) -> Self:
        if self.aggregation == "constant" and self.constant_length is None:
            raise ValueError("aggregation constant divides by a fixed length: set constant_length, in tokens")
        return self


class ReferenceConfig(BaseModel):
    """Probabilities of reference answers, for rewards that ask for them (RLPR, arXiv 2506.18254, section 3.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    baseline: Literal["initial", "current", "none"] = "initial"
    """Policy that r' is taken from, the probability of the reference without any reasoning: the one that the run
    started from, the current one, or none is subtracted.
    """
    answer_open: str = ""
    """Text that opens the answer in a response, such as <answer>; empty = all that follows the think block. Without it
    the responses of short mode share one probability, since nothing comes before their answer.
    """


class ParallelConfig(BaseModel):
    """How several training processes share the work; as many as torchrun or accelerate launch start."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["ddp", "fsdp"] = "ddp"
    """ddp = every process holds the whole model; fsdp = the language model's weights, gradients and optimiser state are
    divided (FSDP2), for models that one GPU cannot train. Without effect in one process.
    """


class TrainerConfig(BaseModel):
    """The loop's own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    steps: int = Field(100, ge=1)
    """Training steps."""
    prompts_per_step: int = Field(8, ge=1)
    """Prompts (groups) per step."""
    staleness: int = Field(0, ge=0)
    """Updates that the policy may be ahead of the one that sampled: 0 = generate, then train; 1 = the next step's
    responses are generated while a step is trained, and the loss is corrected (learner.importance_cap, then 2 unless it
    is set).
    """
    scale_rewards: Scale = "group"
    """Advantages are divided by the group's standard deviation, the batch's, or nothing (none)."""
    filter: StdFilterConfig | None = None
    """RLPR's dynamic sampling: prompts whose rewards spread too little are replaced by new ones; null = off."""
    reference: ReferenceConfig = ReferenceConfig()
    """How the policy's probabilities of reference answers are taken, where a reward asks for them."""
    parallel: ParallelConfig = ParallelConfig()
    """Several training processes."""
    save_every: int = Field(50, ge=0)
    """Steps between checkpoints; 0 = only at the end."""
    keep_last: int = Field(2, ge=0)
    """Checkpoints kept; 0 = all."""
    eval_every: int = Field(0, ge=0)
    """Steps between evaluations on held-out rows; 0 = only where the recipe asks."""
    max_logprob_gap: float = Field(0.15, gt=0)
    """Training refuses to start when engine and trainer differ by more than this on average, in nats per token."""
    check_prompts: int = Field(4, ge=1)
    """Prompts used for that check."""

    @model_validator(mode="after")
    def _one_step_ahead_at_most(self) -> Self:
        if self.staleness > 1:
            raise ValueError(
                f"staleness is {self.staleness}, but responses are generated at most one step ahead: set it to 1, or "
                "to 0 to generate with the newest weights"
            )
        if self.staleness and self.filter is not None:
            raise ValueError(
                "staleness is 1 and filter is set, but which prompts a filtered step needs is known only when its "
                "responses are scored: set staleness to 0, or leave the filter out"
            )
        return self
