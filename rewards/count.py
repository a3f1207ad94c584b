"""`count`: how many there are. 1.0 for the right number, or a smooth share of it.

- The number is the one that the final answer states, in digits or words (`12`, `twelve`, `a dozen`; `none` and
  `there are no ...` are 0); a sentence that states two different numbers, a range, a bound (`at least 3`) or a
  fraction counts nothing.
- `smooth`: 1 - |answer - reference| / max(reference, 1), never below 0.
"""

import re
from typing import Any

from rewards import arguments
from rewards.exact import first, references
from rewards.extract import final_answer, whole_answer
from rewards.math import reference_text
from rewards.number_words import NUMBER_WORDS, SCALES, number_of_words
from rewards.quantity import Contradiction, read_quantity
from rewards.registry import RewardError, reward
from rewards.text import VAGUE, is_changed

MAX_COUNT = 10**12
MAX_CHARS = 400
_NUMBER = re.compile(r"(?<![\w.,/^−-])\d{1,3}(?:,\d{3})+(?![\w.,/]*\d)|(?<![\w.,/^−-])\d+(?![\w/^%]|[.,]\d)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|[\n。！？]")
_FACTORIAL = re.compile(r"[\d\s(){}$\\]+!+[\s)$.]*")
_DIGIT = re.compile(r"\d")
_NONE = re.compile(r"\b(?:none|there (?:is|are|was|were) no(?!t\b)|zero)\b", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\d\s*(?:-|–|—|to|~)\s*\d|\bor\b|\beither\b|\bmaybe\b|\bseveral\b|\bdozens\b|或|\bplus\b|\bminus\b",
    re.IGNORECASE,
)
_NOT_ONE = re.compile(
    r"\b(?:the|this|that|each|every|no|any|which|other|another|last|first|only) one\b"
    r"|\bone (?:of|by|can|could|has|sees)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return f"\\boxed{{{reference_text(first(reference))}}}"


@reward("count", gold=gold_answer, validate=arguments.validator(smooth=arguments.flag))
def count(*, answer: str | None, reference: Any, smooth: bool | None = False) -> float | None:
    """Return 1.0 for the right number, 0.0 for another (or what is left of it if `smooth`), None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right number, as digits or words.
        smooth: give partial credit by the relative difference.

    Raises:
        RewardError: the reference is no whole number.

    Example:
        >>> count(answer="I can see three dogs in the picture.", reference=3)
        1.0
    """
    if not references(reference):
        return None
    wanted = _whole(reference_text(first(reference)))
    if wanted is None:
        raise RewardError(f"`count` needs a whole number as reference, got {first(reference)[:80]!r}.")
    found = counted(answer) if isinstance(answer, str) else None
    if found is None:
        return 0.0
    if not arguments.flag("smooth", smooth):
        return float(found == wanted)
    return max(0.0, 1.0 - abs(found - wanted) / max(wanted, 1))


def counted(answer: str) -> int | None:
    """Return the number that a response states; None where it states none, or several."""
    final = final_answer(answer)
    if final.kind in ("none", "box", "phrase"):
        return _stated(final.text)
    sentences = [item for item in _SENTENCE.split(whole_answer(answer)[-10 * MAX_CHARS :]) if item.strip(" *.")]
    for sentence in reversed(sentences[-4:]):
        words = re.split(r"[^\w]+", sentence.casefold()[-MAX_CHARS:])
        if _DIGIT.search(sentence) or _NONE.search(sentence) or any(word in NUMBER_WORDS for word in words):
            return _stated(sentence)
    return None


def _stated(text: str) -> int | None:
    """Return the number that a statement gives."""
    text = text.replace("**", " ").strip()
    if len(text) > MAX_CHARS:
        return None
    if _FACTORIAL.fullmatch(text):
        return None
    exact = _whole(text)
    return exact if exact is not None else _in_sentence(re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text.replace("$", " ")))


def _whole(text: str) -> int | None:
    try:
        found = read_quantity(text)
    except Contradiction:
        return None
    if found is None or found.percent or found.value.denominator != 1 or not 0 <= found.value <= MAX_COUNT:
        return 0 if text.strip(" .").casefold() in ("none", "no", "zero") else None
    return int(found.value)


def _in_sentence(text: str) -> int | None:
    """Return the only number of a sentence."""
    text = text.replace("\\(", " ").replace("\\)", " ").replace("\\", " ")
    if VAGUE.search(text) or _SEVERAL.search(text):
        return None
    found = list(_NUMBER.finditer(text))[:50]
    if any(len(item[0]) > 15 or is_changed(text[: item.start()], text[item.end() :]) for item in found):
        return None
    numbers = {int(item[0].replace(",", "")) for item in found}
    if len(_DIGIT.findall(_NUMBER.sub(" ", text))) > 0:
        return None  # a decimal, a fraction, a date: not a plain count
    numbers |= set(_word_numbers(_NOT_ONE.sub(" ", text)))
    if not numbers and _NONE.search(text):
        return 0
    return numbers.pop() if len(numbers) == 1 else None


def _word_numbers(text: str) -> list[int]:
    """Return the numbers written in words, runs of words read together: `twenty five`."""
    words = _WORD.findall(text.casefold())[:200]
    found, run = [], list[str]()
    for word in [*words, ""]:
        parts = word.split("-")
        if word and (all(part in NUMBER_WORDS for part in parts) or (run and word == "and" and run[-1] in SCALES)):
            run.extend(parts)
            continue
        if run:
            value = number_of_words(" ".join(run).removesuffix(" and"))
            found.append(-1 if value is None else value)
        run = []
    return found
