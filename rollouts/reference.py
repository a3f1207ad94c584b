"""Where a reference answer stands in place of a sampled one: what is kept of the response, and which tokens follow.

RLPR (arXiv 2506.18254, section 3.1): a response is reasoning and answer; the answer's text is replaced by the
reference, the reasoning stays as it was sampled, token by token, with the model's own white space before the answer.
A response whose parts cannot be told apart has no such place, and no probability reward either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rollouts.modes import Mode
from rollouts.prompts import split_response

REPLACEMENT = "\ufffd"
"""What bytes that are no whole character decode to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSpan:
    """A reference after a prefix.

    Example::

        ReferenceSpan(keep=41, tokens=(220, 2751), scored=(0, 2))  # both tokens hold text of the reference
    """

    keep: int
    """Response tokens before it; 0 = it follows the prompt."""
    tokens: tuple[int, ...]
    """White space, where the model's own is part of a token, and the reference."""
    scored: tuple[int, ...]
    """Indices of the tokens that hold text of the reference."""


def reference_span(
    tokenizer: Any,
    *,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    mode: Mode,
    reference: str,
    answer_open: str = "",
) -> ReferenceSpan | None:
    """Where the reference stands in a response.

    Args:
        tokenizer: A fast tokenizer of transformers.
        prompt_ids: Token ids of the prompt, the mode's prefill included.
        response_ids: (T,) sampled token ids.
        mode: Says whether the response starts inside a think block.
        reference: Text of the reference answer.
        answer_open: Text that opens the answer, such as `<answer>`, once after the think block; empty = the answer is
            all that follows the think block.

    Returns:
        None where the response has no answer: an unclosed think block, a second one, no or several openings of the
        answer, or nothing but white space after it.
    """
    ids = list(response_ids)
    special = set(tokenizer.all_special_ids)
    while ids and ids[-1] in special:
        ids.pop()
    start = _answer_start(tokenizer, ids, mode, answer_open)
    if start is None:
        return None
    keep, space = _leading_space(tokenizer, ids, start)
    if keep == len(ids):
        return None
    if not space and keep == start and not _ends_with_space(tokenizer, [*prompt_ids[-8:], *ids[:keep]]):
        space = " "
    return _span(tokenizer, keep, space, reference)


def prompt_span(tokenizer: Any, *, prompt_ids: Sequence[int], reference: str) -> ReferenceSpan | None:
    """The reference directly after a prompt: no reasoning at all. None for a reference without text."""
    return _span(tokenizer, 0, "" if _ends_with_space(tokenizer, prompt_ids[-8:]) else " ", reference)


def _answer_start(tokenizer: Any, ids: list[int], mode: Mode, answer_open: str) -> int | None:
    """Index of the first token after the tags; None where they are not there, or not once."""
    split = split_response(tokenizer, ids, mode)
    start = split.answer_start
    if mode.thinks and start >= len(ids):
        return None
    after = _after(tokenizer, ids, start, len(ids))
    thought = split.thinking or ""
    if any(tag in text for tag in (mode.think_open, mode.think_close) for text in (after, thought)):
        return None
    if not answer_open:
        return start
    if after.count(answer_open) != 1 or answer_open in thought:
        return None
    return _first(range(start, len(ids) + 1), lambda end: answer_open in _after(tokenizer, ids, start, end))


def _leading_space(tokenizer: Any, ids: list[int], start: int) -> tuple[int, str]:
    """Tokens up to the one that holds the answer's first letter, and the white space inside that one.

    A letter may take several tokens, and so may a white space: the first ones alone decode to a replacement character.
    """

    def text(end: int) -> str:
        return _after(tokenizer, ids, start, end)

    end = _first(range(start, len(ids) + 1), lambda end: bool(text(end).rstrip(REPLACEMENT).strip()))
    if end is None:
        return len(ids), ""
    begin = end - 1
    while begin > start and text(begin).endswith(REPLACEMENT):
        begin -= 1
    own = _after(tokenizer, ids, begin, end)
    return begin, own[: len(own) - len(own.lstrip())]


def _after(tokenizer: Any, ids: Sequence[int], start: int, end: int) -> str:
    """Text of some tokens, read behind what precedes them: alone, some tokenizers drop their leading space."""
    return _text(tokenizer, ids[:end])[len(_text(tokenizer, ids[:start])) :]


def _first(options: range, holds: Any) -> int | None:
    """The smallest option for which a condition holds that stays true from there on."""
    if not len(options) or not holds(options[-1]):
        return None
    low, high = 0, len(options) - 1
    while low < high:
        middle = (low + high) // 2
        if holds(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[low]


def _ends_with_space(tokenizer: Any, ids: Sequence[int]) -> bool:
    return _text(tokenizer, ids)[-1:].isspace()


def _span(tokenizer: Any, keep: int, space: str, reference: str) -> ReferenceSpan | None:
    text = reference.strip()
    if not text:
        return None
    encoded = tokenizer(space + text, add_special_tokens=False, return_offsets_mapping=True)
    scored = tuple(i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(space))
    return ReferenceSpan(keep=keep, tokens=tuple(encoded["input_ids"]), scored=scored)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
