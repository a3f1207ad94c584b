"""Receipts: goods with quantities and prices, tax, total, what was paid and the change."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from recipes.render.fonts import width
from recipes.render.page import BOLD, REGULAR, Page, draw_page, page_content, transcript
from recipes.render.records import DoesNotFit, Kind, Look, Question
from recipes.render.words import GOODS, PLACES, capital, cents, code, date, made_up

SHAPES = ((1, 2), (3, 5), (2, 3))
ROOMY = 200
"""Pixels of the longer side from which a receipt has its usual shape, and cash and change; else it is square."""


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """A receipt with as many goods as were meant and fit; its amounts are whole cents."""
    little = look.side[0] < ROOMY
    page = Page.random(rng, look, shape=(1, 1) if little else rng.choice(SHAPES))
    page.family = "sans" if little else rng.choice(("mono", "mono", "sans", "serif"))
    page.body = max(9, int(page.body * 0.9))
    page.margin = 4 if little else page.margin
    page.leading = 1.0 if little else page.leading
    goods, head, foot = _goods(rng), _head(rng), 3 if little else 5
    room = (page.size[1] - 2 * page.margin - 2 * _gap(page)) // page.line()
    while room < len(head) + len(goods) + foot and len(head) > 2:
        head.pop()
    goods = goods[: max(0, room - len(head) - foot)]
    if len(goods) < 2:
        raise DoesNotFit
    facts = _amounts(rng, goods) | {"store": head[0], "date": head[1], "foot": foot}
    _lay_out(page, rng, head, facts)
    if rng.random() < 0.7:
        page.cut()
    return page.scene(facts)


def _gap(page: Page) -> int:
    """Room for a separating line."""
    return page.body if max(page.size) >= ROOMY else 4


def _head(rng: Random) -> list[str]:
    """Shop and date, then what a small receipt leaves out."""
    shop = f"{made_up(rng)} {rng.choice(('Market', 'Shop', 'Store', 'Foods'))}"
    when = f"{date(rng)} {rng.randint(7, 21):02d}:{rng.randint(0, 59):02d}"
    return [shop, when, f"No. {code(rng)}", f"{rng.randint(1, 99)} Main Street", rng.choice(PLACES)]


def _goods(rng: Random) -> list[dict[str, Any]]:
    chosen = rng.sample(GOODS, rng.randint(2, 9))
    return [{"name": n, "count": rng.choice((1, 1, 1, 2, 3, 4)), "unit": rng.randint(40, 1999)} for n in chosen]


def _amounts(rng: Random, goods: list[dict[str, Any]]) -> dict[str, Any]:
    """All amounts in cents; tax is added to the sum of the goods, rounded half up."""
    subtotal = sum(entry["count"] * entry["unit"] for entry in goods)
    rate = rng.choice((5, 8, 10, 19, 21))
    tax = (subtotal * rate + 50) // 100
    total = subtotal + tax
    paid = -(-total // 500) * 500 + rng.choice((0, 500))
    amounts = {"subtotal": subtotal, "rate": rate, "tax": tax, "total": total, "paid": paid, "change": paid - total}
    return {"goods": goods, "currency": rng.choice("$€£"), **amounts}


def _lay_out(page: Page, rng: Random, head: list[str], facts: Mapping[str, Any]) -> None:
    top, room, align = page.margin, page.size[0] - 2 * page.margin, rng.choice(("centre", "left"))
    for at, line in enumerate(head):
        style = BOLD if at == 0 else REGULAR
        kind = "title" if at == 0 else "line"
        page.write(line, page.margin, top, kind=kind, group=page.group(), style=style, align=align, room=room)
        top += page.line()
    top = _separator(page, rng, top)
    for entry in facts["goods"]:
        name = entry["name"] if entry["count"] == 1 else f"{entry['count']} x {entry['name']}"
        top = _pair(page, name, cents(entry["count"] * entry["unit"]), top)
    top = _separator(page, rng, top)
    money = facts["currency"]
    top = _pair(page, "Subtotal", cents(facts["subtotal"]), top)
    top = _pair(page, f"Tax {facts['rate']}%", cents(facts["tax"]), top)
    top = _pair(page, "TOTAL", money + cents(facts["total"]), top, style=BOLD)
    if facts["foot"] == 3:
        return
    top = _pair(page, "Cash", cents(facts["paid"]), top)
    _pair(page, "Change", cents(facts["change"]), top)


def _separator(page: Page, rng: Random, top: int) -> int:
    """A full or dashed line."""
    y, step = top + _gap(page) // 2, rng.choice((0, 4, 8))
    left, right = page.margin, page.size[0] - page.margin
    if not step:
        page.rule(left, y, right, y + 1)
    for x in range(left, right - step, 2 * step) if step else ():
        page.rule(x, y, x + step, y + 1)
    return top + _gap(page)


def _pair(page: Page, name: str, amount: str, top: int, style: int = REGULAR) -> int:
    """A name at the left and an amount at the right of one line."""
    group, room = page.group(), page.size[0] - 2 * page.margin
    wide = width(amount, page.font(style), page.body)
    page.write(name, page.margin, top, kind="cell", group=group, style=style, room=room - wide - page.body)
    page.write(amount, page.margin, top, kind="cell", group=group, style=style, align="right", room=room)
    return top + page.line()


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """A transcription, an amount that stands there, or one to be worked out."""
    return rng.choice((_transcribe, _amount, _amount, _unit, _items, _dearest))(scene, rng)


def _transcribe(scene: Mapping[str, Any], rng: Random) -> Question:
    text = rng.choice(("Transcribe the receipt.", "Read the receipt line by line."))
    return Question(kind="transcribe", text=text, answer=transcript(scene), steps="I read it from top to bottom.")


def _amount(scene: Mapping[str, Any], rng: Random) -> Question:
    facts = scene["facts"]
    what = rng.choice(
        ("subtotal", "tax", "total") if scene["facts"]["foot"] == 3 else ("subtotal", "tax", "total", "change")
    )
    answer = cents(facts[what])
    return Question(
        kind="amount",
        args={"what": what},
        text=f"What is the {what} on this receipt?",
        answer=answer,
        sentence=f"The {what} is {answer}.",
        steps=f"The line {capital(what)} says {answer}.",
        hint="Answer with the amount, without the currency.",
    )


def _unit(scene: Mapping[str, Any], rng: Random) -> Question:
    """The price of one piece."""
    entry = rng.choice(scene["facts"]["goods"])
    name, count, cost = entry["name"], entry["count"], cents(entry["count"] * entry["unit"])
    worked = f"{cost} / {count} = {cents(entry['unit'])}" if count > 1 else f"It is one piece, so {cost}."
    return Question(
        kind="unit",
        args={"name": name},
        text=f"What does one piece of {name} cost, before tax?",
        answer=cents(entry["unit"]),
        sentence=f"One piece of {name} costs {cents(entry['unit'])}.",
        steps=f"The receipt lists {count} x {name} for {cost}.\n{worked}",
        hint="Answer with the amount, without the currency.",
    )


def _items(scene: Mapping[str, Any], rng: Random) -> Question:
    """How many pieces were bought in all."""
    counts = [(entry["name"], entry["count"]) for entry in scene["facts"]["goods"]]
    total = sum(count for _, count in counts)
    listed = "\n".join(f"{name}: {count}" for name, count in counts)
    return Question(
        kind="items",
        text="How many pieces were bought in all?",
        answer=str(total),
        sentence=f"{total} pieces were bought.",
        steps=f"{listed}\n{' + '.join(str(count) for _, count in counts)} = {total}",
        hint="Answer with a number.",
    )


def _dearest(scene: Mapping[str, Any], rng: Random) -> Question:
    """Which good cost most on its line, if there is only one."""
    goods = scene["facts"]["goods"]
    costs = [(entry["name"], entry["count"] * entry["unit"]) for entry in goods]
    most = max(cost for _, cost in costs)
    names = [name for name, cost in costs if cost == most]
    if len(names) > 1:
        return _items(scene, rng)
    listed = "\n".join(f"{name}: {cents(cost)}" for name, cost in costs)
    return Question(
        kind="dearest",
        text="On which line of goods was the most money spent?",
        answer=names[0],
        sentence=f"The most money was spent on {names[0]}.",
        steps=f"{listed}\nThe highest amount is {cents(most)}, for {names[0]}.",
        hint="Answer with the name of the good.",
    )


RECEIPT = Kind(plan=plan, content=page_content, draw=draw_page, ask=ask)
