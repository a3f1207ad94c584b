"""Boxes hold exactly the ink of their text, and the drawing shows the values of its description."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import matplotlib
import numpy
import pytest
from PIL import Image, ImageDraw, ImageFont

from recipes.render import Item, Look, Region, render_item
from recipes.render import chart as chart_module
from recipes.render import formulas as formulas_module
from recipes.render.fonts import FAMILIES, SCRIPT_FAMILIES, font_path
from recipes.render.page import formula_ink
from recipes.render.records import random_of
from recipes.render.shapes import COLOURS
from recipes.render.words import OTHER_WORDS
from tests.recipes.render.samples import PAGES, items


def overlap(a: Region, b: Region) -> bool:
    return a.box[0] < b.box[2] and b.box[0] < a.box[2] and a.box[1] < b.box[3] and b.box[1] < a.box[3]


def check_boxes(image: Image.Image, empty: Image.Image, regions: Sequence[Region]) -> None:
    """All that differs from the empty image is inside the boxes, and every box is the smallest that holds its ink."""
    ink = (numpy.asarray(image) != numpy.asarray(empty)).any(axis=2)
    covered = numpy.zeros_like(ink)
    for region in regions:
        left, top, right, bottom = region.box
        part = ink[top:bottom, left:right]
        assert part.shape == (bottom - top, right - left), f"{region} leaves the image"
        assert part[0].any(), region
        assert part[-1].any(), region
        assert part[:, 0].any(), region
        assert part[:, -1].any(), region
        covered[top:bottom, left:right] = True
    assert not (ink & ~covered).any()
    assert not [pair for pair in combinations(regions, 2) if overlap(*pair)]


def empty_page(scene: Any) -> Image.Image:
    """The page without its texts, drawn by other means than the renderer's."""
    page = Image.new("RGB", tuple(scene["size"]), tuple(scene["paper"]))
    for fill in scene["fills"]:
        left, top, right, bottom = fill["box"]
        ImageDraw.Draw(page).rectangle((left, top, right - 1, bottom - 1), fill=tuple(fill["colour"]))
    return page


@pytest.mark.parametrize("kind", PAGES)
def test_boxes_of_pages_hold_their_ink_and_nothing_else(kind: str) -> None:
    for item in items(kind):
        check_boxes(item.images[0], empty_page(item.scene), item.regions)


@pytest.mark.parametrize("kind", PAGES)
def test_a_box_shows_its_text(kind: str) -> None:
    """Its pixels are those of the text drawn alone, with PIL, in the font that the description names."""
    for item in items(kind)[::4]:
        page, empty = (numpy.asarray(image).astype(int) for image in (item.images[0], empty_page(item.scene)))
        for text in item.scene["texts"]:
            font = ImageFont.truetype(font_path(text["font"]), text["px"], layout_engine=ImageFont.Layout.BASIC)
            alone = Image.new("L", (item.images[0].width + 40, 3 * text["px"]), 0)
            ImageDraw.Draw(alone).text((20, 2 * text["px"]), text["text"], fill=255, font=font, anchor="ls")
            alone = alone.point(lambda value: value if value >= 24 else 0)
            strong = numpy.asarray(alone.crop(alone.getbbox())) > 150
            found = [
                r for r in item.regions if (r.text, r.group, r.kind) == (text["text"], text["group"], text["kind"])
            ]
            boxes = [region.box for region in found if region.box[1] <= text["y"]]
            left, top, right, bottom = min(boxes, key=lambda box: abs(box[3] - text["y"]) + abs(box[0] - text["x"]))
            drawn = abs(page[top:bottom, left:right] - empty[top:bottom, left:right]).sum(axis=2)
            full = abs(numpy.array(text["colour"]) - empty[top, left]).sum()
            assert strong.shape == drawn.shape, text
            assert ((drawn > full * 0.4) >= strong).all(), text
            assert ((drawn > full * 0.75) <= strong).all(), text


