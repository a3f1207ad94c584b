"""Preference pairs: two answers to one prompt, of which one is better. TRL's preference format, text only.

    {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
    {"prompt": [{"role": "user", "content": "2 + 2?"}],
     "chosen": [{"role": "assistant", "content": "4"}], "rejected": [{"role": "assistant", "content": "5"}]}

Both forms may be mixed, other columns are ignored. A row with images or videos is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.sources import RawRow, read_file

MEDIA = ("images", "image", "videos", "video")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two answers to one prompt."""

    messages: tuple[Mapping[str, Any], ...]
    """The prompt: turns with `role` and `content`, the last one by the user."""
    chosen: str
    """The better answer."""
    rejected: str
    """The worse one."""
    place: str
    """Where the row stands, for errors."""

    @property
    def prompt_key(self) -> str:
        """What makes two prompts the same: roles and contents."""
        return "\0".join(f"{turn['role']}\0{turn['content']}" for turn in self.messages)


def read_pairs(paths: Iterable[Path]) -> list[Pair]:
    """Return the pairs of JSONL, JSON or Parquet files.

    Raises:
        ValueError: a file cannot be read, a column is missing, or a row is no pair of texts; the row is named.
    """
    return [_pair(row) for path in paths for row in read_file(path)]


def hold_out(pairs: Sequence[Pair], count: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on and at least `count` to evaluate on; the pairs of one prompt stay together.

    Whole prompts are held out in the order of a hash of seed and prompt, so rows added elsewhere move few others.

    Raises:
        ValueError: nothing would be left to train on.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt_key, []).append(pair)
    held: set[str] = set()
    size = 0
    for key in sorted(
        groups, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
    ):
        if size >= count:
            break
        held.add(key)
        size += len(groups[key])
    if len(held) == len(groups):
        raise ValueError(
            f"eval_size is {count}, and the {len(pairs)} pairs ({len(groups)} prompts) leave none to train on then: "
            "lower it, or name a file for evaluation as eval_pairs."
        )
    return [p for p in pairs if p.prompt_key not in held], [p for p in pairs if p.prompt_key in held]


def _pair(row: RawRow) -> Pair:
    _refuse_media(row)
    for column in ("prompt", "chosen", "rejected"):
        if row.values.get(column) is None:
            raise ValueError(
                f"{row.place} has no {column!r}, and a preference pair is `prompt`, `chosen`, `rejected`; it has "
                f"{', '.join(map(str, row.values)) or 'nothing'}."
            )
    return Pair(
        messages=_prompt(row),
        chosen=_answer(row, "chosen"),
        rejected=_answer(row, "rejected"),
        place=row.place,
    )


def _refuse_media(row: RawRow) -> None:
    found = next((name for name in MEDIA if row.values.get(name)), None)
    if found is not None:
        raise ValueError(
            f"{row.place} has {found!r}, and a reward model is trained on text only so far: leave such pairs out."
        )


def _prompt(row: RawRow) -> tuple[Mapping[str, Any], ...]:
    value = row.values["prompt"]
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    turns = _turns(value)
    if not turns or turns[-1]["role"] != "user":
        raise ValueError(
            f"{row.place}: `prompt` must be text, or a list of messages with role and text content, the last by "
            "the user."
        )
    return tuple(turns)


def _answer(row: RawRow, column: str) -> str:
    value = row.values[column]
    if isinstance(value, str):
        return value
    turns = _turns(value)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise ValueError(
            f"{row.place}: {column!r} must be text, or a list of one assistant message; the turns before it belong "
            "into `prompt`."
        )
    return turns[0]["content"]


def _turns(value: Any) -> list[dict[str, str]]:
    """Return the messages of a list; empty where it is none, or holds anything but text."""
    turns = []
    for item in value if isinstance(value, list | tuple) else ():
        content = _text(item.get("content")) if isinstance(item, Mapping) else None
        if content is None or not isinstance(item.get("role"), str):
            return []
        turns.append({"role": item["role"], "content": content})
    return turns


def _text(content: Any) -> str | None:
    """Return the text of a message's content, given as text or as parts of text; None for anything else."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None  # type: ignore[arg-type]
