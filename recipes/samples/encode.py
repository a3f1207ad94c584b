"""A sample as token ids: which of them are trained on, exactly as rollouts would render and sample them.

A conversation: everything before the last turn is the prompt of a rollout in one of the modes (`rollouts.prompts`),
whose prefill (an empty think block in short mode, an opened one in long mode) is given and never trained on. The last
turn is what the model would sample: reasoning and closing tag in long mode, then answer and end-of-turn token. Earlier
turns of the assistant stand in the prompt as rollouts show them, without think blocks; their texts are targets too.

A document: all of its text and the token that ends it; images and videos in place are given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

from base_model.training_example import TrainingExample, spans_of
from recipes.samples.sample import Rejected, Sample
from rollouts.modes import Mode, ModesConfig

END_OF_TEXT = "<|endoftext|>"
"""Opens and ends documents where the tokenizer has it; else its end-of-turn token does."""


def encode_sample(
    processor: Any,
    sample: Sample,
    modes: ModesConfig | None = None,
    *,
    mode: Mode | None = None,
    max_tokens: int | None = None,
) -> TrainingExample:
    """Token ids, targets and model inputs of a sample.

    Args:
        processor: Processor of transformers with a chat template (for samples without media a tokenizer will do).
        sample: A conversation or a document.
        modes: What the two modes are.
        mode: The one wanted; a sample without reasoning is trained in short mode all the same. None = long where there
            is reasoning.
        max_tokens: Longest sequence; a document without media is cut there.

    Raises:
        Rejected: it is longer than `max_tokens`.
        ValueError: the processor or its chat template cannot show the sample.
    """
    _check_texts(sample)
    if sample.messages:
        modes = modes or ModesConfig()
        example = _conversation(processor, sample, (mode or modes.long) if sample.thinking else modes.short)
    else:
        example = _document(processor, sample, max_tokens)
    if max_tokens is not None and len(example.ids) > max_tokens:
        raise Rejected("too_long", f"{sample.place}: {len(example.ids)} tokens, more than {max_tokens}.")
    if not example.target_spans:
        raise Rejected("malformed", f"{sample.place}: there is no text to train on.")
    return example


def _check_texts(sample: Sample) -> None:
    """Raises Rejected where a text holds what stands for an image or video in prompts."""
    if not (sample.images or sample.videos):
        return
    contents = [message["content"] for message in sample.messages] + [list(sample.document)]
    parts = [part for each in contents for part in ([{"text": each}] if isinstance(each, str) else each)]
    if any(_is_place(piece) for part in parts for piece in _pieces(str(part.get("text", "")))):
        raise Rejected("malformed", f"{sample.place}: a text holds the mark of an image or video of prompts.")


def response_text(message: Mapping[str, Any], mode: Mode) -> str:
    """What follows the mode's prefill in the last turn."""
    answer = str(message["content"])
    return f"{message['thinking']}\n{mode.think_close}\n\n{answer}" if mode.thinks else answer


def _conversation(processor: Any, sample: Sample, mode: Mode) -> TrainingExample:
    tokenizer = _tokenizer(processor)
    if sample.images or sample.videos:
        from rollouts.prompts import render_media_prompt

        prompt = render_media_prompt(processor, sample.prompt, sample.images, sample.videos, mode)
        ids, text, inputs = list(prompt.ids), prompt.media.text, dict(prompt.inputs)
    else:
        from rollouts.prompts import render_text

        text, inputs = render_text(processor, sample.prompt, mode), {}
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    spans = _earlier_turns(processor, sample, text, ids, mode)
    response = tokenizer(response_text(sample.messages[-1], mode), add_special_tokens=False)["input_ids"]
    target = (len(ids), len(ids) + len(response) + 1)
    ids += [*response, tokenizer.eos_token_id]
    return TrainingExample(ids=tuple(ids), target_spans=(*spans, target), inputs=inputs or None)


# ---- earlier turns of the assistant ----


def _earlier_turns(
    processor: Any, sample: Sample, text: str, ids: Sequence[int], mode: Mode
) -> tuple[tuple[int, int], ...]:
    """Target spans of the assistant's turns within the prompt."""
    if not any(turn["role"] == "assistant" for turn in sample.prompt):
        return ()
    places = _turn_places(processor, sample, text, mode)
    offsets = _offsets(processor, text, sample)
    if len(offsets) != len(ids):
        raise ValueError(
            f"{sample.place}: the processor's {len(ids)} tokens do not fit the text of {len(offsets)}; with several "
            "turns and media, only processors of base_model.vlm can be trained on all turns: keep one turn."
        )
    return spans_of([any(start < b and a < end for start, end in places) for a, b in offsets])


