"""What the directory of a loop holds, read back for the report and the console."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.rlaif import evaluation, feedback, instructions, pairing
from recipes.rlaif.feedback import Judged
from recipes.rlaif.instructions import Instruction
from recipes.rlaif.rounds import ROUND, round_folder
from recipes.rlaif.selection import Figures


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A finished round."""

    number: int
    folder: Path
    judged: Sequence[Judged]
    pairs: Sequence[Mapping[str, Any]]
    """Lines of pairs.jsonl."""
    statistics: Mapping[str, Any]
    """Of pairs.json."""
    start: Figures
    checkpoints: Sequence[tuple[Figures, str | None]]
    """Each with the reason why it may not go on."""
    chosen: Figures


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that was left out, counted."""

    round: int
    what: str
    """instruction, response or prompt."""
    reason: str
    count: int
    example: str
    """The first one's sentence."""


def read_first(run: Path) -> Figures | None:
    """Figures of the model before."""
    path = round_folder(run, 0) / "evaluation" / evaluation.FILE
    return Figures(**json.loads(path.read_text())) if path.is_file() else None


def read_rounds(run: Path) -> list[Round]:
    """The finished rounds, in order."""
    found = []
    number = 1
    while ((folder := round_folder(run, number)) / ROUND).is_file():
        record = json.loads((folder / ROUND).read_text())
        path = folder / pairing.FILE
        found.append(
            Round(
                number=number,
                folder=folder,
                judged=feedback.read_claims(folder),
                pairs=[json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else [],
                statistics=json.loads((folder / pairing.STATISTICS).read_text()),
                start=Figures(**record["start"]),
                checkpoints=[_checkpoint(each) for each in record["checkpoints"]],
                chosen=Figures(**record["chosen"]),
            )
        )
        number += 1
    return found


def read_all_instructions(run: Path) -> list[Instruction]:
    """All rows, those that cannot be asked among them."""
    return instructions.read_instructions(run / instructions.FILE)


def problems(rows: Sequence[Instruction], rounds: Sequence[Round]) -> list[Problem]:
    """Everything that was left out, by round and reason."""
    found = []
    bad = [row for row in rows if row.problem is not None]
    if bad:
        found.append(
            Problem(round=0, what="instruction", reason="cannot be read", count=len(bad), example=bad[0].problem or "")
        )
    for each in rounds:
        without = [judged for judged in each.judged if judged.reason is not None]
        for reason, count in Counter(judged.reason or "" for judged in without).most_common():
            example = next(judged.detail for judged in without if judged.reason == reason)
            found.append(Problem(round=each.number, what="response", reason=reason, count=count, example=example))
        for reason, count in each.statistics["without_pair"].items():
            if count:
                found.append(
                    Problem(round=each.number, what="prompt without a pair", reason=reason, count=count, example="")
                )
    return found


def _checkpoint(record: Mapping[str, Any]) -> tuple[Figures, str | None]:
    fields = {key: value for key, value in record.items() if key != "refusal"}
    return Figures(**fields), record["refusal"]
