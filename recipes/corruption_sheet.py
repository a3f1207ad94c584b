"""Draws a sheet of corrupted pages: what document learning shows the model, and the texts it must answer.

    python -m recipes.corruption_sheet --page page.png --regions regions.json --out sheet.html

The regions are a JSON list such as [{"box": [40, 60, 420, 96], "text": "Invoice no. 2041"}], the box being left, top,
right, bottom in pixels. Without a page, a built-in one is drawn. The sheet is one self-contained HTML file: the page
as it is, then training samples 0, 1, 2, ... with each corrupted region outlined (low green, moderate orange, high red),
its operators with their strengths, and its text.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field

from base_model.corruption_settings import CorruptionSettings
from recipes.cli import run_recipe

if TYPE_CHECKING:
    from base_model.vlm.corruption import CorruptedPage, TextRegion

COLOURS = {"low": "#1a9850", "moderate": "#e08214", "high": "#d73027"}
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
section { display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start; margin-bottom: 2em }
img { max-width: min(100%, 640px); border: 1px solid #ccc }
table { border-collapse: collapse; max-width: 46em }
td, th { padding: .3em .7em; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #ddd } td.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate }
"""


class CorruptionSheetConfig(BaseModel):
    """What is drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    page: Path | None = None
    """Image of a page; null = a built-in page."""
    regions: Path | None = None
    """JSON file with the page's regions; needed with `page`."""
    out: Path = Path("corruption_sheet.html")
    """The file that is written."""
    seed: int = 0
    """Seed, as in training."""
    samples: int = Field(6, ge=1, le=100)
    """Training samples that are shown."""
    corruption: CorruptionSettings = CorruptionSettings()
    """Probabilities, levels and strengths."""
    overwrite: bool = False
    """Replace an existing file."""


def main(config: CorruptionSheetConfig) -> None:
    """Draw the samples and write the sheet."""
    from base_model.vlm.corruption import corrupt_page
    from recipes.console import say
    from rl.files import atomic_write_text

    if config.out.exists() and not config.overwrite:
        raise ValueError(f"{config.out} exists: name another file with --out, or add --overwrite true.")
    page, regions = _read(config)
    pages = [
        corrupt_page(page, regions, config.corruption, seed=config.seed, sample=sample)
        for sample in range(config.samples)
    ]
    config.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(config.out, render(page.convert("RGB"), pages))
    count = sum(len(one.targets) for one in pages)
    say(f"{config.samples} samples with {count} corrupted regions of {len(regions)} on the page: {config.out}")


def read_regions(path: Path) -> list[TextRegion]:
    """The regions of a JSON file. Raises ValueError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({str(error).splitlines()[0]}).") from None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} must hold a list with at least one region, as in [{_EXAMPLE}].")
    return [_region(path, index, row) for index, row in enumerate(rows)]


def built_in_page() -> tuple[Image.Image, list[TextRegion]]:
    """A small page with a heading, paragraphs and a table, and its regions."""
    from base_model.vlm.corruption import TextRegion

    image = Image.new("RGB", (620, 560), "#fbfaf5")
    draw = ImageDraw.Draw(image)
    regions = []
    for x, y, size, text in _BUILT_IN:
        font = ImageFont.load_default(size)
        box = draw.multiline_textbbox((x, y), text, font=font, spacing=6)
        draw.multiline_text((x, y), text, fill="#20242c", font=font, spacing=6)
        regions.append(TextRegion(box=(box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3), text=text))
    for y in (340, 376, 412, 448):
        draw.line((40, y, 580, y), fill="#9a9a9a")
    return image, regions


def render(page: Image.Image, pages: Sequence[CorruptedPage]) -> str:
    """The sheet as one HTML page; texts are hostile and escaped."""
    body = [f"<h2>The page</h2><section>{_img(page)}</section>"]
    for index, one in enumerate(pages):
        body.append(f"<h2>Sample {index}</h2><section>{_img(_outlined(one))}{_table(one)}</section>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    return (
        f"<!doctype html><html lang=en><head>{head}<title>Corrupted pages</title><style>{_STYLE}</style></head>"
        f"<body><h1>Corrupted pages</h1>{''.join(body)}</body></html>\n"
    )


def _read(config: CorruptionSheetConfig) -> tuple[Image.Image, list[TextRegion]]:
    if config.page is None:
        if config.regions is not None:
            raise ValueError(f"regions is {config.regions}, and there is no page to draw them on: add --page.")
        return built_in_page()
    if config.regions is None:
        raise ValueError(f"page is {config.page}, and its regions are missing: add --regions with a JSON file.")
    try:
        with Image.open(config.page) as image:
            image.load()
            return image.copy(), read_regions(config.regions)
    except FileNotFoundError:
        raise ValueError(f"{config.page}: there is no such file.") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{config.page} is not an image that can be read ({str(error).partition(' <_io.')[0]})."
        ) from None


def _region(path: Path, index: int, row: Any) -> TextRegion:
    from base_model.vlm.corruption import TextRegion

    good = isinstance(row, dict) and isinstance(row.get("box"), list) and isinstance(row.get("text"), str)
    if not good or not all(type(number) in (int, float) for number in row["box"]):
        raise ValueError(f"{path}: region {index} is not of the form {_EXAMPLE}.")
    return TextRegion(box=tuple(row["box"]), text=row["text"])


def _outlined(page: CorruptedPage) -> Image.Image:
    image = page.image.copy()
    draw = ImageDraw.Draw(image)
    for target in page.targets:
        left, top, right, bottom = target.box
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=COLOURS[target.level], width=2)
    return image


def _table(page: CorruptedPage) -> str:
    rows = []
    for target in page.targets:
        applied = ", ".join(f"{name} {strength:.2g}" for name, strength in target.operators)
        level = f'<b style="color:{COLOURS[target.level]}">{target.level}</b>'
        rows.append(f'<tr><td>{level}<td>{html.escape(applied)}<td class="text">{html.escape(target.text)}')
    return f"<table><tr><th>level<th>operators<th>text to answer{''.join(rows)}</table>"


def _img(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'


_EXAMPLE = '{"box": [40, 60, 420, 96], "text": "Invoice no. 2041"}'
_BUILT_IN = (
    (40, 30, 30, "Harbour Office, Quarterly Report"),
    (40, 84, 16, "Arrivals rose to 2,418 vessels in the third quarter, 6 % more than\na year before. "
                 "Most of the growth came from coastal ferries."),
    (40, 146, 16, "Berth 7 was closed from 12 to 26 August while its fenders were\nrenewed; "
                  "the cost of 84,300 was borne by the reserve."),
    (40, 208, 16, "The board meets on 4 November at 10:30 in the pilot house."),
    (40, 290, 20, "Dues by kind of vessel"),
    (48, 348, 16, "Ferry"), (300, 348, 16, "1,206"), (460, 348, 16, "31,960.50"),
    (48, 384, 16, "Fishing boat"), (300, 384, 16, "947"), (460, 384, 16, "12,311.00"),
    (48, 420, 16, "Freighter"), (300, 420, 16, "265"), (460, 420, 16, "98,042.75"),
    (40, 490, 12, "Note: dues of visiting yachts are accounted for with the marina."),
)  # fmt: skip
"""(x, y, size, text) of the built-in page, in pixels."""


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, CorruptionSheetConfig, doc=__doc__))
