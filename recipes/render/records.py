"""What the renderer makes: an item with its images, its question and everything that is known about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from recipes.render.shapes import PLAIN_SHAPES

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; right and bottom are the first column and row outside."""
Form = Literal["short", "free"]


class DoesNotFit(Exception):
    """This content has no legible layout at this size; the renderer goes on to the next one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a caller chooses about the images."""

    side: tuple[int, int] = (336, 672)
    """Smallest and largest length of an image's longer side, in pixels."""
    scripts: tuple[str, ...] = ("latin", "greek", "cyrillic")
    """Scripts of the texts; see `words.SCRIPTS`."""
    families: tuple[str, ...] = ("sans", "serif", "mono", "stix")
    """Families of fonts; see `fonts.FAMILIES`. A script that none of them can write has those that can."""
    cells: tuple[int, ...] = (2, 3)
    """Cells along a side of a grid of objects; one is drawn for each picture."""
    palette: tuple[int, ...] = (2, 3, 4, 10)
    """Colours that a grid's objects are made of, in number; one is drawn for each picture."""
    shapes: tuple[str, ...] = PLAIN_SHAPES
    """What a grid's objects may be: two of these or more in each picture, if there are two."""
    frames: tuple[int, ...] = (6, 12)
    """Frames of a clip of objects that take turns; one is drawn for each clip."""
    rules: tuple[str, ...] = ("numbers", "numbers", "numbers", "days", "months", "letters", "unordered")
    """What a page of kind series lists; see `series.RULES`. One is drawn for each page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of an image with its exact text.

    Example: Region(text="Total", box=(12, 240, 51, 252), kind="cell", group=3)
    """

    text: str
    """The text that stands there, LaTeX for a formula; for an object or a mark of a chart its description."""
    box: Box
    """The smallest box with all its ink."""
    kind: str
    """title, heading, line, cell, formula, label, mark or object."""
    group: int
    """The block it belongs to (the lines of one paragraph, the cells of one row share it), in reading order."""
    frame: int = 0
    """Index of the image that it is in: 0, or the frame of a clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question about a scene description, with its answer in both forms."""

    kind: str
    """What is asked, such as count."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """What it is asked of, such as {"colour": "red"}: with the scene description it determines the answer."""
    text: str
    answer: str
    """The short answer."""
    sentence: str = ""
    """The answer as a full sentence; empty when the answer is free text already."""
    steps: str
    """How one gets there, a short line for each step."""
    hint: str = ""
    """How the short answer is to be written, such as `Answer with a number.`"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Images with what is in them."""

    images: tuple[Image, ...]
    """RGB; one, or the frames of a clip."""
    times: tuple[float, ...] | None = None
    """Second of each frame, a multiple of 0.1; None for a still image."""
    regions: tuple[Region, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How one kind of item is made. The description that `plan` returns is plain JSON and determines all the rest."""

    plan: Callable[[Random, Look], dict[str, Any]]
    """A random scene description. Raises DoesNotFit."""
    content: Callable[[Mapping[str, Any]], Any]
    """What is shown, without how it looks: items with the same content are in the same split."""
    draw: Callable[[Mapping[str, Any]], Drawing]
    """The drawing of a description. Raises DoesNotFit."""
    ask: Callable[[Mapping[str, Any], Random], Question]
    """A random question about a description."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One rendered example, a pure function of (kind, seed, index, split, look)."""

    kind: str
    """article, table, receipt, formulas, series, chart, scene, grid, turns or clip."""
    seed: int
    index: int
    split: str
    images: tuple[Image, ...]
    """One RGB image, or the frames of a clip."""
    times: tuple[float, ...] | None
    """Second of each frame of a clip; None for a still image."""
    messages: tuple[Mapping[str, Any], ...]
    """The user's turn: an image or video part, then the question as text."""
    reference: str
    """The right answer, in the form that `form` says."""
    solution: str
    """The worked solution: the reasoning that leads to the reference, without markup."""
    form: Form
    """short: a word or number that a rule can verify; free: a sentence or a longer text."""
    regions: tuple[Region, ...]
    scene: Mapping[str, Any]
    """The description that the images were drawn from, as plain JSON."""
    asked: Question
    key: str
    """Hash of the content shown, which decides the split."""


def content_key(kind: str, content: Any) -> str:
    """Hash of what an item shows, in hexadecimal digits; the same now and in every other run."""
    text = json.dumps([kind, content], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def random_of(*what: object) -> Random:
    """A random generator that depends on all of `what` and on nothing else."""
    return Random(int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:16], "big"))
