"""Pages with numbered formulas, set by matplotlib's mathtext; some are equations to be solved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Any

from recipes.render.fonts import width
from recipes.render.page import BOLD, Page, draw_page, formula_ink, page_content, transcript, wrap
from recipes.render.records import DoesNotFit, Kind, Look, Question
from recipes.render.words import heading, sentence

FONTSETS = ("dejavusans", "dejavuserif", "cm", "stix", "stixsans")
ROOMY = 200
"""Pixels of the longer side from which formulas are set larger than the text."""
LETTERS = "abcdfghkmnpqrstuvwxyz"
GREEK = (r"\alpha", r"\beta", r"\gamma", r"\theta", r"\lambda", r"\mu", r"\pi", r"\sigma", r"\phi", r"\omega")


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """A heading, then formulas with their numbers and now and then a sentence, until the page is full."""
    page = Page.random(rng, look)
    top, fontset, room = page.margin, rng.choice(FONTSETS), page.size[0] - 2 * page.margin
    if rng.random() < 0.6:
        px = int(page.body * 1.3)
        page.write(
            heading(rng, "latin"), page.margin, top, kind="title", group=page.group(), px=px, style=BOLD, room=room
        )
        top += page.line(px) + page.body // 2
    listed: list[dict[str, Any]] = []
    at_left, px = (
        rng.random() < 0.3,
        int(page.body * rng.uniform(*((1.2, 1.7) if max(page.size) >= ROOMY else (1.0, 1.3)))),
    )
    for _ in range(rng.randint(2, 8)):
        if listed and rng.random() < 0.3:
            top = _sentence(page, rng, top)
        formula = _equation(rng) if rng.random() < 0.35 else {"latex": _formula(rng), "equation": None}
        below = _place(page, formula, len(listed) + 1, top, fontset, px, at_left)
        if below is None or any(formula["latex"] == other["latex"] for other in listed):
            continue
        top = below + page.body // 2
        listed.append(formula)
    if not listed:
        raise DoesNotFit
    if rng.random() < 0.7:
        page.cut()
    return page.scene({"listed": listed})


def _sentence(page: Page, rng: Random, top: int) -> int:
    """One sentence, if there is room for it and a formula."""
    lines = wrap(sentence(rng, "latin"), page.font(), page.body, page.size[0] - 2 * page.margin)
    below = top + len(lines) * page.line()
    if below + 4 * page.body > page.size[1] - page.margin:
        return top
    group = page.group()
    for at, line in enumerate(lines):
        page.write(line, page.margin, top + at * page.line(), kind="line", group=group)
    return below + page.body // 2


def _place(
    page: Page, formula: Mapping[str, Any], number: int, top: int, fontset: str, px: int, at_left: bool
) -> int | None:
    """A formula with its number beside it; returns where it ends, or None if there is no room."""
    tag = f"({number})"
    beside = width(tag, page.font(), page.body) + page.body
    if _least_width(formula["latex"], px) > page.size[0] - 2 * page.margin - 2 * beside:
        return None
    mask = formula_ink(formula["latex"], fontset, px)
    height = max(mask.height, page.line())
    if mask.width > page.size[0] - 2 * page.margin - 2 * beside or top + height + 2 > page.size[1] - page.margin:
        return None
    x = page.margin + beside if at_left else (page.size[0] - mask.width) // 2
    group = page.group()
    page.formulas.append(
        {"text": formula["latex"], "x": x, "y": top + (height - mask.height) // 2, "fontset": fontset, "px": px}
        | {"colour": list(page.ink), "kind": "formula", "group": group}
    )
    align = "left" if at_left else "right"
    room, line = page.size[0] - 2 * page.margin, top + (height - page.line()) // 2
    page.write(tag, page.margin, line, kind="label", group=group, align=align, room=room)
    return top + height


def _least_width(latex: str, px: int) -> float:
    """Pixels that a formula needs at the very least: to set one only to see that it is too wide takes 10 ms."""
    letters = re.sub(r"\\[a-z]+", "x", latex.replace(r"\left", "").replace(r"\right", "").replace(r"\frac", ""))
    count = len(re.sub(r"[{}^_ ]", "", letters))
    stacked = re.search(r"\\(frac|sum|lim|int)", latex)
    return count * px * (0.15 if stacked else 0.3)


def _equation(rng: Random) -> dict[str, Any]:
    """`a x + b = c` with a whole solution."""
    letter, a, x = rng.choice("xyzntk"), rng.randint(2, 12), rng.randint(-9, 15)
    b = rng.choice((-1, 1)) * rng.randint(1, 20)
    latex = f"{a} {letter} {'+' if b > 0 else '-'} {abs(b)} = {a * x + b}"
    return {"latex": latex, "equation": {"letter": letter, "a": a, "b": b, "c": a * x + b}}


def _formula(rng: Random) -> str:
    """One of a dozen patterns with random terms."""
    patterns = (
        lambda: f"{_name(rng)} = {_fraction(rng)}",
        lambda: f"{_name(rng)} = {_sum(rng)} {_sign(rng)} {_fraction(rng)}",
        lambda: rf"\sqrt{{{_sum(rng)}}} {_sign(rng)} {_term(rng)} = {_name(rng)}",
        lambda: _series(rng),
        lambda: rf"\int_{{{rng.randint(0, 3)}}}^{{{rng.randint(4, 9)}}} {_term(rng)} \, d{rng.choice('xyt')}",
        lambda: rf"\lim_{{{(x := rng.choice('xnt'))} \to \infty}} \frac{{{_term(rng)}}}{{{x}}} = {rng.randint(0, 9)}",
        lambda: rf"{_name(rng)} \leq {_sum(rng)} < {_term(rng)}",
        lambda: rf"\left( {_sum(rng)} \right)^{{{rng.randint(2, 5)}}} = {_term(rng)}",
        lambda: rf"\sin({_name(rng)}) + \cos({_name(rng)}) = {_fraction(rng)}",
        lambda: rf"{_name(rng)}_{{{rng.randint(1, 9)}}} \cdot {_term(rng)} \neq {rng.randint(1, 99)}",
    )
    return rng.choice(patterns)()


def _series(rng: Random) -> str:
    index, last = rng.choice("ijk"), rng.choice("nmN")
    return rf"\sum_{{{index}=1}}^{{{last}}} {index}^{{{rng.randint(2, 4)}}} {_name(rng)}_{{{index}}}"


def _name(rng: Random) -> str:
    return rng.choice(GREEK) if rng.random() < 0.3 else rng.choice(LETTERS)


def _sign(rng: Random) -> str:
    return rng.choice("+-")


def _term(rng: Random) -> str:
    number = str(rng.randint(2, 20)) + " " if rng.random() < 0.6 else ""
    power = f"^{{{rng.randint(2, 5)}}}" if rng.random() < 0.4 else ""
    return f"{number}{_name(rng)}{power}"


def _sum(rng: Random) -> str:
    return f"{_term(rng)} {_sign(rng)} {_term(rng)}"


def _fraction(rng: Random) -> str:
    upper = _sum(rng) if rng.random() < 0.5 else _term(rng)
    return rf"\frac{{{upper}}}{{{_term(rng)}}}"


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """A transcription of the page or of one formula, or an equation to solve."""
    listed = scene["facts"]["listed"]
    equations = [at for at, formula in enumerate(listed) if formula["equation"]]
    if equations and rng.random() < 0.5:
        return _solve(listed, rng.choice(equations))
    if rng.random() < 0.25:
        steps = "I read it from top to bottom, formulas as LaTeX."
        text = "Transcribe the page, formulas as LaTeX."
        return Question(kind="transcribe", text=text, answer=transcript(scene), steps=steps)
    at = rng.randrange(len(listed))
    return Question(
        kind="latex",
        args={"number": at + 1},
        text=f"Write formula ({at + 1}) as LaTeX.",
        answer=listed[at]["latex"],
        steps=f"Formula ({at + 1}) stands beside its number.",
    )


def _solve(listed: list[dict[str, Any]], at: int) -> Question:
    """`a x + b = c` in two steps."""
    equation = listed[at]["equation"]
    letter, a, b, c = (equation[name] for name in ("letter", "a", "b", "c"))
    moved, x = f"{c} {'-' if b > 0 else '+'} {abs(b)} = {c - b}", (c - b) // a
    return Question(
        kind="solve",
        args={"number": at + 1},
        text=f"Solve equation ({at + 1}) for {letter}.",
        answer=str(x),
        sentence=f"{letter} = {x}",
        steps=f"Equation ({at + 1}) is {listed[at]['latex']}.\n{a} {letter} = {moved}\n{letter} = {c - b} / {a} = {x}",
        hint="Answer with a number.",
    )


FORMULAS = Kind(plan=plan, content=page_content, draw=draw_page, ask=ask)
