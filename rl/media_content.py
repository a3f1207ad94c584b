"""What tells images and videos apart: a hash of their content, wherever their files lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def media_hash(handle: Any) -> str:
    """Hash of an image or video as a data row has it.

    Args:
        handle: path, content of a file, PIL image, or a mapping of `frames` (such handles) and `times` (seconds).

    Returns:
        Hexadecimal digits; those of a file are those of its content.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is none of these.
    """
    digest = hashlib.sha256()
    if isinstance(handle, str | Path):
        with open(handle, "rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    elif isinstance(handle, bytes):
        digest.update(handle)
    elif isinstance(handle, Mapping) and isinstance(handle.get("frames"), list | tuple) and "times" in handle:
        for frame in handle["frames"]:
            digest.update(media_hash(frame).encode())
        digest.update(repr([float(time) for time in handle["times"]]).encode())
    elif hasattr(handle, "tobytes") and hasattr(handle, "mode"):
        digest.update(repr((handle.mode, handle.size)).encode())
        digest.update(handle.tobytes())
    else:
        raise ValueError(f"{handle!r:.80} is not an image or video: give the path of a file")
    return digest.hexdigest()
