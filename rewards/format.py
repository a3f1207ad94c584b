"""`format`: 1.0 if the response has the form its mode asks for, else 0.0 (R_format, arXiv 2509.18154 s2.4).

Its values are not published; RLPR's code makes it an exact check of the tags, as here. The mode's prefill belongs to
the prompt: long mode opens the think block there, so the response must close it once and open none; short mode fills in
an empty block, so the response has no think tag at all. In both the answer must not be blank; with `answer_tag` it
stands in exactly one pair of these tags, after the thinking, with nothing but blanks around it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rewards.registry import reward


def _check(args: Mapping[str, Any], names: Collection[str]) -> None:
    for key in ("think_open", "think_close"):
        if key in args and not (isinstance(args[key], str) and args[key].strip()):
            raise ValueError(f"`{key}` must be a tag such as <think>, got {args[key]!r}.")
    tag = args.get("answer_tag", "")
    if not isinstance(tag, str) or any(char in tag for char in "<>/ "):
        raise ValueError(f"`answer_tag` is the bare name of a tag, such as `answer`, got {tag!r}.")
    modes = args.get("thinking_modes", ["long"])
    if isinstance(modes, str) or not isinstance(modes, Sequence):
        raise ValueError(f"`thinking_modes` must be a list of mode names, got {modes!r}.")


@reward("format", validate=_check)
def format(
    *,
    response: str,
    mode: str,
    think_open: str = "<think>",
    think_close: str = "</think>",
    answer_tag: str = "",
    thinking_modes: Sequence[str] = ("long",),
) -> float:
    """Return 1.0 if the tags of the mode occur once each and in order and the answer is not blank, else 0.0.

    Args:
        response: the text after the prefill.
        mode: the mode it was sampled in.
        think_open: tag that opens a think block.
        think_close: tag that closes it.
        answer_tag: name of the tag around the answer; empty = no tag is asked for.
        thinking_modes: modes whose prefill opens a think block; in all others a response must not think.

    Example:
        >>> format(response="2 and 2 are 4.</think>\\nThe answer is 4.", mode="long")
        1.0
    """
    response = response or ""
    thinks = mode in thinking_modes
    if response.count(think_open) or response.count(think_close) != int(thinks):
        return 0.0
    thinking, _, answer = response.rpartition(think_close) if thinks else ("", "", response)
    if not answer_tag:
        return float(bool(answer.strip()))
    opening, closing = f"<{answer_tag}>", f"</{answer_tag}>"
    if opening in thinking or closing in thinking or answer.count(opening) != 1 or answer.count(closing) != 1:
        return 0.0
    body = answer.strip()
    inner = body.removeprefix(opening).removesuffix(closing)
    whole = body.startswith(opening) and body.endswith(closing)
    return float(whole and bool(inner.strip()) and closing not in inner)
