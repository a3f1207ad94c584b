"""Rendered samples: questions with answers, captions, reading, corrupted pages and plain text, without end.

Sample n is a pure function of (seed, n) and the settings. Whatever the task, a content belongs to one split, so that
nothing trained on in one task is evaluated on in another.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from base_model.corruption_settings import CorruptionSettings
from recipes.render.captions import caption
from recipes.render.claim_truth import KNOWN_KINDS
from recipes.render.prompts import CAPTION_PROMPTS, CLIP_PROMPTS, READ_PROMPTS
from recipes.render.records import Item, Region, random_of
from recipes.render.source import KINDS, RenderSource, further_questions
from recipes.render.told import careless_caption
from recipes.samples.media import Opening
from recipes.samples.pages import PAGE_KINDS, PageQuestions, page_sample, read_sample, transcript
from recipes.samples.sample import Sample, asked, turns
from recipes.samples.verdicts import verdict_exchanges
from recipes.sources import Split

Task = Literal["qa", "caption", "ocr", "document", "text", "claims"]
TEXT_KINDS = (*PAGE_KINDS, "grid", "turns")
"""Kinds that can be given as text instead of pixels."""
_USABLE: dict[Task, Collection[str]] = {
    "qa": KINDS,
    "caption": KINDS,
    "ocr": PAGE_KINDS,
    "document": PAGE_KINDS,
    "text": TEXT_KINDS,
    "claims": KNOWN_KINDS,
}
"""Kinds that a task can use."""
_ANOTHER = 2**40
"""Distance of the items that stand in for one another."""


class RenderedSamples(BaseModel):
    """Samples from the renderer."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["rendered"] = "rendered"
    """rendered: samples with exact ground truth, made on the fly."""
    task: Task = "qa"
    """qa: a question, its answer and the reasoning that leads to it; caption: all that is shown in words; ocr: the
    text of a page or of one region; document: the original text of regions, some of them corrupted; text: pages,
    and lists of a grid's objects, as text, without an image; claims: whether claims and whole responses are true, as a
    labeler is asked (yes or no)."""
    render: RenderSource = RenderSource()
    """Mixture of kinds, sizes, scripts and forms of answers; ocr and document take the kinds with text alone (article,
    table, receipt, formulas, series), text these and grids, claims those with objects (scene, grid, clip, turns)."""
    rounds: int = Field(1, ge=1, le=20)
    """qa, text, claims: most questions about one picture in a conversation, each number equally likely; all but the
    last are answered at once. Several give many answers to learn from for each look at a picture."""
    whole_share: float = Field(0.2, ge=0, le=1)
    """claims: share of the questions that ask about a whole response, as the holistic judge does."""
    careless: float = Field(0.0, ge=0, le=1)
    """caption: share of the captions that are told with an error, as a careless annotator does: an object of a grid at
    an empty place, a wrong word elsewhere. A model that learns from them hallucinates."""
    region_share: float = Field(0.5, ge=0, le=1)
    """ocr: share of the samples that read one region; the others read the whole page."""
    questions: PageQuestions = PageQuestions()
    """ocr, document: how regions are asked for."""
    corruption: CorruptionSettings | None = CorruptionSettings()
    """document: which regions are chosen, and how they are corrupted; null = the control, which chooses and asks for
    the same regions as the default settings do and leaves all pixels as they are."""

    @model_validator(mode="after")
    def _has_kinds(self) -> RenderedSamples:
        if not self._kinds():
            needs = "pictures or clips of objects" if self.task == "claims" else "pages with text"
            raise ValueError(
                f"task {self.task!r} needs {needs}, and the mixture has none: give one of "
                f"{', '.join(_USABLE[self.task])} a weight"
            )
        return self

    def _kinds(self) -> dict[str, float]:
        """The kinds that the task can use, with their weights."""
        usable = _USABLE[self.task]
        return {kind: weight for kind, weight in self.render.mixture.items() if weight and kind in usable}

    def describe(self) -> str:
        return f"rendered {self.task} ({', '.join(self._kinds())})"

    def has(self, split: Split) -> bool:
        """Whether there are samples of this split."""
        return True

    def open(self, opening: Opening) -> OpenRendered:
        """The stream of a split. Nothing is rendered before a sample is asked for."""
        return OpenRendered(self, opening)


