"""Other continuations of a packed batch's prompts and responses, scored from the keys and values it computed anyway.

Legend: M branch tokens, B branches side by side, L most tokens and S longest prefix among them, H query heads, K key
heads, D head width.

A branch continues a group's prompt, or one of its responses after some of their tokens, with tokens of its own (a
reference answer in place of the sampled one). The prefix is never computed again: its keys and values are kept from
the batch's forward pass. Only a branch's own tokens cost anything, and no gradient runs through them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from base_model.packing import TokenGroup

MAX_ROWS = 2**16
"""Keys gathered side by side at a time, over all branches."""


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

    prompt_start: int
    prompt: int  # rows of the prompt that it sees
    start: int  # first row of the response
    kept: int  # rows of the response before the branch's first input token
    tokens: int

    @property
    def prefix(self) -> int:
        """Keys before the branch's own."""
        return self.prompt + self.kept


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Some branches side by side; S = longest prefix, L = most tokens among its B branches."""

    prefix_rows_BS: Tensor  # rows of the batch's packed axis
    own_rows_BL: Tensor  # rows of the branches' axis
    prefixes_B: Tensor  # length of each prefix
    real_rows: Tensor  # which of the B x L rows are no padding


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

    chunks: tuple[_Chunk, ...]
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
    chunks: tuple[_Chunk, ...]
    lengths: tuple[int, ...]  # tokens of each branch, in the order given
    prompt_starts: tuple[int, ...]  # packed position at which each branch's prompt begins

    def to(self, device: torch.device | str) -> "BranchBatch":
        """The same batch on another device."""
        return BranchBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            targets_M=self.targets_M.to(device),
            chunks=tuple(_on_device(chunk, device) for chunk in self.chunks),
            lengths=self.lengths,
            prompt_starts=self.prompt_starts,
        )

    def prefix_rows(self) -> list[Tensor]:
        """Packed rows of what stands before each branch's first input token."""
        return [
            rows_S[:length]
            for chunk in self.chunks
            for rows_S, length in zip(chunk.prefix_rows_BS, chunk.prefixes_B.tolist(), strict=True)
        ]


def pack_branches(groups: Sequence[TokenGroup], branches: Sequence[Sequence[Branch]]) -> BranchBatch | None:
    """Lay the branches of each group end to end; None where there is none.

    Args:
        groups: the groups as they were given to ``pack_groups``.
        branches: per group, its branches.
    """
    ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    rows: list[_Rows] = []
    at = 0
    for group, own in zip(groups, branches, strict=True):
        starts = _response_starts(group, at)
        for branch in own:
            kept = group.responses[branch.response][: branch.keep] if branch.keep else ()
            assert len(kept) == branch.keep, "a branch keeps more tokens than its response has"
            prefix = len(group.prompt) + len(kept)
            ids.extend(((kept or group.prompt)[-1], *branch.tokens[:-1]))
            positions.extend(range(prefix - 1, prefix - 1 + len(branch.tokens)))
            targets.extend(branch.tokens)
            rows.append(
                _Rows(
                    prompt_start=at,
                    prompt=len(group.prompt) - (not kept),
                    start=starts[branch.response] if kept else 0,
                    kept=max(len(kept) - 1, 0),
                    tokens=len(branch.tokens),
                )
            )
        at += group.packed_tokens
    if not ids:
        return None
    return BranchBatch(
        input_ids=torch.tensor([ids], dtype=torch.long),
        position_ids=torch.tensor([positions], dtype=torch.long),
        targets_M=torch.tensor(targets, dtype=torch.long),
        chunks=tuple(_chunks(rows)),
        lengths=tuple(len(branch.tokens) for own in branches for branch in own),
        prompt_starts=tuple(item.prompt_start for item in rows),
    )


def _response_starts(group: TokenGroup, at: int) -> list[int]:
    starts, row = [], at + len(group.prompt)
    for response in group.responses:
        starts.append(row)
        row += len(response)
    return starts


def _chunks(rows: Sequence[_Rows]) -> Iterator[_Chunk]:
    """The branches in runs whose padded prefixes hold at most ``MAX_ROWS`` rows."""
    start = row = 0
    for end in range(1, len(rows) + 1):
        longest = max(item.prefix + item.tokens for item in rows[start : end + 1])
        if end == len(rows) or (end + 1 - start) * longest > MAX_ROWS:
            yield _chunk(rows[start:end], row)
            row += sum(item.tokens for item in rows[start:end])
            start = end


