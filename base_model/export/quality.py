"""What rounding costs: the log-probability of right answers on held-out rows, before and after.

Legend: N rows, R resamples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerExample:
    """A prompt with its right answer, as token ids."""

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """The model's further arguments for the prompt (images), as its processor returned them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerScore:
    """How a model takes one right answer."""

    logprob: float
    """Sum over the answer's tokens, in nats."""
    tokens: int
    exact: bool
    """Whether greedy decoding would write this answer, token by token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Before against after, on the same rows."""

    rows: int
    logprob_before: float
    """Mean per answer token, in nats."""
    logprob_after: float
    perplexity_before: float
    perplexity_after: float
    drop: float
    """Fall of the mean log-probability per answer token, in nats."""
    drop_low: float
    """Its 95 % interval (bootstrap over rows)."""
    drop_high: float
    exact_before: float
    """Share of rows whose answer greedy decoding writes."""
    exact_after: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """For the terminal."""
        return (
            f"log-probability per answer token {self.logprob_before:.3f} -> {self.logprob_after:.3f}, "
            f"fall {self.drop:.3f} [{self.drop_low:.3f}, {self.drop_high:.3f}]; "
            f"right greedily {self.exact_before:.1%} -> {self.exact_after:.1%} ({self.rows} rows)"
        )


@torch.no_grad()
def answer_scores(model: Any, examples: Sequence[AnswerExample]) -> list[AnswerScore]:
    """Score every example's answer, one forward pass each, so that no padding touches the figures."""
    return [_score(model, example) for example in examples]


def _score(model: Any, example: AnswerExample) -> AnswerScore:
    ids = torch.tensor([[*example.prompt_ids, *example.answer_ids]], device=model.device)
    start, targets = len(example.prompt_ids), torch.tensor(example.answer_ids, device=model.device)
    logits = model(input_ids=ids, **example.inputs).logits[0, start - 1 : -1].float()
    logprobs = torch.log_softmax(logits, -1).gather(1, targets[:, None])
    return AnswerScore(
        logprob=float(logprobs.sum()), tokens=len(targets), exact=bool((logits.argmax(-1) == targets).all())
    )


def compare_quality(before: Sequence[AnswerScore], after: Sequence[AnswerScore], *, seed: int = 0) -> Quality:
    """The fall of the mean log-probability per token with its interval; rows are resampled, not tokens.

    Raises:
        ValueError: there are no rows.
    """
    if not before:
        raise ValueError("there are no rows to check the quality on: give a task with held-out rows that have answers")
    assert [score.tokens for score in before] == [score.tokens for score in after], "not the same rows"
    tokens_N = np.array([score.tokens for score in before], dtype=np.float64)
    falls_N = np.array([a.logprob - b.logprob for a, b in zip(before, after, strict=True)])
    picks_RN = np.random.default_rng(seed).integers(0, len(before), (RESAMPLES, len(before)))
    drops_R = falls_N[picks_RN].sum(1) / tokens_N[picks_RN].sum(1)
    low, high = np.percentile(drops_R, [2.5, 97.5])
    means = [sum(score.logprob for score in scores) / tokens_N.sum() for scores in (before, after)]
    exact = [sum(score.exact for score in scores) / len(scores) for scores in (before, after)]
    return Quality(
        rows=len(before),
        logprob_before=float(means[0]),
        logprob_after=float(means[1]),
        perplexity_before=_perplexity(means[0]),
        perplexity_after=_perplexity(means[1]),
        drop=float(falls_N.sum() / tokens_N.sum()),
        drop_low=float(low),
        drop_high=float(high),
        exact_before=exact[0],
        exact_after=exact[1],
    )


def _perplexity(logprob: float) -> float:
    return math.exp(min(-logprob, 700.0))
