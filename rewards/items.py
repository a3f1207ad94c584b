"""`items`: lists and sets of items, by F1 or all or nothing, in order or not.

- The reference is a list, or a text split at line breaks, else at `;`, else at `,` and a last `and`.
- The answer is a JSON list; else a bullet or numbered list (the last one); else the final answer's text, split like the
  reference. Items are compared by item_key: numbers by value, words up to case, articles and punctuation.
- `ordered`: the longest common subsequence counts instead of the common items. `duplicates: false` makes both sets.
"""

import re
from collections.abc import Mapping
from typing import Any

from rewards import arguments
from rewards.extract import final_answer, visible
from rewards.item_key import Key, item_key
from rewards.overlap import common, common_in_order, f1
from rewards.registry import RewardError, reward
from rewards.structured import MAX_CHARS, NOTHING, find_json, parse_json, stated

MAX_ITEMS = 500
"""An answer of more items than this, and than the reference has, is spraying."""
MAX_REFERENCE = 5000
MAX_SENTENCE = 20_000
_BULLET = re.compile(r"^[ \t]*(?:[-*•+]|\(?\d{1,3}[.)])[ \t]+(\S.*)$")
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}")
_OUTER = {"[": "]", "{": "}", "(": ")"}
_AND = re.compile(r"(?:^|\s)(?:and|et|und|y|和)\s+", re.IGNORECASE)
_VERB = re.compile(r"^[^:,;]{0,200}?(?:\b(?:are|is|were|was|include|includes|contains?)\b:?|:)\s+", re.IGNORECASE)
_COMMA = re.compile(r",(?!\d{3}(?!\d))|，|、")


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return "\n".join(f"- {item}" for item in split_items(reference))


@reward(
    "items",
    gold=gold_answer,
    validate=arguments.validator(ordered=arguments.flag, partial=arguments.flag, duplicates=arguments.flag),
)
def items(
    *,
    answer: str | None,
    reference: Any,
    ordered: bool | None = False,
    partial: bool | None = True,
    duplicates: bool | None = True,
) -> float | None:
    """Return the F1 of the answer's items against the reference's, or 1.0 and 0.0; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right items, as a list or as text.
        ordered: the order matters.
        partial: F1; otherwise all items or nothing.
        duplicates: an item given twice counts twice.

    Raises:
        RewardError: a reference of more than 5000 items.

    Example:
        >>> items(answer="The primary colours are:\\n- red\\n- blue", reference=["red", "yellow", "blue"])
        0.8
    """
    asked = split_items(reference)
    if not asked:
        return None
    if len(asked) > MAX_REFERENCE:
        raise RewardError(f"`items` takes references of at most {MAX_REFERENCE} items, got {len(asked)}.")
    given = listed(answer) if isinstance(answer, str) else []
    if not given or len(given) > max(MAX_ITEMS, len(asked)):
        return 0.0
    wanted, found = [item_key(item) for item in asked], [item_key(item) for item in given]
    if not arguments.flag("duplicates", duplicates, True):
        wanted, found = list(dict.fromkeys(wanted)), list(dict.fromkeys(found))
    right = _shared(found, wanted, arguments.flag("ordered", ordered))
    score = f1(right, len(found), len(wanted))
    return score if arguments.flag("partial", partial, True) else float(score == 1.0)


def _shared(found: list[Key], wanted: list[Key], ordered: bool) -> int:
    if found == wanted:
        return len(found)
    if not ordered:
        return common(found, wanted)
    return common_in_order(found[: 4 * MAX_ITEMS], wanted[: 4 * MAX_ITEMS])


def split_items(value: Any) -> list[Any]:
    """Return the items of a list, or of a text that lists them."""
    if isinstance(value, list | tuple | set):
        return [item for item in value if item is not None and str(item).strip()]
    if value is None:
        return []
    text = str(value).strip()
    whole = parse_json(text) if text[:1] == "[" else NOTHING
    return [item for item in whole if item is not None] if isinstance(whole, list) else _split(text)


def listed(answer: str) -> list[Any]:
    """Return the items that a response lists."""
    if len(answer) > MAX_CHARS:
        return []
    value = find_json(answer, (list,))
    if value is not NOTHING and not any(isinstance(item, list | Mapping) for item in value):
        return list(value)
    final = final_answer(answer)
    if final.kind == "box":
        return _split(final.text)
    text = stated(answer)
    bullets = _bullets(text or visible(answer))
    if bullets:
        return bullets
    if final.kind == "phrase" or len(final.text) > MAX_SENTENCE:
        return _split(final.text)
    return _split(_VERB.sub("", text.rpartition("\n")[2].strip(), count=1))


def _bullets(text: str) -> list[str]:
    """Return the items of the last bullet or numbered list, blank lines between items allowed."""
    found: list[str] = []
    broken = False
    for line in text.split("\n"):
        match = _BULLET.match(line)
        if match:
            if broken:
                found = []
            found.append(match[1])
            broken = False
        elif line.strip():
            broken = True
    return [item.strip(" *") for item in found]


def _split(text: str) -> list[str]:
    text = _WRAPPER.sub(r" \1 ", text.replace("$", " ").replace("\\{", "{").replace("\\}", "}")).strip(" .\n")
    if len(text) > 1 and _OUTER.get(text[0]) == text[-1]:
        text = text[1:-1]
    for separator in ("\n", ";"):
        if separator in text:
            return _stripped(text.split(separator))
    parts = _COMMA.split(text)
    last = [item for item in _AND.split(parts[-1]) if item.strip()]
    return _stripped([*parts[:-1], *last])


def _stripped(parts: list[str]) -> list[str]:
    found = []
    for part in parts:
        match = _BULLET.match(part)
        plain = (match[1] if match else part).strip(" *\"'\t\r.")
        if plain:
            found.append(plain)
    return found
