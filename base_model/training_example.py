"""One training sequence as token ids: what is trained on, and what images and videos stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingExample:
    """Token ids with the spans that are targets.

    Example:
        ``TrainingExample(ids=(1, 7, 8, 9, 2), target_spans=((3, 5),))``: tokens 9 and 2 are predicted, from the hidden
        states at positions 2 and 3.
    """

    ids: tuple[int, ...]
    """Token ids, the blocks of images and videos in place."""
    target_spans: tuple[tuple[int, int], ...]
    """(start, end) of every run of trained tokens, end excluded; ascending, apart, never empty, from 1 on: the token
    before a span predicts its first one."""
    inputs: Mapping[str, Any] | None = None
    """The model's further arguments for this one sequence, as its processor returned them; None without media."""

    def __post_init__(self) -> None:
        edges = [0, *(edge for span in self.target_spans for edge in span)]
        assert all(a < b for a, b in pairwise(edges)), self.target_spans
        assert edges[-1] <= len(self.ids), (self.target_spans, len(self.ids))

    @property
    def target_mask(self) -> tuple[bool, ...]:
        """(T,) whether each token is a target."""
        mask = [False] * len(self.ids)
        for start, end in self.target_spans:
            mask[start:end] = [True] * (end - start)
        return tuple(mask)

    @property
    def targets(self) -> int:
        """Number of trained tokens."""
        return sum(end - start for start, end in self.target_spans)


def spans_of(mask: list[bool]) -> tuple[tuple[int, int], ...]:
    """The runs of True in a mask; the first token, which nothing predicts, is left out."""
    spans: list[tuple[int, int]] = []
    for at, trained in enumerate(mask):
        if not trained or at == 0:
            continue
        if spans and spans[-1][1] == at:
            spans[-1] = (spans[-1][0], at + 1)
        else:
            spans.append((at, at + 1))
    return tuple(spans)