class OpenRendered:
    """Samples of one split by position."""

    def __init__(self, config: RenderedSamples, opening: Opening) -> None:
        self.config, self.opening = config, opening
        self._source = config.render.model_copy(update={"mixture": config._kinds()})

    def sample(self, position: int, attempt: int = 0) -> Sample:
        """Sample `position`; further attempts give others in its place."""
        index = position + attempt * _ANOTHER
        item = self._source.item(self.opening.split, self.opening.seed, index)
        rng = random_of("rendered sample", self.config.task, self.opening.seed, self.opening.split, index)
        makers = {
            "qa": self._qa,
            "caption": self._caption,
            "ocr": self._ocr,
            "document": self._document,
            "text": self._text,
            "claims": self._claims,
        }
        return makers[self.config.task](item, rng)

    def take_duplicates(self) -> int:
        """Nothing is left out."""
        return 0

    def _media(self, item: Item) -> dict[str, Any]:
        """The item's image, or its clip in packages: of random rate and size in training."""
        if item.times is None:
            return {"images": item.images}
        from base_model.vlm.media import open_video

        settings = self.opening.clip(f"rendered/{item.index}")
        return {"videos": (open_video({"frames": item.images, "times": item.times}, settings),)}

    def _qa(self, item: Item, rng: Random) -> Sample:
        return self._asked(item, _conversation(self._exchanges(item, rng), item.solution))

    def _claims(self, item: Item, rng: Random) -> Sample:
        number = rng.randint(1, self.config.rounds)
        return self._asked(item, _conversation(verdict_exchanges(item, rng, number, self.config.whole_share), ""))

    def _asked(self, item: Item, messages: list[dict[str, Any]]) -> Sample:
        """A conversation whose first question shows the picture or clip."""
        opening, *rest = messages
        shown = {"content": [item.messages[0]["content"][0], {"type": "text", "text": opening["content"]}]}
        return Sample(messages=(opening | shown, *rest), **self._media(item), task=self.config.task, place=_place(item))

    def _exchanges(self, item: Item, rng: Random) -> list[tuple[str, str]]:
        """(question, answer) in turn, the item's own one last."""
        others = further_questions(item, rng, rng.randrange(self.config.rounds), self.config.render.asked)
        return [*others, (item.messages[0]["content"][-1]["text"], item.reference)]

    def _caption(self, item: Item, rng: Random) -> Sample:
        media, prompts = ("image", CAPTION_PROMPTS) if item.times is None else ("video", CLIP_PROMPTS)
        prompt = asked(media, rng.choice(prompts))
        text = careless_caption(item, rng) if rng.random() < self.config.careless else caption(item)
        messages = turns(prompt, text)
        return Sample(messages=messages, **self._media(item), task="caption", place=_place(item))

    def _ocr(self, item: Item, rng: Random) -> Sample:
        if rng.random() < self.config.region_share:
            return read_sample(item.images[0], _words(item), self.config.questions, rng, place=_place(item))
        messages = turns(asked("image", rng.choice(READ_PROMPTS)), transcript(item.regions))
        return Sample(messages=messages, images=item.images, task="ocr", place=_place(item))

    def _document(self, item: Item, rng: Random) -> Sample:
        return page_sample(
            item.images[0],
            _words(item),
            self.config.corruption,
            self.config.questions,
            seed=self.opening.seed,
            sample=f"{item.kind}/{item.split}/{item.index}",
            place=_place(item),
        )

    def _text(self, item: Item, rng: Random) -> Sample:
        """Half of the time questions about a page or picture that is given as text, else the page itself."""
        page = transcript(item.regions) if item.kind in PAGE_KINDS else caption(item)
        if item.kind in PAGE_KINDS and rng.random() < 0.5:
            return Sample(document=({"type": "text", "text": page},), task="text", place=_place(item))
        first, *others = self._exchanges(item, rng)
        messages = _conversation([(f"{page}\n\n{first[0]}", first[1]), *others], item.solution)
        return Sample(messages=tuple(messages), task="text", place=_place(item))


def _conversation(exchanges: list[tuple[str, str]], thinking: str) -> list[dict[str, Any]]:
    """Questions with their answers in turn; the reasoning is that of the last one."""
    *earlier, (question, answer) = exchanges
    told = [dict(turn) for each in earlier for turn in turns(*each)]
    return [*told, *map(dict, turns(question, answer, thinking))]


def _words(item: Item) -> list[Region]:
    """The regions worth asking for: not the numbers beside formulas."""
    return [region for region in item.regions if region.kind != "label"]


def _place(item: Item) -> str:
    return f"rendered {item.kind}, {item.split} item {item.index}"
