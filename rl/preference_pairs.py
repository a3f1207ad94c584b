"""Preference pairs out of scored responses: which two responses of a prompt make a pair, and what the pairs are like.

Steps (RLAIF-V, arXiv 2405.17220, sections 3.2 and 3.3, and its released code):

1. Every two responses of a prompt whose scores differ by at least `min_gap` are a candidate, the higher one chosen. Two
   identical texts are none, and the same two texts are one candidate however often they were sampled.
2. At most `max_per_prompt` candidates of a prompt are drawn at random.
3. Length control over all drawn pairs: of the thresholds t = 0, 0.02, ... 0.98, pairs whose chosen text is more than
   the share t shorter (in words) than the rejected one are dropped, with the t that brings the mean lengths of the two
   sides closest to each other. Saying less is an easy way to say nothing wrong; without this, that is what DPO learns.

All of it is a pure function of responses, settings and seed.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

THRESHOLDS = tuple(range(0, 100, 2))
"""Candidates for the length control's t, in per cent."""
_ROUNDING = 1e-9
"""Scores such as -0.1 and -0.2 differ by a little less than 0.1."""


class PairConfig(BaseModel):
    """How pairs are made."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    min_gap: float = Field(1.0, gt=0)
    """Smallest difference of the two scores; with score = -(rejected claims), 1 is one claim."""
    max_per_prompt: int = Field(2, ge=0)
    """Pairs drawn at random from each prompt's candidates; 0 = all of them."""
    length_control: bool = True
    """Drop pairs with a much shorter chosen side until the mean lengths of both sides are as equal as possible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredResponse:
    """One response to a prompt."""

    text: str
    """The response."""
    score: float | None
    """Higher is better; None = it has no score (no claim, or a failure that is recorded elsewhere)."""
    claims: int = 0
    """Factual claims found in it, for the statistics."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PairIndex:
    """A pair, as places in what was given."""

    prompt: int
    """Number of the prompt."""
    chosen: int
    """Number of the better response within the prompt."""
    rejected: int
    """Number of the worse one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SideStatistics:
    """Means over one side of some pairs; 0 where there are no pairs."""

    words: float
    score: float
    claims: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PairStatistics:
    """What some pairs are like."""

    pairs: int
    prompts: int
    """Prompts with at least one pair."""
    chosen: SideStatistics
    rejected: SideStatistics
    gap: float
    """Mean difference of the scores."""
    chosen_is_longer: float
    """Share of pairs whose chosen side has more words."""
    chosen_is_shorter: float
    """Share of pairs whose chosen side has fewer words."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSet:
    """The pairs, and how they came about."""

    pairs: tuple[PairIndex, ...]
    """By prompt."""
    threshold: float | None
    """The length control's t; None = it is off, or there was nothing to control."""
    candidates: PairStatistics
    """All pairs that the scores allow."""
    drawn: PairStatistics
    """Before the length control."""
    kept: PairStatistics
    """The pairs themselves."""
    without_pair: dict[str, int]
    """Prompts without a candidate, counted by reason."""


def build_pairs(prompts: Sequence[Sequence[ScoredResponse]], config: PairConfig, seed: int) -> PairSet:
    """Make the pairs of a batch of prompts.

    Args:
        prompts: The responses of each prompt.
        config: Score gap, pairs per prompt, length control.
        seed: Of the draw; the draw of a prompt depends on this and on the prompt's number alone.

    Raises:
        ValueError: A score is not finite.

    Example::

        responses = [ScoredResponse(text="a cat", score=0.0), ScoredResponse(text="a cat, a dog", score=-1.0)]
        build_pairs([responses], PairConfig(length_control=False), seed=0).pairs  # one
    """
    found = [candidate_pairs(responses, number, config.min_gap) for number, responses in enumerate(prompts)]
    drawn = [pair for number, own in enumerate(found) for pair in _draw(own, config.max_per_prompt, seed, number)]
    threshold, kept = None, drawn
    if config.length_control and drawn:
        words = [(_words(prompts[p.prompt][p.chosen]), _words(prompts[p.prompt][p.rejected])) for p in drawn]
        percent = length_threshold(words)
        kept = [p for p, w in zip(drawn, words, strict=True) if percent is not None and _fits(*w, percent)]
        threshold = None if percent is None else percent / 100
    return PairSet(
        pairs=tuple(kept),
        threshold=threshold,
        candidates=pair_statistics(prompts, [pair for own in found for pair in own]),
        drawn=pair_statistics(prompts, drawn),
        kept=pair_statistics(prompts, kept),
        without_pair=_reasons(prompts, found),
    )


