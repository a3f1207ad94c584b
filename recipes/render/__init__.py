"""Rendered data for vision-language models: pages, charts, scenes and clips with exact ground truth.

    from recipes.render import RenderSource

    for item in RenderSource(mixture={"scene": 2, "chart": 1}).items("train", seed=0):
        item.images, item.messages, item.reference, item.regions

Nothing is downloaded and nothing is stored: item n of a split is a pure function of (kind, seed, n).
"""

from recipes.render.records import Item, Look, Region
from recipes.render.source import KINDS, RenderSource, render_item

__all__ = ["KINDS", "Item", "Look", "Region", "RenderSource", "render_item"]
