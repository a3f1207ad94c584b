"""A page under layout: texts, formulas, lines and fills with their places; and its drawing.

The layout is plain JSON; every text gets room of its own, so that the boxes of the regions never overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from recipes.render.fonts import FAMILIES, crop_to_ink, families, ink, line_height, width
from recipes.render.records import DoesNotFit, Drawing, Look, Region

if TYPE_CHECKING:
    from PIL.Image import Image

REGULAR, BOLD, SLANTED = 0, 1, 2
PAPERS = ((255, 255, 255), (250, 247, 238), (240, 244, 248), (246, 240, 226), (236, 236, 236))
INKS = ((0, 0, 0), (30, 30, 46), (52, 30, 16), (16, 32, 96), (20, 64, 40))
NIGHT = ((24, 26, 32), (18, 30, 48))
PALE = ((240, 240, 240), (250, 236, 200))
SHAPES = ((3, 4), (3, 4), (1, 1), (4, 3), (2, 3))


@dataclass(kw_only=True)
class Page:
    """What stands on a page, and the choices that all its texts share."""

    size: tuple[int, int]
    """(width, height) in pixels."""
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]
    family: str
    body: int
    """Size of the running text in pixels."""
    margin: int
    least: int
    """The longer side is not cut below this."""
    leading: float
    """Distance of baselines over the height of a line, at least 1."""
    texts: list[dict[str, Any]] = field(default_factory=list)
    formulas: list[dict[str, Any]] = field(default_factory=list)
    fills: list[dict[str, Any]] = field(default_factory=list)
    """Rectangles without text: rules and backgrounds, drawn first."""
    groups: int = 0

    @classmethod
    def random(cls, rng: Random, look: Look, script: str = "latin", shape: tuple[int, int] | None = None) -> Page:
        """An empty page of random size and type."""
        longer = rng.randint(*look.side)
        across, down = shape or rng.choice(SHAPES)
        size = (longer * across // max(across, down), longer * down // max(across, down))
        dark = rng.random() < 0.1
        return cls(
            size=size,
            paper=rng.choice(NIGHT if dark else PAPERS),
            ink=rng.choice(PALE if dark else INKS),
            family=rng.choice(families(script, look.families)),
            body=rng.randint(max(9, longer // 45), max(10, longer // 26)),
            margin=max(5, longer // rng.randint(14, 26)),
            least=look.side[0],
            leading=rng.uniform(1.0, 1.35),
        )

    def font(self, style: int = REGULAR) -> str:
        """File name of the page's font."""
        return FAMILIES[self.family][style]

    def line(self, px: int | None = None) -> int:
        """Pixels from one baseline to the next."""
        return int(max(line_height(self.font(style), px or self.body) for style in (0, 1)) * self.leading) + 1

    def group(self) -> int:
        """The number of a new block."""
        self.groups += 1
        return self.groups - 1

    def write(
        self, text: str, x: int, top: int, *, kind: str, group: int, px: int | None = None, style: int = REGULAR,
        align: str = "left", room: int | None = None, colour: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Puts a text into the line that starts at `top`; `align` is within `room` pixels from `x`.

        Raises:
            DoesNotFit: it is wider than the room, or reaches below the margin.
        """
        px = px or self.body
        room = self.size[0] - self.margin - x if room is None else room
        free = room - width(text, self.font(style), px)
        if free < 0 or top + self.line(px) > self.size[1]:
            raise DoesNotFit
        x += {"left": 0, "right": free, "centre": free // 2}[align]
        ascent = int(self.line(px) * 0.8)
        colour = colour or self.ink
        self.texts.append(
            {"text": text, "x": x, "y": top + ascent, "font": self.font(style), "px": px, "colour": list(colour)}
            | {"kind": kind, "group": group}
        )

    def rule(self, left: int, top: int, right: int, bottom: int, colour: tuple[int, int, int] | None = None) -> None:
        """A filled rectangle: a line or a background."""
        self.fills.append({"box": [left, top, right, bottom], "colour": list(colour or self.ink)})

    def shade(self, amount: float) -> tuple[int, int, int]:
        """A colour between paper (0) and ink (1)."""
        mixed = [round(paper + (ink - paper) * amount) for paper, ink in zip(self.paper, self.ink, strict=True)]
        return mixed[0], mixed[1], mixed[2]

    def cut(self) -> None:
        """Cuts off what is empty below, to half of the height at most."""
        wide, high = self.size
        ends = [entry["y"] + self.line(entry["px"]) // 2 for entry in self.texts]
        ends += [
            entry["y"] + formula_ink(entry["text"], entry["fontset"], entry["px"]).height for entry in self.formulas
        ]
        used = max([*ends, *(fill["box"][3] for fill in self.fills)]) + self.margin
        self.size = (wide, min(high, max(used, high // 2 if wide >= self.least else self.least)))

    def scene(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The page as plain JSON, with the facts that are asked for."""
        return {
            "size": list(self.size),
            "paper": list(self.paper),
            "fills": self.fills,
            "texts": self.texts,
            "formulas": self.formulas,
            "facts": dict(facts),
        }


def wrap(text: str, font: str, px: int, room: int) -> list[str]:
    """The lines of a paragraph. Raises DoesNotFit for a word wider than the room."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, font, px) <= room:
            lines[-1] = longer
        elif width(word, font, px) <= room:
            lines.append(word)
        else:
            raise DoesNotFit
    return lines


@lru_cache(maxsize=512)
def formula_ink(latex: str, fontset: str, px: int) -> Image:
    """A formula as a mask of its ink (greyscale, 255 = full coverage), set by matplotlib's mathtext.

    Args:
        latex: LaTeX without dollar signs, in the subset that mathtext knows.
        fontset: dejavusans, dejavuserif, cm, stix or stixsans.
        px: Size of the letters in pixels.
    """
    import numpy
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser
    from PIL import Image

    style = FontProperties(size=px, math_fontfamily=fontset)
    parsed = MathTextParser("agg").parse(f"${latex}$", dpi=72, prop=style)
    return crop_to_ink(Image.fromarray(numpy.asarray(parsed.image, dtype=numpy.uint8)))[0]


def draw_page(scene: Mapping[str, Any]) -> Drawing:
    """The image of a page, and a region for every text and formula, in reading order."""
    from PIL import Image

    page = Image.new("RGB", tuple(scene["size"]), tuple(scene["paper"]))
    for fill in scene["fills"]:
        page.paste(tuple(fill["colour"]), tuple(fill["box"]))
    placed: list[tuple[dict[str, Any], Image.Image, tuple[int, int]]] = []
    for text in scene["texts"]:
        mask, (left, top) = ink(text["text"], text["font"], text["px"])
        placed.append((text, mask, (text["x"] + left, text["y"] + top)))
    for formula in scene["formulas"]:
        mask = formula_ink(formula["text"], formula["fontset"], formula["px"])
        placed.append((formula, mask, (formula["x"], formula["y"])))
    regions = []
    for what, mask, (left, top) in sorted(placed, key=lambda entry: entry[0]["group"]):
        box = (left, top, left + mask.width, top + mask.height)
        if left < 0 or top < 0 or box[2] > page.width or box[3] > page.height:
            raise DoesNotFit
        page.paste(tuple(what["colour"]), box, mask)
        regions.append(Region(text=what["text"], box=box, kind=what["kind"], group=what["group"]))
    return Drawing(images=(page,), regions=tuple(regions))


def page_content(scene: Mapping[str, Any]) -> list[str]:
    """All texts of a page."""
    return [entry["text"] for entry in (*scene["texts"], *scene["formulas"])]


def transcript(scene: Mapping[str, Any]) -> str:
    """The text of a page in reading order: one line for each block, the lines of a paragraph joined."""
    blocks: dict[int, list[str]] = {}
    for entry in (*scene["texts"], *scene["formulas"]):
        blocks.setdefault(entry["group"], []).append(entry["text"])
    return "\n".join(" ".join(blocks[group]) for group in sorted(blocks))