def test_every_text_of_a_page_is_a_region() -> None:
    for kind in PAGES:
        for item in items(kind):
            described = sorted(entry["text"] for entry in (*item.scene["texts"], *item.scene["formulas"]))
            assert sorted(region.text for region in item.regions) == described


def test_a_formula_is_never_skipped_though_it_would_fit() -> None:
    """The estimate that saves the setting of too wide formulas is below the real width."""
    for index in range(60):
        latex, px = formulas_module._formula(random_of(index)), 9 + index % 20
        for fontset in formulas_module.FONTSETS[:: 1 + index % 3]:
            assert formulas_module._least_width(latex, px) <= formula_ink(latex, fontset, px).width, latex


def test_paragraphs_are_whole() -> None:
    """The lines of a group make up the block that the description lists."""
    for item in items("article"):
        groups: dict[int, list[str]] = {}
        for region in item.regions:
            groups.setdefault(region.group, []).append(region.text)
        assert [" ".join(lines) for lines in groups.values()] == [b["text"] for b in item.scene["facts"]["blocks"]]


def test_boxes_of_chart_labels_hold_the_ink_of_that_label_alone() -> None:
    """Each text is hidden on its own: what changes is inside its box, and reaches all its edges."""
    for item in items("chart")[::6]:
        regions = [region for region in item.regions if region.kind == "label"]
        assert item.scene["title"] in [region.text for region in regions]
        for rotation in chart_module.ROTATIONS:
            with matplotlib.rc_context(chart_module._defaults()):
                figure, _ = chart_module._figure(item.scene, rotation)
                whole = chart_module._pixels(figure)
                if (whole == numpy.asarray(item.images[0])).all():
                    check_labels(figure, whole, regions)
                    break
        else:
            raise AssertionError("the chart cannot be drawn again")
        assert not [pair for pair in combinations(regions, 2) if overlap(*pair)]


def check_labels(figure: Any, whole: numpy.ndarray, regions: Sequence[Region]) -> None:
    figure.set_layout_engine("none")
    left_over = {(region.text, region.box) for region in regions}
    for text in figure.findobj(matplotlib.text.Text):
        text.set_alpha(0)
        changed = (abs(whole.astype(int) - chart_module._pixels(figure)).max(axis=2)) >= chart_module.DARKEST_STEP
        text.set_alpha(None)
        rows, columns = numpy.nonzero(changed)
        if rows.size:
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            left_over.remove((text.get_text(), tuple(int(edge) for edge in box)))
    assert not left_over


def test_bars_are_as_long_as_their_values() -> None:
    seen = 0
    for item in items("chart"):
        if item.scene["chart"] == "bar":
            marks = [region for region in item.regions if region.kind == "mark"]
            values = item.scene["series"][0]["values"]
            assert [region.text.split(": ")[1] for region in marks] == [str(value) for value in values]
            side = 0 if item.scene["lying"] else 1
            lengths = [region.box[side + 2] - region.box[side] for region in marks]
            scale = max(lengths) / max(values)
            assert all(abs(length - value * scale) <= 2 for length, value in zip(lengths, values, strict=True))
            for region in marks:
                check_colour(item, region, chart_module.COLOURS[item.scene["series"][0]["colour"]], 0.8)
            seen += 1
    assert seen


def check_colour(item: Item, region: Region, colour: str, share: float) -> None:
    """So much of a box has a colour, its outermost pixels left out."""
    left, top, right, bottom = region.box
    part = numpy.asarray(item.images[0]).astype(int)[top + 1 : bottom - 1, left + 1 : right - 1]
    if part.size:
        near = abs(part - numpy.array(chart_module_colour(colour))).max(axis=2) <= 40
        assert near.mean() >= share, (item.index, region)