def candidate_pairs(responses: Sequence[ScoredResponse], prompt: int, min_gap: float) -> list[PairIndex]:
    """Every pair of a prompt that the scores and texts allow; of equal pairs of texts the first."""
    seen: set[tuple[str, str]] = set()
    pairs = []
    for chosen, better in enumerate(responses):
        for rejected, worse in enumerate(responses):
            texts = better.text.strip(), worse.text.strip()
            if _gap(better, worse, prompt) >= min_gap - _ROUNDING and texts[0] != texts[1] and texts not in seen:
                seen.add(texts)
                pairs.append(PairIndex(prompt=prompt, chosen=chosen, rejected=rejected))
    return pairs


def length_threshold(words: Sequence[tuple[int, int]]) -> int | None:
    """The length control's t, in per cent; of equally good ones the largest, which keeps the most pairs.

    Args:
        words: Words of (chosen, rejected) of every pair.

    Returns:
        None when no t leaves a pair (every chosen side is next to nothing).
    """
    best: tuple[Fraction, int] | None = None
    for percent in THRESHOLDS:
        differences = [chosen - rejected for chosen, rejected in words if _fits(chosen, rejected, percent)]
        if differences:
            imbalance = abs(Fraction(sum(differences), len(differences)))
            if best is None or imbalance <= best[0]:
                best = (imbalance, percent)
    return None if best is None else best[1]


def pair_statistics(prompts: Sequence[Sequence[ScoredResponse]], pairs: Sequence[PairIndex]) -> PairStatistics:
    """Means of lengths, scores and claims over some pairs."""
    chosen = [prompts[pair.prompt][pair.chosen] for pair in pairs]
    rejected = [prompts[pair.prompt][pair.rejected] for pair in pairs]
    differences = [_words(c) - _words(r) for c, r in zip(chosen, rejected, strict=True)]
    sides = _side(chosen), _side(rejected)
    return PairStatistics(
        pairs=len(pairs),
        prompts=len({pair.prompt for pair in pairs}),
        chosen=sides[0],
        rejected=sides[1],
        gap=sides[0].score - sides[1].score,
        chosen_is_longer=_mean([float(d > 0) for d in differences]),
        chosen_is_shorter=_mean([float(d < 0) for d in differences]),
    )


def _gap(better: ScoredResponse, worse: ScoredResponse, prompt: int) -> float:
    """Difference of two scores; no pair is possible without both."""
    if better.score is None or worse.score is None:
        return -math.inf
    gap = better.score - worse.score
    if not math.isfinite(gap):
        raise ValueError(
            f"prompt {prompt} has responses with the scores {better.score} and {worse.score}: a score must be a finite "
            "number, or None where there is none"
        )
    return gap


def _draw(pairs: list[PairIndex], most: int, seed: int, prompt: int) -> list[PairIndex]:
    """At most `most` of a prompt's candidates, in their own order."""
    if not most or len(pairs) <= most:
        return pairs
    digest = hashlib.sha256(f"preference pairs {seed} {prompt}".encode()).digest()
    return sorted(random.Random(int.from_bytes(digest[:8], "big")).sample(pairs, most))


def _fits(chosen: int, rejected: int, percent: int) -> bool:
    """Whether the chosen side is at most `percent` shorter; in whole numbers, so that 2 % of 50 words is one word."""
    return 100 * (rejected - chosen) <= percent * rejected


def _reasons(prompts: Sequence[Sequence[ScoredResponse]], found: Sequence[Sequence[PairIndex]]) -> dict[str, int]:
    """Why prompts have no candidate."""
    counts = dict.fromkeys(("fewer than two scored responses", "identical texts", "scores too close"), 0)
    for responses, pairs in zip(prompts, found, strict=True):
        scored = [response for response in responses if response.score is not None]
        if pairs:
            continue
        if len(scored) < 2:
            counts["fewer than two scored responses"] += 1
        elif len({response.text.strip() for response in scored}) < 2:
            counts["identical texts"] += 1
        else:
            counts["scores too close"] += 1
    return counts


def _side(responses: Sequence[ScoredResponse]) -> SideStatistics:
    return SideStatistics(
        words=_mean([float(_words(response)) for response in responses]),
        score=_mean([response.score or 0.0 for response in responses]),
        claims=_mean([float(response.claims) for response in responses]),
    )


def _words(response: ScoredResponse) -> int:
    return len(response.text.split())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
