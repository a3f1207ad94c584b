"""Processor: text with places for images and videos, and the media themselves -> what the model reads.

A place is ``(<image>./</image>)`` or ``(<video>./</video>)`` in the text, as in the official layout. A video comes as
packages of frames that were chosen before (1 to 6 frames each) with the time of every frame.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from base_model.vlm.image_processing import MiniCPMVImageProcessor
from base_model.vlm.resampler import NO_TIME, TICKS_PER_SECOND

IMAGE_TAG = "(<image>./</image>)"
VIDEO_TAG = "(<video>./</video>)"
MAX_PACKAGE = 6
"""Most frames of one package (arXiv 2509.18154, section 2.2)."""

PLACES = re.compile(f"({re.escape(IMAGE_TAG)}|{re.escape(VIDEO_TAG)})")
"""Splits a text into what stands between the places, and the places."""


class PackedVideo(NamedTuple):
    """Frames of a video in packages, and their times in seconds, of the same shape."""

    packages: Sequence[Sequence[Any]]
    times: Sequence[Sequence[float]]


class _Media(NamedTuple):
    """One image or video, ready to be put into a prompt."""

    text: str  # holds its place
    views: list[Tensor]
    grids: Tensor  # [views, 2]
    packages: list[list[int]]  # temporal ids


class MiniCPMVProcessor(ProcessorMixin):
    """Image processor and tokenizer of one checkpoint.

    Args:
        image_processor: cuts images and frames.
        tokenizer: must have the image processor's special tokens (``add_vision_tokens``).
        chat_template: Jinja text; None = the tokenizer's.

    Raises:
        ValueError: the tokenizer lacks a special token.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template)
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in image_processor.special_tokens if token not in vocabulary]
        if missing:
            raise ValueError(
                f"the tokenizer has no {', '.join(missing)}; call add_vision_tokens(tokenizer, image_processor) and "
                "resize the model's embeddings"
            )

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        videos: Any = None,
        *,
        max_slice_nums: int | None = None,
        use_image_id: bool | None = None,
        padding_side: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Token ids and media of one text or a batch, padded to the longest.

        Args:
            text: one or several texts with a place for every image and video, in order.
            images: of one text: a list; of several: a list per text.
            videos: of one text: a list of ``PackedVideo`` (or pairs); of several: a list per text.
            max_slice_nums: most cells of an image; None = the image processor's.
            use_image_id: whether images are numbered; None = the image processor's choice.
            padding_side: "left" or "right"; None = the tokenizer's.
            **kwargs: ``add_special_tokens`` (default off: chat templates write them) and ``return_tensors`` (results
                are torch tensors in any case).

        Returns:
            ``input_ids`` and ``attention_mask`` [B, T], and where there are media the arguments that ``MiniCPMV``
            describes: ``pixel_values``, ``tgt_sizes``, ``image_bound``, ``temporal_ids``.

        Raises:
            ValueError: places and media do not match, or a video is not made of packages of 1 to 6 frames.
        """
        _check_options(kwargs)
        texts = [text] if isinstance(text, str) else list(text or [])
        add_special_tokens = bool(kwargs.get("add_special_tokens"))
        media = (_per_text(images, texts, text, "images"), _per_text(videos, texts, text, "videos"))
        rows = [
            self._row(words, pictures, clips, max_slice_nums, use_image_id, add_special_tokens)
            for words, pictures, clips in zip(texts, *media, strict=True)
        ]
        if not rows:
            raise ValueError("got no text; pass at least one prompt")
        return self._collate(rows, padding_side or self.tokenizer.padding_side)

    def apply_chat_template(self, conversation: Any, *args: Any, tokenize: bool = False, **kwargs: Any) -> Any:
        """The tokenizer's chat template over messages whose content may be a list of text, image and video parts.

        Args:
            conversation: messages, or a list of such lists. A part is ``{"type": "text", "text": ...}``,
                ``{"type": "image", "image": ...}`` or ``{"type": "video", "video": PackedVideo}``; the parts of a
                message are joined by newlines (official layout).
            tokenize: process the result with the parts' media.
            *args, **kwargs: as for the tokenizer; with ``tokenize``, the processor's own keywords are passed on.
        """
        several = bool(conversation) and not isinstance(conversation[0], Mapping)
        conversations = conversation if several else [conversation]
        own = {name: kwargs.pop(name) for name in ("max_slice_nums", "use_image_id", "padding_side") if name in kwargs}
        for name in ("return_dict", "return_tensors", "padding"):
            kwargs.pop(name, None)
        kwargs.setdefault("chat_template", self.chat_template)
        texts = [
            self.tokenizer.apply_chat_template([_flat(message) for message in each], *args, tokenize=False, **kwargs)
            for each in conversations
        ]
        if not tokenize:
            return texts if several else texts[0]
        images, videos = ([_parts(each, kind) for each in conversations] for kind in ("image", "video"))
        return self(texts, images=images, videos=videos, **own)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Save everything, the image processor also under the official layout's own file name."""
        self.image_processor.save_pretrained(save_directory)
        return super().save_pretrained(str(save_directory), *args, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Names of everything a call returns."""
        return ["input_ids", "attention_mask", "pixel_values", "tgt_sizes", "image_bound", "temporal_ids"]

    def _row(
        self,
        text: str,
        images: Sequence[Any],
        videos: Sequence[Any],
        max_slice_nums: int | None,
        use_image_id: bool | None,
        add_special_tokens: bool,
    ) -> dict[str, Any]:
        """Ids, media and bounds of one text.

        Text between media is tokenized piece by piece, as vLLM does; special tokens stand at both ends of a place, so
        the result is that of the whole. Features go only where the processor put a place: the same words in the user's
        own text are text.
        """
        pieces = PLACES.split(text)
        _check_counts(pieces, images, videos)
        image_items, video_items = iter(enumerate(images)), iter(videos)
        ids: list[int] = list(self.tokenizer.encode("")) if add_special_tokens else []
        bounds: list[tuple[int, int]] = []
        media: list[_Media] = []
        for piece in pieces:
            if piece not in (IMAGE_TAG, VIDEO_TAG):
                ids += self.tokenizer.encode(piece, add_special_tokens=False)
                continue
            if piece == IMAGE_TAG:
                number, image = next(image_items)
                item = self._image(image, number, max_slice_nums, use_image_id)
            else:
                item = self._video(next(video_items))
            block_ids = self.tokenizer.encode(item.text, add_special_tokens=False)
            bounds += self._bounds(block_ids, len(ids))
            ids += block_ids
            media.append(item)
        return {
            "ids": ids,
            "pixel_values": [view for item in media for view in item.views],
            "tgt_sizes": torch.cat([item.grids for item in media]) if media else torch.zeros(0, 2, dtype=torch.int32),
            "image_bound": torch.tensor(bounds, dtype=torch.long).view(-1, 2),
            "temporal_ids": [package for item in media for package in item.packages],
        }

    def _image(self, image: Any, number: int, max_slice_nums: int | None, use_image_id: bool | None) -> _Media:
        done = self.image_processor.preprocess([image], max_slice_nums)
        text = self.image_processor.get_slice_image_placeholder(
            done["image_sizes"][0][0].tolist(), number, max_slice_nums, use_image_id
        )
        views = done["pixel_values"][0]
        return _Media(text, views, done["tgt_sizes"][0], [[NO_TIME]] * len(views))

    def _video(self, video: Any) -> _Media:
        video = check_video(video)
        done = self.image_processor.preprocess([[frame for package in video.packages for frame in package]], 1)
        text = self.image_processor.get_video_placeholder(len(video.packages))
        return _Media(text, done["pixel_values"][0], done["tgt_sizes"][0], ticks_of(video))

    def _bounds(self, block_ids: Sequence[int], offset: int) -> list[tuple[int, int]]:
        """Start and end of every block in a place; a block is as long as the image processor says."""
        feature = self.tokenizer.convert_tokens_to_ids(self.image_processor.unk)
        length = self.image_processor.image_feature_size
        places = [at for at, token in enumerate(block_ids) if token == feature]
        return [(offset + at, offset + at + length) for at in places[::length]]

    def _collate(self, rows: Sequence[Mapping[str, Any]], side: str) -> BatchFeature:
        lengths = [len(row["ids"]) for row in rows]
        longest = max(lengths)
        pad = self.tokenizer.pad_token_id
        if pad is None and len(set(lengths)) > 1:
            raise ValueError("the tokenizer has no pad token, and the texts differ in length; set tokenizer.pad_token")
        ids_BT = torch.full((len(rows), longest), pad or 0, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        shifts = [longest - length if side == "left" else 0 for length in lengths]
        for number, (row, shift, length) in enumerate(zip(rows, shifts, lengths, strict=True)):
            ids_BT[number, shift : shift + length] = torch.tensor(row["ids"], dtype=torch.long)
            mask_BT[number, shift : shift + length] = 1
        data: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if any(row["pixel_values"] for row in rows):
            data |= {name: [row[name] for row in rows] for name in ("pixel_values", "tgt_sizes", "temporal_ids")}
            data["image_bound"] = [row["image_bound"] + shift for row, shift in zip(rows, shifts, strict=True)]
        return BatchFeature(data)


def add_vision_tokens(tokenizer: Any, image_processor: MiniCPMVImageProcessor | None = None) -> int:
    """Add the special tokens that a tokenizer lacks; returns how many were added."""
    wanted = (image_processor or MiniCPMVImageProcessor()).special_tokens
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in wanted if token not in vocabulary]
    return tokenizer.add_tokens(missing, special_tokens=True)


def _check_options(kwargs: Mapping[str, Any]) -> None:
    """Refuse what would change the result; accept what says what happens anyway."""
    if kwargs.get("truncation"):
        raise ValueError("truncation was asked for, but it could cut an image's place in two; shorten the text before")
    if kwargs.get("return_tensors", "pt") not in ("pt", None):
        raise ValueError(f"return_tensors is {kwargs['return_tensors']!r}, but results are torch tensors; pass 'pt'")
    known = {"truncation", "return_tensors", "add_special_tokens", "padding", "return_dict"}
    if unknown := sorted(set(kwargs) - known):
        raise ValueError(f"unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def _per_text(media: Any, texts: Sequence[str], text: Any, name: str) -> list[Sequence[Any]]:
    """The media of each text."""
    if media is None:
        return [()] * len(texts)
    if isinstance(text, str):
        return [media]
    if len(media) != len(texts) or not all(isinstance(each, list | tuple) for each in media):
        raise ValueError(f"got {len(texts)} texts and {name} that are not a list for each of them; nest them per text")
    return list(media)


def _check_counts(pieces: Sequence[str], images: Sequence[Any], videos: Sequence[Any]) -> None:
    for tag, media, name in ((IMAGE_TAG, images, "images"), (VIDEO_TAG, videos, "videos")):
        places = sum(piece == tag for piece in pieces)
        if places != len(media):
            raise ValueError(
                f"a text has {places} places {tag} for {len(media)} {name}; write one where each of them belongs"
            )


def ticks_of(video: PackedVideo) -> list[list[int]]:
    """Temporal ids of every package's frames: the nearest tenth of a second."""
    return [[round(time * TICKS_PER_SECOND) for time in package] for package in video.times]


def check_video(video: Any) -> PackedVideo:
    """The pair of packages and times that a video is; ValueError where it is none, or where the two do not match."""
    try:
        packages, times = video
        shape = [len(package) for package in packages]
        ticks = [len(package) for package in times]
    except (TypeError, ValueError):
        raise ValueError(
            f"got {type(video).__name__} as a video; give PackedVideo(packages, times), frames in packages and their "
            "times in seconds"
        ) from None
    if not shape or shape != ticks or not all(1 <= frames <= MAX_PACKAGE for frames in shape):
        raise ValueError(
            f"a video has packages of {shape} frames and {ticks} times; it needs at least one package, of 1 to "
            f"{MAX_PACKAGE} frames, with a time for every frame"
        )
    if not all(0 <= time < float("inf") for package in times for time in package):
        raise ValueError("a frame's time is negative or not finite; times are seconds from the start of the video")
    return PackedVideo(packages, times)


def _flat(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its content as one text."""
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    tags = {"image": IMAGE_TAG, "video": VIDEO_TAG}
    lines = [tags.get(part["type"]) or part["text"] for part in content]
    return {**message, "content": "\n".join(lines)}


def _parts(messages: Sequence[Mapping[str, Any]], kind: str) -> list[Any]:
    """The images or videos of a conversation, in order."""
    contents = (message["content"] for message in messages if not isinstance(message["content"], str))
    return [part[kind] for content in contents for part in content if part["type"] == kind]
