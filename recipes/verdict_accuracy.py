"""A labeler's verdicts against the truth: accuracy and AUC per kind of claim, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.evaluation import wilson_interval
from rl.claims import Verdict

DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedVerdict:
    """A verdict beside what is so."""

    verdict: Verdict
    truth: bool
    group: str = ""
    """What it is counted under besides its claim's kind, such as image or video."""

    @property
    def margin(self) -> float:
        """p_yes - p_no; only of a verdict with probabilities."""
        assert self.verdict.p_yes is not None
        assert self.verdict.p_no is not None
        return self.verdict.p_yes - self.verdict.p_no


def accuracy_table(checked: Sequence[CheckedVerdict], *, seed: int = 0) -> list[dict[str, Any]]:
    """A row for all verdicts, one per kind of claim, and one per group.

    Claims without a verdict are counted (`problems`) and are not among `claims`. Accuracy has Wilson's interval; AUC is
    the probability that a true claim has a larger p_yes - p_no than a false one (ties count half), None where there are
    not both, with its bootstrap interval.
    """
    parts: dict[str, list[CheckedVerdict]] = {"all": list(checked)}
    groups = {item.group for item in checked if item.group}
    for item in checked:
        parts.setdefault(item.verdict.claim.kind.value, []).append(item)
    for item in checked if len(groups) > 1 else ():
        parts.setdefault(item.group, []).append(item)
    return [_row(name, part, seed) for name, part in parts.items()]


def _row(name: str, checked: Sequence[CheckedVerdict], seed: int) -> dict[str, Any]:
    known = [item for item in checked if item.verdict.accepted is not None]
    right = sum(item.verdict.accepted == item.truth for item in known)
    low, high = wilson_interval(right, len(known))
    auc = area_under_curve([item.margin for item in known], [item.truth for item in known], seed=seed)
    return {
        "name": name,
        "claims": len(known),
        "true": sum(item.truth for item in known),
        "accepted": sum(bool(item.verdict.accepted) for item in known),
        "problems": len(checked) - len(known),
        "accuracy": right / len(known) if known else None,
        "accuracy_low": low,
        "accuracy_high": high,
        "auc": auc and auc[0],
        "auc_low": auc and auc[1],
        "auc_high": auc and auc[2],
    }


def area_under_curve(
    scores: Sequence[float], labels: Sequence[bool], *, seed: int = 0
) -> tuple[float, float, float] | None:
    """Area under the ROC curve with its percentile bootstrap; None without both labels.

    Example::

        area_under_curve([0.9, 0.1, 0.5], [True, False, False])[0]  # 1.0
    """
    scores_N, labels_N = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    found = _auc(scores_N, labels_N)
    if found is None:
        return None
    rng = np.random.default_rng(seed)
    draws = [_auc(scores_N[at], labels_N[at]) for at in rng.integers(len(scores_N), size=(DRAWS, len(scores_N)))]
    low, high = np.percentile([draw for draw in draws if draw is not None], [2.5, 97.5])
    return found, float(low), float(high)


def _auc(scores_N: np.ndarray, labels_N: np.ndarray) -> float | None:
    """By ranks (Mann-Whitney); equal scores share their mean rank."""
    true = int(labels_N.sum())
    false = len(labels_N) - true
    if not true or not false:
        return None
    _, inverse_N, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    ranks_N = (np.cumsum(counts) - (counts - 1) / 2)[inverse_N]
    return float((ranks_N[labels_N].sum() - true * (true + 1) / 2) / (true * false))


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table for a terminal."""
    lines = []
    for row in rows:
        auc = "" if row["auc"] is None else f", AUC {row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"
        accuracy = (
            "no verdict"
            if row["accuracy"] is None
            else f"accuracy {row['accuracy']:.3f} [{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}]{auc}"
        )
        problems = f", {row['problems']} without a verdict" if row["problems"] else ""
        lines.append(f"  {row['name']}: {accuracy} on {row['claims']} claims ({row['true']} true){problems}")
    return lines
