"""Preference pairs: two answers to one prompt, of which one is better. TRL's preference format.

    {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
    {"prompt": [{"role": "user", "content": "2 + 2?"}],
     "chosen": [{"role": "assistant", "content": "4"}], "rejected": [{"role": "assistant", "content": "5"}]}

    {"chosen": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}], "rejected": [...]}

The forms may be mixed; of two conversations without a prompt, the turns they begin with alike are the prompt. Images
and videos stand in the columns `images` and `videos`; parts `{"type": "image"}` or `<image>` in the prompt say where,
and where nothing does, they stand first. Other columns are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recipes.row_media import MediaFiles, media_key, media_list, placed
from recipes.sources import HubSource, RawRow, read_file

if TYPE_CHECKING:
    from recipes.samples import Rejected

MEDIA = {"images": "image", "videos": "video"}
"""Column of several -> its other name, for one alone, which is also the type of the parts."""
PairSource = Path | list[Path] | HubSource
"""Where pairs come from: files, or a dataset of the hub."""


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
    images: tuple[Any, ...] = ()
    """Images in the order of the prompt's image parts; see `recipes.row_media.media_handle`."""
    videos: tuple[Any, ...] = ()
    """Videos in the order of the prompt's video parts."""
    problem: Rejected | None = None
    """Why its images and videos are not there."""
    mode: str | None = None
    """Name of the mode the answers were given in, where the row has a column `mode`."""

    @property
    def prompt_key(self) -> str:
        """What makes two prompts the same: roles and contents, images and videos."""
        if self.problem is not None:
            return self.place
        turns = "\0".join(f"{turn['role']}\0{turn['content']}" for turn in self.messages)
        return "\0".join([turns, *map(media_key, (*self.images, *self.videos))])


def read_pairs(paths: Iterable[Path], *, media: MediaFiles | None = None) -> list[Pair]:
    """Return the pairs of JSONL, JSON or Parquet files.

    Args:
        paths: The files.
        media: Which files rows may name; None = rows with images or videos are refused.

    Raises:
        ValueError: a file cannot be read, a column is missing, or a row is no pair of texts; the row is named.
    """
    return [_pair(row, media) for path in paths for row in read_file(path)]


def load_pairs(source: PairSource, *, media: MediaFiles | None = None) -> list[Pair]:
    """Return the pairs of a source; see `read_pairs`."""
    if isinstance(source, HubSource):
        return [_pair(row, media) for row in source.rows("train")]
    return read_pairs(source if isinstance(source, list) else [source], media=media)


def split_pairs(
    source: PairSource, eval_source: PairSource | None, eval_size: int, seed: int, *, media: MediaFiles | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train and to evaluate on; no prompt is in both.

    Args:
        source: Pairs to train on.
        eval_source: Pairs to evaluate on; None = `eval_size` of the others are held out.
        eval_size: See `hold_out`; 0 = none.
        seed: Of the choice.
        media: As in `read_pairs`.

    Raises:
        ValueError: sources that cannot be read, rows that are no pairs, nothing left on either side.
    """
    pairs = load_pairs(source, media=media)
    if eval_source is None:
        return hold_out(pairs, eval_size, seed) if eval_size else (pairs, [])
    trained = {pair.prompt_key for pair in pairs}
    evaluated = [pair for pair in load_pairs(eval_source, media=media) if pair.prompt_key not in trained]
    if not evaluated:
        raise ValueError("every prompt of eval_pairs is trained on as well: name a file of other prompts.")
    return pairs, evaluated


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


class GivenPrompt(NamedTuple):
    """A row's prompt, with its images and videos found."""

    messages: tuple[Mapping[str, Any], ...]
    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()
    problem: Rejected | None = None
    """Why the images and videos are not there."""


def given_prompt(value: Any, row: RawRow, media: MediaFiles | None) -> GivenPrompt:
    """Return a row's prompt, given as text or as messages, with the images and videos of the row in their places.

    Args:
        value: The prompt.
        row: The row, for its media.
        media: Which files it may name; None = it may have no media.

    Raises:
        ValueError: it is neither, parts and media do not match, or there are media where there may be none.
    """
    found = {many: media_list(row.values.get(many) or row.values.get(one)) for many, one in MEDIA.items()}
    given = next((many for many, handles in found.items() if handles), None)
    if media is None and given is not None:
        raise ValueError(
            f"{row.place} has {given!r}, and a reward model is trained on text only so far: leave such pairs out."
        )
    messages = prompt_turns(value, row.place, media is not None)
    if media is None:
        return GivenPrompt(messages)
    if any(found.values()) or any(not isinstance(turn["content"], str) for turn in messages):
        try:
            messages = placed(messages, len(found["images"]), len(found["videos"]))
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}.") from None
    return _with_files(messages, found, row, media)


