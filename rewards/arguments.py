"""Checks of the arguments that a YAML or a dataset's column gives a verifier: one clear sentence for a bad one.

A column may leave an argument empty (None) in some rows: the default then holds.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rewards.registry import RewardError

Check = Callable[[str, Any], Any]


def flag(name: str, value: Any, default: bool = False) -> bool:
    """Return a truth value.

    Raises:
        RewardError: it is neither true nor false.
    """
    if value is None:
        return default
    if not isinstance(value, bool):
        raise RewardError(f"`{name}` must be true or false, got {value!r}.")
    return value


def amount(name: str, value: Any, *, low: float = 0.0, high: float = math.inf) -> float:
    """Return a finite number from `low` to `high`.

    Raises:
        RewardError: it is none.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise RewardError(f"`{name}` must be a number {limits}, got {value!r}.")
    return float(value)


def one_of(name: str, value: Any, options: Collection[str]) -> str:
    """Return one of several names.

    Raises:
        RewardError: it is none of them.
    """
    if not isinstance(value, str) or value not in options:
        raise RewardError(f"`{name}` must be {' or '.join(options)}, got {value!r}.")
    return value


def validator(**checks: Check) -> Callable[[Mapping[str, Any], Collection[str]], None]:
    """Return a `validate` for the decorator that checks those constants that are given."""

    def validate(args: Mapping[str, Any], names: Collection[str]) -> None:
        for key, check in checks.items():
            if args.get(key) is not None:
                check(key, args[key])

    return validate
