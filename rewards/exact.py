"""`exact`: 1.0 if the final answer is the reference, character for character, else 0.0.

The final answer is what extract.py finds: the last box, what follows `answer is`, or the whole answer. Blanks around it
and one full stop after it do not count; everything else does, case included.
"""

from typing import Any

from rewards.extract import final_answer, whole_answer
from rewards.registry import reward


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return first(reference)


@reward("exact", gold=gold_answer)
def exact(*, answer: str | None, reference: Any) -> float | None:
    """Return 1.0 if the final answer is the reference itself, 0.0 if not, None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right answer; a list gives several, any of which is right.

    Example:
        >>> exact(answer="The answer is Paris.", reference="Paris")
        1.0
    """
    wanted = references(reference)
    if not wanted:
        return None
    stated = statements(answer)
    return float(any(item.strip() in stated for item in wanted))


def references(reference: Any) -> list[str]:
    """Return the accepted answers as texts: none for None or blank, several for a list."""
    items = reference if isinstance(reference, list | tuple) else [reference]
    return [str(item) for item in items if item is not None and str(item).strip()]


def first(reference: Any) -> str:
    """Return the first accepted answer; empty if there is none."""
    return next(iter(references(reference)), "")


def statements(answer: str | None) -> set[str]:
    """Return the texts that an answer can be said to state: the whole of it, and its final answer."""
    if not isinstance(answer, str):
        return set()
    final = final_answer(answer)
    found = {whole_answer(answer).strip()} if final.kind != "box" else set()
    if final.kind in ("box", "phrase"):
        found.add(final.text.strip())
    return found | {text.removesuffix(".").rstrip() for text in found if text != "."}
