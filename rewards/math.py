"""`math`: 1.0 if the final answer of a response equals the reference, 0.0 if not.

What counts as the final answer is written in extract.py, when two answers are equal in math_compare.py. Cheap cases
(equal text, two plain numbers, letters) are decided here; all else in a worker that is killed after 1.5 seconds.
"""

import re
from typing import Any

from rewards.choice import chosen_letters
from rewards.exact import first, references
from rewards.extract import Final, final_answer
from rewards.math_text import MAX_CHARS, clean, same_number, squeeze
from rewards.quantity import Contradiction, Quantity, base, read_quantity
from rewards.registry import reward
from rewards.sandbox import cut_calls, shared

_LETTERS = re.compile(r"\(?([A-J])\)?\.?|\\text\{\s*\(?([A-J])\)?\.?\s*\}|\\(?:textbf|mathrm|mathbf)\{\(?([A-J])\)?\}")
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_PREFIX_REFERENCE = re.compile(r"^\s*(?:\\\[|\\\(|\$+)?\s*\\boxed\s*\{")


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return f"\\boxed{{{reference_text(first(reference))}}}"


def reference_text(reference: Any) -> str:
    """Return a reference as text: the content of its box if it is boxed, what follows `####` in GSM8K's solutions.

    Delimiters around the whole go: `$x$`, `\\(x\\)`, `\\[x\\]`, `\\boxed{x}` and `x` are the same reference.
    """
    text = "" if reference is None else str(reference)
    if "####" in text:
        text = text.rpartition("####")[2]
    if _PREFIX_REFERENCE.match(text) or (len(text) > MAX_CHARS // 4 and "\\boxed" in text):
        boxed = final_answer(text)
        text = boxed.text if boxed.kind == "box" else text
    return _undelimited(text.strip())


def _undelimited(text: str) -> str:
    for _ in range(3):
        for opening, closing in _DELIMITERS:
            inner = text[len(opening) : -len(closing)]
            whole = len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing)
            if whole and opening not in inner and closing not in inner:
                text = inner.strip()
    return text


@reward("math", parallel=True, gold=gold_answer)
def math(*, answer: str | None, reference: Any) -> float | None:
    """Return 1.0 if the answer's final value equals the reference, else 0.0; None without a reference.

    Args:
        answer: the response without its thinking (thinking left in is ignored).
        reference: the right answer: LaTeX or plain, with or without `$`, boxed or not; a list gives several, any of
            which is right.

    Example:
        >>> math(answer="So it is \\\\boxed{\\\\frac{1}{2}}.", reference="0.5")
        1.0
    """
    targets = [text for text in map(reference_text, references(reference)) if text]
    if not targets:
        return None
    if not isinstance(answer, str):
        return 0.0
    before = cut_calls()
    # An answer that a worker was killed over is not put to the next reference: one time limit for all of them.
    return float(any(cut_calls() == before and verify(answer, target) for target in targets))


def verify(answer: str, reference: str) -> bool:
    """Return whether the final answer of a text equals the reference, within the sandbox's limits."""
    if _letter(reference):
        return _letter(reference) == chosen_letters(answer)
    final = final_answer(answer)
    if final.kind == "none" or _other_unit(final, reference):
        return False
    undecided: dict[str, str] = {}
    for reading in final.readings:
        decided = quick(reading, reference)
        if decided:
            return True
        if decided is None:
            undecided.setdefault(clean(reading), reading)
    if not undecided:
        return False
    outcome = shared().call("rewards.math_compare:any_equivalent", list(undecided.values()), reference)
    return outcome.status == "ok" and bool(outcome.value)


def _other_unit(final: Final, reference: str) -> bool:
    """Return whether the two sides give units that differ, and amounts that do: the numbers must not decide then."""
    wanted = _quantity(reference)
    if wanted is None or wanted.unit is None:
        return False
    number = re.search(r"\d", final.text)
    texts = [*final.readings, final.text[number.start() :] if number else ""]
    given = next((found for found in map(_quantity, texts) if found is not None and found.unit is not None), None)
    if given is None or given.unit is None or given.unit == wanted.unit:
        return False
    return given.unit.dimension != wanted.unit.dimension or base(given) != base(wanted)


def _quantity(text: str) -> Quantity | None:
    try:
        return read_quantity(text)
    except Contradiction:
        return None


def quick(answer: str, reference: str) -> bool | None:
    """Decide the cases that need no algebra: equal text, two plain numbers, an answer too long to be one."""
    if answer.strip() == reference.strip():
        return True
    if len(answer) > MAX_CHARS or len(reference) > MAX_CHARS:
        return False
    one, two = squeeze(clean(answer)), squeeze(clean(reference))
    if not one or not two:
        return False
    if one == two:
        return True
    return same_number(one, two)


def _letter(reference: str) -> str:
    """Return the capital letter of a multiple-choice reference, or nothing."""
    match = _LETTERS.fullmatch(reference.strip().strip("$").strip())
    return next((group for group in match.groups() if group), "") if match else ""
