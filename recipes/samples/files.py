"""Samples from a user's own JSONL files with local images and videos.

| kind | a row |
| --- | --- |
| qa | `question`, `answer`; `image`, `images`, `video`, `videos` where there are any; a `solution` is reasoning |
| caption | `image`, `text` |
| interleaved | `content`: a list of {type: text, text}, {type: image, image}; or `texts` and `images` of one length |
| ocr | `image`, `regions`: a list of {box, text}, the box left, top, right, bottom in pixels |
| video | `video`, and `messages` or `text` |
| chat | `messages`, with `images` and `videos`; or `text` alone, a document |
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from base_model.corruption_settings import CorruptionSettings
from recipes.render.prompts import CAPTION_PROMPTS, CLIP_PROMPTS, READ_PROMPTS
from recipes.render.records import Region, random_of
from recipes.row_media import media_list, placed
from recipes.samples.media import Opening, found, open_image, open_video
from recipes.samples.pages import PageQuestions, page_sample, read_sample, transcript
from recipes.samples.reader import Line, RowReader
from recipes.samples.sample import Rejected, Sample, asked, turns
from recipes.sources import Split
from recipes.tasks import render_template

_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_ROLES = {"human": "user", "gpt": "assistant"}
"""Names of roles in LLaVA's files."""


