"""`instructions`: constraints on the form of a response, checked by rule, in the manner of IFEval (arXiv 2311.07911).

A dataset column `constraints` holds a list of mappings, or that list as JSON text:

    [{"kind": "max_words", "value": 50}, {"kind": "include_keywords", "value": ["sea"]}, {"kind": "no_commas"}]

Checked is the answer without its thinking. Score: the share of constraints that hold, or 1.0 only if all do
(`partial: false`). None where a row has no constraints. The kinds and what they count are in instruction_kinds.py. An
answer with no text at all satisfies nothing: silence is short, lower-case and free of commas.
"""

from collections.abc import Collection, Mapping
from typing import Any

from rewards import arguments
from rewards.extract import visible
from rewards.instruction_kinds import Kind, read_constraint
from rewards.registry import RewardError, reward
from rewards.structured import NOTHING, parse_json

MAX_CHARS = 200_000
"""Longer answers satisfy nothing: they are no answer to any of these instructions."""
MAX_CONSTRAINTS = 50


def _check(args: Mapping[str, Any], names: Collection[str]) -> None:
    if "constraints" in args:
        read_constraints(args["constraints"])
    arguments.flag("partial", args.get("partial"))


@reward("instructions", validate=_check)
def instructions(*, answer: str | None, constraints: Any, partial: bool | None = True) -> float | None:
    """Return the share of constraints that the answer satisfies (or whether it does all); None without constraints.

    Args:
        answer: the response without its thinking.
        constraints: a list of mappings with a `kind` and its values, or the same as JSON text.
        partial: the share; otherwise all or nothing.

    Raises:
        RewardError: an unknown kind, or a bad value.

    Example:
        >>> instructions(answer="Yes, indeed", constraints=[{"kind": "max_words", "value": 5}, {"kind": "no_commas"}])
        0.5
    """
    wanted = read_constraints(constraints)
    if not wanted:
        return None
    text = visible(answer).strip() if isinstance(answer, str) else ""
    if not text or len(text) > MAX_CHARS:
        return 0.0
    held = [kind.check(text, **values) for kind, values in wanted]
    return sum(held) / len(held) if arguments.flag("partial", partial, True) else float(all(held))


def read_constraints(value: Any) -> list[tuple[Kind, dict[str, Any]]]:
    """Return the constraints of a row, read; an empty list where it has none.

    Raises:
        RewardError: no list of constraints, an unknown kind, or a bad value.
    """
    if value is None or value == "":
        return []
    items = parse_json(value) if isinstance(value, str) else value
    if items is NOTHING or not isinstance(items, list | tuple) or len(items) > MAX_CONSTRAINTS:
        raise RewardError(
            f"`constraints` must be a list of at most {MAX_CONSTRAINTS} mappings with a `kind`, or that list as JSON "
            f"text, got {str(value)[:80]!r}."
        )
    try:
        return [read_constraint(item) for item in items]
    except ValueError as error:
        raise RewardError(f"`instructions`: {error}.") from error
