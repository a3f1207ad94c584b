"""Settings of preference learning (DPO); free of torch, so that a command line can list them at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rl.config import Schedule


class PreferenceLearnerConfig(BaseModel):
    """How the policy learns from pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference; with length_normalised, larger by about a response's tokens."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of pairs whose sides are confused (conservative DPO)."""
    length_normalised: bool = False
    """Divide each side's log-ratio by its tokens, in the loss and in the reported rewards."""
    sft_weight: float = Field(0.0, ge=0)
    """Weight of the mean negative log-likelihood per token of the chosen sides (TRL's rpo_alpha); 0 = off."""
    learning_rate: float = Field(5e-7, gt=0)
    """Peak learning rate of AdamW. RLAIF-V: 5e-7 for all weights, 1e-5 for adapters; MiniCPM-V 4.5: 1e-6."""
    lr_scheduler: Schedule = "cosine"
    """Schedule of transformers."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps over which the learning rate rises from 0; null = 5 % of the run."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first moment decay."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second moment decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 = off."""
    micro_batch_tokens: int = Field(16384, ge=0)
    """Packed tokens of one forward pass, the unit of gradient accumulation; 0 = the whole batch at once."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision over fp32 weights; auto = bf16 where the machine multiplies it in hardware."""


class PreferenceTrainerConfig(BaseModel):
    """The loop over the pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs. RLAIF-V: 4 in each round."""
    steps: int | None = Field(None, ge=1)
    """Training steps in place of epochs; null = by epochs."""
    batch_pairs: int = Field(32, ge=1)
    """Pairs per step. MiniCPM-V 4.5: 256."""
    save_every: int = Field(0, ge=0)
    """Steps between checkpoints; 0 = only at the end."""
    keep_last: int = Field(2, ge=0)
    """Checkpoints kept; 0 = all."""
    eval_every: int = Field(0, ge=0)
    """Steps between evaluations on held-out pairs; 0 = only before the first step and at the end."""

    def total_steps(self, pairs: int) -> int:
        """Steps of the run over so many pairs."""
        import math

        return self.steps or max(1, math.ceil(self.epochs * pairs / self.batch_pairs))
