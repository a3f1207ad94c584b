"""Answers by greedy decoding with the torch model itself, for small checks (recipes.evaluate uses the engine)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipes.samples.sample import Sample
from rollouts.modes import Mode


def greedy_answers(
    model: Any, processor: Any, samples: Sequence[Sample], mode: Mode, *, max_tokens: int = 32, batch: int = 16
) -> list[str]:
    """What a vision-language model answers to each sample's prompt, its most likely token at a time.

    Args:
        model: `MiniCPMV`.
        processor: of the model.
        samples: conversations; their last turn is not shown.
        mode: whose prefill ends the prompt.
        max_tokens: tokens of an answer at most.
        batch: prompts decoded at a time.
    """
    answers: list[str] = []
    for start in range(0, len(samples), batch):
        answers += _decoded(model, processor, samples[start : start + batch], mode, max_tokens)
    return answers


def _decoded(model: Any, processor: Any, samples: Sequence[Sample], mode: Mode, max_tokens: int) -> list[str]:
    from rollouts.prompts import render_text

    inputs = processor(
        [render_text(processor, sample.prompt, mode) for sample in samples],
        images=[list(sample.images) for sample in samples],
        videos=[list(sample.videos) for sample in samples],
        padding_side="left",
    )
    end = processor.tokenizer.eos_token_id
    pad = processor.tokenizer.pad_token_id
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens, eos_token_id=end, pad_token_id=pad)
    return [text.strip() for text in processor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], True)]


def answer_of(text: str, mode: Mode) -> str:
    """The answer without the thinking before it; empty if the thinking never ended."""
    return text.partition(mode.think_close)[2] if mode.thinks else text


def same_answer(answer: str, reference: str) -> bool:
    """Whether two short answers are equal but for case, spaces and a final full stop."""
    return _plain(answer) == _plain(reference)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