def _turn_places(processor: Any, sample: Sample, text: str, mode: Mode) -> list[tuple[int, int]]:
    """(start, end) in the text of each earlier answer, its end-of-turn token included."""
    from rollouts.prompts import without_thoughts

    end_of_turn = _tokenizer(processor).eos_token
    given = [without_thoughts(turn, mode) for turn in sample.prompt]

    def shown(count: int, answering: bool) -> str:
        return processor.apply_chat_template(
            given[:count], tokenize=False, add_generation_prompt=answering, **mode.template_kwargs
        )

    places = []
    for at in (at for at, turn in enumerate(given) if turn["role"] == "assistant"):
        answer = given[at]["content"]
        start = len(commonprefix([shown(at, True), shown(at + 1, False), text]))  # noqa: RUF071 (texts, not paths)
        if not text.startswith(answer + end_of_turn, start):
            raise ValueError(
                f"{sample.place}: the chat template writes earlier turns differently once others follow, so they "
                "cannot be trained on: keep one turn, or simplify the template."
            )
        places.append((start, start + len(answer) + len(end_of_turn)))
    return places


def _offsets(processor: Any, text: str, sample: Sample) -> list[tuple[int, int]]:
    """(start, end) in the text of each token; the tokens of an image or video all have those of its place."""
    tokenizer, offsets, at = _tokenizer(processor), [], 0
    blocks = iter(_block_lengths(processor, text, sample))
    for piece in _pieces(text):
        if _is_place(piece) and (sample.images or sample.videos):
            offsets += [(at, at)] * next(blocks)
        else:
            found = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            offsets += [(at + start, at + end) for start, end in found]
        at += len(piece)
    return offsets


# ---- documents ----


def _document(processor: Any, sample: Sample, max_tokens: int | None) -> TrainingExample:
    """Parts joined by newlines, as the parts of a message are."""
    tokenizer = _tokenizer(processor)
    edge = END_OF_TEXT if END_OF_TEXT in tokenizer.get_vocab() else tokenizer.eos_token
    text = edge + "\n".join(_written(part) for part in sample.document)
    if not (sample.images or sample.videos):
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.convert_tokens_to_ids(edge)]
        ids = ids[:max_tokens]
        return TrainingExample(ids=tuple(ids), target_spans=spans_of([True] * len(ids)))
    _check_own(processor, sample)
    media = {name: list(given) for name, given in (("images", sample.images), ("videos", sample.videos)) if given}
    out = processor(text=text + edge, return_tensors="pt", **media)
    ids = out["input_ids"][0].tolist()
    offsets = _offsets(processor, text + edge, sample)
    assert len(offsets) == len(ids), (len(offsets), len(ids))
    inputs = {name: value for name, value in out.items() if name not in ("input_ids", "attention_mask")}
    return TrainingExample(ids=tuple(ids), target_spans=spans_of([a < b for a, b in offsets]), inputs=inputs)


def _written(part: Mapping[str, Any]) -> str:
    from base_model.vlm.processing import IMAGE_TAG, VIDEO_TAG

    return {"image": IMAGE_TAG, "video": VIDEO_TAG}.get(part["type"]) or str(part["text"])


# ---- the layout of base_model.vlm ----


def _tokenizer(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def _check_own(processor: Any, sample: Sample) -> None:
    if not hasattr(getattr(processor, "image_processor", None), "get_slice_image_placeholder"):
        raise ValueError(
            f"{sample.place}: documents with images can be trained on with processors of base_model.vlm, and this is a "
            f"{type(processor).__name__}: write them as conversations."
        )


def _pieces(text: str) -> list[str]:
    """The text cut at the places of media."""
    from base_model.vlm.processing import IMAGE_TAG, VIDEO_TAG

    return re.split(f"({re.escape(IMAGE_TAG)}|{re.escape(VIDEO_TAG)})", text)


def _is_place(piece: str) -> bool:
    from base_model.vlm.processing import IMAGE_TAG, VIDEO_TAG

    return piece in (IMAGE_TAG, VIDEO_TAG)


def _block_lengths(processor: Any, text: str, sample: Sample) -> list[int]:
    """Tokens of each image and video, in the order of the text."""
    if not (sample.images or sample.videos):
        return []
    _check_own(processor, sample)
    from base_model.vlm.processing import IMAGE_TAG

    images, videos, lengths = iter(enumerate(sample.images)), iter(sample.videos), []
    for piece in filter(_is_place, _pieces(text)):
        if piece == IMAGE_TAG:
            number, image = next(images)
            block = processor.image_processor.get_slice_image_placeholder(image.size, number)
        else:
            block = processor.image_processor.get_video_placeholder(len(next(videos)[0]))
        lengths.append(len(processor.tokenizer(block, add_special_tokens=False)["input_ids"]))
    return lengths
