"""Pages with regions as samples: reading one region, and unified document and OCR learning.

In document learning (MiniCPM-V 4.5, arXiv 2509.18154, s2.2) regions of a page are corrupted at random levels, mixed
within a page and a batch, and the target is their original text, whatever the level. How the report points at a
region is not published. Here a region is outlined in a colour that the question names (`refer: outline`), which a
small model learns fast and which needs no number; or the question gives its box, left, top, right, bottom in
thousandths of the page's width and height (`refer: box`), which leaves the pixels around it alone; or the whole page is
to be written, with what is corrupted in its place (`refer: page`), which needs no pointing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from base_model.corruption_settings import CorruptionSettings
from recipes.render.records import Region, random_of
from recipes.samples.sample import Rejected, Sample, asked, turns

if TYPE_CHECKING:
    from PIL.Image import Image

PAGE_KINDS = ("article", "table", "receipt", "formulas", "series")
"""Kinds of rendered items whose regions are text in reading order."""
OUTLINES = {
    "red": (220, 30, 30), "blue": (30, 80, 230), "green": (20, 160, 60), "orange": (245, 140, 20),
    "purple": (150, 50, 190), "cyan": (20, 180, 210),
}  # fmt: skip
"""Colours of outlines, in the order in which they are used."""


WHOLE_PAGE = "Write the original text of the whole page. Parts of it may be hard to read or hidden."


class PageQuestions(BaseModel):
    """How regions are asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    refer: Literal["outline", "box", "page"] = "outline"
    """outline: a coloured line around the region, named by its colour; box: left, top, right and bottom in thousandths
    of the page, as text; page: all text of the page is asked for (regions alone are then pointed at by outlines)."""
    at_most: int = Field(4, ge=1, le=len(OUTLINES))
    """Most regions asked for at once; on a page with more chosen ones, so many of them at random are, and the others
    are left alone."""


def transcript(regions: Sequence[Region]) -> str:
    """The text of a page in reading order: one line for each group of regions."""
    groups: dict[int, list[str]] = {}
    for region in regions:
        if region.text.strip():
            groups.setdefault(region.group, []).append(region.text)
    return "\n".join(" ".join(groups[group]) for group in sorted(groups))


def read_sample(
    image: Image, regions: Sequence[Region], questions: PageQuestions, rng: Random, *, place: str
) -> Sample:
    """One region of a page is to be read. Raises Rejected for a page without text or a box outside it."""
    readable = [region for region in regions if region.text.strip()]
    if not readable:
        raise Rejected("no_regions", f"{place}: the page has no region with text.")
    region = rng.choice(readable)
    left, top, right, bottom = region.box
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise Rejected(
            "malformed",
            f"{place}: a region has the box {list(region.box)}, which is not left, top, right, bottom within the page "
            f"of {image.width} x {image.height} pixels.",
        )
    shown, names = _pointed_at(image, [region.box], questions)
    messages = turns(asked("image", f"Read the text {names[0]}."), " ".join(region.text.split()))
    return Sample(messages=messages, images=(shown,), task="ocr", place=place)


def page_sample(
    image: Image,
    regions: Sequence[Any],
    corruption: CorruptionSettings | None,
    questions: PageQuestions,
    *,
    seed: int,
    sample: int | str,
    place: str,
) -> Sample:
    """Some regions of a page, corrupted, with their original texts as the target.

    Args:
        image: The page, RGB.
        regions: Anything with `box` (pixels) and `text`.
        corruption: Choice and strength; None = the default choice, and no corruption.
        questions: How the regions are pointed at.
        seed: Of the run.
        sample: Which sample this is.
        place: For errors.

    Returns:
        The sample; `facts` has the level of each region asked for.

    Raises:
        Rejected: no region has text, or a box lies outside the page.
    """
    from base_model.vlm.corruption import TextRegion, corrupt_page

    given = [TextRegion(box=region.box, text=region.text) for region in regions]
    settings = corruption or CorruptionSettings()
    try:
        page = corrupt_page(image, given, settings, seed=seed, sample=sample)
        chosen = [target.region for target in page.targets]
        if len(chosen) > questions.at_most:
            kept = random_of("regions asked for", seed, sample).sample(chosen, questions.at_most)
            given = [r if at in kept else TextRegion(box=r.box, text="") for at, r in enumerate(given)]
            page = corrupt_page(image, given, settings, seed=seed, sample=sample)
    except ValueError as error:
        raise Rejected("malformed", f"{place}: {error}") from None
    if not page.targets:
        raise Rejected("no_regions", f"{place}: no region of the page has text, or none was chosen.")
    pixels = page.image if corruption else image
    levels = [target.level if corruption else "none" for target in page.targets]
    answers = [target.text for target in page.targets]
    facts = {"levels": levels, "texts": answers, "regions": [target.region for target in page.targets]}
    if questions.refer == "page":
        messages = turns(asked("image", WHOLE_PAGE), transcript(regions))
        return Sample(messages=messages, images=(pixels,), task="document", place=place, facts=facts)
    shown, names = _pointed_at(pixels, [target.box for target in page.targets], questions)
    text = f"Write the original text {_listed(names)}. It may be hard to read or hidden."
    if len(answers) > 1:
        text += " Answer with a line for each, in this order."
    return Sample(
        messages=turns(asked("image", text), "\n".join(" ".join(answer.split()) for answer in answers)),
        images=(shown,),
        task="document",
        place=place,
        facts=facts,
    )


def thousandths(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in thousandths of width and height, 0 to 1000.

    Example:
        thousandths((50, 20, 100, 40), (200, 100)) == (250, 200, 500, 400)
    """
    wide, high = size
    left, top, right, bottom = (
        round(1000 * min(max(edge, 0), side) / side) for edge, side in zip(box, (wide, high, wide, high), strict=True)
    )
    return left, top, right, bottom


def _pointed_at(
    image: Image, boxes: Sequence[tuple[float, float, float, float]], questions: PageQuestions
) -> tuple[Image, list[str]]:
    """The page, with outlines where they are wanted, and how each region is called."""
    if questions.refer == "box":
        return image, [f"at [{', '.join(map(str, thousandths(box, image.size)))}]" for box in boxes]
    from PIL import ImageDraw

    shown = image.copy()
    draw, wide = ImageDraw.Draw(shown), max(1, round(max(image.size) / 400))
    for (left, top, right, bottom), colour in zip(boxes, OUTLINES.values(), strict=False):
        draw.rectangle((left - wide - 1, top - wide - 1, right + wide, bottom + wide), outline=colour, width=wide)
    return shown, [f"in the {name} outline" for name in list(OUTLINES)[: len(boxes)]]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
