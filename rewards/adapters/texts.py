"""Text and plain values out of what other trainers pass."""

from collections.abc import Mapping, Sequence
from typing import Any


def last_text(turns: Any) -> str:
    """Return the text itself, or that of the last message of a conversation (Tandem's `prompt` and `response`)."""
    if isinstance(turns, str):
        return turns
    if isinstance(turns, Sequence) and turns and isinstance(turns[-1], Mapping):
        return content_text(turns[-1].get("content"))
    return ""


def content_text(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of parts of which the text ones count."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping) and part.get("text"))


def plain(value: Any) -> Any:
    """Return numpy arrays and scalars as Python's own lists and numbers, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value
