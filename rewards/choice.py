"""`choice`: 1.0 if the response picks the right option of a multiple-choice question, else 0.0.

The reference is the letter (`B`), the option's text, or both (`B. Paris`). With the options at hand (`choices`, a
dataset column or constant) letter and text count alike; without them an answer must show what the reference shows. A
response that picks several letters picks none.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.extract import final_answer, visible
from rewards.registry import reward
from rewards.text import normalise

LETTERS = "ABCDEFGHIJ"
MAX_SENTENCE = 1000
"""Characters of a statement that are searched for letters, from its end."""
_LEADING = re.compile(r"\s*(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*)?([(\[{]?)\s*([A-J])\s*([)\]}]?)(.*)", re.DOTALL)
_TEXT_AFTER = re.compile(r"\s*[.:)、]\s*\S|\s+[\w$\"'(]")
_STANDALONE = re.compile(r"(?<![A-Za-z0-9_\\'’])\(?([A-J])\)?(?![A-Za-z0-9_'’=+^])")
_NEGATED = re.compile(
    r"(?:\b(?:not|non|no|nicht|isn't|never|except|nor|than|instead of|over|pas)|n't|不是|并非|而不是|rather than)\s*"
    r"(?:option|choice|answer|be|est|is|la|the)?\s*[(\"'*]*$",
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"\W{0,3}(?:is|are|was|seems)\s+(?:wrong|incorrect|false|not|out|eliminated|impossible)", re.IGNORECASE
)
_ARTICLE = re.compile(r"\s+(?!or\b|and\b|is\b|because\b|since\b|as\b|but\b)[a-z]")
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|textit|rm|bf)\s*\{([^{}]*)\}")
_REFERENCE = re.compile(r"\(?([A-J])\)?\s*(?:[.:)]\s*(.+))?", re.DOTALL)


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return f"The answer is {reference}"


@reward("choice", gold=gold_answer)
def choice(*, answer: str | None, reference: Any, choices: Any = None) -> float | None:
    """Return 1.0 if the answer picks the reference's option, 0.0 if not, None without a reference.

    Args:
        answer: the response without its thinking.
        reference: letter, option text, or `letter. text`; an integer is the index of an option.
        choices: the options' texts, in the order of the letters, or a mapping letter -> text.

    Example:
        >>> choice(answer="It is not A, so the answer is (B).", reference="B")
        1.0
    """
    if reference is None or (isinstance(reference, str) and not reference.strip()):
        return None
    if not isinstance(answer, str):
        return 0.0
    options = _options(choices)
    letter, text = _reference(reference, options)
    picked = chosen_letters(answer)
    if letter and picked:
        return float(picked == letter)
    return float(bool(text) and _states(answer, text, options))


def chosen_letters(answer: str) -> str:
    """Return the option letter that an answer picks; empty if it picks none, or several that differ.

    A box decides, then the words after `answer is`, then the only letter of the last sentence that no `not` precedes.
    """
    final = final_answer(answer)
    text = _WRAPPER.sub(r"\1", final.text.replace("$", " ")).strip(" *.")
    if final.kind in ("box", "phrase"):
        return _leading_letter(text) or ("" if final.kind == "box" else _only(text))
    return _only(_last_sentence(visible(answer)))


def _leading_letter(text: str) -> str:
    """Return the letter that a statement starts with: alone, or followed by the option's text, or by a reason."""
    match = _LEADING.fullmatch(text)
    if match is None:
        return ""
    opened, letter, closed, rest = match.groups()
    if rest.strip() and not _TEXT_AFTER.match(rest):
        return ""  # `B + 1`, `Bx`: an expression
    if letter == "A" and not (opened or closed) and _ARTICLE.match(rest):
        return ""
    others = set(_letters(rest, text)) - {letter}
    return "" if others and re.search(r"\b(?:or|and)\b|[,/&]", text) else letter


def _only(text: str) -> str:
    text = text[-MAX_SENTENCE:]
    found = set(_letters(text, text))
    return found.pop() if len(found) == 1 else ""


def _letters(part: str, text: str) -> list[str]:
    """Return the option letters in a part of a text, without those that are denied and without the article `A`."""
    start = len(text) - len(part)
    found = []
    for match in _STANDALONE.finditer(text, start):
        article = match[0] == "A" and _ARTICLE.match(text, match.end())
        if match[0] != "I" and not article and not _denied(text, match):
            found.append(match[1])
    return found


def _denied(text: str, match: re.Match[str]) -> bool:
    return bool(_NEGATED.search(text[max(0, match.start() - 60) : match.start()]) or _WRONG.match(text, match.end()))


def _last_sentence(text: str) -> str:
    sentences = [item for item in re.split(r"(?<=[^A-J\s(])\.\s+|[\n。]", text[-2000:]) if item.strip(" .*")]
    return sentences[-1] if sentences else ""


def _options(choices: Any) -> dict[str, str]:
    if isinstance(choices, Mapping):
        return {str(key).strip("() .").upper(): str(value) for key, value in choices.items()}
    if isinstance(choices, Sequence) and not isinstance(choices, str):
        return {letter: str(value) for letter, value in zip(LETTERS, choices, strict=False)}
    return {}


def _reference(reference: Any, options: Mapping[str, str]) -> tuple[str, str]:
    """Return letter and text of the right option, as far as they are known."""
    if isinstance(reference, int) and not isinstance(reference, bool) and 0 <= reference < len(options):
        letter = LETTERS[reference]
        return letter, options[letter]
    plain = str(reference).strip()
    match = _REFERENCE.fullmatch(plain)
    if match:
        return match[1], (match[2] or options.get(match[1], "")).strip()
    letter = next((key for key, value in options.items() if normalise(value) == normalise(plain)), "")
    return letter, plain


def _states(answer: str, text: str, options: Mapping[str, str]) -> bool:
    """Return whether the final statement is the option's text, and names no other option."""
    final = final_answer(answer)
    wanted = normalise(text)
    for reading in (final.text, *final.readings):
        if normalise(_WRAPPER.sub(r"\1", reading)) == wanted:
            return True
    stated = f" {normalise(final.text)} "
    others = [normalise(value) for value in options.values() if normalise(value) != wanted]
    return bool(options) and f" {wanted} " in stated and not any(f" {other} " in stated for other in others if other)
