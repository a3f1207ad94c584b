"""Claims with the truth beside them: a person's labels in a file, or what the renderer knows.

    {"image": "photos/cat.jpg", "claims": [{"claim": "The animal is a cat.", "label": true},
                                           {"claim": "It barks.", "label": false, "question": "Does it bark?"}]}

Rows have `image` or `images`, `video` or `videos`, or none; other columns are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recipes.render.captions import caption
from recipes.render.claim_truth import SceneFacts
from recipes.render.records import Item, random_of
from recipes.render.source import RenderSource
from recipes.render.told import careless_caption, told_claims, with_error
from recipes.row_media import media_handle, media_list
from recipes.sources import RawRow, read_file
from rl.claim_splitter import split_claims
from rl.claims import Claim, ClaimKind
from rl.clauses import claim_kind, lower_first
from rl.labeler import Media


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledClaim:
    """A claim, and whether it is true."""

    claim: Claim
    truth: bool
    media: Media
    """One object for all claims of a row."""
    place: str
    """Where it comes from."""
    group: str
    """image, video or text."""
    problem: str | None = None
    """Why its media cannot be asked about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledResponse:
    """A whole response, its claims, and whether each of them is true."""

    text: str
    claims: tuple[LabelledClaim, ...]
    media: Media

    @property
    def faultless(self) -> bool:
        """Whether every claim is true."""
        return all(claim.truth for claim in self.claims)


class RenderedClaims(BaseModel):
    """Captions of rendered pictures and clips, right ones and ones with errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    render: RenderSource = RenderSource(mixture={"scene": 1, "grid": 1, "clip": 1, "turns": 1})
    """What is drawn, of the kinds scene, grid, clip and turns."""
    items: int = Field(100, ge=1)
    """Pictures and clips; each has a right caption and one in which about half of the claims are wrong."""
    careless: bool = False
    """Captions as they are written, wrong ones with one error of a careless annotator: a grid's object at an empty
    place, a wrong word elsewhere."""
    split: Literal["train", "eval"] = "eval"
    """Contents of which split."""
    seed: int = 0
    """Of the contents and the errors."""


def as_claim(text: str, question: str | None = None) -> Claim:
    """A sentence as a claim; its question is that of the splitter, where the sentence is simple enough for it."""
    if question:
        return Claim(text=text, question=question, kind=claim_kind(text))
    division = split_claims(text)
    if len(division.claims) == 1 and not division.dropped:
        return Claim(text=text, question=division.claims[0].question, kind=division.claims[0].kind)
    return Claim(
        text=text, question=f"Is it true that {lower_first(text).rstrip('.!')}?", kind=ClaimKind(claim_kind(text))
    )


def read_claims(path: Path) -> Iterator[LabelledClaim]:
    """The claims of a JSONL, JSON or Parquet file.

    Images and videos that are missing, or whose path the data may not name, leave their claims with a `problem`.

    Raises:
        ValueError: the file cannot be read, or a row is not of the form above; the row is named.
    """
    for row in read_file(path):
        media, problem = _media(row)
        group = "video" if media.videos else "image" if media.images or problem else "text"
        items = row.values.get("claims")
        if not isinstance(items, list | tuple):
            raise ValueError(f"{row.place} has no `claims`: give a list of {{claim, label}}")
        for item in items:
            text, truth, question = _labelled(item, row.place)
            yield LabelledClaim(
                claim=as_claim(text, question), truth=truth, media=media, place=row.place, group=group, problem=problem
            )


def _labelled(item: Any, place: str) -> tuple[str, bool, str | None]:
    if not isinstance(item, Mapping) or not isinstance(item.get("claim"), str) or not item["claim"].strip():
        raise ValueError(f"{place}: {item!r:.80} is no claim: give {{claim: a sentence, label: true or false}}")
    if not isinstance(item.get("label"), bool):
        raise ValueError(f"{place}: the label of {item['claim']!r:.80} is {item.get('label')!r}, not true or false")
    question = item.get("question")
    return item["claim"].strip(), item["label"], question if isinstance(question, str) and question.strip() else None


def _media(row: RawRow) -> tuple[Media, str | None]:
    found: dict[str, tuple[Any, ...]] = {}
    try:
        for many, one in (("images", "image"), ("videos", "video")):
            values = media_list(row.values.get(many) or row.values.get(one))
            found[many] = tuple(media_handle(value, row.folder) for value in values)
    except ValueError as error:
        return Media(), str(error)
    return Media(**found), None


def rendered_responses(config: RenderedClaims) -> Iterator[LabelledResponse]:
    """A right caption and a wrong one of each picture or clip.

    Raises:
        ValueError: a kind of which claims cannot be checked.
    """
    for index in range(config.items):
        item = config.render.item(config.split, config.seed, index)
        media = (
            Media(images=tuple(item.images))
            if item.times is None
            else Media(videos=({"frames": list(item.images), "times": list(item.times)},))
        )
        rng = random_of("wrong claims", config.seed, config.split, index)
        if config.careless:
            right, wrong = [caption(item)], [careless_caption(item, rng)]
        else:
            right = told_claims(item, config.seed)
            wrong = [with_error(text, rng) if rng.random() < 0.5 else text for text in right]
        yield from (_checked(item, told, media) for told in (right, wrong))


def _checked(item: Item, told: list[str], media: Media) -> LabelledResponse:
    """A response of these sentences; of its claims, those whose truth is known."""
    facts = SceneFacts(item.kind, item.scene)
    text = " ".join(told)
    known = [(claim, facts.truth(claim.text)) for claim in split_claims(text).claims]
    claims = tuple(
        LabelledClaim(
            claim=claim,
            truth=truth,
            media=media,
            place=f"rendered {item.kind}, {item.split} item {item.index}",
            group="image" if item.times is None else "video",
        )
        for claim, truth in known
        if truth is not None
    )
    return LabelledResponse(text=text, claims=claims, media=media)
