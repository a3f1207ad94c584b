"""What candidates are asked for: rows of the task with all media as files, each once in `instructions.jsonl`.

A row that cannot be asked (a missing image, a clip without a readable frame, no prompt) stays in the file with its
reason, and the rest goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from recipes.media_files import media_files
from recipes.render.source import RenderSource
from recipes.tasks import TaskConfig, prompt_key, raw_rows, row_reader
from rl.files import atomic_write_text

FILE = "instructions.jsonl"
MEDIA = "media"


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One prompt, whose images and videos are files; a `Conversation` of `rl.prompts`."""

    index: int
    """Line in the file, from 0."""
    place: str
    """Where the row came from."""
    messages: tuple[Mapping[str, Any], ...] = ()
    images: tuple[str, ...] = ()
    """Absolute paths."""
    videos: tuple[str, ...] = ()
    """Absolute paths."""
    rendered: Mapping[str, Any] | None = None
    """Kind and scene of a rendered picture or clip, from which the truth of claims is known."""
    problem: str | None = None
    """Why it cannot be asked."""


def write_instructions(task: TaskConfig, run: Path) -> list[Instruction]:
    """Make the file, or read it where it is; media that are no files yet go to `media/`.

    Raises:
        ValueError: the source cannot be read at all, or no row of it can be used.
        WriteError: the operating system refused.
    """
    path = run / FILE
    if not path.is_file():
        rows = list(_rows(task, run / MEDIA))
        if all(row.problem for row in rows):
            first = f"; the first: {rows[0].place}: {rows[0].problem}" if rows else ""
            raise ValueError(
                f"none of the {len(rows)} rows of {task.source.describe()} can be asked{first}: correct instructions"
            )
        atomic_write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
    return read_instructions(path)


def read_instructions(path: Path) -> list[Instruction]:
    """The rows of the file."""
    found = [Instruction(**json.loads(line)) for line in path.read_text().splitlines()]
    return [
        replace(row, messages=tuple(row.messages), images=tuple(row.images), videos=tuple(row.videos)) for row in found
    ]


def round_slice(rows: list[Instruction], number: int, count: int) -> list[Instruction]:
    """The instructions of a round (from 1): the next `count` of those that can be asked, each at most once in it."""
    usable = [row for row in rows if row.problem is None]
    start = (number - 1) * count
    return [usable[(start + at) % len(usable)] for at in range(min(count, len(usable)))]


def _rows(task: TaskConfig, media: Path) -> Iterator[Instruction]:
    """Rows in the source's order, those with an equal prompt once."""
    read = row_reader(task)
    seen: set[str] = set()
    is_rendered = isinstance(task.source, RenderSource)
    index = 0
    for raw in islice(raw_rows(task, "train"), task.size or None):
        try:
            row = read(raw)
            key = prompt_key(row)
            if key in seen:
                continue
            seen.add(key)
            images, videos = media_files(row, media)
            yield Instruction(
                index=index,
                place=raw.place,
                messages=tuple(dict(message) for message in row.messages),
                images=tuple(map(str, images)),
                videos=tuple(map(str, videos)),
                rendered={key: raw.values[key] for key in ("kind", "scene")} if is_rendered else None,
            )
        except ValueError as error:
            yield Instruction(index=index, place=raw.place, problem=str(error))
        index += 1
