"""Divide and conquer against one judgement of the whole response, on the same responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recipes.evaluation import wilson_interval
from recipes.verdict_accuracy import area_under_curve
from rl.claims import Verdict

DRAWS = 1000


def compare_judgements(
    faultless: Sequence[bool], scores: Sequence[float | None], whole: Sequence[Verdict], *, seed: int = 0
) -> dict[str, Any] | None:
    """How well each way tells responses without errors from those with some.

    Args:
        faultless: The truth about each response.
        scores: Minus the number (or share) of rejected claims; a response with 0 is judged faultless. None = no score.
        whole: The judgement on the whole response.
        seed: Of the bootstrap.

    Returns:
        For each way accuracy with Wilson's interval and AUC (how often a faultless response is ranked above another
        one) with its bootstrap interval, and the difference of the accuracies with a bootstrap over responses; of the
        responses that both ways judge. None where there are none.
    """
    kept = [
        (truth, score, verdict.p_yes - verdict.p_no, bool(verdict.accepted))
        for truth, score, verdict in zip(faultless, scores, whole, strict=True)
        if score is not None and verdict.p_yes is not None and verdict.p_no is not None
    ]
    if not kept:
        return None
    truths, divided, margins, accepted = zip(*kept, strict=True)
    right_N2 = np.array([[(score >= 0) == truth, yes == truth] for truth, score, _, yes in kept], dtype=float)
    rng = np.random.default_rng(seed)
    draws_N2 = np.array([right_N2[rng.integers(len(kept), size=len(kept))].mean(0) for _ in range(DRAWS)])
    low, high = np.percentile(draws_N2[:, 0] - draws_N2[:, 1], [2.5, 97.5])
    return {
        "responses": len(kept),
        "faultless": sum(truths),
        "left_out": len(faultless) - len(kept),
        "divided": _way(right_N2[:, 0], divided, truths, seed),
        "whole": {**_way(right_N2[:, 1], margins, truths, seed), "accepted": sum(accepted)},
        "difference": float(right_N2[:, 0].mean() - right_N2[:, 1].mean()),
        "difference_low": float(low),
        "difference_high": float(high),
    }


def _way(right_N: np.ndarray, scores: Sequence[float], truths: Sequence[bool], seed: int) -> dict[str, Any]:
    low, high = wilson_interval(int(right_N.sum()), len(right_N))
    auc = area_under_curve(scores, truths, seed=seed)
    return {
        "accuracy": float(right_N.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "auc": auc and auc[0],
        "auc_low": auc and auc[1],
        "auc_high": auc and auc[2],
    }


def comparison_lines(found: dict[str, Any]) -> list[str]:
    """The comparison for a terminal."""
    lines = [f"whole responses ({found['responses']}, of which {found['faultless']} without errors):"]
    for way, name in (("divided", "divide and conquer"), ("whole", "one judgement of the whole")):
        own = found[way]
        auc = "" if own["auc"] is None else f", AUC {own['auc']:.3f} [{own['auc_low']:.3f}, {own['auc_high']:.3f}]"
        lines.append(
            f"  {name}: accuracy {own['accuracy']:.3f} [{own['accuracy_low']:.3f}, {own['accuracy_high']:.3f}]{auc}"
        )
    lines.append(
        f"  difference of the accuracies {found['difference']:+.3f} "
        f"[{found['difference_low']:+.3f}, {found['difference_high']:+.3f}]"
    )
    return lines
