"""Items by (kind, seed, index), and streams of them mixed by weight, with training and evaluation kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count as numbers
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recipes.render.article import ARTICLE
from recipes.render.chart import CHART
from recipes.render.clip import CLIP
from recipes.render.fonts import FAMILIES, check_scripts
from recipes.render.formulas import FORMULAS
from recipes.render.grid import GRID, PLACES
from recipes.render.receipt import RECEIPT
from recipes.render.records import DoesNotFit, Drawing, Form, Item, Look, Question, content_key, random_of
from recipes.render.scene import SCENE
from recipes.render.series import RULES, SERIES
from recipes.render.shapes import COLOURS, PLAIN_SHAPES, SHAPES
from recipes.render.table import TABLE
from recipes.render.turns import TURNS
from recipes.sources import RawRow, Split, question_split

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = {
    "article": ARTICLE,
    "table": TABLE,
    "receipt": RECEIPT,
    "formulas": FORMULAS,
    "chart": CHART,
    "scene": SCENE,
    "grid": GRID,
    "series": SERIES,
    "clip": CLIP,
    "turns": TURNS,
}
SMALLEST_SIDE, LARGEST_SIDE = 112, 4096
_REPEATS = 4
"""Items made for each row wanted before the contents count as exhausted."""
_ATTEMPTS = 2000
"""Random contents tried for one item; about one in five belongs to the evaluation split."""
_QUESTIONS = 40
"""Random questions tried for one content."""


def render_item(
    kind: str,
    seed: int,
    index: int,
    split: Split = "train",
    look: Look | None = None,
    short_share: float = 0.5,
    asked: Sequence[str] = (),
) -> Item:
    """Item `index` of a kind: always the same one for the same arguments, in any process.

    Random contents are made until one belongs to the split (by the hash of what is shown) and fits the size.

    Args:
        kind: One of KINDS.
        seed: Of the data set.
        index: Number within the split, from 0.
        split: train or eval. No content is in both, whatever seeds, sizes and questions.
        look: Size of the images and scripts of the texts.
        short_share: Share of short answers among the questions that have a short one; the others want a sentence.
        asked: What may be asked (`Question.kind`); nothing = anything.

    Raises:
        ValueError: there is no such kind, or nothing of it fits images of this size and these questions.
    """
    if kind not in KINDS:
        raise ValueError(f"there is nothing to render of kind {kind!r}: choose among {', '.join(KINDS)}.")
    look = look or Look()
    for attempt in range(_ATTEMPTS):
        rng = random_of("render", kind, seed, split, index, attempt)
        try:
            scene = KINDS[kind].plan(rng, look)
            key = content_key(kind, KINDS[kind].content(scene))
            if question_split(key) == split:
                drawing = KINDS[kind].draw(scene)
                question = _question(kind, scene, rng, asked)
                break
        except DoesNotFit:
            continue
    else:
        raise ValueError(
            f"nothing of kind {kind!r} fits images of {look.side[0]} to {look.side[1]} pixels"
            + (f" with the questions {', '.join(asked)}: correct these, or" if asked else ":")
            + " allow larger images."
        )
    place: dict[str, Any] = {"kind": kind, "seed": seed, "index": index, "split": split, "key": key, "scene": scene}
    return _item(place, drawing, question, _form(question, rng, short_share))


def _question(kind: str, scene: Mapping[str, Any], rng: Random, asked: Sequence[str]) -> Question:
    """A question of one of the kinds asked for. Raises DoesNotFit where the scene gives rise to none."""
    for _ in range(_QUESTIONS):
        question = KINDS[kind].ask(scene, rng)
        if not asked or question.kind in asked:
            return question
    raise DoesNotFit


def _form(question: Question, rng: Random, short_share: float) -> Form:
    if not question.sentence:
        return "short" if question.kind == "latex" else "free"
    return "short" if rng.random() < short_share else "free"


def _worded(question: Question, form: Form) -> tuple[str, str]:
    """The question with how to answer it, and that answer."""
    sentence = bool(question.sentence) and form == "free"
    hint = "Answer in a full sentence." if sentence else question.hint
    return f"{question.text} {hint}".strip(), question.sentence if sentence else question.answer


def _item(place: Mapping[str, Any], drawing: Drawing, question: Question, form: Form) -> Item:
    """Puts the question into words for the form of its answer."""
    text, reference = _worded(question, form)
    media = {"type": "image" if drawing.times is None else "video"}
    return Item(
        **place,
        images=drawing.images,
        times=drawing.times,
        messages=({"role": "user", "content": [media, {"type": "text", "text": text}]},),
        reference=reference,
        solution=question.steps,
        form=form,
        regions=drawing.regions,
        asked=question,
    )


def further_questions(item: Item, rng: Random, count: int, asked: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(question, answer) of other questions about an item, as short as its own; at most `count`, all different."""
    first = item.messages[0]["content"][1]["text"]
    found: dict[str, str] = {}
    for _ in range(_QUESTIONS):
        if len(found) == count:
            break
        question = KINDS[item.kind].ask(item.scene, rng)
        text, answer = _worded(question, item.form)
        if (not asked or question.kind in asked) and text != first:
            found.setdefault(text, answer)
    return list(found.items())


