"""How much of what responses say is not there: CHAIR (Rohrbach et al. 2018, arXiv 1809.02156, section 2.1).

CHAIR_s is the share of responses with at least one object that is not there (every image counts the same, however many
responses it has), CHAIR_i the share of mentioned objects that are not. Both fall when responses say less, so the share
of objects that are mentioned (coverage) and the lengths stand beside them. Intervals are of 95 %: Wilson's for CHAIR_s
with one response per image, else by bootstrap over images, since the responses to one image are no independent
evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.evaluation import accuracy_interval
from recipes.object_words import ObjectCounts

DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedResponse:
    """One response, checked against its image."""

    row: int
    """Number of the image; responses to one image share it."""
    objects: ObjectCounts
    tokens: int
    """Length of the response."""
    claims: int | None = None
    """Claims that it was divided into; None = it could not be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Hallucination:
    """What a set of responses looks like."""

    responses: int
    images: int
    chair_s: Figure
    """Share of responses with at least one object that is not there: of each image's, then the mean over images."""
    chair_i: Figure
    """Share of mentioned objects that are not there; 0 where none is mentioned."""
    coverage: Figure
    """Share of the objects that are there and mentioned."""
    objects: float
    """Mean number of objects that a response mentions."""
    tokens: float
    """Mean length of a response."""
    claims: float | None
    """Mean number of claims; None where no response was divided."""


def hallucination(responses: Sequence[CheckedResponse], *, seed: int = 0) -> Hallucination:
    """The figures of some responses.

    Raises:
        ValueError: there are none.
    """
    if not responses:
        raise ValueError("there are no responses to check: nothing can be said about hallucination")
    by_row: dict[int, list[CheckedResponse]] = {}
    for response in responses:
        by_row.setdefault(response.row, []).append(response)
    rows = list(by_row.values())
    share, low, high = accuracy_interval([[r.objects.hallucinated > 0 for r in row] for row in rows], seed=seed)
    divided = [response.claims for response in responses if response.claims is not None]
    return Hallucination(
        responses=len(responses),
        images=len(rows),
        chair_s=Figure(value=share, low=low, high=high),
        chair_i=_ratio(rows, lambda r: r.objects.hallucinated, lambda r: r.objects.mentioned, seed),
        coverage=_ratio(rows, lambda r: r.objects.covered, lambda r: r.objects.present, seed),
        objects=float(np.mean([response.objects.mentioned for response in responses])),
        tokens=float(np.mean([response.tokens for response in responses])),
        claims=float(np.mean(divided)) if divided else None,
    )


def _ratio(
    rows: Sequence[Sequence[CheckedResponse]],
    part: Callable[[CheckedResponse], int],
    whole: Callable[[CheckedResponse], int],
    seed: int,
) -> Figure:
    """A ratio of sums over all responses, with its percentile bootstrap over rows."""
    sums_N2 = np.array([[sum(map(part, row)), sum(map(whole, row))] for row in rows], dtype=float)
    rng = np.random.default_rng(seed)
    drawn = [sums_N2[rng.integers(len(rows), size=len(rows))].sum(0) for _ in range(DRAWS)]
    low, high = np.percentile([_share(*sums) for sums in drawn], [2.5, 97.5])
    return Figure(value=_share(*sums_N2.sum(0)), low=float(low), high=float(high))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def figure_lines(found: Hallucination) -> list[str]:
    """The figures for a terminal."""

    def told(name: str, figure: Figure) -> str:
        return f"  {name} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"

    claims = "" if found.claims is None else f", {found.claims:.1f} claims"
    return [
        told("responses with an object that is not there (CHAIR_s)", found.chair_s),
        told("mentioned objects that are not there (CHAIR_i)", found.chair_i),
        told("objects that are mentioned (coverage)", found.coverage),
        f"  per response: {found.objects:.1f} objects{claims}, {found.tokens:.1f} tokens "
        f"({found.responses} responses to {found.images} images)",
    ]


def as_record(found: Hallucination) -> dict[str, Any]:
    """JSON-able copy."""
    from dataclasses import asdict

    return asdict(found)