class _Files(BaseModel):
    """What all kinds of files share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    data: Path | list[Path]
    """JSONL file or files to train on."""
    eval_data: Path | list[Path] | None = None
    """JSONL file or files to evaluate on. null = none."""
    media_folder: Path | None = None
    """Folder that the paths of media are relative to. null = the folder of the data file."""
    media_outside: bool = False
    """Whether media may lie outside that folder. Only for data that is trusted: a row may then name any file."""
    shuffle_rows: int = Field(4096, ge=1)
    """Consecutive rows that are shuffled together, held in memory as text; 1 = the order of the files."""
    distinct: bool = True
    """Leave out rows that are equal to an earlier one; takes about 100 bytes of memory for each row."""
    max_chars: int = Field(100_000, ge=1)
    """Longest text of a row in characters; rows with more are refused."""

    def has(self, split: Split) -> bool:
        """Whether there are files of this split."""
        return split == "train" or self.eval_data is not None

    def paths(self, split: Split) -> list[Path]:
        """The files of a split."""
        paths = self.data if split == "train" else self.eval_data or []
        return paths if isinstance(paths, list) else [paths]

    def describe(self) -> str:
        return ", ".join(map(str, self.paths("train")))

    def open(self, opening: Opening) -> OpenFiles:
        """The stream of a split, read when it is needed. Raises ValueError for a file that is not there."""
        return OpenFiles(self, opening)

    @abstractmethod
    def make(self, row: OpenRow) -> Sample:
        """The sample of a row. Raises Rejected."""


class OpenFiles:
    """Samples of one split by position."""

    def __init__(self, config: _Files, opening: Opening) -> None:
        self.config, self.opening = config, opening
        window = config.shuffle_rows if opening.split == "train" else 1
        paths = config.paths(opening.split)
        self._rows = RowReader(paths, opening.seed, window=window, distinct=config.distinct)
        self._duplicates = 0

    def sample(self, position: int, attempt: int = 0) -> Sample:
        """The sample at a position; further attempts take the rows after it. Raises Rejected."""
        line = self._rows.row(position + attempt)
        if attempt == 0:
            self._duplicates += line.duplicates
        row = OpenRow(self, line, position + attempt)
        try:
            return self.config.make(row)
        except Rejected:
            raise
        except ValueError as error:
            raise Rejected("malformed", f"{line.place}: {error}.") from None

    def take_duplicates(self) -> int:
        """Equal rows left out before the samples since the last call."""
        count, self._duplicates = self._duplicates, 0
        return count


class OpenRow:
    """One row with what opens its media."""

    def __init__(self, files: OpenFiles, line: Line, position: int) -> None:
        self.files, self.line, self.position = files, line, position
        self.place = line.place
        self.rng = random_of("row", files.opening.seed, files.opening.split, position)
        if len(line.text) > files.config.max_chars:
            raise Rejected(
                "too_long", f"{self.place}: {len(line.text)} characters, more than {files.config.max_chars}."
            )
        self.values = line.values()

    def text(self, name: str) -> str:
        """A column, or a template, that is text and not blank. Raises ValueError."""
        value = render_template(name, self.values, "the row") if "{" in name else self.values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{name!r} must be text that is not blank; the row has {', '.join(self.values) or 'nothing'}"
            )
        return value.strip()

    def items(self, name: str) -> list[Any]:
        """A column that is a list. Raises ValueError."""
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            raise ValueError(f"{name!r} must be a list that is not empty")
        return value

    def image(self, value: Any) -> Any:
        """The image that a path names. Raises Rejected."""
        return open_image(self._found(value), self.files.opening.media, self.place)

    def video(self, value: Any) -> Any:
        """The video that a path names, in packages. Raises Rejected."""
        name = f"{self.line.path.name}/{self.line.number}/{self.position}"
        return open_video(self._found(value), self.files.opening.clip(name), self.place)

    def media(self) -> dict[str, Any]:
        """All images and videos of the row, opened. Raises Rejected."""
        images = [value for name in ("image", "images") for value in media_list(self.values.get(name))]
        videos = [value for name in ("video", "videos") for value in media_list(self.values.get(name))]
        self.check_count(len(images) + len(videos))
        return {
            "images": tuple(self.image(value) for value in images),
            "videos": tuple(self.video(value) for value in videos),
        }

    def check_count(self, count: int) -> None:
        """Raises Rejected for more media than a sample may have."""
        if count > self.files.opening.media.max_images:
            raise Rejected("too_long", f"{self.place}: {count} media, more than {self.files.opening.media.max_images}.")

    def _found(self, value: Any) -> Any:
        config = self.files.config
        folder = config.media_folder or self.line.path.parent
        return found(value, folder, outside=config.media_outside, place=self.place)


class QaFiles(_Files):
    """Questions with answers, about images, videos or nothing but text."""

    kind: Literal["qa"]
    """qa: rows with a question and its answer."""
    question: str = "question"
    """Column of the question, or a template such as "{question} Options: {options}"; `<image>` and `<video>` mark where
    media stand (before the text, if nothing does)."""
    answer: str = "answer"
    """Column of the answer, or a template."""
    solution: str | None = None
    """Column of the reasoning that leads to the answer, or a template. null = none."""

    def make(self, row: OpenRow) -> Sample:
        """A question (with media) and its answer."""
        media = row.media()
        question = [{"role": "user", "content": row.text(self.question)}]
        thinking = row.text(self.solution) if self.solution else None
        messages = placed(question, len(media["images"]), len(media["videos"]))
        reply = turns("", row.text(self.answer), thinking)[1]
        return Sample(messages=(*messages, reply), **media, task="qa", place=row.place)


class CaptionFiles(_Files):
    """Images with captions."""

    kind: Literal["caption"]
    """caption: rows with an image and its text."""
    text: str = "text"
    """Column of the caption, or a template."""
    prompts: tuple[str, ...] = Field(CAPTION_PROMPTS, min_length=1)
    """What the user says; one is drawn for each sample."""

    def make(self, row: OpenRow) -> Sample:
        """A request and the caption."""
        text, image = row.text(self.text), row.image(row.values.get("image"))
        messages = turns(asked("image", row.rng.choice(self.prompts)), text)
        return Sample(messages=messages, images=(image,), task="caption", place=row.place)


class InterleavedFiles(_Files):
    """Documents in which images and text alternate."""

    kind: Literal["interleaved"]
    """interleaved: rows with text and images in order; all text is trained on."""

    def make(self, row: OpenRow) -> Sample:
        """A document."""
        parts: list[dict[str, Any]] = []
        images: list[Any] = []
        videos: list[Any] = []
        listed = self._parts(row)
        row.check_count(sum(kind != "text" for kind, _ in listed))
        for kind, value in listed:
            if kind == "text":
                parts.append({"type": "text", "text": value})
            else:
                (images if kind == "image" else videos).append(value)
                parts.append({"type": kind})
        if not any(part["type"] == "text" for part in parts):
            raise ValueError("the document has no text to train on")
        return Sample(
            document=tuple(parts),
            images=tuple(row.image(value) for value in images),
            videos=tuple(row.video(value) for value in videos),
            task="interleaved",
            place=row.place,
        )

    def _parts(self, row: OpenRow) -> list[tuple[str, Any]]:
        """(kind, text or path) in order. Raises ValueError."""
        if "content" in row.values:
            return [self._part(part) for part in row.items("content")]
        texts, images = row.items("texts"), row.items("images")
        if len(texts) != len(images):
            raise ValueError(
                f"`texts` has {len(texts)} entries and `images` {len(images)}: at each place one of both must be null"
            )
        pairs = [("text", text) if text else ("image", image) for text, image in zip(texts, images, strict=True)]
        return [pair for pair in pairs if pair[1]]

    @staticmethod
    def _part(part: Any) -> tuple[str, Any]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "image", "video") or not isinstance(part.get(kind), str):
            raise ValueError(
                f"a part is {str(part)[:60]!r}, and must be like {{type: text, text: ...}} or "
                "{type: image, image: path}"
            )
        return kind, part[kind]


class OcrFiles(_Files):
    """Pages whose regions are known."""

    kind: Literal["ocr"]
    """ocr: rows with an image and its regions (box in pixels, text), in reading order."""
    task: Literal["read", "document"] = "read"
    """read: the text of the page or of one region; document: the original text of regions, some of them corrupted."""
    region_share: float = Field(0.5, ge=0, le=1)
    """read: share of the samples that read one region; the others read the whole page."""
    questions: PageQuestions = PageQuestions()
    """How regions are asked for."""
    corruption: CorruptionSettings | None = CorruptionSettings()
    """document: which regions are chosen and how they are corrupted; null = the control without corruption."""

    def make(self, row: OpenRow) -> Sample:
        """A page that is read, or whose corrupted regions are."""
        regions = [_region(at, entry) for at, entry in enumerate(row.items("regions"))]
        image = row.image(row.values.get("image"))
        if self.task == "document":
            sample = f"{row.line.path.name}/{row.line.number}/{row.position}"
            seed = row.files.opening.seed
            return page_sample(
                image, regions, self.corruption, self.questions, seed=seed, sample=sample, place=row.place
            )
        if row.rng.random() < self.region_share:
            return read_sample(image, regions, self.questions, row.rng, place=row.place)
        text = transcript(regions)
        if not text.strip():
            raise Rejected("no_regions", f"{row.place}: the page has no region with text.")
        messages = turns(asked("image", row.rng.choice(READ_PROMPTS)), text)
        return Sample(messages=messages, images=(image,), task="ocr", place=row.place)


def _region(at: int, entry: Any) -> Region:
    box = entry.get("box") if isinstance(entry, Mapping) else None
    if not (
        isinstance(box, list) and len(box) == 4 and all(type(edge) in (int, float) for edge in box)
    ) or not isinstance(entry.get("text"), str):
        raise ValueError(f"region {at} must be like {{box: [40, 60, 420, 96], text: ...}}, the box in pixels")
    return Region(text=entry["text"], box=(box[0], box[1], box[2], box[3]), kind="line", group=at)


class VideoFiles(_Files):
    """Clips with a conversation or a caption."""

    kind: Literal["video"]
    """video: rows with a video, and messages or a text."""
    text: str = "text"
    """Column of the caption, or a template; not used for rows with messages."""
    prompts: tuple[str, ...] = Field(CLIP_PROMPTS, min_length=1)
    """What the user says before a caption; one is drawn for each sample."""

    def make(self, row: OpenRow) -> Sample:
        """A clip and what is said about it."""
        if "messages" in row.values:
            return _chat(row)
        text, video = row.text(self.text), row.video(row.values.get("video"))
        messages = turns(asked("video", row.rng.choice(self.prompts)), text)
        return Sample(messages=messages, videos=(video,), task="caption", place=row.place)


class ChatFiles(_Files):
    """Conversations, with media or without, and plain text."""

    kind: Literal["chat"]
    """chat: rows with messages (role and content, or LLaVA's from and value), or with a text alone."""

    def make(self, row: OpenRow) -> Sample:
        """A conversation, or a document of text."""
        if "messages" in row.values or "conversations" in row.values:
            return _chat(row)
        return Sample(document=({"type": "text", "text": row.text("text")},), task="text", place=row.place)


def _chat(row: OpenRow) -> Sample:
    """A conversation; turns after the assistant's last one are left out."""
    messages = _messages(row.items("messages" if "messages" in row.values else "conversations"))
    media = row.media()
    given = placed(messages[:-1], len(media["images"]), len(media["videos"]))
    last = dict(messages[-1])
    task = "chat" if media["images"] or media["videos"] else "text"
    return Sample(messages=(*given, last), **media, task=task, place=row.place)


def _messages(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Turns up to the assistant's last one; think blocks of earlier turns are dropped, as rollouts drop them."""
    messages = [_message(item) for item in items]
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if len(messages) < 2 or messages[-2]["role"] != "user":
        raise ValueError("the conversation has no turn of the assistant that answers one of the user")
    for message in messages:
        if message["role"] != "assistant":
            continue
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise ValueError("a turn of the assistant is not text, or blank")
        thought = _THOUGHT.match(message["content"])
        if thought:
            message["content"] = message["content"][thought.end() :]
            if message is messages[-1] and thought[1].strip():
                message["thinking"] = thought[1].strip()
    if not messages[-1]["content"].strip():
        raise ValueError("the last turn of the assistant has reasoning and no answer")
    return messages


def _message(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping) and {"from", "value"} <= set(item):
        item = {"role": _ROLES.get(str(item["from"]), item["from"]), "content": item["value"]}
    if (
        not isinstance(item, Mapping)
        or item.get("role") not in ("system", "user", "assistant")
        or "content" not in item
    ):
        raise ValueError(f"a message is {str(item)[:60]!r}, and needs a role (system, user, assistant) and content")
    return {"role": item["role"], "content": item["content"]}
