"""Pictures and clips whose objects are known, and what a checkpoint's descriptions of them say (CHAIR).

Rendered ones have exact ground truth; a user's photos have object labels, with synonyms of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recipes.object_words import ObjectCounts, ObjectWords, count_rendered
from recipes.render.source import RenderSource
from recipes.row_media import media_handle, media_list, placed
from recipes.sources import RawRow, read_file

Count = Callable[[str], ObjectCounts]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class RenderedLabels(_Config):
    """Rendered pictures and clips of the evaluation split, which no training row shows."""

    kind: Literal["rendered"]
    """rendered: exact ground truth."""
    render: RenderSource
    """What is drawn, of the kinds scene, grid, clip and turns; `asked: [caption]` asks for descriptions."""
    items: int = Field(200, ge=1)
    """Pictures and clips."""
    seed: int = 0
    """Of the contents."""


class FileLabels(_Config):
    """A JSONL, JSON or Parquet file of images or videos with object labels."""

    kind: Literal["files"]
    """files: labelled by people."""
    path: Path
    """The file: rows with `image`, `images`, `video` or `videos` and a column of objects; rows without are left out."""
    objects: str = "object_annotations"
    """Column of the objects there: a list of names, or a mapping of names to numbers."""
    prompt: str = "Describe the picture."
    """What is asked."""
    synonyms: dict[str, list[str]] = {}
    """Other words for objects. Objects looked for are these names and all labels of the file."""
    items: int = Field(0, ge=0)
    """Rows used, from the first on; 0 = all."""


Labelled = Annotated[RenderedLabels | FileLabels, Field(discriminator="kind")]


class HallucinationConfig(_Config):
    """How hallucination is measured."""

    labelled: Labelled
    """Pictures with known objects: `kind` is rendered or files."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the descriptions; 0 = the likeliest token."""
    samples: int = Field(1, ge=1)
    """Descriptions of each picture."""
    seed: int = 0
    """Of the samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRow:
    """A picture or clip to be described; a `Conversation` of `rl.prompts`."""

    index: int
    place: str
    messages: tuple[Mapping[str, Any], ...]
    images: tuple[Any, ...]
    videos: tuple[Any, ...]
    count: Count
    """Counts the objects of a description against those that are there."""


def labelled_rows(config: RenderedLabels | FileLabels) -> list[LabelledRow]:
    """The rows.

    Raises:
        ValueError: the file cannot be read or labels no row, or a kind is rendered that has no objects.
    """
    rows = list(_rendered(config) if isinstance(config, RenderedLabels) else _from_file(config))
    if not rows:
        raise ValueError("hallucination.labelled has no row with objects: give labels, or leave hallucination out")
    return rows


def _rendered(config: RenderedLabels) -> Iterator[LabelledRow]:
    found = islice(config.render.rows("eval", config.seed, config.items), config.items)
    for index, raw in enumerate(found):
        kind, scene = raw.values["kind"], raw.values["scene"]
        count_rendered("", kind, scene)  # a kind without objects is refused now
        yield LabelledRow(
            index=index,
            place=raw.place,
            messages=tuple(raw.values["prompt"]),
            images=tuple(raw.values["images"]),
            videos=tuple(raw.values["videos"]),
            count=lambda text, kind=kind, scene=scene: count_rendered(text, kind, scene),  # type: ignore[misc]
        )


def _from_file(config: FileLabels) -> Iterator[LabelledRow]:
    raws = [raw for raw in read_file(config.path) if raw.values.get(config.objects)]
    raws = raws[: config.items or None]
    names = {name: _names(raw, config.objects) for name, raw in enumerate(raws)}
    known = {name for found in names.values() for name in found} - {
        other for others in config.synonyms.values() for other in others
    }
    words = ObjectWords({name: config.synonyms.get(name, []) for name in {*known, *config.synonyms}})
    for index, raw in enumerate(raws):
        media = {
            many: tuple(
                media_handle(value, raw.folder) for value in media_list(raw.values.get(many) or raw.values.get(one))
            )
            for many, one in (("images", "image"), ("videos", "video"))
        }
        messages = placed([{"role": "user", "content": config.prompt}], len(media["images"]), len(media["videos"]))
        yield LabelledRow(
            index=index,
            place=raw.place,
            messages=messages,
            **media,
            count=lambda text, present=names[index]: words.count(text, present),  # type: ignore[misc]
        )


def _names(raw: RawRow, column: str) -> list[str]:
    value = raw.values[column]
    names = list(value) if isinstance(value, list | tuple | Mapping) else []
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{raw.place}: {column!r} is {value!r:.80}, and must be a list of names, or names with counts")
    return names