class RenderSource(BaseModel):
    """Rendered pages, charts, scenes and clips, without end. A fifth of all contents is for evaluation only, chosen by
    a hash of what is shown: whatever the seed, the look and the question, nothing trained on is evaluated on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["render"] = "render"
    """render: images and clips with exact ground truth."""
    mixture: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(KINDS, 1.0), min_length=1)
    """Share of each kind, relative to the others: article, table, receipt, formulas, series, chart, scene,
    grid, clip, turns."""
    side: tuple[int, int] = (336, 672)
    """Smallest and largest length of an image's longer side, in pixels."""
    scripts: tuple[str, ...] = Field(default=("latin", "greek", "cyrillic"), min_length=1)
    """Scripts of running text: latin, greek, cyrillic, georgian, armenian; the first is the most frequent."""
    short_share: float = Field(default=0.5, ge=0, le=1)
    """Share of short answers among the questions that have one; the others want a full sentence."""
    asked: tuple[str, ...] = ()
    """What is asked, such as [count, exists]; the column `asked` names it. Nothing = anything."""
    families: tuple[str, ...] = Field(default=Look().families, min_length=1)
    """Families of fonts: sans, serif, mono, stix; a script that none of them can write has those that can."""
    cells: tuple[int, ...] = Field(default=(2, 3), min_length=1)
    """Cells along a side of a grid of objects, 2 or 3; one is drawn for each picture."""
    palette: tuple[Annotated[int, Field(ge=1, le=len(COLOURS))], ...] = Field(default=(2, 3, 4, 10), min_length=1)
    """Colours that a grid's objects are made of, in number; one is drawn for each picture. Few give counts to ask for;
    with all ten every object must be looked at, which a model that cannot see yet learns from fastest."""
    shapes: tuple[str, ...] = Field(default=PLAIN_SHAPES, min_length=1)
    """What a grid's objects may be. With [square] alone only colours and places are to be seen, which the smallest
    model learns within minutes."""
    frames: tuple[Annotated[int, Field(ge=6, le=120)], ...] = Field(default=Look().frames, min_length=1)
    """Frames of a clip of kind turns, two per second; one number is drawn for each clip."""
    rules: tuple[str, ...] = Field(default=Look().rules, min_length=1)
    """What pages of kind series list: numbers, days, months, letters, pairs (of letters) or unordered (letters); one is
    drawn for each page."""

    @field_validator("families")
    @classmethod
    def _known_families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(FAMILIES))
        if unknown:
            raise ValueError(f"there is no family of fonts {unknown[0]!r}: choose among {', '.join(FAMILIES)}")
        return names

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(rules) - set(RULES))
        if unknown:
            raise ValueError(f"there is no series of {unknown[0]!r}: choose among {', '.join(RULES)}")
        return rules

    @field_validator("shapes")
    @classmethod
    def _known_shapes(cls, shapes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(shapes) - set(SHAPES))
        if unknown:
            raise ValueError(f"there is no shape {unknown[0]!r}: choose among {', '.join(SHAPES)}")
        return shapes

    @field_validator("cells")
    @classmethod
    def _known_cells(cls, cells: tuple[int, ...]) -> tuple[int, ...]:
        if not set(cells) <= set(PLACES):
            raise ValueError(f"{list(cells)} must name sides among {', '.join(map(str, PLACES))}")
        return cells

    @field_validator("mixture")
    @classmethod
    def _known_kinds(cls, mixture: dict[str, float]) -> dict[str, float]:
        for name, weight in mixture.items():
            if name not in KINDS:
                raise ValueError(f"there is nothing to render of kind {name!r}: choose among {', '.join(KINDS)}")
            if weight < 0:
                raise ValueError(f"the weight of {name} is {weight}, and must not be negative")
        if not any(mixture.values()):
            raise ValueError("all weights are 0: give at least one kind a share")
        return mixture

    @field_validator("side")
    @classmethod
    def _possible_side(cls, side: tuple[int, int]) -> tuple[int, int]:
        if not SMALLEST_SIDE <= side[0] <= side[1] <= LARGEST_SIDE:
            raise ValueError(
                f"{list(side)} must be a smallest and a largest side within {SMALLEST_SIDE} and {LARGEST_SIDE} pixels"
            )
        return side

    @field_validator("scripts")
    @classmethod
    def _known_scripts(cls, scripts: tuple[str, ...]) -> tuple[str, ...]:
        check_scripts(scripts)
        return scripts

    def has_eval(self) -> bool:
        return True

    def describe(self) -> str:
        return f"render ({', '.join(name for name, weight in self.mixture.items() if weight)})"

    def item(self, split: Split, seed: int, index: int) -> Item:
        """Item `index` of the mixture; a pure function, so that a stream can go on anywhere and in many workers."""
        kinds, weights = zip(*self.mixture.items(), strict=True)
        kind = random_of("mixture", seed, split, index).choices(kinds, weights)[0]
        look = Look(
            side=self.side,
            scripts=self.scripts,
            cells=self.cells,
            palette=self.palette,
            shapes=self.shapes,
            frames=self.frames,
            rules=self.rules,
            families=self.families,
        )
        return render_item(kind, seed, index, split, look, self.short_share, self.asked)

    def items(self, split: Split, seed: int, start: int = 0, step: int = 1) -> Iterator[Item]:
        """Items `start`, `start + step`, ... without end; worker w of n takes start=w, step=n."""
        for index in numbers(start, step):
            yield self.item(split, seed, index)

    def rows(self, split: Split, seed: int, count: int) -> Iterator[RawRow]:
        """A stream of at most about `count` rows as mappings: prompt (messages), reference, solution, images, videos,
        scene (what was drawn) and more; images are PNG files in memory. Contents that were asked the same before are
        left out; ends when hardly any others come."""
        seen: set[tuple[str, str]] = set()
        for index in range(_REPEATS * (count + 50)):
            item = self.item(split, seed, index)
            key = (item.key, item.messages[0]["content"][1]["text"])
            if key not in seen:
                seen.add(key)
                values = {**row_values(item, png), "scene": item.scene}
                yield RawRow(values=values, place=f"rendered {item.kind}, {split} item {index}")


def row_values(item: Item, keep: Callable[[Image], Any] = lambda image: image) -> dict[str, Any]:
    """An item as columns. An image item has one image in `images`; a clip has one mapping in `videos` with its frames
    and times (s).

    Args:
        item: The item.
        keep: What is made of each PIL image, such as `png`.
    """
    images = [keep(image) for image in item.images]
    clip = [{"frames": images, "times": list(item.times)}] if item.times else []
    return {
        "prompt": [dict(message) for message in item.messages],
        "reference": item.reference,
        "solution": item.solution,
        "images": [] if item.times else images,
        "videos": clip,
        "kind": item.kind,
        "form": item.form,
        "asked": item.asked.kind,
    }


def png(image: Image) -> bytes:
    """The image as the content of a PNG file, about a tenth of its pixels' memory."""
    from io import BytesIO

    file = BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
