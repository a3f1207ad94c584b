"""Pages in large letters with a series that follows a rule: numbers at equal steps, weekdays, months, letters; or
letters in pairs or in no order.

What is hidden in a series can be worked out from what is left of it; letters in no order can only be read, so that a
model learns to read from them. Letters are as large as the page allows, so that the smallest images are legible to the
smallest models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from recipes.render.fonts import width
from recipes.render.page import BOLD, Page, draw_page, page_content
from recipes.render.records import Kind, Look, Question

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
RULES = ("numbers", "days", "months", "letters", "pairs", "unordered")
"""Kinds of series; pairs are rows of one letter each, unordered are letters that follow no rule."""
_ENDLESS = ("pairs", "unordered")
"""Of these nobody can say what comes next."""
LARGEST = 99
_STEPS = {
    "numbers": (-10, -5, -3, -2, -1, 1, 2, 3, 5, 10),
    "letters": (-2, -1, 1, 2),
    "days": (-2, -1, 1, 2),
    "months": (-3, -2, -1, 1, 2, 3),
}
ENTRIES, COLUMNS = 4, 2
"""Entries of a page, and how many stand side by side."""


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """Two columns of entries, row by row, as large as the page allows."""
    page = Page.random(rng, look, shape=(1, 1))
    facts = _facts(rng, rng.choice(look.rules))
    entries, cell = facts["entries"], (page.size[0] - page.margin) // COLUMNS
    page.leading, rows = 1.0, -(-len(entries) // COLUMNS)
    px = next(px for px in range(page.size[1] // rows, 0, -1) if _fits(page, entries, px, cell, rows))
    top = (page.size[1] - page.line(px) * rows) // 2
    for row in range(rows):
        group = page.group()
        for column, text in enumerate(entries[row * COLUMNS : (row + 1) * COLUMNS]):
            x = page.margin + column * cell
            page.write(text, x, top + row * page.line(px), kind="cell", group=group, px=px, style=BOLD, room=cell)
    return page.scene(facts)


def _fits(page: Page, entries: list[str], px: int, cell: int, rows: int) -> bool:
    widest = max(width(text, page.font(BOLD), px) for text in entries)
    return page.line(px) * rows <= page.size[1] and widest + page.margin <= cell


def _facts(rng: Random, rule: str) -> dict[str, Any]:
    """The rule with its numbers, and the entries as they stand on the page."""
    if rule in _ENDLESS:
        repeats = COLUMNS if rule == "pairs" else 1
        return {
            "rule": rule,
            "entries": [x for _ in range(ENTRIES // repeats) for x in [rng.choice(LETTERS)] * repeats],
        }
    step = rng.choice(_STEPS[rule])
    if rule != "numbers":
        start = rng.randrange(len(_NAMES[rule]))
    else:
        reach = step * (ENTRIES - 1)
        start = rng.randint(max(1, 1 - reach), min(LARGEST, LARGEST - reach))
    facts = {"rule": rule, "start": start, "step": step}
    return facts | {"entries": [entry(facts, at) for at in range(ENTRIES)]}


def entry(facts: Mapping[str, Any], at: int) -> str:
    """Entry `at` of a series, counted from 0.

    Example:
        entry({"rule": "days", "start": 5, "step": 1}, 2) == "Mon"
    """
    value = facts["start"] + at * facts["step"]
    names = _NAMES.get(facts["rule"])
    return names[value % len(names)] if names else str(value)


_NAMES: Mapping[str, tuple[str, ...]] = {"days": DAYS, "months": MONTHS, "letters": LETTERS}


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """An entry by its place, what comes next, or all of the page."""
    makers: list[Callable[[Mapping[str, Any], Random], Question]] = [_place, _place, _transcribe]
    if scene["facts"]["rule"] not in _ENDLESS:
        makers.append(_next)
    return rng.choice(makers)(scene["facts"], rng)


_ORDINALS = ("first", "second", "third", "fourth")


def _place(facts: Mapping[str, Any], rng: Random) -> Question:
    at = rng.randrange(len(facts["entries"]))
    answer = facts["entries"][at]
    return Question(
        kind="place",
        args={"at": at},
        text=f"What stands in the {_ORDINALS[at]} place?",
        answer=answer,
        sentence=f"The {_ORDINALS[at]} place says {answer}.",
        steps=f"{_listed(facts)}\nThe {_ORDINALS[at]} place says {answer}.",
        hint="Answer with its text.",
    )


def _next(facts: Mapping[str, Any], rng: Random) -> Question:
    answer = entry(facts, len(facts["entries"]))
    return Question(
        kind="next",
        text="What comes next?",
        answer=answer,
        sentence=f"Next comes {answer}.",
        steps=f"{_listed(facts)}\n{_reason(facts, answer)}",
        hint="Answer with its text.",
    )


def _reason(facts: Mapping[str, Any], answer: str) -> str:
    last, step = facts["entries"][-1], facts["step"]
    if facts["rule"] == "numbers":
        return f"Each differs by {step}. {last} {'+' if step > 0 else '-'} {abs(step)} = {answer}."
    way = "forwards" if step > 0 else "backwards"
    return f"Each goes {abs(step)} {way}, so after {last} comes {answer}."


def _transcribe(facts: Mapping[str, Any], rng: Random) -> Question:
    text = rng.choice(("What is written on this page?", "Read all the text of this page."))
    return Question(kind="transcribe", text=text, answer=_rows(facts), steps="I read the page from top to bottom.")


def _rows(facts: Mapping[str, Any]) -> str:
    entries = facts["entries"]
    return "\n".join(" ".join(entries[at : at + COLUMNS]) for at in range(0, len(entries), COLUMNS))


def _listed(facts: Mapping[str, Any]) -> str:
    return f"The page says {', '.join(facts['entries'])}."


SERIES = Kind(plan=plan, content=page_content, draw=draw_page, ask=ask)
