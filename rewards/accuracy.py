"""`accuracy`: R_acc of the composite, by the rule verifier that fits the reference (arXiv 2509.18154 s2.4).

`verifier: auto` sends a question with options to `choice` and everything else to `math`, which reads numbers,
expressions, letters and short texts. Name one verifier to use it for every row, or give the dataset a column
`verifier`. Constraints without a reference are a reward of their own, `instructions`.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rewards.anls import anls
from rewards.box import box
from rewards.choice import choice
from rewards.count import count
from rewards.edit_distance import edit_distance
from rewards.exact import exact
from rewards.items import items
from rewards.key_values import key_values
from rewards.math import math
from rewards.multi import multi
from rewards.normalised import normalised
from rewards.number import number
from rewards.point import point
from rewards.registry import Reward, RewardError, reward
from rewards.table import table
from rewards.yes_no import yes_no

VERIFIERS: dict[str, Callable[..., float | None]] = {
    "math": math,
    "number": number,
    "choice": choice,
    "yes_no": yes_no,
    "count": count,
    "exact": exact,
    "normalised": normalised,
    "anls": anls,
    "edit_distance": edit_distance,
    "items": items,
    "multi": multi,
    "key_values": key_values,
    "table": table,
    "box": box,
    "point": point,
}


def _check(args: Mapping[str, Any], names: Collection[str]) -> None:
    name, extra = args.get("verifier", "auto"), args.get("verifier_args") or {}
    if name not in ("auto", *VERIFIERS):
        raise ValueError(f"`verifier` must be auto, {', '.join(VERIFIERS)}, got {name!r}.")
    if not isinstance(extra, Mapping):
        raise ValueError(f"`verifier_args` must be a mapping of the verifier's arguments, got {extra!r}.")
    if name != "auto":
        _check_arguments(name, extra)
        validate = _reward_of(name).validate
        if validate is not None:
            validate(extra, names)


def _check_arguments(name: str, extra: Mapping[str, Any]) -> None:
    known = [key for key in inspect.signature(VERIFIERS[name]).parameters if key not in ("answer", "reference")]
    unknown = [key for key in extra if key not in known]
    if unknown:
        raise RewardError(
            f"`verifier_args`: {name} has no argument {unknown[0]!r}; it has {', '.join(known) or 'none'}."
        )


def _reward_of(name: str) -> Reward:
    found: Reward = VERIFIERS[name].__tandem_reward__  # type: ignore[attr-defined]
    return found


def gold_answer(
    reference: Any, choices: Any = None, verifier: str | None = "auto", verifier_args: Mapping[str, Any] | None = None
) -> str:
    """Return the response that states the reference itself, as the verifier of the row reads it."""
    gold = _reward_of(_name(verifier, choices)).gold
    assert gold is not None
    extra = {key: value for key, value in (verifier_args or {}).items() if key in inspect.signature(gold).parameters}
    return gold(reference, **extra)


@reward("accuracy", parallel=True, gold=gold_answer, validate=_check)
def accuracy(
    *,
    answer: str | None,
    reference: Any,
    choices: Any = None,
    verifier: str | None = "auto",
    verifier_args: Mapping[str, Any] | None = None,
) -> float | None:
    """Return 1.0 if the answer is right, 0.0 if not, a share where the verifier gives one; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right answer.
        choices: the options of a multiple-choice question, where the dataset has such a column.
        verifier: auto, or one of VERIFIERS.
        verifier_args: arguments of that verifier, such as {rel_tol: 0.01}.

    Raises:
        RewardError: a row names an unknown verifier.

    Example:
        >>> accuracy(answer="The answer is 1/2", reference="0.5")
        1.0
    """
    name = _name(verifier, choices)
    extra = {key: value for key, value in (verifier_args or {}).items() if value is not None}
    if name == "choice":
        extra = {"choices": choices, **extra}
    if extra:
        _check_arguments(name, extra)
    return VERIFIERS[name](answer=answer, reference=reference, **extra)


def _name(verifier: str | None, choices: Any) -> str:
    name = route(choices) if verifier in (None, "auto") else str(verifier)
    if name not in VERIFIERS:
        raise RewardError(f"`verifier` must be auto, {', '.join(VERIFIERS)}, got {verifier!r}.")
    return name


def route(choices: Any) -> str:
    """Return the verifier of a row for `verifier: auto`."""
    return "choice" if choices else "math"
