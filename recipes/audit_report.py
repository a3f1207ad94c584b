"""The figures of an audit, in the shape of its JSON file."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_VALUE = "(none)"
"""The group of the rows that lack the column."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One case: what the reward gave and what it cost."""

    row: dict[str, Any]
    score: float | None
    accepted: bool
    seconds: float
    error: str = ""
    route: str | None = None
    """Which verifier decided, where the reward or the row says so."""
    info: Mapping[str, str] = field(default_factory=dict)
    """What the reward noted beside its value."""


@dataclass(frozen=True, kw_only=True)
class Second:
    """A second opinion on the same cases."""

    name: str
    results: Sequence[Result]
    timeouts: int = 0


def build_report(
    results: Sequence[Result], timeouts: int, second: Second | None = None, by: Sequence[str] = ()
) -> dict[str, Any]:
    """Return everything that is known about the scored cases, as the JSON file has it.

    Args:
        results: one per case.
        timeouts: answers cut off by the verifier's limits.
        second: another opinion on the same cases.
        by: columns whose values divide the cases into groups; the route is added where it is known.
    """
    report = summarise(results, timeouts)
    report |= _auc_figures(results)
    report["groups"] = {column: _by(results, [_column_value(item, column) for item in results]) for column in by}
    if any(item.route is not None for item in results):
        report["groups"]["route"] = _by(results, [item.route or NO_VALUE for item in results])
    if second is not None:
        figures = summarise(second.results, second.timeouts)
        report["against"] = {"name": second.name, **figures, **_auc_figures(second.results)}
        report["agreement"] = agreement(results, second.results)
    report["disagreements"] = disagreements(results)
    return report


def _column_value(item: Result, column: str) -> str:
    value = item.row.get(column)
    return NO_VALUE if value is None else as_text(value)


def _by(results: Sequence[Result], values: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the figures of each group, the largest group first."""
    groups: dict[str, list[Result]] = {}
    for item, value in zip(results, values, strict=True):
        groups.setdefault(value, []).append(item)
    ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    left_out = {"timeouts", "accuracy_without_convention", "n_without_convention"}
    return {
        value: {key: figure for key, figure in summarise(group, 0).items() if key not in left_out}
        for value, group in ordered
    }


def _auc_figures(results: Sequence[Result]) -> dict[str, float | None]:
    """Return the AUC of a graded score against the labels, None where the score has two values only or labels lack."""
    from recipes.agreement import auc

    cases = [(item.score, item.row["expected"]) for item in results if item.row.get("expected") is not None]
    known = [(score, label) for score, label in cases if score is not None]
    graded = len({score for score, _ in known}) > 2
    found = auc([score for score, _ in known], [label for _, label in known]) if graded else None
    if found is None:
        return {"auc": None, "auc_low": None, "auc_high": None}
    return {"auc": found.value, "auc_low": found.low, "auc_high": found.high}


def agreement(first: Sequence[Result], second: Sequence[Result]) -> dict[str, Any]:
    """Return how often two rewards accept the same cases; those that either gave no score are left out."""
    from recipes.agreement import cohen_kappa
    from recipes.evaluation import wilson_interval

    both = [
        (index, a.accepted, b.accepted)
        for index, (a, b) in enumerate(zip(first, second, strict=True))
        if a.score is not None and b.score is not None
    ]
    same = sum(a == b for _, a, b in both)
    low, high = wilson_interval(same, len(both))
    return {
        "n": len(both),
        "share": _share(same, len(both)),
        "share_low": low,
        "share_high": high,
        "kappa": cohen_kappa([a for _, a, _ in both], [b for _, _, b in both]),
        "only_first": sum(a and not b for _, a, b in both),
        "only_second": sum(b and not a for _, a, b in both),
        "rows": [index for index, a, b in both if a != b],
    }


def summarise(results: Sequence[Result], timeouts: int) -> dict[str, Any]:
    """Return the figures; those about labels are None where no row has one."""
    from recipes.evaluation import wilson_interval

    labelled = [item for item in results if item.row.get("expected") is not None]
    plain = [item for item in labelled if not item.row.get("convention")]
    right = [item for item in labelled if _is_right(item)]
    accepted = [item for item in labelled if item.accepted]
    positive = [item for item in labelled if item.row["expected"]]
    hits = sum(item.row["expected"] for item in accepted)
    seconds = sum(item.seconds for item in results)
    low, high = wilson_interval(len(right), len(labelled)) if labelled else (None, None)
    return {
        "n": len(results),
        "labelled": len(labelled),
        "accepted": sum(item.accepted for item in results),
        "accuracy": _share(len(right), len(labelled)),
        "ci_low": low,
        "ci_high": high,
        "accuracy_without_convention": _share(sum(map(_is_right, plain)), len(plain)),
        "n_without_convention": len(plain),
        "precision": _share(hits, len(accepted)),
        "recall": _share(hits, len(positive)),
        "false_accepts": len(accepted) - hits,
        "crashes": sum(bool(item.error) for item in results),
        "timeouts": timeouts,
        "max_seconds": round(max(item.seconds for item in results), 4),
        "cases_per_second": round(len(results) / seconds, 2) if seconds else None,
    }


def _is_right(item: Result) -> bool:
    """Whether reward and label agree; a reward that failed agrees with nothing."""
    return not item.error and item.accepted == item.row["expected"]


def disagreements(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the cases on which reward and label differ, and those that made the reward fail."""
    found = []
    for index, item in enumerate(results):
        expected = item.row.get("expected")
        if item.error or (expected is not None and item.accepted != expected):
            kept = {key: value for key, value in item.row.items() if key in ("id", "name", "convention", "response")}
            reference = item.row.get("reference")
            found.append(
                {
                    "row": index,
                    **kept,
                    "reference": reference,
                    "expected": expected,
                    "score": item.score,
                    "error": item.error,
                    "route": item.route,
                }
            )
    return found


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write the report whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # ASCII: a response may hold lone surrogates, which no file encoding takes.
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="ascii")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
