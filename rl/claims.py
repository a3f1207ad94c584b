"""Factual claims of a response, the questions that check them, and the score that the verdicts give.

"Divide and conquer" (RLAIF-V, arXiv 2405.17220, section 3.2): a response is divided into atomic, self-contained claims;
each is turned into a question that is answered with yes exactly when the claim is true; a labeler sees image or video
and question. The response's score is minus the number of claims that the labeler rejects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ClaimKind(StrEnum):
    """What a claim is about."""

    PRESENCE = "presence"
    COUNT = "count"
    COLOUR = "colour"
    RELATION = "relation"
    ACTION = "action"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One atomic fact.

    Example:
        ``Claim(text="There are 3 blue squares.", question="Are there 3 blue squares?", kind=ClaimKind.COUNT)``
    """

    text: str
    """A sentence that can be understood without the others."""
    question: str
    """A question whose answer is yes exactly when the claim is true; tense and negation are the claim's."""
    kind: ClaimKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A part of a response that is no claim."""

    text: str
    reason: str
    """Such as "opinion"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """A response taken apart, or the reason why it could not be."""

    claims: tuple[Claim, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    """Parts that are no factual claims."""
    problem: str | None = None
    """Why there is no division, in a sentence; then there are no claims either, and the response has no score."""
    attempts: int = 1
    """Answers of a language model that were read for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the labeler thinks of a claim."""

    claim: Claim
    p_yes: float | None
    """Probability of yes, summed over its spellings; None = the labeler gave none."""
    p_no: float | None
    """Probability of no, likewise."""
    accepted: bool | None
    """Whether p_yes > p_no + margin; None = not known."""
    problem: str | None = None
    """Why the labeler gave no probabilities, in a sentence."""


class ScoreConfig(BaseModel):
    """How verdicts become a score."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    margin: float = Field(0.0, ge=-1, le=1)
    """A claim is accepted iff p_yes > p_no + margin."""
    per_claim: bool = False
    """Divide the number of rejected claims by the number of claims."""
    kinds: tuple[ClaimKind, ...] | None = None
    """Kinds of claims that count (presence, count, colour, relation, action, other); null = all. Leave out those that
    `recipes.claim_check` shows the labeler to be unable to judge: they are noise in the score."""

    def counts(self, claim: Claim) -> bool:
        """Whether the verdict on a claim is part of the score."""
        return self.kinds is None or claim.kind in self.kinds


def judge(claim: Claim, p_yes: float, p_no: float, config: ScoreConfig) -> Verdict:
    """The verdict that two probabilities give; a tie rejects.

    Example::

        judge(claim, 0.62, 0.31, ScoreConfig()).accepted  # True
    """
    return Verdict(claim=claim, p_yes=p_yes, p_no=p_no, accepted=p_yes > p_no + config.margin)


def response_score(verdicts: Sequence[Verdict], config: ScoreConfig) -> float | None:
    """Minus the number of rejected claims, or minus their share.

    Returns:
        None without claims that count (nothing was claimed, so nothing can be said about its truth), and where one of
        them has no verdict.
    """
    counted = [verdict.accepted for verdict in verdicts if config.counts(verdict.claim)]
    if not counted or None in counted:
        return None
    rejected = counted.count(False)
    return -rejected / len(counted) if config.per_claim else float(-rejected)


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """JSON-able copy, for the file of claims."""
    return asdict(verdict)