def _chunk(rows: Sequence[_Rows], first: int) -> _Chunk:
    longest, most = max(item.prefix for item in rows), max(item.tokens for item in rows)
    prefix_rows_BS = torch.zeros(len(rows), longest, dtype=torch.long)
    own_rows_BL = torch.zeros(len(rows), most, dtype=torch.long)
    for number, item in enumerate(rows):
        prefix_rows_BS[number, : item.prompt] = item.prompt_start + torch.arange(item.prompt)
        prefix_rows_BS[number, item.prompt : item.prefix] = item.start + torch.arange(item.kept)
        own_rows_BL[number, : item.tokens] = first + torch.arange(item.tokens)
        first += item.tokens
    real_BL = torch.arange(most)[None] < torch.tensor([item.tokens for item in rows])[:, None]
    return _Chunk(
        prefix_rows_BS=prefix_rows_BS,
        own_rows_BL=own_rows_BL,
        prefixes_B=torch.tensor([item.prefix for item in rows]),
        real_rows=real_BL.flatten().nonzero()[:, 0],
    )


def _on_device(chunk: _Chunk, device: torch.device | str) -> _Chunk:
    return _Chunk(**{item.name: getattr(chunk, item.name).to(device) for item in fields(chunk)})


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
    outputs = []
    for number, chunk in enumerate(layout.chunks):
        keys = torch.cat([old_key[0][:, chunk.prefix_rows_BS], key[0][:, chunk.own_rows_BL]], 2)
        values = torch.cat([old_value[0][:, chunk.prefix_rows_BS], value[0][:, chunk.own_rows_BL]], 2)
        bias_BLS = _bias(layout, number, window)
        out = _attend(query[0][:, chunk.own_rows_BL] * scale, keys, values, bias_BLS, softcap)
        outputs.append(out.flatten(0, 1)[chunk.real_rows])
    return torch.cat(outputs)[None]


def _attend(query: Tensor, key: Tensor, value: Tensor, bias_BLS: Tensor, softcap: float | None) -> Tensor:
    """Softmax attention of scaled queries [H, B, L, D] over keys and values [K, B, S, D] -> [B, L, H, D]."""
    kv_heads, count, keys, width = key.shape
    rows = query.shape[2]
    stacked = query.view(kv_heads, -1, count, rows, width).transpose(1, 2).reshape(kv_heads * count, -1, width)
    scores = torch.bmm(stacked, key.view(-1, keys, width).transpose(1, 2)).view(kv_heads, count, -1, rows, keys)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = (scores + bias_BLS[:, None].to(scores.dtype)).softmax(-1).view(kv_heads * count, -1, keys)
    out = torch.bmm(weights, value.view(-1, keys, width)).view(kv_heads, count, -1, rows, width)
    return out.permute(1, 3, 0, 2, 4).reshape(count, rows, -1, width)


def _bias(layout: BranchLayout, number: int, window: int | None) -> Tensor:
    """[B, L, S + L]: 0 where a branch's row sees a key, else -inf; the same for every layer with the window."""
    known = (number, window)
    if known not in layout.biases:
        layout.biases[known] = _make_bias(layout.chunks[number], window)
    return layout.biases[known]


def _make_bias(chunk: _Chunk, window: int | None) -> Tensor:
    device = chunk.prefixes_B.device
    (count, longest), most = chunk.prefix_rows_BS.shape, chunk.own_rows_BL.shape[1]
    first_B1 = chunk.prefixes_B[:, None]
    prefix_BS = torch.arange(longest, device=device).expand(count, -1)
    prefix_BS = prefix_BS.masked_fill(prefix_BS >= first_B1, 2**40)  # padding: after every row, so nobody sees it
    own_BL = first_B1 + torch.arange(most, device=device)
    distance_BLS = own_BL[:, :, None] - torch.cat([prefix_BS, own_BL], 1)[:, None]
    seen = distance_BLS >= 0
    if window is not None:
        seen &= distance_BLS < window
    return torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))
