"""Pages with a table: names against numbers, prices and shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from recipes.render.fonts import width
from recipes.render.page import BOLD, REGULAR, Page, draw_page, page_content
from recipes.render.records import DoesNotFit, Kind, Look, Question
from recipes.render.words import GOODS, NAMES, PLACES, capital, code, heading

SUBJECTS = {"Name": NAMES, "City": PLACES, "Item": GOODS}
MEASURES = ("Visitors", "Age", "Stock", "Points", "Weight", "Rooms", "Orders", "Score", "Year")
WORD_COLUMNS: dict[str, Callable[[Random], str]] = {
    "Code": code,
    "Colour": lambda rng: rng.choice(("red", "blue", "green")),
}


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """As large a table as was meant and fits."""
    page = Page.random(rng, look)
    facts = _facts(rng)
    top = page.margin
    if rng.random() < 0.8:
        px, room = int(page.body * rng.uniform(1.1, 1.5)), page.size[0] - 2 * page.margin
        page.write(
            heading(rng, "latin"), page.margin, top, kind="title", group=page.group(), px=px, style=BOLD, room=room
        )
        top += page.line(px) + page.body // 2
    pad = max(4, page.body // 2)
    height = page.line() + pad
    facts["rows"] = facts["rows"][: max(0, (page.size[1] - page.margin - top) // height - 1)]
    while _total(page, facts, pad) > page.size[0] - 2 * page.margin and len(facts["columns"]) > 1:
        facts["columns"].pop()
        facts["rows"] = [row[:-1] for row in facts["rows"]]
    if len(facts["columns"]) < 2 or len(facts["rows"]) < 2:
        raise DoesNotFit
    _lay_out(page, rng, facts, top, pad, height)
    if rng.random() < 0.7:
        page.cut()
    return page.scene(facts)


def _facts(rng: Random) -> dict[str, Any]:
    """Columns (the first names the rows) and rows; numbers as strings, as they stand on the page."""
    subject = rng.choice(tuple(SUBJECTS))
    others = [*rng.sample(MEASURES, rng.randint(1, 4)), *rng.sample(tuple(WORD_COLUMNS), rng.randint(0, 1))]
    rng.shuffle(others)
    ranges = {name: sorted(rng.sample((10, 40, 100, 500, 3000), 2)) for name in MEASURES}
    rows = []
    for name in rng.sample(SUBJECTS[subject], rng.randint(3, 12)):
        cells = [WORD_COLUMNS[c](rng) if c in WORD_COLUMNS else str(rng.randint(*ranges[c])) for c in others]
        rows.append([name, *cells])
    return {"columns": [subject, *others], "rows": rows}


def _widths(page: Page, facts: Mapping[str, Any], pad: int) -> list[int]:
    """Width of each column with its padding."""
    columns = zip(facts["columns"], *facts["rows"], strict=True)
    return [max(width(text, page.font(BOLD), page.body) for text in column) + 2 * pad for column in columns]


def _total(page: Page, facts: Mapping[str, Any], pad: int) -> int:
    return sum(_widths(page, facts, pad))


def _lay_out(page: Page, rng: Random, facts: Mapping[str, Any], top: int, pad: int, height: int) -> None:
    """Draws the lines of a random style, and writes the cells."""
    widths = _widths(page, facts, pad)
    spare = page.size[0] - 2 * page.margin - sum(widths)
    widths = [w + rng.choice((0, spare // len(widths))) for w in widths]
    style, left = rng.choice(("grid", "rules", "stripes", "plain")), page.margin
    right, lines = left + sum(widths), [top + at * height for at in range(len(facts["rows"]) + 2)]
    if style == "stripes":
        for at in range(0, len(facts["rows"]) + 1, 2):
            page.rule(left, lines[at], right, lines[at + 1], page.shade(0.25 if at == 0 else 0.1))
    shown = lines if style == "grid" else [lines[0], lines[1], lines[-1]] if style == "rules" else []
    for y in shown:
        page.rule(left, y, right + 1, y + 1)
    if style == "grid":
        for at in range(len(widths) + 1):
            x = left + sum(widths[:at])
            page.rule(x, top, x + 1, lines[-1] + 1)
    for at, row in enumerate([facts["columns"], *facts["rows"]]):
        _write_row(page, row, facts["rows"][0], widths, lines[at] + pad // 2 + 1, pad, header=at == 0)


def _write_row(
    page: Page, row: list[str], first: list[str], widths: list[int], top: int, pad: int, *, header: bool
) -> None:
    """One row of cells; columns that are numbers in the first row are aligned at the right."""
    group, x = page.group(), page.margin
    for at, (text, sample, wide) in enumerate(zip(row, first, widths, strict=True)):
        align = "left" if at == 0 or not sample.isdigit() else "right"
        style = BOLD if header else REGULAR
        page.write(text, x + pad, top, kind="cell", group=group, style=style, align=align, room=wide - 2 * pad)
        x += wide


def markdown(facts: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    lines = [facts["columns"], ["---"] * len(facts["columns"]), *facts["rows"]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """A transcription, a cell, or a computation over a column of numbers."""
    facts = scene["facts"]
    numbers = [at for at, name in enumerate(facts["columns"]) if name in MEASURES]
    makers = [_cell, _cell, _transcribe]
    makers += [_extreme, _sum, _above, _difference] if numbers else []
    return rng.choice(makers)(facts, numbers, rng)


def _transcribe(facts: Mapping[str, Any], numbers: list[int], rng: Random) -> Question:
    steps = f"The columns are {', '.join(facts['columns'])}; there are {len(facts['rows'])} rows below them."
    text = rng.choice(("Write the table in Markdown.", "Transcribe the table as Markdown."))
    return Question(kind="transcribe", text=text, answer=markdown(facts), steps=steps)


def _cell(facts: Mapping[str, Any], numbers: list[int], rng: Random) -> Question:
    at, row = rng.randrange(1, len(facts["columns"])), rng.choice(facts["rows"])
    column, value = facts["columns"][at], row[at]
    return Question(
        kind="cell",
        args={"row": row[0], "column": column},
        text=f"What stands in the column {column} for {row[0]}?",
        answer=value,
        sentence=f"The column {column} says {value} for {row[0]}.",
        steps=f"In the row of {row[0]}, the column {column} says {value}.",
        hint="Answer with the cell's text.",
    )


def _column(facts: Mapping[str, Any], at: int) -> list[tuple[str, int]]:
    return [(row[0], int(row[at])) for row in facts["rows"]]


def _listed(values: list[tuple[str, int]]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values)


def _extreme(facts: Mapping[str, Any], numbers: list[int], rng: Random) -> Question:
    """The row with the highest or lowest number, if there is only one."""
    at = rng.choice(numbers)
    column, values, most = facts["columns"][at], _column(facts, at), rng.random() < 0.5
    best = (max if most else min)(value for _, value in values)
    names = [name for name, value in values if value == best]
    if len(names) > 1:
        return _sum(facts, numbers, rng)
    word, subject = "highest" if most else "lowest", facts["columns"][0].lower()
    return Question(
        kind="extreme",
        args={"column": column, "most": most},
        text=f"Which {subject} has the {word} value in the column {column}?",
        answer=names[0],
        sentence=f"{names[0]} has the {word} value, {best}.",
        steps=f"The column {column} reads:\n{_listed(values)}\nThe {word} value is {best}, of {names[0]}.",
        hint=f"Answer with the {subject}.",
    )


def _sum(facts: Mapping[str, Any], numbers: list[int], rng: Random) -> Question:
    at = rng.choice(numbers)
    column, values, total, steps = facts["columns"][at], _column(facts, at), 0, []
    for _, value in values:
        steps.append(f"{total} + {value} = {total + value}")
        total += value
    return Question(
        kind="sum",
        args={"column": column},
        text=f"What is the sum of the column {column}?",
        answer=str(total),
        sentence=f"The column {column} adds up to {total}.",
        steps=f"The column {column} reads:\n{_listed(values)}\n" + "\n".join(steps[1:]),
        hint="Answer with a number.",
    )


def _above(facts: Mapping[str, Any], numbers: list[int], rng: Random) -> Question:
    """How many rows are above a limit that no row equals."""
    at = rng.choice(numbers)
    column, values = facts["columns"][at], _column(facts, at)
    limit = rng.choice(values)[1] + rng.choice((-1, 1))
    while any(value == limit for _, value in values):
        limit += 1
    found = [(name, value) for name, value in values if value > limit]
    steps = f"The column {column} reads:\n{_listed(values)}\nAbove {limit}: {', '.join(n for n, _ in found) or 'none'}."
    return Question(
        kind="above",
        args={"column": column, "limit": limit},
        text=f"How many rows have a value above {limit} in the column {column}?",
        answer=str(len(found)),
        sentence=f"{capital(_rows(len(found)))} a value above {limit}.",
        steps=f"{steps}\nThat makes {len(found)}.",
        hint="Answer with a number.",
    )


def _rows(count: int) -> str:
    return "one row has" if count == 1 else f"{count or 'no'} rows have"


def _difference(facts: Mapping[str, Any], numbers: list[int], rng: Random) -> Question:
    at = rng.choice(numbers)
    column = facts["columns"][at]
    (first, a), (second, b) = sorted(rng.sample(_column(facts, at), 2), key=lambda pair: -pair[1])
    return Question(
        kind="difference",
        args={"column": column, "rows": [first, second]},
        text=f"By how much do {first} and {second} differ in the column {column}?",
        answer=str(a - b),
        sentence=f"They differ by {a - b}.",
        steps=f"{first}: {a}\n{second}: {b}\n{a} - {b} = {a - b}",
        hint="Answer with a number.",
    )


TABLE = Kind(plan=plan, content=page_content, draw=draw_page, ask=ask)
