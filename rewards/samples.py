"""From the text of a response to the sample that rewards get: thinking and answer apart, as in training.

Tandem's own rollouts are split by their tokens (`rollouts.prompts.split_response`); elsewhere (audits, other trainers)
only the text is known, and it is split here by the same rule.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rewards.registry import RewardError


class ModeTags(BaseModel):
    """How a response of one mode is split: the keys of the same names in a recipe's `modes`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    thinks: bool = False
    """Whether a response starts inside a think block."""
    think_open: str = Field(default="<think>", min_length=1)
    """Tag that opens a think block."""
    think_close: str = Field(default="</think>", min_length=1)
    """Tag that closes a think block; what follows the first one is the answer."""


DEFAULT_MODES: Mapping[str, ModeTags] = MappingProxyType({"short": ModeTags(), "long": ModeTags(thinks=True)})


def split_text(response: str, tags: ModeTags) -> tuple[str | None, str]:
    """Return thinking and answer of a response that follows its mode's prefill.

    The first closing tag ends the thinking; without one there is no answer. A mode that does not think has no thinking.

    Example:
        >>> split_text("3 and 4 are 7</think> 7", ModeTags(thinks=True))
        ('3 and 4 are 7', '7')
    """
    if not tags.thinks:
        return None, response
    thinking, _, answer = response.partition(tags.think_close)
    return thinking.strip(), answer.strip()


def guess_mode(response: str, modes: Mapping[str, ModeTags] = DEFAULT_MODES) -> str:
    """Return the mode that the tags of a response speak for: the first that thinks if it has any, else the first other.

    An unfinished thought whose opening tag was in the prompt has no tag: only a mode that is given says what it is.
    """
    for name, tags in modes.items():
        if tags.thinks and (tags.think_open in response or tags.think_close in response):
            return name
    return next((name for name, tags in modes.items() if not tags.thinks), next(iter(modes)))


def make_sample(
    response: str,
    *,
    mode: str | None = None,
    modes: Mapping[str, ModeTags] = DEFAULT_MODES,
    prefilled: bool = True,
    columns: Mapping[str, Any] | None = None,
    **known: Any,
) -> dict[str, Any]:
    """Return the sample of a response.

    Args:
        response: the text that was sampled.
        mode: its mode; None takes the one its tags speak for (`guess_mode`).
        modes: how each mode is split.
        prefilled: whether the prompt ends with the opening think tag, as with Tandem's modes; if not, one opening tag
            at the start of the response is taken off, so that rewards see what they see in Tandem.
        columns: columns of the data row; the response's own fields go before columns of the same name.
        **known: further fields of the response (`prompt`, `reference`, `response_ids`, `truncated`). Leave out what is
            not known: a reward that needs it then says so.

    Raises:
        RewardError: the mode is none of `modes`.
    """
    name = guess_mode(response, modes) if mode is None else mode
    if not isinstance(name, str) or name not in modes:
        raise RewardError(
            f"mode {name!r} is none of {', '.join(modes)}: name it under `modes` in the reward file, or mend the data."
        )
    tags = modes[name]
    if tags.thinks and not prefilled:
        response = response.lstrip().removeprefix(tags.think_open)
    thinking, answer = split_text(response, tags)
    return {**(columns or {}), **known, "response": response, "thinking": thinking, "answer": answer, "mode": name}
