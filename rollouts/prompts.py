"""From messages to prompt ids, and from response ids to thinking and answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rollouts.modes import Mode
from rollouts.records import PromptMedia


def render_prompt(tokenizer: Any, messages: Sequence[Mapping[str, Any]], mode: Mode) -> tuple[int, ...]:
    """Token ids of a conversation that the model is to continue in `mode`.

    Args:
        tokenizer: Tokenizer of transformers with a chat template.
        messages: Turns with `role` and `content`; the last one is usually the user's.
        mode: Its instruction joins the last user message, its prefill ends the prompt.

    Returns:
        The ids of chat template text and prefill, tokenised as one string; the template writes the special tokens.
    """
    text = render_text(tokenizer, messages, mode)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


class MediaPrompt(NamedTuple):
    """A prompt with images or videos, as trainer and engine take it."""

    ids: tuple[int, ...]
    """Token ids with the blocks of all media in place: what the language model reads."""
    media: PromptMedia
    """What the engine takes; it makes the same ids of it."""
    inputs: Mapping[str, Any]
    """The model's further arguments for this one text, as its processor returned them."""


def render_media_prompt(
    processor: Any, messages: Sequence[Mapping[str, Any]], images: Sequence[Any], videos: Sequence[Any], mode: Mode
) -> MediaPrompt:
    """A conversation with images or videos that the model is to continue in `mode`.

    Args:
        processor: Processor of transformers with a chat template.
        messages: Turns with `role` and `content`; the parts of type image and video stand in the order of the media.
        images: Opened images.
        videos: Opened videos, as the processor takes them.
        mode: See `render_prompt`.

    Raises:
        ValueError: Parts and media do not match.
    """
    text = render_text(processor, messages, mode)
    media = {name: list(given) for name, given in (("images", images), ("videos", videos)) if given}
    out = processor(text=text, return_tensors="pt", **media)
    inputs = {name: value for name, value in out.items() if name not in ("input_ids", "attention_mask")}
    ids = tuple(out["input_ids"][0].tolist())
    return MediaPrompt(ids, PromptMedia(text=text, images=tuple(images), videos=tuple(videos)), inputs)


def render_text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], mode: Mode) -> str:
    """Prompt as text; see `render_prompt`."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template; "
            "use an instruction model or set tokenizer.chat_template"
        )
    turns = _with_instruction([without_thoughts(turn, mode) for turn in messages], mode)
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **mode.template_kwargs)
    return _join_prefill(text, mode)


def _with_instruction(turns: list[dict[str, Any]], mode: Mode) -> list[dict[str, Any]]:
    """Appends the mode's instruction to the last user message, after a blank line."""
    if not mode.instruction:
        return turns
    for index in reversed(range(len(turns))):
        if turns[index]["role"] == "user":
            turns[index] = turns[index] | {"content": _append_text(turns[index]["content"], mode.instruction)}
            return turns
    raise ValueError(
        f"mode {mode.name!r} has an instruction, but the conversation has no user message to append it to "
        f"(roles: {[turn['role'] for turn in turns]})"
    )


def _append_text(content: Any, text: str) -> Any:
    """Content with text added; content is a string or a list of parts."""
    if isinstance(content, str):
        return f"{content}\n\n{text}"
    return [*content, {"type": "text", "text": f"\n\n{text}"}]


def without_thoughts(turn: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
    """Turn as prompts show it: an assistant's think block is dropped, also one whose opening was in the prefill."""
    content = turn["content"]
    if turn["role"] != "assistant" or not isinstance(content, str):
        return dict(turn)
    opening, closing = re.escape(mode.think_open), re.escape(mode.think_close)
    content = re.sub(rf"{opening}.*?(?:{closing}|\Z)\s*", "", content, flags=re.DOTALL)
    return dict(turn) | {"content": content.split(mode.think_close)[-1].lstrip("\n")}


def _join_prefill(text: str, mode: Mode) -> str:
    """Adds the prefill unless the template has written it, or the opening of its think block, already."""
    bare = text.rstrip()
    if mode.prefill and text.endswith(mode.prefill):
        return text
    if bare.endswith(mode.think_open):
        return _join_opened(text, mode)
    if bare.endswith(mode.think_close):
        return _join_closed(text, mode)
    return text + mode.prefill


def _join_opened(text: str, mode: Mode) -> str:
    """Prefill after a template that opens the think block itself."""
    if mode.thinks and mode.prefill.strip() in ("", mode.think_open):
        return text
    if mode.prefill.startswith(mode.think_open):
        return text.rstrip() + mode.prefill.removeprefix(mode.think_open)
    if mode.thinks:
        return text + mode.prefill
    raise ValueError(
        f"the chat template opens a think block, but mode {mode.name!r} does not think and its prefill "
        f"{mode.prefill!r} does not close the block; start it with {mode.think_open!r} and {mode.think_close!r}, "
        "or set template_kwargs such as {enable_thinking: false}"
    )


def _join_closed(text: str, mode: Mode) -> str:
    """Prefill after a template that writes an empty think block itself."""
    if mode.thinks:
        raise ValueError(
            f"the chat template closes the think block, but mode {mode.name!r} is to think; "
            "set its template_kwargs such as {enable_thinking: true}"
        )
    return text + mode.prefill.split(mode.think_close)[-1].lstrip()


class Split(NamedTuple):
    """A response taken apart; the fields are those of `Rollout`."""

    response: str
    thinking: str | None
    answer: str
    answer_start: int


def split_response(tokenizer: Any, response_ids: Sequence[int], mode: Mode) -> Split:
    """Decodes a response and splits it at the first closing think tag.

    Args:
        tokenizer: Tokenizer that decodes the ids.
        response_ids: (T,) ids that follow the prefill, end-of-turn token included.
        mode: A mode that does not think leaves everything to the answer.

    Returns:
        Response text, thinking, answer, and the index of the first answer token.
    """
    ids = list(response_ids)
    response = _decode(tokenizer, ids)
    if not mode.thinks:
        return Split(response, None, response, 0)
    start, tag_tokens = _find_close(tokenizer, ids, response, mode)
    if tag_tokens:  # the tag is a special token, which decoding drops
        thinking, answer = _decode(tokenizer, ids[: start - tag_tokens]), _decode(tokenizer, ids[start:])
    else:
        thinking, _, answer = response.partition(mode.think_close)
    return Split(response, thinking.strip(), answer.strip(), start)


def _find_close(tokenizer: Any, ids: list[int], response: str, mode: Mode) -> tuple[int, int]:
    """Index after the closing tag (T when absent), and 1 if the tag is one special token, else 0."""
    if mode.think_close in getattr(tokenizer, "all_special_tokens", ()):
        close = tokenizer.convert_tokens_to_ids(mode.think_close)
        return (ids.index(close) + 1, 1) if close in ids else (len(ids), 0)
    if mode.think_close not in response:
        return len(ids), 0
    low, high = 1, len(ids)  # the shortest prefix whose text holds the tag lies in [low, high]
    while low < high:
        middle = (low + high) // 2
        if mode.think_close in _decode(tokenizer, ids[:middle]):
            high = middle
        else:
            low = middle + 1
    return low, 0


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """Text of the ids without special tokens, exactly as generated (no tidying of spaces)."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
