"""What a reward model reads: the prompt and the final answer, in the reward model's own chat template, as token ids.

1. Thinking is left out, of the answer and of earlier assistant turns alike: reward models are out of distribution on
   long chains (MiniCPM-V 4.5, arXiv 2509.18154 s2.4). Only what follows the last `</think>` counts.
2. The chat template of the reward model's tokenizer writes the roles. Where it takes no system message, that text opens
   the first user message. Without a template the texts are joined by blank lines (`prompt`, `answer`), the
   tokenizer adds its own special tokens, and an end-of-text token follows.
3. Text is never markup: a special token of the reward model that is spelt out in a message is broken by a space, so
   that an answer cannot open a turn of its own.
4. What is longer than `max_length` loses the end of the answer; the tokens with which the template closes stay.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.extract import visible
from rewards.registry import RewardError

_PROBE = "probe"


class ConversationEncoder:
    """Turns a prompt and an answer into the token ids that a reward model scores."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        """Read the template's habits.

        Args:
            tokenizer: of the reward model, as transformers loads it.
            max_length: most tokens of a text.
        """
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._special = _special_pattern(tokenizer)
        self._templated = bool(getattr(tokenizer, "chat_template", None))
        self._takes_system = not self._templated or self._renders("system", "user", "assistant")
        closing = self._text([_turn("user", _PROBE), _turn("assistant", _PROBE)]).rpartition(_PROBE)[2]
        self._closing = len(self._tokenise(closing)) if self._templated else 1

    def encode(self, messages: Sequence[Mapping[str, Any]], answer: str | None) -> tuple[int, ...]:
        """Return the ids of a conversation that ends with the answer.

        Args:
            messages: the prompt: turns with `role` and `content`, text or parts of text.
            answer: the response without its thinking; None or empty is an empty answer.

        Raises:
            RewardError: a message has parts that are not text, or the chat template refuses the roles.
        """
        ids = self._tokenise(self._text([*messages, _turn("assistant", answer or "")]))
        if not self._templated and self._tokenizer.eos_token_id not in (None, ids[-1] if ids else None):
            ids.append(self._tokenizer.eos_token_id)
        if len(ids) > self._max_length:
            ids = [*ids[: self._max_length - self._closing], *ids[len(ids) - self._closing :]]
        return tuple(ids)

    def _text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        turns = [_turn(str(item["role"]), self._content(item)) for item in messages]
        if not self._templated:
            return "\n\n".join(turn["content"] for turn in turns)
        return self._render(turns if self._takes_system else _folded(turns))

    def _content(self, message: Mapping[str, Any]) -> str:
        text = _plain(message["content"])
        if message["role"] == "assistant":
            text = visible(text).strip()
        return self._special.sub(r"\1 ", text)

    def _render(self, turns: Sequence[Mapping[str, str]]) -> str:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise RewardError(
                f"the reward model's chat template refuses a conversation of the roles {roles} ({error}): take a "
                "reward model with another template, or other prompts."
            ) from error

    def _renders(self, *roles: str) -> bool:
        try:
            return _PROBE in self._render([_turn(role, _PROBE) for role in roles])
        except RewardError:
            return False

    def _tokenise(self, text: str) -> list[int]:
        """Return the ids; a template has written the special tokens itself."""
        return list(self._tokenizer(text, add_special_tokens=not self._templated)["input_ids"])


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _plain(content: Any) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    other = next((part.get("type") for part in parts if part.get("type") != "text"), None)
    if other is not None:
        raise RewardError(
            f"a preference model reads text only, and this prompt has a part of type {other!r}: leave the preference "
            "reward out where prompts have images or videos."
        )
    return "".join(part["text"] for part in parts)


def _folded(turns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the turns with a leading system message written into the first user message."""
    if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
        return [dict(turn) for turn in turns]
    return [_turn("user", f"{turns[0]['content']}\n\n{turns[1]['content']}"), *map(dict, turns[2:])]


def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Return what matches the first character of every special token that is spelt out in a text."""
    added = [token.content for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special]
    spelt = sorted({text for text in [*added, *tokenizer.all_special_tokens] if len(text) > 1}, key=len, reverse=True)
    if not spelt:
        return re.compile("(?!)()")
    first = "".join(
        sorted({re.escape(text[0]) for text in spelt})
    )  # hundreds of tokens are tried only where one can be
    return re.compile(rf"(?=[{first}])(?={'|'.join(map(re.escape, spelt))})(.)", re.DOTALL)
