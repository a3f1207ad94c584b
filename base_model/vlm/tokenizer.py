"""A small tokenizer for models that start from nothing: byte-level BPE learned from a few thousand texts.

Any text comes back unchanged, whatever it was learned from, since single bytes are tokens too. Digits are split one by
one, and the words are those of SmolLM2's pre-tokenizer. Turns are written in ChatML.
"""

from collections.abc import Iterable
from typing import Any

from base_model.vlm.image_processing import MiniCPMVImageProcessor
from base_model.vlm.processing import IMAGE_TAG, VIDEO_TAG, add_vision_tokens

TURN_START, TURN_END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
THINK_TAGS = ("<think>", "</think>")
"""One token each, and ordinary text to the decoder: what splits thinking from answer must survive decoding."""

_SPECIAL = (PAD, TURN_START, TURN_END)
_BYTES = 256
SMALLEST_VOCABULARY = _BYTES + len(_SPECIAL) + len(THINK_TAGS) + len(MiniCPMVImageProcessor().special_tokens)
"""Bytes and special tokens, without a single merge."""

CHAT_TEMPLATE = (
    "{% macro flat(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{% if part['type'] == 'image' %}{{ '" + IMAGE_TAG + "' }}"
    "{% elif part['type'] == 'video' %}{{ '" + VIDEO_TAG + "' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}"
    "{% for message in messages %}"
    "{{ '" + TURN_START + "' + message['role'] + '\n' + flat(message['content']) + '" + TURN_END + "\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + TURN_START + "assistant\n' }}{% endif %}"
)
"""ChatML; a content of several parts is flattened as ``MiniCPMVProcessor`` does it: one line for each part."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 1024) -> Any:
    """A tokenizer learned from texts, with ChatML, think tags and all that the vision-language model needs.

    Args:
        texts: what the model is to read and write; a few thousand short ones are enough for a small vocabulary.
        vocab_size: tokens in all, special ones included; fewer where the texts repeat less than that.

    Returns:
        A ``PreTrainedTokenizerFast``; its end of a turn is ``<|im_end|>``. The same texts give the same tokenizer.

    Raises:
        ValueError: ``vocab_size`` leaves no room for single bytes and special tokens.
    """
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size is {vocab_size}, but bytes and special tokens alone are {SMALLEST_VOCABULARY}; raise it"
        )
    merged_size = vocab_size - (SMALLEST_VOCABULARY - _BYTES - len(_SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_pairs(texts, merged_size),
        eos_token=TURN_END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in THINK_TAGS])
    add_vision_tokens(tokenizer)
    return tokenizer


def _byte_pairs(texts: Iterable[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
