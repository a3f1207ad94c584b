"""What an image or video is, whatever it is called: a hash of its content, for keys of caches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def media_hash(handle: Any) -> str:
    """A hash of an image's or video's content: equal for a file and a copy of it, another one once its bytes change.

    Args:
        handle: Path, content of a file, PIL image, or a mapping of `frames` (in any of these forms) and `times`.

    Raises:
        OSError: A file cannot be read.
    """
    if isinstance(handle, str | Path):
        with open(handle, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(handle, Mapping):
        content = "\0".join([*map(media_hash, handle["frames"]), repr(list(handle["times"]))]).encode()
    elif isinstance(handle, bytes):
        content = handle
    else:
        content = repr((handle.mode, handle.size)).encode() + handle.tobytes()
    return hashlib.sha256(content).hexdigest()
