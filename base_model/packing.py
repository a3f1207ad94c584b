"""Packed batches: sequences laid end to end without padding, each group's prompt stored once.

Legend: N packed tokens, T target tokens, P prompt tokens of one group, L longest response of one group, G responses
of one group, H attention heads, D head width.

One group on the packed axis is ``prompt | response 1 | ... | response G``; a response attends to its group's prompt
and to itself, a prompt to itself only. A plain training sequence is a group with a prompt and no responses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLayout:
    """Lengths, in tokens, of one group on the packed axis.

    Example:
        ``GroupLayout(prompt=67, responses=(64, 12))`` covers 67 + 64 + 12 packed tokens.
    """

    prompt: int
    responses: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Packed tokens of the group."""
        return self.prompt + sum(self.responses)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedMedia:
    """Images and videos of one prompt."""

    start: int  # packed position of the prompt's first token
    inputs: Mapping[str, Any]  # what the processor returned for that prompt alone, beside its ids


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """What one forward pass of the packed model reads.

    ``target_rows_T[i]`` is the packed position whose hidden state predicts ``targets_T[i]``; targets are ordered
    group by group, response by response, token by token.
    """

    input_ids: Tensor  # [1, N]
    position_ids: Tensor  # [1, N], restarting per group; a response continues its prompt
    layout: tuple[GroupLayout, ...]
    target_rows_T: Tensor
    targets_T: Tensor
    media: tuple[PackedMedia, ...] = ()

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The same batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            target_rows_T=self.target_rows_T.to(device),
            targets_T=self.targets_T.to(device),
            media=tuple(replace(each, inputs=_on_device(each.inputs, device)) for each in self.media),
        )


def _on_device(value: Any, device: torch.device | str) -> Any:
    """The value with every tensor in it moved; a processor's results are tensors, or nested lists of them."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _on_device(each, device) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_on_device(each, device) for each in value]
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGroup:
    """Token ids of one prompt and of the responses sampled for it."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    inputs: Mapping[str, Any] | None = None  # of the prompt's images and videos; see PackedMedia

    @property
    def packed_tokens(self) -> int:
        """Tokens the group takes on the packed axis."""
        return len(self.prompt) + sum(map(len, self.responses))


def pack_groups(groups: Sequence[TokenGroup]) -> PackedBatch:
    """Lay groups end to end; every response token is a target.

    Raises:
        ValueError: a prompt is empty (its last position predicts the first response token).
    """
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    layout = []
    media = []
    for group in groups:
        prompt_len = len(group.prompt)
        if prompt_len == 0:
            raise ValueError("an empty prompt cannot be packed: its last position predicts the first response token")
        if group.inputs:
            media.append(PackedMedia(start=len(ids), inputs=group.inputs))
        ids.extend(group.prompt)
        positions.extend(range(prompt_len))
        last_prompt_row = len(ids) - 1
        for response in group.responses:
            start = len(ids)
            ids.extend(response)
            positions.extend(range(prompt_len, prompt_len + len(response)))
            if response:
                rows.extend((last_prompt_row, *range(start, start + len(response) - 1)))
                targets.extend(response)
        layout.append(GroupLayout(prompt=prompt_len, responses=tuple(len(r) for r in group.responses if len(r))))
    return replace(_batch(ids, positions, layout, rows, targets), media=tuple(media))


def pack_sequences(
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]], inputs: Sequence[Mapping[str, Any] | None] | None = None
) -> PackedBatch:
    """Lay (prompt, completion) pairs end to end, attention isolated per pair; completion tokens are the targets.

    Args:
        sequences: the pairs.
        inputs: for each pair, what the processor returned for its images and videos; see ``PackedMedia``.

    Raises:
        ValueError: a prompt is empty.
    """
    assert inputs is None or len(inputs) == len(sequences), "inputs must have an entry for every sequence"
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    layout = []
    targets: list[int] = []
    media = []
    for number, (prompt, completion) in enumerate(sequences):
        if len(prompt) == 0:
            raise ValueError("an empty prompt cannot be packed: its last position predicts the first completion token")
        start, length = len(ids), len(prompt) + len(completion)
        if inputs is not None and (own := inputs[number]):
            media.append(PackedMedia(start=start, inputs=own))
        ids.extend(prompt)
        ids.extend(completion)
        positions.extend(range(length))
        rows.extend(range(start + len(prompt) - 1, start + length - 1))
        targets.extend(completion)
        layout.append(GroupLayout(prompt=length))
    return replace(_batch(ids, positions, layout, rows, targets), media=tuple(media))


def _batch(
    ids: list[int], positions: list[int], layout: list[GroupLayout], rows: list[int], targets: list[int]
) -> PackedBatch:
    return PackedBatch(
        input_ids=torch.tensor([ids], dtype=torch.long),
        position_ids=torch.tensor([positions], dtype=torch.long),
        layout=tuple(layout),
        target_rows_T=torch.tensor(rows, dtype=torch.long),
        targets_T=torch.tensor(targets, dtype=torch.long),
    )


def split_by_tokens(sizes: Sequence[int], budget: int) -> Iterator[range]:
    """Consecutive index ranges whose sizes sum to at most ``budget`` tokens (0 = one range).

    A single item larger than the budget gets a range of its own: a group is never cut, since its prompt is shared.
    """
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and budget and total + size > budget:
            yield range(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))


def divide_by_tokens(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Deal items to ``parts`` processes so that their tokens are near equal.

    The largest item first, each to the part that has least so far (Graham 1969: the fullest part has at most 4/3 of
    the best possible; no part exceeds another by more than the largest item). Ties go to the first part, so every
    process would deal alike.

    Returns:
        Indices of each part, in ascending order.
    """
    totals = [0] * parts
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        least = min(range(parts), key=lambda part: (totals[part], len(dealt[part])))
        dealt[least].append(index)
        totals[least] += sizes[index]
    return [sorted(part) for part in dealt]
