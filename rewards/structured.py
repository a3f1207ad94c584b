"""The structured answer of a response: the JSON value, the list or the table that it gives. Bounded in size and depth.

1. Only what a user sees counts (extract.visible), and of that the content of `<answer>...</answer>` where there is one.
2. The last fenced code block, else the content of the last box, else the text itself.
3. In it: the whole as JSON; else the last outermost JSON object or list that stands in the text.

Two different values side by side, with nothing but `or`, `and`, commas or blanks between them, are no answer: a
response that offers several values has none. An object that gives one key twice is not read either.
"""

import json
import re
from typing import Any

from rewards.extract import final_answer, visible

MAX_CHARS = 200_000
"""Longer answers are not read: no reference is of that size."""
MAX_DEPTH = 40
MAX_STARTS = 64
"""Places at which a JSON value is looked for in running text."""
NOTHING = object()
"""No structured value was found; None is JSON's null."""

_FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]{0,20})[ \t]*\r?\n?([^`]*)```")
_SIDE_BY_SIDE = re.compile(r"[\s,;]*(?:\b(?:or|and|either|maybe)\b[\s,;:]*)*", re.IGNORECASE)
_OPEN = re.compile(r"[{\[]")


class _Unreadable(ValueError):
    pass


def stated(answer: str) -> str:
    """Return the part of a response that holds its structured answer (rules 1 and 2); empty where several differ."""
    text = visible(answer)
    if len(text) > MAX_CHARS:
        return ""
    tagged = set(between(text, "<answer>", "</answer>"))
    if len(tagged) > 1:
        return ""
    text = tagged.pop() if tagged else text
    fences = list(_FENCE.finditer(text))
    if fences:
        return "" if _offers_two(text, fences) else fences[-1][2].strip()
    if "\\boxed" in text or "\\fbox" in text:
        final = final_answer(text)
        return final.text.replace("\\{", "{").replace("\\}", "}").strip() if final.kind == "box" else ""
    return text.strip()


def between(text: str, opening: str, closing: str) -> list[str]:
    """Return what stands between each pair of two tags, in one pass."""
    found: list[str] = []
    start = text.find(opening)
    while start >= 0:
        end = text.find(closing, start)
        if end < 0:
            break
        found.append(text[start + len(opening) : end].strip())
        start = text.find(opening, end)
    return found


def _offers_two(text: str, fences: list[re.Match[str]]) -> bool:
    if len(fences) < 2 or fences[-1][2].strip() == fences[-2][2].strip():
        return False
    return bool(_SIDE_BY_SIDE.fullmatch(text, fences[-2].end(), fences[-1].start()))


def find_json(answer: str, kinds: tuple[type, ...] = (dict, list)) -> Any:
    """Return the JSON value that a response gives, or NOTHING.

    Args:
        answer: the response without its thinking.
        kinds: what counts as an answer: objects, lists.
    """
    text = stated(answer)
    if not text:
        return NOTHING
    whole = parse_json(text)
    if isinstance(whole, kinds):
        return whole
    return NOTHING if whole is not NOTHING else _last_value(text, kinds)


def _last_value(text: str, kinds: tuple[type, ...]) -> Any:
    """Return the last outermost value of the text."""
    found: list[tuple[int, int, Any]] = []
    place = 0
    for _ in range(MAX_STARTS):
        opening = _OPEN.search(text, place)
        if opening is None:
            break
        value, end = _decode(text, opening.start())
        if value is NOTHING:
            place = opening.start() + 1
            continue
        if isinstance(value, kinds):
            found.append((opening.start(), end, value))
        place = end
    else:
        return NOTHING
    if not found:
        return NOTHING
    if len(found) > 1 and found[-1][2] != found[-2][2]:
        between = text[found[-2][1] : found[-1][0]]
        if _SIDE_BY_SIDE.fullmatch(between):
            return NOTHING
    return found[-1][2]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Unreadable("a key is given twice")
    return result


def _refuse(name: str) -> Any:
    raise _Unreadable(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_refuse)


def parse_json(text: str) -> Any:
    """Return the value of a text that is JSON as a whole, or NOTHING: also if too long, too deep, or a key is twice."""
    if len(text) > MAX_CHARS:
        return NOTHING
    text = text.strip()
    value, end = _decode(text, 0)
    return value if end == len(text) else NOTHING


def _decode(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return NOTHING, -1
    return (value, end) if depth_of(value) <= MAX_DEPTH else (NOTHING, -1)


def depth_of(value: Any) -> int:
    """Return how deeply lists and objects are nested, at most MAX_DEPTH + 1 (beyond it, it does not matter)."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return depth
        depth += 1
    return depth
