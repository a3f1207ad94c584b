"""Pages in large letters with a series that follows a rule: numbers at equal steps, weekdays, months, letters; or
numbers in no order.

What is hidden in a series can be worked out from what is left of it; numbers in no order can only be read, so that a
model learns to read from them. Letters are as large as the page allows, so that the smallest images are legible to the
smallest models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from recipes.render.fonts import width
from recipes.render.page import BOLD, Page, draw_page, page_content
from recipes.render.records import DoesNotFit, Kind, Look, Question

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
RULES = ("numbers", "days", "months", "letters", "unordered")
"""Kinds of series; unordered are numbers that follow no rule."""
LARGEST = 99
ROWS = (3, 4)
"""Fewest and most entries of a page."""


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """A column of entries as large as the page allows."""
    page = Page.random(rng, look, shape=(1, 1))
    facts = _facts(rng, rng.choice(look.rules))
    entries, room = facts["entries"], page.size[0] - 2 * page.margin
    page.leading, px = 1.0, page.size[1] // len(entries)
    while page.line(px) * len(entries) > page.size[1] - page.margin or _widest(page, entries, px) > room:
        px -= 1
        if px < page.body:
            raise DoesNotFit
    left = page.margin + rng.randint(0, min(page.margin, room - _widest(page, entries, px)))
    top = rng.randint(0, min(page.margin, page.size[1] - page.line(px) * len(entries)))
    for at, text in enumerate(entries):
        page.write(text, left, top + at * page.line(px), kind="line", group=page.group(), px=px, style=BOLD)
    return page.scene(facts)


def _widest(page: Page, entries: list[str], px: int) -> int:
    return max(width(text, page.font(BOLD), px) for text in entries)


def _facts(rng: Random, rule: str) -> dict[str, Any]:
    """The rule with its numbers, and the entries as they stand on the page."""
    count = rng.randint(*ROWS)
    if rule == "unordered":
        return {"rule": rule, "entries": [str(rng.randint(1, LARGEST)) for _ in range(count)]}
    step = rng.choice((-2, -1, 1, 1, 1, 2)) if rule != "numbers" else rng.choice((-5, -3, -2, -1, 1, 1, 2, 3, 5, 10))
    if rule != "numbers":
        start = rng.randrange(len(_NAMES[rule]))
    else:
        reach = step * (count - 1)
        start = rng.randint(max(1, 1 - reach), min(LARGEST, LARGEST - reach))
    facts = {"rule": rule, "start": start, "step": step}
    return facts | {"entries": [entry(facts, at) for at in range(count)]}


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
    if scene["facts"]["rule"] != "unordered":
        makers.append(_next)
    return rng.choice(makers)(scene["facts"], rng)


_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _place(facts: Mapping[str, Any], rng: Random) -> Question:
    at = rng.randrange(len(facts["entries"]))
    answer = facts["entries"][at]
    return Question(
        kind="place",
        args={"at": at},
        text=f"What stands in the {_ORDINALS[at]} line?",
        answer=answer,
        sentence=f"The {_ORDINALS[at]} line says {answer}.",
        steps=f"{_listed(facts)}\nThe {_ORDINALS[at]} line says {answer}.",
        hint="Answer with its text.",
    )


def _next(facts: Mapping[str, Any], rng: Random) -> Question:
    answer = entry(facts, len(facts["entries"]))
    return Question(
        kind="next",
        text="What comes after the last line?",
        answer=answer,
        sentence=f"After the last line comes {answer}.",
        steps=f"{_listed(facts)}\n{_reason(facts, answer)}",
        hint="Answer with its text.",
    )


def _reason(facts: Mapping[str, Any], answer: str) -> str:
    last, step = facts["entries"][-1], facts["step"]
    if facts["rule"] == "numbers":
        return f"Each line differs by {step}. {last} {'+' if step > 0 else '-'} {abs(step)} = {answer}."
    way = "forwards" if step > 0 else "backwards"
    return f"Each line goes {abs(step)} {way}, so after {last} comes {answer}."


def _transcribe(facts: Mapping[str, Any], rng: Random) -> Question:
    text = rng.choice(("What is written on this page?", "Read all the text of this page."))
    return Question(
        kind="transcribe", text=text, answer="\n".join(facts["entries"]), steps="I read the page from top to bottom."
    )


def _listed(facts: Mapping[str, Any]) -> str:
    return f"The lines say {', '.join(facts['entries'])}."


SERIES = Kind(plan=plan, content=page_content, draw=draw_page, ask=ask)
