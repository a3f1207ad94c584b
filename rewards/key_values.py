"""`key_values`: a JSON object against the reference's, leaf by leaf, by F1 or all or nothing.

- Both are taken apart into (path, value) pairs: `{"total": {"tax": "1.50"}}` is (total / tax, 1.5). Keys are
  normalised (`Total_Price` = `total price`), values compared by item_key: numbers by value, words up to case,
  articles, punctuation.
- Score: F1 = 2 * right / (pairs given + pairs asked): missing and extra pairs both cost. Empty objects, lists and texts
  and null hold no pair.
- The answer is JSON (structured.py), a table whose two columns are key and value or whose rows are records, or lines of
  the form `key: value`. An object that gives one key twice is not read.
- `ordered: false`: the elements of a list may stand in any order (records of a list: their pairs in any order).
"""

import json
from collections.abc import Mapping
from typing import Any

from rewards import arguments
from rewards.item_key import Key, item_key
from rewards.overlap import common, f1
from rewards.records import column_name, find_table
from rewards.registry import RewardError, reward
from rewards.structured import MAX_DEPTH, NOTHING, depth_of, find_json, parse_json, stated

Pair = tuple[tuple[str, ...], Key]
MAX_PAIRS = 5000
MAX_KEY = 80


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return reference if isinstance(reference, str) else json.dumps(reference, default=str)


@reward("key_values", gold=gold_answer, validate=arguments.validator(ordered=arguments.flag, partial=arguments.flag))
def key_values(
    *, answer: str | None, reference: Any, ordered: bool | None = True, partial: bool | None = True
) -> float | None:
    """Return the F1 of the answer's (path, value) pairs, or 1.0 and 0.0; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right object, as a mapping, a list, or JSON text.
        ordered: the order of lists matters.
        partial: F1; otherwise all pairs or nothing.

    Raises:
        RewardError: the reference is no JSON object or list, or holds no pair.

    Example:
        >>> key_values(answer='{"shop": "ACME", "total": "12.00"}', reference={"Shop": "Acme", "Total": 12})
        1.0
    """
    if reference is None or reference == "":
        return None
    in_order = arguments.flag("ordered", ordered, True)
    wanted = _pairs(parse_json(reference) if isinstance(reference, str) else reference, in_order)
    if not wanted:
        raise RewardError(
            f"`key_values` needs a reference that is a JSON object or list with a value, at most {MAX_PAIRS} "
            f"values and {MAX_DEPTH} levels, got {str(reference)[:80]!r}."
        )
    found = _pairs(_given(answer), in_order) if isinstance(answer, str) else None
    if not found:
        return 0.0
    score = f1(common(found, wanted), len(found), len(wanted))
    return score if arguments.flag("partial", partial, True) else float(score == 1.0)


def _given(answer: str) -> Any:
    """Return what a response gives as an object: JSON, a table, lines of `key: value`."""
    value = find_json(answer)
    if value is not NOTHING:
        return value
    records = find_table(answer)
    if records:
        cells = [list(row.values()) for row in records]
        return {row[0]: row[1] for row in cells} if all(len(row) == 2 for row in cells) else records
    lines = [pair for line in stated(answer).split("\n") if (pair := _line(line)) is not None]
    return dict(lines) if len(dict(lines)) == len(lines) else NOTHING


def _line(line: str) -> tuple[str, str] | None:
    """Return key and value of a line such as `- **Total:** 12.00`."""
    key, colon, value = line.strip(" \t-*•").partition(":")
    key, value = key.strip(" *"), value.strip(" *\t\r")
    return (key, value) if colon and value and 0 < len(key) <= MAX_KEY else None


def _pairs(value: Any, ordered: bool) -> list[Pair] | None:
    """Return the (path, value) pairs of an object; None where it is none, or too large."""
    if not isinstance(value, Mapping | list) or depth_of(value) > MAX_DEPTH:
        return None
    found: list[Pair] = []
    rest: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while rest:
        path, item = rest.pop()
        if isinstance(item, Mapping):
            keys = [column_name(key) for key in item]
            if len(set(keys)) != len(keys):
                return None  # `Total` and `total`: one key twice
            rest.extend(((*path, key), child) for key, child in zip(keys, item.values(), strict=True))
        elif isinstance(item, list | tuple):
            rest.extend(((*path, f"[{index}]" if ordered else "[]"), child) for index, child in enumerate(item))
        elif item is not None and str(item).strip():
            found.append((path, item_key(item)))
        if len(found) + len(rest) > 4 * MAX_PAIRS:
            return None
    return found if len(found) <= MAX_PAIRS else None
