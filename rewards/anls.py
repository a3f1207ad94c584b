"""`anls`: average normalised Levenshtein similarity, the measure of scene-text and document question answering.

For an answer `a` and a reference `r` with NL = edit distance / length of the longer, both lower-cased and stripped:
score = 1 - NL if NL < threshold, else 0; the best over all references (ST-VQA, arXiv 1905.13648 section 3; DocVQA,
arXiv 2007.00398; threshold 0.5). The answer is the whole response or its final answer (exact.statements), whichever
is nearer.
"""

from typing import Any

from rewards import arguments
from rewards.edit import similarity
from rewards.exact import gold_answer, references, statements
from rewards.registry import reward

THRESHOLD = 0.5


def _check(name: str, value: Any) -> float:
    return arguments.amount(name, value, high=1.0)


@reward("anls", gold=gold_answer, validate=arguments.validator(threshold=_check))
def anls(*, answer: str | None, reference: Any, threshold: float | None = THRESHOLD) -> float | None:
    """Return the answer's ANLS, from 0 to 1; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right text; a list gives several, the nearest counts.
        threshold: a normalised distance of this or more gives 0.

    Example:
        >>> round(anls(answer="The answer is Lindon.", reference=["London", "Paris"]), 3)
        0.833
    """
    wanted = [item.strip().casefold() for item in references(reference)]
    if not wanted:
        return None
    limit = THRESHOLD if threshold is None else _check("threshold", threshold)
    stated = {item.strip().casefold() for item in statements(answer)}
    return max((_score(item, target, limit) for item in stated for target in wanted), default=0.0)


def _score(text: str, target: str, limit: float) -> float:
    if text == target:
        return 1.0
    longest = max(len(text), len(target))
    if abs(len(text) - len(target)) >= limit * longest:
        return 0.0  # the difference in length alone is too much
    found = similarity(text, target)
    return found if 1.0 - found < limit else 0.0
