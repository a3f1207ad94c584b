"""Pages of text: a title, headings and paragraphs in one or two columns."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any

from recipes.render.page import BOLD, REGULAR, SLANTED, Page, draw_page, page_content, transcript, wrap
from recipes.render.records import DoesNotFit, Kind, Look, Question
from recipes.render.words import fact, heading, sentence

MAX_BLOCKS = 16


def plan(rng: Random, look: Look) -> dict[str, Any]:
    """A page filled with sections until nothing more fits."""
    script = rng.choice(look.scripts) if rng.random() < 0.4 else look.scripts[0]
    page = Page.random(rng, look, script)
    blocks: list[dict[str, str]] = []
    facts: list[dict[str, str]] = []
    top = _title(page, rng, script, blocks)
    for left, right in _columns(page, rng):
        _fill_column(page, rng, script, (left, top, right), blocks, facts)
    if not any(block["kind"] == "paragraph" for block in blocks):
        raise DoesNotFit
    if rng.random() < 0.7:
        page.cut()
    return page.scene({"blocks": blocks, "facts": facts, "script": script})


def _title(page: Page, rng: Random, script: str, blocks: list[dict[str, str]]) -> int:
    """Writes the title over all columns; returns where the text below it starts."""
    text, px = heading(rng, script), int(page.body * rng.uniform(1.3, 1.8))
    align, room, group = rng.choice(("left", "centre")), page.size[0] - 2 * page.margin, page.group()
    top = page.margin
    for line in wrap(text, page.font(BOLD), px, room):
        page.write(line, page.margin, top, kind="title", group=group, px=px, style=BOLD, align=align, room=room)
        top += page.line(px)
    blocks.append({"kind": "title", "text": text})
    if rng.random() < 0.3:
        page.rule(page.margin, top + 1, page.size[0] - page.margin, top + 2)
        top += 3
    return top + page.body // 2


def _columns(page: Page, rng: Random) -> list[tuple[int, int]]:
    """(left, right) of each column."""
    left, right = page.margin, page.size[0] - page.margin
    if right - left < 36 * page.body or rng.random() < 0.4:
        return [(left, right)]
    gap = page.body * 2
    middle = (left + right) // 2
    return [(left, middle - gap // 2), (middle + gap // 2, right)]


def _fill_column(
    page: Page, rng: Random, script: str, place: tuple[int, int, int], blocks: list[dict[str, str]],
    facts: list[dict[str, str]],
) -> None:  # fmt: skip
    """Headings, each with one to three paragraphs, from the top of a column to its end."""
    left, top, right = place
    bottom, styled = page.size[1] - page.margin, SLANTED if rng.random() < 0.1 else REGULAR
    larger, numbered = int(page.body * rng.uniform(1.1, 1.3)), rng.random() < 0.3
    while len(blocks) < MAX_BLOCKS:
        title = heading(rng, script)
        count = sum(block["kind"] == "heading" for block in blocks)
        head = f"{count + 1}. {title}" if numbered else title
        repeated = any(block["text"] == head for block in blocks)
        head_lines = wrap(head, page.font(BOLD), larger, right - left)
        below = top + len(head_lines) * page.line(larger)
        body, told = _paragraph(page, rng, script, styled, (left, below, right, bottom), facts)
        if repeated or not body:
            return
        _write(page, head_lines, left, top, kind="heading", px=larger, style=BOLD)
        blocks.append({"kind": "heading", "text": head})
        top = below
        for _ in range(rng.randint(1, 3)):
            if not body:
                break
            _write(page, body, left, top, kind="line", style=styled)
            blocks.append({"kind": "paragraph", "text": " ".join(body)})
            facts.extend(told)
            top += len(body) * page.line() + page.body // 2
            body, told = _paragraph(page, rng, script, styled, (left, top, right, bottom), facts)
        top += page.body // 2


def _paragraph(
    page: Page, rng: Random, script: str, style: int, place: tuple[int, int, int, int], facts: list[dict[str, str]]
) -> tuple[list[str], list[dict[str, str]]]:
    """The lines of as many sentences as were meant and fit (none if none fits), and the facts that they tell."""
    left, top, right, bottom = place
    lines: list[str] = []
    told: list[dict[str, str]] = []
    text = ""
    known = {entry["subject"] for entry in facts}
    for _ in range(rng.randint(1, 5)):
        found = fact(rng) if script == "latin" and rng.random() < 0.5 else None
        if found and (found.subject in known or any(found.subject == entry["subject"] for entry in told)):
            continue
        longer = f"{text} {found.sentence if found else sentence(rng, script)}".strip()
        wrapped = wrap(longer, page.font(style), page.body, right - left)
        if top + len(wrapped) * page.line() > bottom:
            break
        text, lines = longer, wrapped
        if found:
            told.append(found._asdict())
    return lines, told


def _write(page: Page, lines: list[str], left: int, top: int, *, kind: str, px: int = 0, style: int) -> None:
    """The lines of one block."""
    group = page.group()
    for at, line in enumerate(lines):
        page.write(line, left, top + at * page.line(px), kind=kind, group=group, px=px, style=style)


def ask(scene: Mapping[str, Any], rng: Random) -> Question:
    """A transcription, a fact, a heading or a count."""
    makers = [_transcribe, _count]
    if scene["facts"]["facts"]:
        makers += [_fact, _fact, _fact]
    if any(block["kind"] == "heading" for block in scene["facts"]["blocks"]):
        makers.append(_heading)
    return rng.choice(makers)(scene, rng)


def _transcribe(scene: Mapping[str, Any], rng: Random) -> Question:
    text = rng.choice(("Transcribe the page.", "Read all the text of this page.", "What is written on this page?"))
    steps = "I read the page from top to bottom, column by column."
    return Question(kind="transcribe", text=text, answer=transcript(scene), steps=steps)


def _fact(scene: Mapping[str, Any], rng: Random) -> Question:
    found = rng.choice(scene["facts"]["facts"])
    return Question(
        kind="fact",
        args={"subject": found["subject"], "question": found["question"]},
        text=found["question"],
        answer=found["answer"],
        sentence=found["sentence"],
        steps=f"The page says: {found['sentence']}\nSo the answer is {found['answer']}.",
        hint="Answer as it is written on the page.",
    )


def _heading(scene: Mapping[str, Any], rng: Random) -> Question:
    """The heading above a paragraph that its first words name."""
    blocks = scene["facts"]["blocks"]
    pairs = [(a, b) for a, b in pairwise(blocks) if (a["kind"], b["kind"]) == ("heading", "paragraph")]
    above, below = rng.choice(pairs)
    start = " ".join(below["text"].split()[:4])
    if sum(block["text"].startswith(start) for block in blocks) > 1:
        return _count(scene, rng)
    return Question(
        kind="heading",
        args={"start": start},
        text=f"Which heading stands above the paragraph that starts with “{start}”?",
        answer=above["text"],
        sentence=f"The heading above it is “{above['text']}”.",
        steps=f"The paragraph that starts with “{start}” follows the heading “{above['text']}”.",
        hint="Answer with the heading.",
    )


def _count(scene: Mapping[str, Any], rng: Random) -> Question:
    """How many headings there are, the title not counted."""
    found = [block["text"] for block in scene["facts"]["blocks"] if block["kind"] == "heading"]
    many, s = len(found), "" if len(found) == 1 else "s"
    listed = "\n".join(f"{at}: {text}" for at, text in enumerate(found, start=1)) or "There is none."
    return Question(
        kind="count",
        text="How many headings does this page have below its title?",
        answer=str(many),
        sentence=f"Below its title the page has {many} heading{s}.",
        steps=f"I count the headings below the title.\n{listed}\nThat makes {many}.",
        hint="Answer with a number.",
    )


ARTICLE = Kind(plan=plan, content=page_content, draw=draw_page, ask=ask)
