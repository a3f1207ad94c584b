"""Other continuations of a packed batch's prompts and responses, scored from the keys and values it computed anyway.

Legend: M branch tokens, B branches of one group, L longest branch of one group, P prompt tokens, H query heads, K key
heads, D head width, S = keys a branch may see.

A branch continues a group's prompt, or one of its responses after some of their tokens, with tokens of its own (a
reference answer in place of the sampled one). The prefix is never computed again: its keys and values are kept from
the batch's forward pass. Only a branch's own tokens cost anything, and no gradient runs through them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from base_model.packing import TokenGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A continuation to be scored.

    Example:
        ``Branch(response=2, keep=40, tokens=(11, 12))`` asks for the log-probs of tokens 11 and 12 after the prompt and
        the first 40 tokens of response 2 of its group.
    """

    tokens: tuple[int, ...]
    response: int = 0
    keep: int = 0  # tokens of the response before the branch; 0 = it follows the prompt

    def __post_init__(self) -> None:
        assert self.tokens, "a branch needs tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Where one branch finds its prefix on the packed axis."""

    start: int  # first row of the response
    kept: int  # its rows before the branch's first input token
    seen_prompt: int  # rows of the prompt
    tokens: int


@dataclass(frozen=True, kw_only=True)
class _BranchGroup:
    prompt_start: int
    prompt: int
    branches: tuple[_Rows, ...]


class KeyValues:
    """Keys and values [1, K, N, D] of every layer of a packed forward pass, without gradient."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep one layer's."""
        self._layers[layer] = (key.detach(), value.detach())

    def get(self, layer: int) -> tuple[Tensor, Tensor]:
        """Give one layer's."""
        return self._layers[layer]


@dataclass(frozen=True, kw_only=True)
class BranchLayout:
    """Which rows of the packed axis each branch sees; takes the place of a batch's layout in the branches' pass."""

    groups: tuple[_BranchGroup, ...]
    memory: KeyValues
    biases: dict[Any, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BranchBatch:
    """What the branches' own forward pass reads.

    The first input token of a branch is the last one of its prefix, so that every branch token is predicted there.
    """

    input_ids: Tensor  # [1, M]
    position_ids: Tensor  # [1, M]
    targets_M: Tensor
    groups: tuple[_BranchGroup, ...]
    lengths: tuple[int, ...]  # tokens of each branch, in the order given

    def to(self, device: torch.device | str) -> "BranchBatch":
        """The same batch on another device."""
        return BranchBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            targets_M=self.targets_M.to(device),
            groups=self.groups,
            lengths=self.lengths,
        )


def pack_branches(groups: Sequence[TokenGroup], branches: Sequence[Sequence[Branch]]) -> BranchBatch | None:
    """Lay the branches of each group end to end; None where there is none.

    Args:
        groups: the groups as they were given to ``pack_groups``.
        branches: per group, its branches.
    """
    ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    packed: list[_BranchGroup] = []
    at = 0
    for group, own in zip(groups, branches, strict=True):
        starts = _response_starts(group, at)
        rows = []
        for branch in own:
            kept = group.responses[branch.response][: branch.keep] if branch.keep else ()
            assert len(kept) == branch.keep, "a branch keeps more tokens than its response has"
            prefix = len(group.prompt) + len(kept)
            ids.extend(((kept or group.prompt)[-1], *branch.tokens[:-1]))
            positions.extend(range(prefix - 1, prefix - 1 + len(branch.tokens)))
            targets.extend(branch.tokens)
            rows.append(
                _Rows(
                    start=starts[branch.response] if kept else 0,
                    kept=max(len(kept) - 1, 0),
                    seen_prompt=len(group.prompt) - (not kept),
                    tokens=len(branch.tokens),
                )
            )
        if rows:
            packed.append(_BranchGroup(prompt_start=at, prompt=len(group.prompt), branches=tuple(rows)))
        at += group.packed_tokens
    if not ids:
        return None
    return BranchBatch(
        input_ids=torch.tensor([ids], dtype=torch.long),
        position_ids=torch.tensor([positions], dtype=torch.long),
        targets_M=torch.tensor(targets, dtype=torch.long),
        groups=tuple(packed),
        lengths=tuple(len(branch.tokens) for own in branches for branch in own),
    )


