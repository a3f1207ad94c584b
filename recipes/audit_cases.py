"""The cases of an audit: rows of a JSONL file, checked, and what training would make of each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.samples import ModeTags

SHOWN_CHARS = 60


def read_cases(path: Path, score_columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file.

    Args:
        path: the file.
        score_columns: columns that must hold a finite number, true, false or null in every row.

    Raises:
        ValueError: no such file, no rows, or a line that is not a JSON object with a `response`, with its number.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogatepass")
    except FileNotFoundError:
        raise ValueError(f"the cases file {path} does not exist.") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise ValueError(f"the cases file {path} cannot be read as JSON lines: {error}.") from error
    rows = []
    # Not splitlines: U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno}).") from error
        except RecursionError:
            raise ValueError(f"{path}, line {number}: not valid JSON (nested too deeply).") from None
        except ValueError as error:  # an integer of thousands of digits
            raise ValueError(f"{path}, line {number}: not valid JSON ({error}).") from error
        _check_case(row, f"{path}, line {number}", score_columns)
        rows.append(row)
    if not rows:
        raise ValueError(f"the cases file {path} has no cases.")
    return rows


def _check_case(row: Any, place: str, score_columns: Sequence[str]) -> None:
    if not isinstance(row, dict) or "response" not in row:
        raise ValueError(f"{place}: a case must be an object with a `response` key.")
    if not isinstance(row["response"], str | None):
        raise ValueError(f"{place}: `response` must be text (or null for none), got {_brief(row['response'])}.")
    if not isinstance(row.get("expected"), bool | None):
        raise ValueError(f"{place}: `expected` must be true or false, got {_brief(row['expected'])}.")
    for name in score_columns:
        try:
            value = ready_score(row, name)
        except KeyError:
            known = ", ".join(row)
            raise ValueError(f"{place}: there is no column {name!r} to take the score from; it has {known}.") from None
        if value is not None and not _is_finite(value):
            raise ValueError(f"{place}: the score {name!r} must be a finite number or null, got {_brief(value)}.")


def ready_score(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or of `column.key` inside one. Raises KeyError where there is none."""
    if name in row:
        return row[name]
    column, _, key = name.partition(".")
    inside = row[column]
    if not isinstance(inside, Mapping):
        raise KeyError(name)
    return inside[key]


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def sample_of(row: dict[str, Any], modes: Mapping[str, ModeTags] | None = None) -> dict[str, Any]:
    """Return the sample that training would make of a response: thinking and answer apart."""
    from rewards.samples import DEFAULT_MODES, make_sample

    columns = {"prompt": "", "reference": None, "response_ids": [], **row}
    response = row["response"] or ""
    return make_sample(response, mode=row.get("mode"), modes=modes or DEFAULT_MODES, columns=columns, truncated=False)
