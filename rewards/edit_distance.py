"""`edit_distance`: 1 - normalised Levenshtein distance to the reference, for reading text (OCR) word for word.

The text is the whole response, or the content of `<answer>` or of the last fenced code block where there is one. Of
long texts, what lies beyond 20 000 characters that are no common beginning or end counts as wrong (edit.py).
"""

from typing import Any

from rewards import arguments
from rewards.edit import similarity
from rewards.exact import gold_answer, references
from rewards.extract import visible
from rewards.registry import reward
from rewards.structured import between

_FLAGS = {"fold_whitespace": arguments.flag, "ignore_case": arguments.flag}


@reward("edit_distance", gold=gold_answer, validate=arguments.validator(**_FLAGS))
def edit_distance(
    *,
    answer: str | None,
    reference: Any,
    fold_whitespace: bool | None = False,
    ignore_case: bool | None = False,
) -> float | None:
    """Return how near the response's text is to the reference's, from 0 to 1; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right text; a list gives several, the nearest counts.
        fold_whitespace: any run of blanks and line breaks counts as one space.
        ignore_case: upper and lower case are the same.

    Example:
        >>> edit_distance(answer="Invoice No. 4712", reference="Invoice No. 4711")
        0.9375
    """
    wanted = references(reference)
    if not wanted:
        return None
    if not isinstance(answer, str):
        return 0.0
    folded = arguments.flag("fold_whitespace", fold_whitespace), arguments.flag("ignore_case", ignore_case)
    text = _spelling(transcript(answer), *folded)
    return max(similarity(text, _spelling(item, *folded)) for item in wanted)


def transcript(answer: str) -> str:
    """Return the text that a response transcribes."""
    text = visible(answer)
    tagged = between(text, "<answer>", "</answer>")
    if tagged:
        return tagged[-1] if len(set(tagged)) == 1 else ""
    if text.count("```") == 2:
        inner = text.split("```")[1]
        return inner.partition("\n")[2] if "\n" in inner else inner
    return text


def _spelling(text: str, fold_whitespace: bool, ignore_case: bool) -> str:
    text = " ".join(text.split()) if fold_whitespace else text.strip()
    return text.casefold() if ignore_case else text
