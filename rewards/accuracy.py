"""`accuracy`: R_acc of the composite, by the rule verifier that fits the reference (arXiv 2509.18154 s2.4).

`verifier: auto` sends a question with options to `choice` and everything else to `math`, which reads numbers,
expressions, letters and short texts. Name one verifier to use it for every row.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from rewards.choice import choice
from rewards.exact import exact
from rewards.math import gold_answer, math
from rewards.normalised import normalised
from rewards.registry import reward

VERIFIERS: dict[str, Callable[..., float | None]] = {
    "math": math,
    "exact": exact,
    "normalised": normalised,
    "choice": choice,
}


def _check(args: Mapping[str, Any], names: Collection[str]) -> None:
    name = args.get("verifier", "auto")
    if name not in ("auto", *VERIFIERS):
        raise ValueError(f"`verifier` must be auto, {', '.join(VERIFIERS)}, got {name!r}.")


@reward("accuracy", parallel=True, gold=gold_answer, validate=_check)
def accuracy(*, answer: str | None, reference: Any, choices: Any = None, verifier: str = "auto") -> float | None:
    """Return 1.0 if the answer is right, 0.0 if not, None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right answer.
        choices: the options of a multiple-choice question, where the dataset has such a column.
        verifier: auto | math | exact | normalised | choice.

    Example:
        >>> accuracy(answer="The answer is 1/2", reference="0.5")
        1.0
    """
    name = route(choices) if verifier == "auto" else verifier
    if name == "choice":
        return choice(answer=answer, reference=reference, choices=choices)
    return VERIFIERS[name](answer=answer, reference=reference)


def route(choices: Any) -> str:
    """Return the verifier of a row for `verifier: auto`."""
    return "choice" if choices else "math"
