"""What one update trains on: groups, cut into pieces that fit a token budget, packed into micro-batches.

Every token's weight in the loss is fixed from the whole step before anything is cut, so pieces may be packed in any
order and computed by any process: their gradients add up to the step's.

Legend: T response tokens of one batch, G responses of one group.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from base_model.branches import Branch, BranchBatch, pack_branches
from base_model.packing import PackedBatch, TokenGroup, divide_by_tokens, pack_groups, split_by_tokens
from rl.config import LearnerConfig
from rl.losses import token_weights

Inputs = Mapping[str, Any] | None
"""``TokenGroup.inputs``: what the model reads of a prompt's images and videos."""


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
class Piece:
    """A group, or some of its responses where it exceeds the budget alone."""

    number: int  # of the group in the step
    group: TrainGroup
    weights: Sequence[Tensor] = ()  # one tensor per response

    def without_media(self) -> "Piece":
        """As it is sent to another process, which gets the pixels when it needs them."""
        return self if self.group.media is None else replace(self, group=replace(self.group, media=None))


PADDING = Piece(
    number=-1,
    group=TrainGroup(tokens=TokenGroup(prompt=[0], responses=[[0]]), advantages_G=(0.0,), engine_logprobs=((0.0,),)),
    weights=(torch.zeros(1),),
)
"""Two tokens without weight, for a process that has no micro-batch left while others have: its gradient is zero."""
BRANCH_PADDING = replace(PADDING, group=replace(PADDING.group, branches=(Branch(tokens=(0,)),)))
"""The same for passes that read branches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One process's part of a step."""

    updates: list[list[list[Piece]]]
    """Its micro-batches of every update, as many as every other process has: those at the end may be empty."""
    seed: int
    """Of dropout: the step's."""
    has_media: bool
    """Whether any process's part has images or videos."""

    def without_media(self) -> "Share":
        """As it is sent to another process."""
        updates = [[[piece.without_media() for piece in micro] for micro in update] for update in self.updates]
        return replace(self, updates=updates)


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Tensors of one forward pass."""

    batch: PackedBatch
    advantages_T: Tensor
    weights_T: Tensor
    engine_T: Tensor
    pieces: tuple[Piece, ...]
    branches: BranchBatch | None

    @property
    def counts(self) -> bool:
        """Whether it is part of the step, and not padding."""
        return self.pieces[0].number >= 0


def shares_of(updates: Sequence[Sequence[Piece]], processes: int, budget: int) -> list[Share]:
    """Divide the pieces of every update among processes, balanced by tokens, each part cut to the budget.

    Args:
        updates: the pieces of every update.
        processes: how many share the work.
        budget: packed tokens of one micro-batch; 0 = no bound.
    """
    divided = [_micro_batches(pieces, processes, budget) for pieces in updates]
    has_media = any(piece.group.media is not None for pieces in updates for piece in pieces)
    seed = torch.initial_seed()
    return [
        Share(updates=[update[process] for update in divided], seed=seed, has_media=has_media)
        for process in range(processes)
    ]


def _micro_batches(pieces: Sequence[Piece], processes: int, budget: int) -> list[list[list[Piece]]]:
    sizes = [piece.group.tokens.packed_tokens for piece in pieces]
    parts = []
    for own in divide_by_tokens(sizes, processes):
        spans = split_by_tokens([sizes[i] for i in own], budget)
        parts.append([[pieces[own[at]] for at in span] for span in spans])
    longest = max(map(len, parts))
    return [part + [[] for _ in range(longest - len(part))] for part in parts]


def pieces_of(groups: Sequence[TrainGroup], numbers: Sequence[int], config: LearnerConfig) -> list[Piece]:
    """The trainable groups of one update, cut to the token budget; weights come from all of its groups.

    Args:
        groups: all groups of the step.
        numbers: those of the update.
        config: aggregation and budget.
    """
    lengths = [len(r) for number in numbers for r in groups[number].tokens.responses]
    weights = token_weights(lengths, aggregation=config.aggregation, constant_length=config.constant_length).split(
        lengths
    )
    pieces: list[Piece] = []
    at = 0
    for number in numbers:
        group = groups[number]
        count = len(group.tokens.responses)
        if group.has_signal:
            own = weights[at : at + count]
            pieces.extend(
                Piece(number=number, group=group.part(span), weights=own[span])
                for span in response_spans(group.tokens, config.micro_batch_tokens)
            )
        at += count
    return pieces


def pack(pieces: Sequence[Piece], inputs: Sequence[Inputs], device: torch.device) -> MicroBatch:
    """Tensors of some pieces, given what the model reads of the media of each."""
    groups = [piece.group for piece in pieces]
    branches = pack_branches([group.tokens for group in groups], [group.branches for group in groups])
    engine = [p for group in groups for response in group.engine_logprobs for p in response]
    weights = [w for piece in pieces for w in piece.weights]
    return MicroBatch(
        batch=pack_groups(with_inputs(groups, inputs)).to(device),
        advantages_T=per_token(groups, [group.advantages_G for group in groups]).to(device),
        weights_T=torch.cat(weights).to(device) if weights else torch.empty(0, device=device),
        engine_T=torch.tensor(engine).to(device),
        pieces=tuple(pieces),
        branches=None if branches is None else branches.to(device),
    )


def per_token(groups: Sequence[TrainGroup], advantages: Sequence[Sequence[float]]) -> Tensor:
    """[T] the advantage of each response, once per token; 0 for a group that does not know its advantages yet."""
    values = [
        a for group, own in zip(groups, advantages, strict=True) for a in own or [0.0] * len(group.tokens.responses)
    ]
    lengths = [len(ids) for group in groups for ids in group.tokens.responses]
    return torch.tensor(values).repeat_interleave(torch.tensor(lengths, dtype=torch.int64))


def inputs_of(pieces: Sequence[Piece]) -> list[Inputs]:
    """What the model reads of each piece's images and videos, made now."""
    return [None if piece.group.media is None else piece.group.media() for piece in pieces]


def with_inputs(groups: Sequence[TrainGroup], inputs: Sequence[Inputs]) -> list[TokenGroup]:
    """The groups' tokens with what the model reads of their images and videos."""
    return [
        group.tokens if own is None else replace(group.tokens, inputs=own)
        for group, own in zip(groups, inputs, strict=True)
    ]


def kept_tokens(group: TrainGroup) -> TokenGroup:
    """The group with its responses cut to what the branches need of them."""
    needed = [0] * len(group.tokens.responses)
    for branch in group.branches:
        if branch.keep:
            needed[branch.response] = max(needed[branch.response], branch.keep)
    return replace(group.tokens, responses=[r[:n] for r, n in zip(group.tokens.responses, needed, strict=True)])


def deal(groups: Sequence[int], parts: int) -> list[Sequence[int]]:
    """The groups in ``parts`` runs of near equal size, in order; empty runs are left out."""
    size = math.ceil(len(groups) / parts) if groups else 1
    return [groups[at : at + size] for at in range(0, len(groups), size)]


def response_spans(tokens: TokenGroup, budget: int) -> list[slice]:
    """Slices of a group's responses that fit the budget together with their prompt (which each slice then repeats)."""
    room = budget - len(tokens.prompt)
    if not budget or tokens.packed_tokens <= budget:
        return [slice(None)]
    parts = split_by_tokens([len(r) for r in tokens.responses], max(room, 1))
    return [slice(part.start, part.stop) for part in parts]
