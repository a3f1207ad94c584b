"""What pre-training and fine-tuning learn from, before it is tokens: a conversation or a document with its media."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Reason = Literal[
    "malformed",
    "path_refused",
    "media_missing",
    "media_unreadable",
    "image_size",
    "image_shape",
    "too_long",
    "no_regions",
    "duplicate",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Rejected(ValueError):
    """A row that is not trained on; another one takes its place."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Rejected, (self.reason, str(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One training sample: either a conversation, of which the assistant's turns are trained on, or a document, of
    which all text is.

    Example::

        Sample(messages=({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
                         {"role": "assistant", "content": "A red circle.", "thinking": "I see one object."}),
               images=(picture,), task="qa", place="shapes.jsonl, line 3")
    """

    messages: tuple[Mapping[str, Any], ...] = ()
    """Turns with `role` and `content` (text, or parts for the user's), the last one by the assistant; that one may have
    `thinking`, the reasoning without tags, which long mode trains on and short mode leaves out."""
    document: tuple[Mapping[str, Any], ...] = ()
    """Parts in order: {type: text, text: ...}, {type: image}, {type: video}."""
    images: tuple[Any, ...] = ()
    """Opened images (PIL, RGB) in the order of the image parts."""
    videos: tuple[Any, ...] = ()
    """Opened videos (packages of frames and their times) in the order of the video parts."""
    task: str
    """What it teaches: qa, caption, ocr, document, text, interleaved, chat."""
    place: str
    """Where it comes from (`data.jsonl, line 3`)."""
    facts: Mapping[str, Any] | None = None
    """What is known beside the text, such as the levels of corrupted regions; for evaluation and reports."""

    @property
    def thinking(self) -> str:
        """The reasoning before the last answer; empty if there is none."""
        return str(self.messages[-1].get("thinking") or "") if self.messages else ""

    @property
    def prompt(self) -> tuple[Mapping[str, Any], ...]:
        """The messages without the last turn."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last turn's text; empty for a document."""
        return str(self.messages[-1]["content"]) if self.messages else ""


def turns(question: Any, answer: str, thinking: str | None = None) -> tuple[Mapping[str, Any], ...]:
    """A conversation of one question (text or parts) and its answer."""
    reply: dict[str, Any] = {"role": "assistant", "content": answer}
    if thinking:
        reply["thinking"] = thinking
    return {"role": "user", "content": question}, reply


def asked(media: str, text: str) -> list[dict[str, str]]:
    """Parts of a user's turn: one image or video, then a text."""
    return [{"type": media}, {"type": "text", "text": text}]
