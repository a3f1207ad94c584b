"""Supervised examples that teach both modes: what the model is given, and what it should have answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from recipes.tasks import Row
from rollouts.modes import Mode, ModeSampler
from rollouts.prompts import render_prompt

if TYPE_CHECKING:
    from base_model.sft import SftExample


class AnswerFormat(BaseModel):
    """How a right answer is written, in both modes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    answer: str = "{reference}"
    """The final answer; {reference} is the row's."""


def response_text(row: Row, mode: Mode, style: AnswerFormat) -> str:
    """The response that follows the mode's prefill: worked solution, closing tag and answer, or the answer alone."""
    answer = style.answer.replace("{reference}", str(row.reference))
    return f"{row.solution}\n{mode.think_close}\n\n{answer}" if mode.thinks else answer


def sft_examples(
    rows: Sequence[Row], modes: ModeSampler, tokenizer: Any, style: AnswerFormat, *, max_length: int
) -> list[SftExample]:
    """One example per row, in the mode the sampler gives its position.

    The prompt is rendered exactly as rollouts render it, prefill included, and only the response and its end-of-turn
    token are targets: a trained prefill would make both modes open a think block.

    Raises:
        ValueError: a row is longer than ``max_length`` tokens.
    """
    from base_model.sft import SftExample

    examples = []
    for position, row in enumerate(rows):
        mode = modes.mode(0, position)
        prompt_ids = render_prompt(tokenizer, row.messages, mode)
        text = response_text(row, mode, style)
        response_ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if len(prompt_ids) + len(response_ids) > max_length:
            raise ValueError(
                f"row {row.index} takes {len(prompt_ids) + len(response_ids)} tokens in {mode.name} mode, more than "
                f"max_length {max_length}: raise max_length, or leave the row out"
            )
        examples.append(SftExample(prompt_ids=prompt_ids, response_ids=response_ids))
    return examples
