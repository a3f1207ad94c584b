"""One policy update: packed micro-batches, clipped loss, clipped gradient, optimiser step.

Legend: T response tokens of one batch, G responses of one group.

The learner sees token ids, advantages and log-probs; it knows no reward and no mode. Its gradient does not depend on
how a step is cut into micro-batches: every token's weight is fixed from the whole step before anything is packed.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.packed_lm import PackedCausalLM, compute_dtype, merged_weights
from base_model.packing import PackedBatch, TokenGroup, pack_groups, split_by_tokens
from rl.config import LearnerConfig
from rl.losses import policy_loss, token_weights
from rl.metrics import Metrics, merge, to_floats


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainGroup:
    """What the learner needs of one group.

    Example:
        ``TrainGroup(tokens=TokenGroup(prompt=[5, 6], responses=[[7, 8], [9]]), advantages_G=(1.0, -1.0),
        engine_logprobs=((-0.1, -0.7), (-0.3,)))``
    """

    tokens: TokenGroup
    advantages_G: tuple[float, ...]
    engine_logprobs: tuple[tuple[float, ...], ...]  # log-probs the engine sampled each token with

    @property
    def has_signal(self) -> bool:
        """Whether the group changes the gradient at all."""
        return any(self.advantages_G)

    def part(self, span: slice) -> "TrainGroup":
        """The same prompt with some of the responses."""
        return TrainGroup(
            tokens=replace(self.tokens, responses=self.tokens.responses[span]),
            advantages_G=self.advantages_G[span],
            engine_logprobs=self.engine_logprobs[span],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _MicroBatch:
    batch: PackedBatch
    advantages_T: Tensor
    weights_T: Tensor
    engine_T: Tensor


class Learner:
    """Model, optimiser and schedule, behind ``update``."""

    def __init__(self, packed: PackedCausalLM, config: LearnerConfig, *, total_steps: int) -> None:
        from transformers import get_scheduler

        self.config = config
        self.dtype = compute_dtype(config.precision)
        mixed = "bf16" if self.dtype is torch.bfloat16 else "no"
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        if self.accelerator.num_processes > 1:
            raise ValueError(
                f"training was launched in {self.accelerator.num_processes} processes, but this trainer runs in one; "
                "start the recipe with python -m, without accelerate launch or torchrun"
            )
        trainable = [p for p in packed.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scheduler = get_scheduler(
            config.lr_scheduler,
            optimizer,
            num_warmup_steps=config.warmup_steps,
            num_training_steps=total_steps,
        )
        self.packed = packed
        self.optimizer = optimizer
        self._forward = self.accelerator.prepare(packed)

    @property
    def model(self) -> Any:
        """The transformers (or peft) model under training."""
        return self.packed.model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.accelerator.device

    def weights(self) -> dict[str, Tensor]:
        """The plain model's current weights, adapters folded in, for the engine."""
        return merged_weights(self.model)

    def logprobs(self, groups: Sequence[TokenGroup]) -> Tensor:
        """Log-probs [T] of every response token under the current policy, in training precision, without gradient."""
        parts = []
        for part in split_by_tokens([g.packed_tokens for g in groups], self.config.micro_batch_tokens):
            batch = pack_groups([groups[i] for i in part]).to(self.device)
            parts.append(self._logprobs(batch))
        return torch.cat(parts).cpu()

    def update(self, groups: Sequence[TrainGroup]) -> dict[str, float]:
        """Run the step's updates on the groups and advance the schedule.

        Groups without signal count in the loss's denominators and are never forwarded. A non-finite gradient refuses
        its update: the weights stay as they were and ``skipped`` counts it.

        Returns:
            Loss, gradient norm and ratio metrics, and ``lr`` as it was used.
        """
        learning_rate = self.scheduler.get_last_lr()[0]
        batches = [self._micro_batches(part) for part in _deal(groups, self.config.updates_per_step)]
        old = [self._old_logprobs(micro) for micro in batches] if self.config.updates_per_step > 1 else None
        metrics: list[Metrics] = []
        norms: list[float] = []
        skipped, loss = 0, 0.0
        for index, micro_batches in enumerate(batches):
            if not micro_batches:
                continue
            for at, micro in enumerate(micro_batches):
                loss += self._accumulate(micro, None if old is None else old[index][at], metrics)
            norm = self._optimizer_step()
            norms.append(norm)
            skipped += not math.isfinite(norm)
        with warnings.catch_warnings():  # a step in which no group had signal moves the schedule all the same
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            self.scheduler.step()
        return {
            "loss": loss,
            "lr": learning_rate,
            "skipped": float(skipped),
            **({"grad_norm": sum(norms) / len(norms)} if norms else {}),
            **to_floats(merge(*metrics)),
        }

    def _micro_batches(self, groups: Sequence[TrainGroup]) -> list[_MicroBatch]:
        """Cut the trainable groups to the token budget; weights come from all of the groups."""
        lengths = [len(r) for g in groups for r in g.tokens.responses]
        weights = token_weights(
            lengths, aggregation=self.config.aggregation, constant_length=self.config.constant_length
        ).split(lengths)
        budget = self.config.micro_batch_tokens
        pieces: list[tuple[TrainGroup, Sequence[Tensor]]] = []
        at = 0
        for group in groups:
            count = len(group.tokens.responses)
            if group.has_signal:
                own = weights[at : at + count]
                pieces.extend((group.part(span), own[span]) for span in _response_spans(group.tokens, budget))
            at += count
        spans = split_by_tokens([piece.tokens.packed_tokens for piece, _ in pieces], budget)
        return [self._micro_batch([pieces[i] for i in span]) for span in spans]

    def _micro_batch(self, pieces: Sequence[tuple[TrainGroup, Sequence[Tensor]]]) -> _MicroBatch:
        responses = [
            (advantage, len(ids))
            for group, _ in pieces
            for advantage, ids in zip(group.advantages_G, group.tokens.responses, strict=True)
        ]
        advantages = torch.tensor([a for a, _ in responses]).repeat_interleave(torch.tensor([n for _, n in responses]))
        engine = [p for group, _ in pieces for response in group.engine_logprobs for p in response]
        return _MicroBatch(
            batch=pack_groups([group.tokens for group, _ in pieces]).to(self.device),
            advantages_T=advantages.to(self.device),
            weights_T=torch.cat([w for _, weights in pieces for w in weights]).to(self.device),
            engine_T=torch.tensor(engine).to(self.device),
        )

    def _old_logprobs(self, micro_batches: Sequence[_MicroBatch]) -> list[Tensor]:
        return [self._logprobs(micro.batch) for micro in micro_batches]

    def _logprobs(self, batch: PackedBatch) -> Tensor:
        with self.accelerator.autocast():
            return self.packed.logprobs(batch)

    def _accumulate(self, micro: _MicroBatch, old_T: Tensor | None, metrics: list[Metrics]) -> float:
        """Forward and backward of one micro-batch; its loss is already divided by the step's denominators."""
        loss, _ = self._forward(micro.batch, partial(self._token_loss, micro, old_T, metrics))
        self.accelerator.backward(loss)
        return float(loss.detach())

    def _token_loss(
        self, micro: _MicroBatch, old_T: Tensor | None, metrics: list[Metrics], logprobs_C: Tensor, span: slice
    ) -> Tensor:
        loss, chunk_metrics = policy_loss(
            logprobs_C,
            None if old_T is None else old_T[span],
            micro.advantages_T[span],
            micro.weights_T[span],
            clip_low=self.config.clip_low,
            clip_high=self.config.clip_high,
            engine_logprobs_T=micro.engine_T[span],
            importance_cap=self.config.importance_cap,
        )
        metrics.append(chunk_metrics)
        return loss

    def _optimizer_step(self) -> float:
        limit = self.config.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.packed.parameters(), limit))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def _deal(groups: Sequence[TrainGroup], parts: int) -> list[Sequence[TrainGroup]]:
    """The groups in ``parts`` runs of near equal size, in order; empty runs are left out."""
    size = math.ceil(len(groups) / parts) if groups else 1
    return [groups[at : at + size] for at in range(0, len(groups), size)]


def _response_spans(tokens: TokenGroup, budget: int) -> list[slice]:
    """Slices of a group's responses that fit the budget together with their prompt (which each slice then repeats)."""
    room = budget - len(tokens.prompt)
    if not budget or tokens.packed_tokens <= budget:
        return [slice(None)]
    parts = split_by_tokens([len(r) for r in tokens.responses], max(room, 1))
    return [slice(part.start, part.stop) for part in parts]
