"""`probability`: how likely the policy finds the reference answer after the response's own reasoning.

RLPR (arXiv 2506.18254, section 3.1; used by the MiniCPM-V 4.5 report, arXiv 2509.18154, section 2.4): with p_i the
probability of the reference's token i in place of the response's answer,

    r  = mean_i p_i            r' = the same after the prompt alone, with no reasoning
    reward = clip(r - r', 0, 1)

The mean is arithmetic: one unlikely token does not sink the answer, as a product would let it. The probabilities are
those of the policy itself, so the trainer gives them (`reference_probs`, `baseline_probs`); a response whose answer
cannot be told from its reasoning has none, and scores 0.
"""

import math
from collections.abc import Sequence
from typing import Any

from rewards.registry import reward


@reward("probability")
def probability(
    *, reference: Any, reference_probs: Sequence[float] | None, baseline_probs: Sequence[float] | None = None
) -> float | None:
    """Return clip(mean p - mean p', 0, 1), 0 for a response without an answer; None without a reference.

    Args:
        reference: the right answer.
        reference_probs: probability of each of its tokens in place of the response's answer; empty where the response
            has no answer to be replaced, None where nobody has asked the policy (a check of the data).
        baseline_probs: the same after the prompt alone; None = nothing is subtracted.

    Example:
        >>> round(probability(reference="a b", reference_probs=[0.9, 0.5], baseline_probs=[0.2, 0.2]), 9)
        0.5
    """
    if reference is None or not str(reference).strip():
        return None
    if reference_probs is None:
        return None
    if not reference_probs:
        return 0.0
    return min(max(mean(reference_probs) - mean(baseline_probs or [0.0]), 0.0), 1.0)


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of some probabilities."""
    return math.fsum(values) / len(values)
