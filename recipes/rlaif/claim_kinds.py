"""Verdicts of a round by kind of claim; against the truth where the pictures were rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.evaluation import wilson_interval
from recipes.render.claim_truth import KNOWN_KINDS, SceneFacts
from recipes.rlaif.instructions import Instruction
from recipes.rlaif.run_files import Round


def kind_rows(each: Round, rows: Mapping[int, Instruction]) -> list[list[str]]:
    """Cells for each kind of claim, and for all: judged, accepted share, claims with known truth, share of true ones,
    share of right verdicts with its 95 % interval.
    """
    verdicts: dict[str, list[tuple[bool, bool | None]]] = {}
    for one in each.judged:
        facts = _facts(rows[one.instruction])
        for record in one.claims:
            if record["accepted"] is not None:
                truth = facts.truth(record["claim"]["text"]) if facts is not None else None
                verdicts.setdefault(str(record["claim"]["kind"]), []).append((record["accepted"], truth))
    ordered = sorted(verdicts.items(), key=lambda item: -len(item[1]))
    if len(ordered) > 1:
        ordered.append(("all", [verdict for _, found in ordered for verdict in found]))
    return [[kind, *_cells(found)] for kind, found in ordered]


def _facts(row: Instruction) -> SceneFacts | None:
    given: Mapping[str, Any] = row.rendered or {}
    return SceneFacts(given["kind"], given["scene"]) if given.get("kind") in KNOWN_KINDS else None


def _cells(found: list[tuple[bool, bool | None]]) -> list[str]:
    known = [(accepted, truth) for accepted, truth in found if truth is not None]
    cells = [str(len(found)), _percent(sum(accepted for accepted, _ in found), len(found)), str(len(known))]
    if not known:
        return [*cells, "-", "-"]
    right = sum(accepted == truth for accepted, truth in known)
    low, high = wilson_interval(right, len(known))
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]"
    return [*cells, _percent(sum(truth for _, truth in known), len(known)), _percent(right, len(known)) + interval]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}"
