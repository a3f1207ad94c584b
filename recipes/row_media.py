"""Media of a data row: where their files are, and where they stand in the messages.

Data is not trusted: paths are taken relative to the folder of the data file and may not leave it, and there are no
URLs, unless the user's configuration (never the data) says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.media_content import media_hash

MARKERS = {"image": "<image>", "video": "<video>"}
_MARKER = re.compile("(<image>|<video>)")
_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+:")


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFiles:
    """Which files the rows of a data file may name."""

    folder: Path | None = None
    """Folder that paths are relative to; None = that of the data file."""
    outside: bool = False
    """Whether files may lie outside of it."""


class PathRefused(ValueError):
    """A path that the data may not name."""


class MissingMedia(ValueError):
    """There is no such file."""


def media_path(value: str, folder: Path, *, outside: bool = False) -> Path:
    """Where the file is that a row names.

    Args:
        value: Path as it stands in the row, relative to `folder`.
        folder: Folder of the data file, or the one that the configuration names.
        outside: Whether the file may lie outside the folder.

    Raises:
        PathRefused: it is a URL, or lies outside the folder.
        MissingMedia: there is no such file.
    """
    if _URL.match(value):
        raise PathRefused(f"{_short(value)} is a URL, and media are read from files: download it, and name the file")
    if "\0" in value or not value.strip():
        raise PathRefused(f"{_short(value)} is not the name of a file")
    path = folder / value
    if not outside and not path.resolve().is_relative_to(folder.resolve()):
        raise PathRefused(
            f"{_short(value)} lies outside {folder}: move it there, or allow it in the configuration (media_outside)"
        )
    try:
        if path.is_file():
            return path
    except OSError:  # a name longer than file systems take
        pass
    raise MissingMedia(f"there is no file {_short(value)} in {folder}")


def media_list(value: Any) -> list[Any]:
    """A column as a list of media: None is none, a single one is a list of one."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def media_handle(value: Any, folder: Path | None, *, outside: bool = False) -> Any:
    """What a row gives as an image or video, with its file found.

    Args:
        value: path relative to the folder; {path} or {bytes} as `datasets` writes them; {frames, times}; bytes, a PIL
            image, or a `pathlib.Path`, which only a user's own code can make.
        folder: see `media_path`; None = not from a file, so that there is no path to follow.
        outside: see `media_path`.

    Raises:
        ValueError: it is none of these, or `media_path` refuses it.
    """
    if isinstance(value, Mapping) and value.get("bytes"):
        value = value["bytes"]
    elif isinstance(value, Mapping) and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, str):
        if folder is None:
            raise PathRefused(
                f"{_short(value)} is a path, and its row comes from no file: give a pathlib.Path or bytes"
            )
        return media_path(value, folder, outside=outside)
    if isinstance(value, Mapping) and isinstance(value.get("frames"), list | tuple) and "times" in value:
        frames = [media_handle(frame, folder, outside=outside) for frame in value["frames"]]
        return {"frames": frames, "times": value["times"]}
    if isinstance(value, bytes | Path) or hasattr(value, "getbands"):
        return value
    raise ValueError(f"{_short(value)} is not an image or video: give the path of a file")


def media_key(handle: Any) -> str:
    """What tells media apart without opening a file: the path, or a hash of the content."""
    if isinstance(handle, str | Path):
        return str(handle)
    if isinstance(handle, Mapping):
        return "\0".join([*map(media_key, handle["frames"]), repr(list(handle["times"]))])
    return media_hash(handle)


def placed(messages: Sequence[Mapping[str, Any]], images: int, videos: int) -> tuple[Mapping[str, Any], ...]:
    """Messages with a part for every image and video.

    Places are `<image>` and `<video>` in the texts, or parts of type image and video. Where the messages name no place
    of a kind at all, its media stand before the text of the first user message.

    Raises:
        ValueError: the places do not match the media, or a message has no text.

    Example:
        placed([{"role": "user", "content": "<image> What is this?"}], images=1, videos=0) ==
            ({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},)
    """
    parts = [list(_parts(message)) for message in messages]
    for kind, count in (("image", images), ("video", videos)):
        places = sum(part["type"] == kind for each in parts for part in each)
        if places == 0 and count:
            first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
            if first is None:
                raise ValueError(f"there are {count} {kind}s and no user message to put them into")
            parts[first][:0] = [{"type": kind}] * count
        elif places != count:
            raise ValueError(
                f"the messages have {places} places for {kind}s ({MARKERS[kind]}), and the row has {count} {kind}s: "
                "write one place for each"
            )
    return tuple({**message, "content": _content(each)} for message, each in zip(messages, parts, strict=True))


def _parts(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as parts; markers in the texts of users become parts."""
    content = message["content"]
    if isinstance(content, str):
        if message["role"] == "assistant" or not _MARKER.search(content):
            yield {"type": "text", "text": content}
        else:
            yield from _cut(content)
        return
    if not isinstance(content, list | tuple) or not content:
        raise ValueError(f"the content of a message is {_short(content)}, and must be text or a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in MARKERS:
            yield {"type": kind}
        elif kind == "text" and isinstance(part.get("text"), str):
            yield {"type": "text", "text": part["text"]}
        else:
            raise ValueError(
                f"a part of a message is {_short(part)}, and must be of type image, video, or text with a text"
            )


def _cut(text: str) -> Iterator[dict[str, Any]]:
    """Text and media in order; line breaks next to a place are left out, since templates write their own."""
    kinds = {marker: kind for kind, marker in MARKERS.items()}
    for piece in _MARKER.split(text):
        if piece in kinds:
            yield {"type": kinds[piece]}
        elif piece.strip():
            yield {"type": "text", "text": piece.strip()}


def _content(parts: list[dict[str, Any]]) -> Any:
    """Text where there is nothing else, for templates that know only text."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