def _with_files(
    messages: tuple[Mapping[str, Any], ...], found: Mapping[str, Sequence[Any]], row: RawRow, media: MediaFiles
) -> GivenPrompt:
    from recipes.samples import Rejected
    from recipes.samples.media import found as file_found

    try:
        images, videos = (
            tuple(
                file_found(value, media.folder or row.folder, outside=media.outside, place=row.place)
                for value in found[many]
            )
            for many in MEDIA
        )
    except Rejected as problem:
        return GivenPrompt(messages, problem=problem)
    return GivenPrompt(messages, images, videos)


def _pair(row: RawRow, media: MediaFiles | None) -> Pair:
    values = _with_prompt(row.values)
    for column in ("prompt", "chosen", "rejected"):
        if values.get(column) is None:
            raise ValueError(
                f"{row.place} has no {column!r}, and a preference pair is `prompt`, `chosen`, `rejected`; it has "
                f"{', '.join(map(str, row.values)) or 'nothing'}."
            )
    mode = values.get("mode")
    return Pair(
        **given_prompt(values["prompt"], row, media)._asdict(),
        chosen=_answer(values["chosen"], "chosen", row.place),
        rejected=_answer(values["rejected"], "rejected", row.place),
        place=row.place,
        mode=mode if isinstance(mode, str) else None,
    )


def _with_prompt(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Two whole conversations taken apart into the turns that they begin with alike, and what follows."""
    chosen, rejected = values.get("chosen"), values.get("rejected")
    if values.get("prompt") is not None or not isinstance(chosen, list) or not isinstance(rejected, list):
        return values
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return {**values, "prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def prompt_turns(value: Any, place: str, media: bool) -> tuple[Mapping[str, Any], ...]:
    """Return the turns of a prompt, given as text or as messages.

    Args:
        value: The prompt.
        place: Where it stands, for the error.
        media: Whether images and videos may stand in it.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    turns = _turns(value, media)
    if not turns or turns[-1]["role"] != "user":
        raise ValueError(
            f"{place}: `prompt` must be text, or a list of messages with role and text content, the last by the user."
        )
    return tuple(turns)


def _answer(value: Any, column: str, place: str) -> str:
    if isinstance(value, str):
        return value
    turns = _turns(value)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise ValueError(
            f"{place}: {column!r} must be text, or a list of one assistant message; the turns before it belong "
            "into `prompt`."
        )
    return str(turns[0]["content"])


def _turns(value: Any, media: bool = False) -> list[dict[str, Any]]:
    """Return the messages of a list; empty where it is none, or holds anything but text (and media, where allowed)."""
    turns = []
    for item in value if isinstance(value, list | tuple) else ():
        content = _content(item.get("content"), media) if isinstance(item, Mapping) else None
        if content is None or not isinstance(item.get("role"), str):
            return []
        turns.append({"role": item["role"], "content": content})
    return turns


def _content(content: Any, media: bool) -> str | list[dict[str, Any]] | None:
    """Return a message's content, text parts joined to text unless media stand among them; None for anything else."""
    if isinstance(content, str):
        return content
    parts = [_part(part, media) for part in content] if isinstance(content, list) else [None]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return "".join(part["text"] for part in known) if all(part["type"] == "text" for part in known) else known


def _part(part: Any, media: bool) -> dict[str, Any] | None:
    """Return a part with the keys of its type alone: a table gives every part the keys of all."""
    if not isinstance(part, Mapping):
        return None
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    return {"type": part["type"]} if media and part.get("type") in MEDIA.values() else None
