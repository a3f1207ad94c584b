"""One policy update: packed micro-batches, clipped loss, clipped gradient, optimiser step.

Legend: T response tokens of one batch, G responses of one group.

The learner sees token ids, advantages and log-probs; it knows no reward and no mode. Its gradient does not depend on
how a step is cut into micro-batches, nor on how many processes compute them: every token's weight is fixed from the
whole step before anything is packed (`rl.train_groups`), and gradients are summed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from base_model.packing import PackedBatch, TokenGroup
from rl.losses import policy_loss
from rl.metrics import Metrics, merge, to_floats
from rl.policy_state import PolicyState
from rl.train_groups import (
    BRANCH_PADDING,
    PADDING,
    Inputs,
    MicroBatch,
    Piece,
    Share,
    TrainGroup,
    deal,
    inputs_of,
    kept_tokens,
    pack,
    per_token,
    pieces_of,
    shares_of,
)

__all__ = ["LateAdvantages", "Learner", "TrainGroup"]

LateAdvantages = Callable[[int, list[list[float]]], tuple[float, ...]]
"""(number of the group, log-probs of each of its branches) -> its advantages."""


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """One process's part of an update."""

    loss: float = 0.0
    metrics: Metrics
    norms: list[float]


class Learner(PolicyState):
    """Log-probs and updates of a policy.

    With several processes, those beside process 0 make the same learner and call ``follow``; every other method is for
    process 0, and has its work done by all of them.
    """

    # ---- log-probs ----

    def logprobs(self, groups: Sequence[TokenGroup]) -> Tensor:
        """Log-probs [T] of every response token under the current policy, in training precision, without gradient."""
        pieces = [
            Piece(number=number, group=TrainGroup(tokens=tokens, advantages_G=(), engine_logprobs=()))
            for number, tokens in enumerate(groups)
        ]
        found = self._of_each_group("_logprobs_share", pieces)
        return torch.cat([found[number] for number in range(len(groups))])

    def branch_logprobs(self, groups: Sequence[TrainGroup]) -> list[list[list[float]]]:
        """Log-probs of every branch's tokens under the current policy, per group, in training precision."""
        pieces = [
            Piece(number=number, group=replace(group, tokens=kept_tokens(group), advantages_G=(), engine_logprobs=()))
            for number, group in enumerate(groups)
            if group.branches
        ]
        found = self._of_each_group("_branch_share", pieces)
        return [found.get(number, []) for number in range(len(groups))]

    def _of_each_group(self, work: str, pieces: Sequence[Piece]) -> dict[int, Any]:
        """What a method finds for each piece, on whichever process."""
        shares = shares_of([pieces], self.processes.count, self.config.micro_batch_tokens)
        results = self._everywhere(work, [share.without_media() for share in shares], shares)
        return {number: value for result in results for number, value in result.items()}

    def _logprobs_share(self, share: Share, everyone: Sequence[Share] = ()) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for micro in self._micro_batches(share, 0, everyone):
            if micro is not None:
                lengths = [sum(map(len, piece.group.tokens.responses)) for piece in micro.pieces]
                parts = self._logprobs(micro.batch).cpu().split(lengths)
                found |= {piece.number: own for piece, own in zip(micro.pieces, parts, strict=True)}
        return found

    def _branch_share(self, share: Share, everyone: Sequence[Share] = ()) -> dict[int, list[list[float]]]:
        found: dict[int, list[list[float]]] = {}
        for micro in self._micro_batches(share, 0, everyone, BRANCH_PADDING):
            if micro is not None and micro.branches is not None:
                with self.accelerator.autocast():
                    logprobs = iter(self.packed.branch_logprobs(micro.batch, micro.branches))
                for piece in micro.pieces:
                    found[piece.number] = [next(logprobs).tolist() for _ in piece.group.branches]
        return found

    # ---- updates ----

    def update(self, groups: Sequence[TrainGroup], late: LateAdvantages | None = None) -> dict[str, float]:
        """Run the step's updates on the groups and advance the schedule.

        Groups without signal count in the loss's denominators and are never forwarded. A non-finite gradient refuses
        its update: the weights stay as they were and ``skipped`` counts it.

        Args:
            groups: the step's groups.
            late: gives a group with branches its advantages, once, when their log-probs are known. These are read from
                the forward pass of the update itself where that has the sampling policy's weights (one update per
                step), the whole group, and no other process waits for it; else from a pass of their own before it.

        Returns:
            Loss, gradient norm and ratio metrics, and ``lr`` as it was used.
        """
        if late is not None and not self._reads_branches_in_passing(groups):
            groups, late = self._with_advantages(groups, late), None
        learning_rate = self.scheduler.get_last_lr()[0]
        updates = [
            pieces_of(groups, numbers, self.config)
            for numbers in deal(range(len(groups)), self.config.updates_per_step)
        ]
        shares = shares_of(updates, self.processes.count, self.config.micro_batch_tokens)
        outcomes = self._everywhere("_update_share", [share.without_media() for share in shares], shares, late)
        norms = outcomes[0].norms
        return {
            "loss": sum(outcome.loss for outcome in outcomes),
            "lr": learning_rate,
            "skipped": float(sum(not math.isfinite(norm) for norm in norms)),
            **({"grad_norm": sum(norms) / len(norms)} if norms else {}),
            **to_floats(merge(*(outcome.metrics for outcome in outcomes))),
        }

    def _reads_branches_in_passing(self, groups: Sequence[TrainGroup]) -> bool:
        budget = self.config.micro_batch_tokens
        whole = not budget or all(group.tokens.packed_tokens <= budget for group in groups)
        return self.processes.count == 1 and self.config.updates_per_step == 1 and whole

    def _with_advantages(self, groups: Sequence[TrainGroup], late: LateAdvantages) -> list[TrainGroup]:
        """The groups with branches get their advantages from a pass of its own."""
        waiting = [number for number, group in enumerate(groups) if group.branches]
        known = dict(zip(waiting, self.branch_logprobs([groups[number] for number in waiting]), strict=True))
        return [
            replace(group, advantages_G=late(number, known[number]), branches=()) if number in known else group
            for number, group in enumerate(groups)
        ]

    def _update_share(
        self, share: Share, everyone: Sequence[Share] = (), late: LateAdvantages | None = None
    ) -> _Outcome:
        """One process's part of a step's updates; ``everyone`` are the shares of all, on process 0."""
        if not self.processes.leads:  # dropout of its own, the same whenever the step is made
            torch.manual_seed(share.seed + self.processes.rank)
        several = range(len(share.updates))
        old = [self._old_logprobs(share, update, everyone) for update in several] if len(several) > 1 else None
        outcome = _Outcome(metrics={}, norms=[])
        for update in several:
            trained = False
            for at, micro in enumerate(self._micro_batches(share, update, everyone)):
                trained |= micro is None or self._accumulate(
                    micro, None if old is None else old[update][at], outcome, late
                )
            if trained:
                outcome.norms.append(self._optimizer_step())
        with warnings.catch_warnings():  # a step in which no group had signal moves the schedule all the same
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            self.scheduler.step()
        return outcome

    def _micro_batches(
        self, share: Share, update: int, everyone: Sequence[Share], padding: Piece = PADDING
    ) -> Iterator[MicroBatch | None]:
        """This process's forward passes of an update; None where others have one more.

        Media come along pass by pass, from process 0, which has them: those of all passes would take too much memory.
        """
        for at, pieces in enumerate(share.updates[update]):
            inputs: Sequence[Inputs] = [None] * len(pieces)
            if share.has_media:
                inputs = self.processes.scatter([inputs_of(other.updates[update][at]) for other in everyone] or None)
            if pieces:
                yield pack(pieces, inputs, self.device)
            else:
                yield pack([padding], [None], self.device) if self.parallel.even else None

    def _old_logprobs(self, share: Share, update: int, everyone: Sequence[Share]) -> list[Tensor | None]:
        micro_batches = self._micro_batches(share, update, everyone)
        return [None if micro is None else self._logprobs(micro.batch) for micro in micro_batches]

    def _logprobs(self, batch: PackedBatch) -> Tensor:
        with self.accelerator.autocast():
            return self.packed.logprobs(batch)

    def _accumulate(
        self, micro: MicroBatch, old_T: Tensor | None, outcome: _Outcome, late: LateAdvantages | None
    ) -> bool:
        """Forward and backward of one micro-batch; its loss is already divided by the step's denominators. False where
        its late advantages turn out to be zero.
        """
        metrics: list[Metrics] = []
        token_loss = partial(self._token_loss, micro, old_T, metrics)
        waiting = () if micro.branches is None else (micro.branches, partial(self._fill_advantages, micro, late))
        loss, _ = self._forward(micro.batch, token_loss, *waiting)
        if micro.counts:
            outcome.metrics = merge(outcome.metrics, *metrics)
        if not loss.requires_grad:
            return False
        self.accelerator.backward(loss)
        outcome.loss += float(loss.detach())
        return True

    def _fill_advantages(self, micro: MicroBatch, late: LateAdvantages | None, logprobs: list[Tensor]) -> bool:
        """Ask for the advantages of the groups with branches; returns whether any advantage is not zero."""
        assert late is not None, "a group waits for its branches and nobody can tell its advantages"
        found = iter(logprobs)
        advantages = []
        for piece in micro.pieces:
            own = [next(found).tolist() for _ in piece.group.branches]
            advantages.append(late(piece.number, own) if own else piece.group.advantages_G)
        micro.advantages_T.copy_(per_token([piece.group for piece in micro.pieces], advantages))
        return bool(micro.advantages_T.any())

    def _token_loss(
        self, micro: MicroBatch, old_T: Tensor | None, metrics: list[Metrics], logprobs_C: Tensor, span: slice
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
        """Clip and update; every process does the same, or the same to its part. Returns the norm before clipping."""
        self.parallel.collect_gradients()
        norm = self.parallel.clip(self.config.max_grad_norm)
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.parallel.clear_gradients()
        return norm
