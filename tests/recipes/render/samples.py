"""Items that several tests look at, made once."""

from functools import cache

from recipes.render import Item, Look, render_item

PAGES = ("article", "table", "receipt", "formulas", "series")
SMALL, USUAL = Look(side=(112, 160)), Look(side=(200, 420))
QUESTIONS = {"chart": 48, "formulas": 40}
MANY = {"chart": 14, "clip": 16}


@cache
def items(kind: str) -> tuple[Item, ...]:
    """Small and usual ones, of both forms."""
    count = MANY.get(kind, 24)
    usual = [render_item(kind, 1, index, look=USUAL) for index in range(count)]
    return (*usual, *(render_item(kind, 2, index, look=SMALL) for index in range(count // 3)))


@cache
def questions(kind: str) -> tuple[Item, ...]:
    """Many small items: enough for every kind of question."""
    return tuple(render_item(kind, 3, index, look=Look(side=(112, 300))) for index in range(QUESTIONS.get(kind, 120)))
