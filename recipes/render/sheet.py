"""A contact sheet of rendered items: each image with the boxes of its regions, its question and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recipes.render.fonts import load_font, width
from recipes.render.records import Item

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = (380, 300)
"""Room for an item's picture, in pixels."""
TEXT_HEIGHT, PX, GAP = 116, 12, 12
FONT = "DejaVuSans"
CLIP_FRAMES = 4
COLOURS = {"formula": (200, 0, 160), "cell": (0, 120, 220), "heading": (0, 150, 60), "title": (0, 150, 60)}
OTHER_COLOUR = (230, 60, 0)


def contact_sheet(items: Sequence[Item], columns: int = 4) -> Image:
    """One picture of all items, row by row."""
    from PIL import Image

    wide, high = CELL[0] + GAP, CELL[1] + TEXT_HEIGHT + GAP
    rows = -(-len(items) // columns)
    sheet = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), (120, 124, 130))
    for at, item in enumerate(items):
        sheet.paste(_cell(item), (GAP + at % columns * wide, GAP + at // columns * high))
    return sheet


def _cell(item: Item) -> Image:
    """Picture above, words below."""
    from PIL import Image, ImageDraw

    cell = Image.new("RGB", (CELL[0], CELL[1] + TEXT_HEIGHT), (250, 250, 250))
    picture = _picture(item)
    cell.paste(picture, ((CELL[0] - picture.width) // 2, 0))
    question = item.messages[0]["content"][1]["text"]
    lines = [f"{item.kind} {item.index}, {item.asked.kind}, {item.form}", *_lines(f"Q: {question}", 3)]
    lines += _lines(f"A: {item.reference}", 7 - len(lines))
    draw = ImageDraw.Draw(cell)
    for at, line in enumerate(lines):
        draw.text((4, CELL[1] + 3 + 16 * at), line, fill=(0, 0, 0), font=load_font(FONT, PX))
    return cell


def _picture(item: Item) -> Image:
    """The image, or four frames of a clip, with boxes, scaled down to the cell."""
    from PIL import Image

    last = len(item.images) - 1
    frames = [round(at * last / (CLIP_FRAMES - 1)) for at in range(CLIP_FRAMES)] if item.times else [0]
    shown = [_with_boxes(item, frame) for frame in frames]
    wide, high = shown[0].size
    if item.times is None:
        strip = shown[0]
    else:
        strip = Image.new("RGB", (2 * wide + GAP, 2 * high + GAP), (120, 124, 130))
        for at, image in enumerate(shown):
            strip.paste(image, (at % 2 * (wide + GAP), at // 2 * (high + GAP)))
    larger = min(CELL[0] // strip.width, CELL[1] // strip.height)
    if larger > 1:
        strip = strip.resize((strip.width * larger, strip.height * larger), Image.Resampling.NEAREST)
    strip.thumbnail(CELL, Image.Resampling.LANCZOS)
    return strip


def _with_boxes(item: Item, frame: int) -> Image:
    from PIL import ImageDraw

    image = item.images[frame].copy()
    draw = ImageDraw.Draw(image)
    for region in item.regions:
        if region.frame == frame:
            left, top, right, bottom = region.box
            draw.rectangle((left - 1, top - 1, right, bottom), outline=COLOURS.get(region.kind, OTHER_COLOUR))
    return image


def _lines(text: str, most: int) -> list[str]:
    """At most so many lines of a text; what is left out shows as an ellipsis."""
    lines, room = [""], CELL[0] - 8
    for character in text.replace("\n", " / "):
        if width(lines[-1] + character, FONT, PX) > room:
            if len(lines) == most:
                return [*lines[:-1], lines[-1][:-1] + "…"]
            lines.append("")
        lines[-1] += character
    return lines