def chart_module_colour(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


@pytest.mark.parametrize("kind", ["line", "scatter"])
def test_points_are_where_their_marks_are(kind: str) -> None:
    """The colour of a series is at the centre of every mark, unless another line crosses there."""
    seen = 0
    for item in items("chart"):
        if item.scene["chart"] == kind:
            pixels, series = numpy.asarray(item.images[0]).astype(int), {s["name"]: s for s in item.scene["series"]}
            last = item.scene["series"][-1]["name"]
            for region in item.regions:
                if region.kind == "mark" and (kind == "scatter" or region.text.startswith(last)):
                    name = next(name for name in series if region.text.startswith(name))
                    x, y = (region.box[0] + region.box[2]) // 2, (region.box[1] + region.box[3]) // 2
                    wanted = numpy.array(chart_module_colour(chart_module.COLOURS[series[name]["colour"]]))
                    assert abs(pixels[y, x] - wanted).max() <= 40, (item.index, region)
                    seen += 1
    assert seen


def test_slices_of_a_pie_have_their_shares() -> None:
    seen = 0
    for item in items("chart"):
        if item.scene["chart"] == "pie":
            pixels = numpy.asarray(item.images[0]).astype(int)
            wanted = [numpy.array(chart_module_colour(chart_module.COLOURS[name])) for name in item.scene["colours"]]
            areas = numpy.array([(abs(pixels - colour).max(axis=2) <= 8).sum() for colour in wanted])
            shares = 100 * areas / areas.sum()
            assert abs(shares - numpy.array(item.scene["series"][0]["values"])).max() <= 2, item.index
            seen += 1
    assert seen


@pytest.mark.parametrize("kind", ["scene", "grid", "clip"])
def test_boxes_of_objects_hold_their_ink_and_nothing_else(kind: str) -> None:
    for item in items(kind):
        for frame, image in enumerate(item.images):
            empty = Image.new("RGB", image.size, tuple(item.scene["ground"]))
            check_boxes(image, empty, [region for region in item.regions if region.frame == frame])


@pytest.mark.parametrize("kind", ["scene", "grid", "clip"])
def test_objects_have_their_colour_and_shape(kind: str) -> None:
    """The colour fills the part of the box that the shape fills."""
    fill = {"circle": 0.785, "square": 1.0, "triangle": 0.5, "diamond": 0.5, "ring": 0.589, "cross": 0.538}
    for item in items(kind):
        for region in item.regions:
            *_, colour, shape = region.text.split()
            left, top, right, bottom = region.box
            part = numpy.asarray(item.images[region.frame])[top:bottom, left:right]
            share = (part == numpy.array(COLOURS[colour])).all(axis=2).mean()
            if min(part.shape[:2]) >= 30:
                assert abs(share - fill.get(shape, share)) < 0.14, region
            assert share > 0.15, region


def test_every_word_has_its_characters_in_every_font_of_its_script() -> None:
    from matplotlib.ft2font import FT2Font

    from recipes.render import words

    latin = [*words.NAMES, *words.PLACES, *words.GOODS, "$€£%0123456789.,:“”()"]
    texts = {"latin": "".join(latin), **OTHER_WORDS}
    assert set(texts) == set(SCRIPT_FAMILIES)
    for script, text in texts.items():
        for family in SCRIPT_FAMILIES[script]:
            for name in FAMILIES[family]:
                there = FT2Font(str(font_path(name))).get_charmap()
                assert {c for c in text if not c.isspace() and ord(c) not in there} == set(), (script, name)


@pytest.mark.parametrize("script", ["greek", "cyrillic", "georgian", "armenian"])
def test_pages_in_other_scripts(script: str) -> None:
    item = render_item("article", 0, 0, look=Look(side=(300, 300), scripts=(script,)))
    letters = [character for character in item.scene["facts"]["blocks"][1]["text"].lower() if character.isalpha()]
    assert set(letters) <= set(OTHER_WORDS[script].lower())
    check_boxes(item.images[0], empty_page(item.scene), item.regions)
