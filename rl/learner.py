"""One policy update: packed micro-batches, clipped loss, clipped gradient, optimiser step.

Legend: T response tokens of one batch, G responses of one group.

The learner sees token ids, advantages and log-probs; it knows no reward and no mode. Its gradient does not depend on
how a step is cut into micro-batches: every token's weight is fixed from the whole step before anything is packed.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.branches import Branch, BranchBatch, pack_branches
from base_model.packed_lm import PackedCausalLM, compute_dtype, merged_weights
from base_model.packing import PackedBatch, TokenGroup, pack_groups, split_by_tokens
from rl.config import LearnerConfig
from rl.losses import policy_loss, token_weights
from rl.metrics import Metrics, merge, to_floats

LateAdvantages = Callable[[int, list[list[float]]], tuple[float, ...]]
"""(number of the group, log-probs of each of its branches) -> its advantages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainGroup:
    """What the learner needs of one group.

    A group with branches has no advantages yet: its rewards wait for the branches' log-probs, which the learner reads
    from the same forward pass that it trains on.

    Example:
        ``TrainGroup(tokens=TokenGroup(prompt=[5, 6], responses=[[7, 8], [9]]), advantages_G=(1.0, -1.0),
        engine_logprobs=((-0.1, -0.7), (-0.3,)))``
    """

    tokens: TokenGroup
    advantages_G: tuple[float, ...]
    engine_logprobs: tuple[tuple[float, ...], ...]  # log-probs the engine sampled each token with
    branches: tuple[Branch, ...] = ()
    media: Callable[[], Mapping[str, Any]] | None = None
    """Gives the prompt's ``TokenGroup.inputs`` when its micro-batch is computed: pixels take too much memory to have
    those of all groups at hand."""

    @property
    def has_signal(self) -> bool:
        """Whether the group changes the gradient at all, as far as that is known yet."""
        return any(self.advantages_G) or bool(self.branches)

    def part(self, span: slice) -> "TrainGroup":
        """The same prompt with some of the responses."""
        return TrainGroup(
            tokens=replace(self.tokens, responses=self.tokens.responses[span]),
            advantages_G=self.advantages_G[span],
            engine_logprobs=self.engine_logprobs[span],
            branches=self.branches if span == slice(None) else (),
            media=self.media,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """A group, or some of its responses where it exceeds the budget alone."""

    number: int  # of the group in the step
    group: TrainGroup
    weights: Sequence[Tensor]  # one tensor per response


@dataclass(frozen=True, kw_only=True, slots=True)
class _MicroBatch:
    batch: PackedBatch
    advantages_T: Tensor
    weights_T: Tensor
    engine_T: Tensor
    pieces: tuple[_Piece, ...]
    branches: BranchBatch | None


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

    def branch_logprobs(self, groups: Sequence[TrainGroup]) -> list[list[list[float]]]:
        """Log-probs of every branch's tokens under the current policy, per group, in training precision."""
        kept = [_kept_tokens(group) for group in groups]
        found: list[list[list[float]]] = []
        for part in split_by_tokens([tokens.packed_tokens for tokens in kept], self.config.micro_batch_tokens):
            tokens, branches = [kept[i] for i in part], [groups[i].branches for i in part]
            packed = pack_branches(tokens, branches)
            if packed is None:
                found.extend([] for _ in part)
                continue
            with self.accelerator.autocast():
                batch = pack_groups(_with_media(tokens, [groups[i] for i in part])).to(self.device)
                logprobs = iter(self.packed.branch_logprobs(batch, packed.to(self.device)))
            found.extend([next(logprobs).tolist() for _ in own] for own in branches)
        return found

    def update(self, groups: Sequence[TrainGroup], late: LateAdvantages | None = None) -> dict[str, float]:
        """Run the step's updates on the groups and advance the schedule.

        Groups without signal count in the loss's denominators and are never forwarded. A non-finite gradient refuses
        its update: the weights stay as they were and ``skipped`` counts it.

        Args:
            groups: the step's groups.
            late: gives a group with branches its advantages, once, when their log-probs are known. These are read from
                the forward pass of the update itself where that has the sampling policy's weights (one update per step)
                and the whole group, else from a pass of their own before it.

        Returns:
            Loss, gradient norm and ratio metrics, and ``lr`` as it was used.
        """
        if late is not None and not self._reads_branches_in_passing(groups):
            groups, late = self._with_advantages(groups, late), None
        learning_rate = self.scheduler.get_last_lr()[0]
        numbers = _deal(range(len(groups)), self.config.updates_per_step)
        batches = [self._micro_batches(groups, part) for part in numbers]
        old = [self._old_logprobs(pieces) for pieces in batches] if self.config.updates_per_step > 1 else None
        metrics: list[Metrics] = []
        norms: list[float] = []
        skipped, loss = 0, 0.0
        for index, micro_batches in enumerate(batches):
            trained = 0
            for at, pieces in enumerate(micro_batches):
                micro = self._micro_batch(pieces)
                part_loss = self._accumulate(micro, None if old is None else old[index][at], metrics, late)
                if part_loss is not None:
                    loss += part_loss
                    trained += 1
            if not trained:
                continue
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

    def _reads_branches_in_passing(self, groups: Sequence[TrainGroup]) -> bool:
        budget = self.config.micro_batch_tokens
        whole = not budget or all(group.tokens.packed_tokens <= budget for group in groups)
        return self.config.updates_per_step == 1 and whole

    def _with_advantages(self, groups: Sequence[TrainGroup], late: LateAdvantages) -> list[TrainGroup]:
        """The groups with branches get their advantages from a pass of its own."""
        waiting = [number for number, group in enumerate(groups) if group.branches]
        known = dict(zip(waiting, self.branch_logprobs([groups[number] for number in waiting]), strict=True))
        return [
            replace(group, advantages_G=late(number, known[number]), branches=()) if number in known else group
            for number, group in enumerate(groups)
        ]

    def _micro_batches(self, all_groups: Sequence[TrainGroup], numbers: Sequence[int]) -> list[list[_Piece]]:
        """Cut the trainable groups to the token budget; weights come from all of the update's groups."""
        groups = [all_groups[number] for number in numbers]
        lengths = [len(r) for g in groups for r in g.tokens.responses]
        weights = token_weights(
            lengths, aggregation=self.config.aggregation, constant_length=self.config.constant_length
        ).split(lengths)
        budget = self.config.micro_batch_tokens
        pieces: list[_Piece] = []
        at = 0
        for number, group in zip(numbers, groups, strict=True):
            count = len(group.tokens.responses)
            if group.has_signal:
                own = weights[at : at + count]
                pieces.extend(
                    _Piece(number=number, group=group.part(span), weights=own[span])
                    for span in _response_spans(group.tokens, budget)
                )
            at += count
        spans = split_by_tokens([piece.group.tokens.packed_tokens for piece in pieces], budget)
        return [[pieces[i] for i in span] for span in spans]

    def _micro_batch(self, pieces: Sequence[_Piece]) -> _MicroBatch:
        groups = [piece.group for piece in pieces]
        branches = pack_branches([group.tokens for group in groups], [group.branches for group in groups])
        engine = [p for group in groups for response in group.engine_logprobs for p in response]
        return _MicroBatch(
            batch=pack_groups(_with_media([group.tokens for group in groups], groups)).to(self.device),
            advantages_T=_per_token(groups, [group.advantages_G for group in groups]).to(self.device),
            weights_T=torch.cat([w for piece in pieces for w in piece.weights]).to(self.device),
            engine_T=torch.tensor(engine).to(self.device),
            pieces=tuple(pieces),
            branches=None if branches is None else branches.to(self.device),
        )

    def _old_logprobs(self, micro_batches: Iterable[Sequence[_Piece]]) -> list[Tensor]:
        return [self._logprobs(self._micro_batch(pieces).batch) for pieces in micro_batches]

    def _logprobs(self, batch: PackedBatch) -> Tensor:
        with self.accelerator.autocast():
            return self.packed.logprobs(batch)

    def _accumulate(
        self, micro: _MicroBatch, old_T: Tensor | None, metrics: list[Metrics], late: LateAdvantages | None
    ) -> float | None:
        """Forward and backward of one micro-batch; its loss is already divided by the step's denominators. None where
        its late advantages turn out to be zero.
        """
        token_loss = partial(self._token_loss, micro, old_T, metrics)
        waiting = () if micro.branches is None else (micro.branches, partial(self._fill_advantages, micro, late))
        loss, _ = self._forward(micro.batch, token_loss, *waiting)
        if not loss.requires_grad:
            return None
        self.accelerator.backward(loss)
        return float(loss.detach())

    def _fill_advantages(self, micro: _MicroBatch, late: LateAdvantages | None, logprobs: list[Tensor]) -> bool:
        """Ask for the advantages of the groups with branches; returns whether any advantage is not zero."""
        assert late is not None, "a group waits for its branches and nobody can tell its advantages"
        found = iter(logprobs)
        advantages = []
        for piece in micro.pieces:
            own = [next(found).tolist() for _ in piece.group.branches]
            advantages.append(late(piece.number, own) if own else piece.group.advantages_G)
        micro.advantages_T.copy_(_per_token([piece.group for piece in micro.pieces], advantages))
        return bool(micro.advantages_T.any())

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


def _per_token(groups: Sequence[TrainGroup], advantages: Sequence[Sequence[float]]) -> Tensor:
    """[T] the advantage of each response, once per token; 0 for a group that does not know its advantages yet."""
    values = [
        a for group, own in zip(groups, advantages, strict=True) for a in own or [0.0] * len(group.tokens.responses)
    ]
    lengths = [len(ids) for group in groups for ids in group.tokens.responses]
    return torch.tensor(values).repeat_interleave(torch.tensor(lengths))


def _with_media(tokens: Sequence[TokenGroup], groups: Sequence[TrainGroup]) -> list[TokenGroup]:
    """The groups' tokens with what the model reads of their images and videos."""
    return [
        own if group.media is None else replace(own, inputs=group.media())
        for own, group in zip(tokens, groups, strict=True)
    ]


def _kept_tokens(group: TrainGroup) -> TokenGroup:
    """The group with its responses cut to what the branches need of them."""
    needed = [0] * len(group.tokens.responses)
    for branch in group.branches:
        if branch.keep:
            needed[branch.response] = max(needed[branch.response], branch.keep)
    return replace(group.tokens, responses=[r[:n] for r, n in zip(group.tokens.responses, needed, strict=True)])


def _deal(groups: Sequence[int], parts: int) -> list[Sequence[int]]:
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
