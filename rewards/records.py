"""Tables of a response or a reference as records: markdown, CSV, TSV or JSON, bounded in size.

A record is a mapping from column name to cell text. Column names are normalised (text.normalise); a table that names a
column twice is not read.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.structured import MAX_CHARS, NOTHING, find_json, parse_json, stated
from rewards.text import normalise

Record = dict[str, Any]
MAX_ROWS = 400
MAX_COLUMNS = 100
_RULE = re.compile(r"\s*:?-+:?\s*")


def column_name(name: Any) -> str:
    """Return a column's or a key's name in one spelling: `Unit_Price` and `unit price` are one.

    Example:
        >>> column_name(" Total_Amount: ")
        'total amount'
    """
    plain = str(name).replace("_", " ").strip(" *`\"':")
    return normalise(plain) or plain.casefold()


def find_table(answer: str) -> list[Record] | None:
    """Return the table that a response gives; None where there is none that can be read."""
    value = find_json(answer)
    if value is not NOTHING:
        return records_of(value)
    text = stated(answer)
    return _markdown(text) or _csv(text) if text else None


def reference_table(reference: Any) -> list[Record] | None:
    """Return the records of a reference: a list of mappings, `{columns, rows}`, or the text of a table."""
    if not isinstance(reference, str):
        return records_of(reference)
    if len(reference) > MAX_CHARS:
        return None
    value = parse_json(reference)
    return records_of(value) if value is not NOTHING else _markdown(reference) or _csv(reference.strip())


def records_of(value: Any) -> list[Record] | None:
    """Return the records of a JSON value: mappings, rows under a header, or one mapping of columns."""
    if isinstance(value, Mapping):
        lowered = {column_name(key): item for key, item in value.items()}
        header, rows = lowered.get("columns", lowered.get("header")), lowered.get("rows", lowered.get("data"))
        if isinstance(header, list) and isinstance(rows, list):
            return _rows([header, *rows])
        columns = [item for item in value.values() if isinstance(item, list)]
        if columns and len(columns) == len(value) and len({len(item) for item in columns}) == 1:
            return _rows([list(value), *(list(row) for row in zip(*columns, strict=True))])
        return _mappings([value])
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(item, Mapping) for item in value):
        return _mappings(value)
    return _rows(value) if all(isinstance(item, list | tuple) for item in value) else None


def _mappings(items: Sequence[Mapping[str, Any]]) -> list[Record] | None:
    if len(items) > MAX_ROWS:
        return None
    records = []
    for item in items:
        record = {column_name(key): value for key, value in item.items()}
        flat = not any(isinstance(value, list | dict) for value in record.values())
        if len(record) != len(item) or not flat or len(record) > MAX_COLUMNS:
            return None
        records.append(record)
    return records


def _rows(rows: Sequence[Any]) -> list[Record] | None:
    """Return the records of rows whose first is the header."""
    if not 2 <= len(rows) <= MAX_ROWS + 1 or not all(isinstance(row, list | tuple) for row in rows):
        return None
    header = [column_name(name) for name in rows[0]]
    if len(set(header)) != len(header) or not 1 <= len(header) <= MAX_COLUMNS:
        return None
    if any(len(row) > len(header) for row in rows):
        return None
    return [dict(zip(header, row, strict=False)) for row in rows[1:]]


def _markdown(text: str) -> list[Record] | None:
    """Return the last markdown table of a text: a header, a rule of dashes, rows."""
    lines = [line.strip() for line in text.split("\n")]
    ruled = [index for index, line in enumerate(lines) if index and _is_rule(line) and "|" in lines[index - 1]]
    if not ruled:
        return None
    rows = [_cells(lines[ruled[-1] - 1])]
    for line in lines[ruled[-1] + 1 : ruled[-1] + MAX_ROWS + 3]:
        if "|" not in line:
            break
        rows.append(_cells(line))
    return _rows(rows)


def _is_rule(line: str) -> bool:
    return "-" in line and "|" in line and all(_RULE.fullmatch(cell) for cell in _cells(line))


def _cells(line: str) -> list[str]:
    line = line.removeprefix("|").removesuffix("|") if not line.endswith("\\|") else line.removeprefix("|")
    parts = line.replace("\\|", "\x00").split("|")
    return [part.replace("\x00", "|").strip(" *`") for part in parts[: 2 * MAX_COLUMNS]]


def _csv(text: str) -> list[Record] | None:
    """Return the records of comma- or tab-separated text, all of it."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not 2 <= len(lines) <= MAX_ROWS + 1:
        return None
    delimiter = "\t" if "\t" in lines[0] else ","
    if delimiter not in lines[0]:
        return None
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
    except csv.Error:
        return None
    return _rows(rows) if len({len(row) for row in rows}) == 1 else None
