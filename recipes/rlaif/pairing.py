"""Pairs of a round: `pairs.jsonl`, TRL's preference format with images and videos, and what they are like in
`pairs.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.rlaif.feedback import Judged
from recipes.rlaif.instructions import Instruction
from rl.files import atomic_write_json
from rl.preference_file import PreferenceRow, write_preference_file
from rl.preference_pairs import PairConfig, PairIndex, ScoredResponse, build_pairs
from rollouts.modes import Mode, stable_hash

FILE, STATISTICS = "pairs.jsonl", "pairs.json"


def make_pairs(
    folder: Path,
    rows: Sequence[Instruction],
    judged: Sequence[Judged],
    *,
    mode: Mode,
    config: PairConfig,
    seed: int,
    step: int,
) -> dict[str, Any]:
    """Write both files (no `pairs.jsonl` where there is no pair); returns the statistics.

    Args:
        folder: The round's.
        rows: Its instructions.
        judged: Its responses.
        mode: The one they were given in.
        config: Score gap, pairs per prompt, length control.
        seed: Of the run.
        step: Number of the round.
    """
    by_row: dict[int, list[Judged]] = {row.index: [] for row in rows}
    for each in judged:
        by_row[each.instruction].append(each)
    groups = [by_row[row.index] for row in rows]
    scored = [
        [ScoredResponse(text=each.response, score=each.score, claims=len(each.claims)) for each in group]
        for group in groups
    ]
    made = build_pairs(scored, config, stable_hash("pairs", seed, step, bits=31))
    if made.pairs:
        write_preference_file(folder / FILE, [_row(rows[p.prompt], groups[p.prompt], p, mode) for p in made.pairs])
    else:
        (folder / FILE).unlink(missing_ok=True)
    statistics = {
        "pairs": len(made.pairs),
        "threshold": made.threshold,
        "candidates": made.candidates.to_dict(),
        "drawn": made.drawn.to_dict(),
        "kept": made.kept.to_dict(),
        "without_pair": made.without_pair,
    }
    atomic_write_json(folder / STATISTICS, statistics)
    return statistics


def _row(row: Instruction, group: Sequence[Judged], pair: PairIndex, mode: Mode) -> PreferenceRow:
    chosen, rejected = group[pair.chosen], group[pair.rejected]
    return PreferenceRow(
        prompt=list(row.messages),
        chosen=chosen.response,
        rejected=rejected.response,
        images=row.images,
        videos=row.videos,
        columns={
            "mode": mode.name,
            "instruction": row.index,
            "chosen_sample": chosen.sample,
            "rejected_sample": rejected.sample,
            "chosen_score": chosen.score,
            "rejected_score": rejected.score,
        },
    )
