"""`table`: a table's cells against the reference's, by F1 or all or nothing.

- A row is a record (column name -> cell); columns may stand in any order. Cells are compared by item_key: numbers by
  value, words up to case, articles and punctuation. Empty cells do not count.
- `ordered: false` (the default): rows are paired so that rows with most cells in common go first (greedy; ties in the
  reference's order). `ordered: true`: the first row with the first, and so on.
- Score: F1 over cells, 2 * right / (cells given + cells asked): missing and extra rows and cells both cost.

Read are markdown, CSV, TSV, and JSON as a list of records, as rows under a header, or as columns (records.py).
"""

import json
from collections import Counter, defaultdict
from typing import Any

from rewards import arguments
from rewards.item_key import Key, item_key
from rewards.overlap import f1
from rewards.records import Record, find_table, reference_table
from rewards.registry import RewardError, reward

Cells = dict[str, Key]


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return reference if isinstance(reference, str) else json.dumps(reference, default=str)


@reward("table", gold=gold_answer, validate=arguments.validator(ordered=arguments.flag, partial=arguments.flag))
def table(
    *, answer: str | None, reference: Any, ordered: bool | None = False, partial: bool | None = True
) -> float | None:
    """Return the F1 of the answer's cells against the reference's, or 1.0 and 0.0; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right table: a list of records, `{columns, rows}`, or the text of a table.
        ordered: the order of the rows matters.
        partial: F1; otherwise the whole table or nothing.

    Raises:
        RewardError: the reference is no table.

    Example:
        >>> table(answer="| a | b |\\n|---|---|\\n| 1 | 2 |", reference=[{"a": 1, "b": 3}])
        0.5
    """
    if reference is None or reference == "" or reference == []:
        return None
    wanted = _cells(reference_table(reference))
    if wanted is None:
        raise RewardError(
            f"`table` needs a reference that is a list of records or the text of a table of at most 400 rows, got "
            f"{str(reference)[:80]!r}."
        )
    found = _cells(find_table(answer)) if isinstance(answer, str) else None
    if not found:
        return 0.0
    right = _in_order(found, wanted) if arguments.flag("ordered", ordered) else _paired(found, wanted)
    score = f1(right, sum(map(len, found)), sum(map(len, wanted)))
    return score if arguments.flag("partial", partial, True) else float(score == 1.0)


def _cells(records: list[Record] | None) -> list[Cells] | None:
    if records is None:
        return None
    rows = [{name: item_key(cell) for name, cell in row.items() if str(cell or "0").strip()} for row in records]
    return rows if any(rows) else None


def _in_order(found: list[Cells], wanted: list[Cells]) -> int:
    return sum(len(one.items() & two.items()) for one, two in zip(found, wanted, strict=False))


def _paired(found: list[Cells], wanted: list[Cells]) -> int:
    """Return how many cells agree when rows are paired greedily by the number of cells they share."""
    if found == wanted:
        return sum(map(len, found))
    where: dict[tuple[str, Key], list[int]] = defaultdict(list)
    for index, row in enumerate(wanted):
        for cell in row.items():
            where[cell].append(index)
    shared: Counter[tuple[int, int]] = Counter()
    for index, row in enumerate(found):
        for cell in row.items():
            shared.update((index, other) for other in where.get(cell, ()))
    left, right, total = set[int](), set[int](), 0
    for (one, two), count in sorted(shared.items(), key=lambda item: (-item[1], item[0][1], item[0][0])):
        if one not in left and two not in right:
            left.add(one)
            right.add(two)
            total += count
    return total
