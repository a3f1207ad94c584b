"""Render training data with exact ground truth: pages, charts, scenes and clips.

    python -m recipes.render --out data/rendered --count 1000

Writes train.jsonl and eval.jsonl (question, reference, worked solution, regions with text and boxes, the description
that each image was drawn from), images/ and clips/, and sheet.png, which shows some items with their boxes. The
directory is complete or absent; the same seed gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import run_recipe
from recipes.render.records import Item
from recipes.render.source import RenderSource
from recipes.sources import Split

OURS = {"train.jsonl", "eval.jsonl", "images", "clips", "sheet.png"}
"""What a directory of rendered data holds."""


class RenderConfig(BaseModel):
    """What to render, and where to."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    out: Path
    """Directory to write; an existing one is never overwritten silently."""
    count: int = Field(100, ge=1)
    """Items to train on."""
    eval_count: int = Field(20, ge=0)
    """Items to evaluate on; none of their contents is among those to train on."""
    seed: int = 0
    """The same seed gives the same bytes."""
    source: RenderSource = RenderSource()
    """Mixture of kinds, sizes and scripts."""
    clips: Literal["frames", "mp4"] = "frames"
    """frames: a folder of PNG files for each clip, exact; mp4: one H.264 file, which needs PyAV and loses detail."""
    sheet: int = Field(28, ge=0, le=400)
    """Items on the contact sheet sheet.png; 0 = no sheet."""
    overwrite: bool = False
    """Replace what is in the directory."""


def main(config: RenderConfig) -> None:
    """Render both splits into a new directory."""
    from recipes.console import StepBar, say
    from recipes.render.files import check_clip_format, json_line, spread, write_item
    from recipes.render.sheet import contact_sheet
    from rl.files import atomic_directory

    check_clip_format(config.clips)
    _check_place(config)
    splits: tuple[tuple[Split, int], ...] = (("train", config.count), ("eval", config.eval_count))
    total = config.count + config.eval_count
    shown: list[Item] = []
    with atomic_directory(config.out) as root, StepBar("render", total) as bar:
        for split, count in splits:
            with (root / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
                for index in range(count):
                    item = config.source.item(split, config.seed, index)
                    lines.write(json_line(write_item(root, item, config.clips)))
                    if len(shown) < config.sheet:
                        shown.append(item)
                    bar.update(index + 1 + (config.count if split == "eval" else 0), item.kind)
        if shown:
            contact_sheet(spread(shown, config.sheet)).save(root / "sheet.png")
    say(f"{config.out}: {config.count} items to train on, {config.eval_count} to evaluate on; look at sheet.png.")


def _check_place(config: RenderConfig) -> None:
    """Raises ValueError for a place that holds anything, unless it is rendered data that may be replaced."""
    if not config.out.exists():
        return
    if not config.overwrite:
        raise ValueError(
            f"{config.out} exists, and is not overwritten: choose another directory, or set --overwrite true."
        )
    if not config.out.is_dir():
        raise ValueError(f"{config.out} is not a directory: choose another name.")
    others = sorted(path.name for path in config.out.iterdir() if path.name not in OURS)
    if others:
        raise ValueError(f"{config.out} holds {others[0]}, which was not rendered: choose another directory.")


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, RenderConfig, doc=__doc__))
