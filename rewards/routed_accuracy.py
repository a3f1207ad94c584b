"""`routed_accuracy`: R_acc of the MiniCPM-V 4.5 report (arXiv 2509.18154, section 2.4), routed per sample.

References that a rule can decide go to a verifier, the others to the probability reward (RLPR, arXiv 2506.18254). Where
the report draws the line is not published ("a few tokens"; long, unit-bearing or freely phrased references are for the
probability). Here it is drawn by what a rule can read:

1. a dataset column `route` (or the constant) says `rule` or `probability`; a `verifier` named for the row means `rule`;
2. a question with options: `choice`;
3. yes, no, true, false, or a truth value: `yes_no`;
4. a number with a unit: `number`;
5. a text without words (numbers, formulas, single letters), and anything that is not text: `math`;
6. at most `max_words` words and no formula: `normalised`;
7. everything else: `probability`.

The route of each response is recorded beside its value (`routed_accuracy/route` in `reward_info`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rewards.accuracy import accuracy
from rewards.accuracy import gold_answer as rule_gold
from rewards.math import reference_text
from rewards.outcome import Outcome
from rewards.probability import probability
from rewards.quantity import Contradiction, read_quantity
from rewards.registry import RewardError, reward

ROUTES = ("auto", "rule", "probability")
MAX_RULE_CHARS = 200
_TRUTH = {"yes", "no", "true", "false"}
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\*?\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[A-Za-z]+\*?\}|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_MATHS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arsinh", "arcosh",
    "artanh", "log", "ln", "exp", "sqrt", "pi", "inf", "infinity", "and", "or", "mod",
}  # fmt: skip
"""Words that belong to a formula, or join two."""
_FORMULA = re.compile(r"[=<>^{}\\]|\d")
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u3040-\u30ff]")


def _check(args: Mapping[str, Any], names: Collection[str]) -> None:
    route, words = args.get("route", "auto"), args.get("max_words", 2)
    if route not in ROUTES:
        raise ValueError(f"`route` must be {', '.join(ROUTES)}, got {route!r}.")
    if isinstance(words, bool) or not isinstance(words, int) or words < 0:
        raise ValueError(f"`max_words` must be a whole number of at least 0, got {words!r}.")


def gold_answer(
    reference: Any,
    choices: Any = None,
    verifier: str | None = "auto",
    verifier_args: Mapping[str, Any] | None = None,
    route: str | None = "auto",
    max_words: int = 2,
) -> str:
    """Return the response that states the reference itself, as the row's verifier reads it."""
    name = choose(reference, choices=choices, verifier=verifier, route=route, max_words=max_words)
    if name == "probability":
        return str(reference)
    return rule_gold(reference, choices=choices, verifier=name, verifier_args=verifier_args)


@reward("routed_accuracy", parallel=True, gold=gold_answer, validate=_check)
def routed_accuracy(
    *,
    answer: str | None,
    reference: Any,
    reference_probs: Sequence[float] | None,
    baseline_probs: Sequence[float] | None = None,
    choices: Any = None,
    verifier: str | None = "auto",
    verifier_args: Mapping[str, Any] | None = None,
    route: str | None = "auto",
    max_words: int = 2,
) -> Outcome | None:
    """Return the verifier's value or the probability reward, with the route; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right answer.
        reference_probs: the policy's probability of each token of the reference in place of the answer.
        baseline_probs: the same after the prompt alone.
        choices: the options of a multiple-choice question.
        verifier: auto, or the verifier of the row; see `accuracy`.
        verifier_args: arguments of that verifier.
        route: auto, rule or probability.
        max_words: words up to which a text is compared as text.

    Raises:
        RewardError: a row names an unknown route or verifier.
    """
    if reference is None or (isinstance(reference, str) and not reference.strip()):
        return None
    name = choose(reference, choices=choices, verifier=verifier, route=route, max_words=max_words)
    if name == "probability":
        value = probability(reference=reference, reference_probs=reference_probs, baseline_probs=baseline_probs)
        return Outcome(value, {"route": "probability"})
    value = accuracy(answer=answer, reference=reference, choices=choices, verifier=name, verifier_args=verifier_args)
    return Outcome(value, {"route": f"rule:{name}"})


def choose(
    reference: Any,
    *,
    choices: Any = None,
    verifier: str | None = "auto",
    route: str | None = "auto",
    max_words: int = 2,
) -> str:
    """Return the verifier that decides a row, or `probability`; see the module."""
    if route not in (None, *ROUTES):
        raise RewardError(f"`route` must be {', '.join(ROUTES)}, got {route!r}.")
    if route == "probability":
        return "probability"
    if verifier not in (None, "auto"):
        return str(verifier)
    if choices:
        return "choice"
    name = _by_reading(reference, max_words)
    return "math" if name is None and route == "rule" else name or "probability"


def _by_reading(reference: Any, max_words: int) -> str | None:
    if isinstance(reference, bool):
        return "yes_no"
    if not isinstance(reference, str):
        return "math"
    text = reference_text(reference)
    if text.strip(" .").casefold() in _TRUTH:
        return "yes_no"
    if len(text) > MAX_RULE_CHARS:
        return None
    bare = _COMMAND.sub(" ", _WRAPPED.sub(r" \1 ", text))
    words = [word for word in _WORD.findall(bare) if word.casefold() not in _MATHS]
    if _has_unit(text):
        return "number"
    if not words and not _WIDE.search(bare):
        return "math"
    if _FORMULA.search(bare) or len(_WIDE.findall(bare)) > 2 * max_words or len(words) > max_words:
        return None
    return "normalised"


def _has_unit(text: str) -> bool:
    try:
        quantity = read_quantity(text)
    except Contradiction:
        return False
    return quantity is not None and quantity.unit is not None
