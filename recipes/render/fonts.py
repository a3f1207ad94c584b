"""Fonts that come with matplotlib, so that the same texts look the same on every machine.

DejaVu and STIX cover Latin, Greek and Cyrillic, DejaVu Sans and Serif also Georgian and Armenian. Scripts that need
shaping or other fonts (Arabic, Devanagari, Chinese) are not offered: `check_scripts` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

FAMILIES: dict[str, tuple[str, str, str]] = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    "mono": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    "stix": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
}
"""Regular, bold and slanted file of each family."""

SCRIPT_FAMILIES: dict[str, tuple[str, ...]] = {
    "latin": ("sans", "serif", "mono", "stix"),
    "greek": ("sans", "serif", "mono", "stix"),
    "cyrillic": ("sans", "serif", "mono", "stix"),
    "georgian": ("sans", "serif"),
    "armenian": ("sans", "serif"),
}
"""The families that have every character of a script's vocabulary."""


def families(script: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted families that can write a script; all that can, where none of the wanted ones does."""
    able = SCRIPT_FAMILIES[script]
    return tuple(family for family in able if family in wanted) or able


FAINT = 24
"""Coverage (of 255) below which a pixel of a glyph's edge is left out: what is drawn is then visible everywhere, and
the box of the ink is exact."""


def check_scripts(scripts: Sequence[str]) -> None:
    """Raises ValueError for a script without a font."""
    for script in scripts:
        if script not in SCRIPT_FAMILIES:
            raise ValueError(
                f"no font of matplotlib can write the script {script!r}: choose among {', '.join(SCRIPT_FAMILIES)}."
            )


@cache
def font_path(name: str) -> Path:
    """The file of a font, such as DejaVuSans-Bold."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@lru_cache(maxsize=256)
def load_font(name: str, px: int) -> FreeTypeFont:
    """A font at a size in pixels, laid out without the optional libraries that some machines have."""
    from PIL import ImageFont

    return ImageFont.truetype(font_path(name), px, layout_engine=ImageFont.Layout.BASIC)


def line_height(name: str, px: int) -> int:
    """Pixels from one baseline to the next at which lines of this font never touch."""
    ascent, descent = load_font(name, px).getmetrics()
    return ascent + descent


def width(text: str, name: str, px: int) -> int:
    """Advance width of a text in pixels, rounded up."""
    return -int(-load_font(name, px).getlength(text) // 1)


def ink(text: str, name: str, px: int) -> tuple[Image, tuple[int, int]]:
    """A text as a mask of its ink.

    Returns:
        A greyscale image (255 = full coverage) cropped to the ink, and where its upper left corner lies relative to
        the start of the baseline: (x, y), y being negative above it.
    """
    from PIL import Image, ImageDraw

    font, pad = load_font(name, px), 2
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor="ls"))
    mask = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad), 0)
    ImageDraw.Draw(mask).text((pad - left, pad - top), text, fill=255, font=font, anchor="ls")
    mask, (x, y) = crop_to_ink(mask)
    return mask, (x + left - pad, y + top - pad)


def crop_to_ink(mask: Image) -> tuple[Image, tuple[int, int]]:
    """The part of a mask with ink, without faint edges, and the position of its upper left corner."""
    mask = mask.point(lambda value: value if value >= FAINT else 0)
    box = mask.getbbox()
    assert box is not None, "nothing but blanks was drawn"
    return mask.crop(box), (box[0], box[1])