def _response_starts(group: TokenGroup, at: int) -> list[int]:
    starts, row = [], at + len(group.prompt)
    for response in group.responses:
        starts.append(row)
        row += len(response)
    return starts


def branch_attention(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: BranchLayout,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attend from branch tokens to their prefixes' kept keys and to their own.

    Args:
        layer: index of the layer, under which the batch's keys and values were kept.
        query: [1, H, M, D].
        key: [1, K, M, D].
        value: [1, K, M, D].
        layout: which prefix each branch has.
        scale: factor on the scores.
        window: latest positions a row sees, itself included; None = all.
        softcap: bound of the scores; None = off.

    Returns:
        [1, M, H, D].
    """
    old_key, old_value = layout.memory.get(layer)
    outputs: list[Tensor] = []
    at = 0
    for index, group in enumerate(layout.groups):
        lengths = [rows.tokens for rows in group.branches]
        end = at + sum(lengths)
        own_query, own_key, own_value = (_stack(x[:, :, at:end].split(lengths, 2)) for x in (query, key, value))
        keys = torch.cat([*_prefixes(old_key, group), own_key], 2)
        values = torch.cat([*_prefixes(old_value, group), own_value], 2)
        bias = _bias(layout, index, window, query.device)
        out = _attend(own_query, keys, values, bias, scale, softcap)
        outputs.extend(out[i : i + 1, :, :length] for i, length in enumerate(lengths))
        at = end
    return torch.cat(outputs, 2).transpose(1, 2)


def _prefixes(kept: Tensor, group: _BranchGroup) -> tuple[Tensor, Tensor]:
    """[B, K, P, D] of the prompt and [B, K, longest, D] of the responses' kept rows."""
    prompt = kept[:, :, group.prompt_start : group.prompt_start + group.prompt]
    responses = [kept[:, :, rows.start : rows.start + rows.kept] for rows in group.branches]
    return prompt.expand(len(responses), -1, -1, -1), _stack(responses)


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """[1, heads, n_i, D] each -> [B, heads, longest, D], zeros after each one's end."""
    longest = max(part.shape[2] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts])


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Softmax attention; query heads [B, H, L, D] share the key heads [B, K, S, D] in order; bias [B, 1, L, S]."""
    repeats = query.shape[1] // key.shape[1]
    scores = (query * scale) @ key.repeat_interleave(repeats, 1).transpose(2, 3)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return (scores + bias.to(scores.dtype)).softmax(-1) @ value.repeat_interleave(repeats, 1)


def _bias(layout: BranchLayout, index: int, window: int | None, device: torch.device) -> Tensor:
    """[B, 1, L, S]: 0 where a branch's row sees a key, else -inf; the same for every layer with the window."""
    known = (index, window)
    if known not in layout.biases:
        layout.biases[known] = _make_bias(layout.groups[index], window).to(device)
    return layout.biases[known]


def _make_bias(group: _BranchGroup, window: int | None) -> Tensor:
    longest_kept = max(rows.kept for rows in group.branches)
    longest = max(rows.tokens for rows in group.branches)
    biases = []
    for rows in group.branches:
        prefix = rows.seen_prompt + rows.kept  # position of the branch's first input token
        positions = torch.cat(
            [
                _positions(0, rows.seen_prompt, group.prompt),
                _positions(group.prompt, rows.kept, longest_kept),
                prefix + torch.arange(longest),
            ]
        )
        distance = (prefix + torch.arange(longest))[:, None] - positions[None]
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        biases.append(torch.zeros(seen.shape).masked_fill_(~seen, float("-inf")))
    return torch.stack(biases)[:, None]


def _positions(first: int, count: int, room: int) -> Tensor:
    """Positions of the keys in a stretch; those beyond ``count`` lie after every row, so nobody sees them."""
    positions = torch.full((room,), 2**40)
    positions[:count] = first + torch.arange(count)
    return positions
