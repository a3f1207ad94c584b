"""Files of preference pairs: JSON lines in TRL's preference format, which `datasets` loads as one table.

    {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
     "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}],
     "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A dog."}]}],
     "images": ["cat.jpg"], "videos": []}

A table has one type per column, so all rows of a file are written alike: contents are lists of parts as soon as one
row has parts, and `images` and `videos` are there for every row as soon as one row has any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl.files import atomic_write_text, finite

COLUMNS = ("prompt", "chosen", "rejected", "images", "videos")
PLACES = {"images": "image", "videos": "video"}
"""Column of the files -> type of the parts that stand for them in the messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceRow:
    """One pair as it is written."""

    prompt: str | Sequence[Mapping[str, Any]]
    """Text, or messages whose contents are text or lists of parts; `{"type": "image"}` stands where an image is."""
    chosen: str
    """The better response."""
    rejected: str
    """The worse response."""
    images: Sequence[str | Path] = ()
    """Image files, in the order of their places in the prompt."""
    videos: Sequence[str | Path] = ()
    """Video files, in the order of their places in the prompt."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns, such as scores; JSON-able, with one type per column over all rows."""


def write_preference_file(path: str | Path, rows: Sequence[PreferenceRow]) -> None:
    """Write the pairs as JSON lines; the file is complete or as it was.

    Raises:
        ValueError: There are no rows, some prompts are text and others messages, a prompt has other places than files,
            a file is not named by its path, or a further column is missing in a row or has a name that is taken.
        WriteError: The operating system refused.
    """
    if not rows:
        raise ValueError(f"there are no preference pairs to write to {path}: lower the score gap, or sample more")
    _check_alike(rows)
    parts = any(_has_parts(row) for row in rows)
    media = {column: any(getattr(row, column) for row in rows) for column in PLACES}
    records = [_record(row, number, parts, media) for number, row in enumerate(rows)]
    atomic_write_text(path, "".join(json.dumps(finite(record), ensure_ascii=False) + "\n" for record in records))


def _check_alike(rows: Sequence[PreferenceRow]) -> None:
    if len({isinstance(row.prompt, str) for row in rows}) > 1:
        raise ValueError("some prompts are text and others are messages: write them to two files")
    for number, row in enumerate(rows):
        taken = sorted(set(row.columns) & set(COLUMNS))
        if taken:
            raise ValueError(f"pair {number} has a further column {taken[0]!r}, which is taken: rename it")
        if row.columns.keys() != rows[0].columns.keys():
            odd = sorted(row.columns.keys() ^ rows[0].columns.keys())[0]
            raise ValueError(
                f"pair {number} and pair 0 differ in the column {odd!r}: give it to all pairs (null is fine)"
            )


def _has_parts(row: PreferenceRow) -> bool:
    return not isinstance(row.prompt, str) and any(not isinstance(turn["content"], str) for turn in row.prompt)


def _record(row: PreferenceRow, number: int, parts: bool, media: Mapping[str, bool]) -> dict[str, Any]:
    _check_places(row, number)
    record: dict[str, Any] = {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
    if not isinstance(row.prompt, str):
        turns = {key: [{"role": "assistant", "content": record[key]}] for key in ("chosen", "rejected")}
        record = {key: [_turn(turn, parts) for turn in value] for key, value in {"prompt": row.prompt, **turns}.items()}
    record |= {column: _paths(row, column, number) for column, present in media.items() if present}
    return {**record, **row.columns}


def _turn(turn: Mapping[str, Any], parts: bool) -> dict[str, Any]:
    content = turn["content"]
    if parts and isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return {"role": turn["role"], "content": content}


def _check_places(row: PreferenceRow, number: int) -> None:
    for column, kind in PLACES.items():
        places, files = _places(row, kind), len(getattr(row, column))
        if places != files:
            raise ValueError(
                f"pair {number} has {files} {column}, and its prompt has {places} places for them "
                f'(parts {{"type": "{kind}"}}): give one place for each'
            )


def _places(row: PreferenceRow, kind: str) -> int:
    turns = () if isinstance(row.prompt, str) else row.prompt
    contents = [turn["content"] for turn in turns if not isinstance(turn["content"], str)]
    return sum(part.get("type") == kind for content in contents for part in content)


def _paths(row: PreferenceRow, column: str, number: int) -> list[str]:
    values = getattr(row, column)
    for value in values:
        if not isinstance(value, str | Path):
            raise ValueError(
                f"pair {number} has a {type(value).__name__} among its {column}, and a JSONL file names files: save it "
                "first and give its path"
            )
    return [str(value) for value in values]
