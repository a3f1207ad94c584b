"""Which checkpoint seeds the next round.

Hallucination falls easily by saying less, or by forgetting. So a checkpoint is eligible only while its responses are
about as long as those of the model the loop started from, and its held-out accuracy is not lower than that model's by
more than a bound. Of the eligible ones the one with the lowest share of hallucinated objects is taken, the later one of
equals; where none is lower than the round's own start, that stays. Without labelled images the last eligible one goes
on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recipes.rlaif.config import SelectionConfig

_ROUNDING = 1e-9
"""0.5 and 0.48 differ by a little more than 0.02."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What an evaluation says about a model."""

    checkpoint: str
    step: int
    """Training steps of its round; 0 = the model before it."""
    chair_i: float | None
    """Share of the mentioned objects (or claims) that are not there; None = nothing was mentioned."""
    chair_s: float | None
    """Share of the responses with at least one."""
    words: float
    """Mean length of the responses."""
    accuracy: float | None = None
    """Held-out accuracy, in the mode of the loop; None = there are no held-out questions."""
    details: Mapping[str, Any]
    """Everything that the evaluation found, intervals among it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return asdict(self)


def refusal(figures: Figures, first: Figures, config: SelectionConfig) -> str | None:
    """Why a checkpoint may not seed the next round, in a sentence; None = it may.

    Args:
        figures: Of the checkpoint.
        first: Of the model that the loop started from.
        config: The bounds.
    """
    if figures.chair_i is None and first.chair_i is not None:
        return "it mentions nothing"
    change = figures.words / first.words - 1 if first.words else 0.0
    if abs(change) > config.length + _ROUNDING:
        return f"its responses are {abs(change):.0%} {'longer' if change > 0 else 'shorter'}"
    if figures.accuracy is not None and first.accuracy is not None:
        drop = first.accuracy - figures.accuracy
        if drop > config.accuracy_drop + _ROUNDING:
            return f"its held-out accuracy is {100 * drop:.1f} points lower"
    return None


def choose(found: Sequence[Figures], start: Figures, first: Figures, config: SelectionConfig) -> Figures:
    """The model that goes on: one of the round's checkpoints, or its start."""
    eligible = [figures for figures in found if refusal(figures, first, config) is None]
    if first.chair_i is None:  # there are no labelled images
        return eligible[-1] if eligible else start
    best = min(reversed(eligible), key=_rate, default=start)
    return best if _rate(best) < _rate(start) else start


def _rate(figures: Figures) -> float:
    return 1.0 if figures.chair_i is None else figures.chair_i
