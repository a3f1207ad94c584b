"""What a reward returns, read strictly, and the score that a response gets from all of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rewards.registry import RewardError

Values = dict[str, float | None]

INFO_CHARS = 500
"""A fact beside a value is cut here: rollouts.jsonl is no place for whole transcripts."""
MISSING_KEY = "missing"
"""`reward/<name>/missing` is the metric of calls that gave no score, so no part of a reward can have that name."""


@dataclass(frozen=True)
class Outcome:
    """What a reward may return instead of a bare value.

    Example:
        >>> Outcome(0.7, {"route": "probability"}).value
        0.7
    """

    value: float | Mapping[str, float | None] | None
    """As a bare value: a float, a dict of named floats, or None where the reward does not apply."""
    info: Mapping[str, str] = field(default_factory=dict)
    """Short text facts, recorded in rollouts.jsonl as `reward_info` under `name/key`."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What the rewards say about one response."""

    total: float
    """Sum of weight x value over the rewards that apply (0.0 if none does); NaN if one that counts is missing."""
    breakdown: Values
    """Unweighted value per reward (`name/key` for one that returns a dict); None = does not apply, or is missing."""
    info: Mapping[str, str] = field(default_factory=dict)
    """Text facts of the rewards, under `name/key`."""
    missing: tuple[str, ...] = ()
    """Names of the rewards whose call failed and is counted as missing (`on_error: missing`)."""

    @property
    def complete(self) -> bool:
        """Whether the total is known: no reward with a weight is missing."""
        return not math.isnan(self.total)

    def value(self, name: str) -> float | None:
        """Return the value of one reward; of one that returned a dict, the sum of what applies."""
        if name in self.breakdown:
            return self.breakdown[name]
        parts = [item for key, item in self.breakdown.items() if key.startswith(f"{name}/") and item is not None]
        return sum(parts) if parts else None


class Reading(NamedTuple):
    """One reward's checked values and facts for one response, under their full names."""

    values: Values
    info: dict[str, str]


def read(label: str, returned: Any, where: str) -> Reading:
    """Check what a reward returned for one response.

    Args:
        label: the reward's name.
        returned: a float, a dict of named floats, None, or an `Outcome` of one of them.
        where: the response, such as `sample 3`, for the error.

    Raises:
        RewardError: it is something else, or a number is not finite.
    """
    info = {}
    if isinstance(returned, Outcome):
        info = {f"{label}/{key}": _fact(label, key, text, where) for key, text in returned.info.items()}
        returned = returned.value
    if not isinstance(returned, Mapping):
        return Reading({label: _number(label, returned, where)}, info)
    if MISSING_KEY in returned:
        raise RewardError(
            f"reward {label!r} returned a value named {MISSING_KEY!r} for {where}, the name of the metric for calls "
            "without a score; call it something else."
        )
    return Reading({f"{label}/{key}": _number(f"{label}/{key}", item, where) for key, item in returned.items()}, info)


def read_group(label: str, returned: Any, size: int, where: str) -> list[Reading]:
    """Check what a group reward returned for a group of `size` responses; see `read`."""
    if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != size:
        given = f"{len(returned)} values" if isinstance(returned, Sequence) else short(returned)
        raise RewardError(
            f"group reward {label!r} returned {given} for {where} of {size} responses; "
            "it must return a list with one value per response."
        )
    return [read(label, item, f"response {number} of {where}") for number, item in enumerate(returned)]


def short(value: Any, limit: int = 80) -> str:
    """Return a value as text of bounded length, for an error."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _number(name: str, value: Any, where: str) -> float | None:
    """Return a reward's value as a float (numpy and torch scalars have `item`), or None as it is."""
    if value is None:
        return None
    plain = _item(value) if hasattr(value, "item") and not isinstance(value, int | float) else value
    if not isinstance(plain, bool | int | float):
        raise RewardError(
            f"reward {name!r} returned {short(value)} ({type(value).__name__}) for {where}; "
            "return a float, a dict of named floats, or None where it does not apply."
        )
    if not math.isfinite(plain):
        raise RewardError(f"reward {name!r} returned {plain} for {where}; a reward must be finite.")
    return float(plain)


def _item(value: Any) -> Any:
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError):  # an array of several numbers
        return value


def _fact(label: str, key: Any, text: Any, where: str) -> str:
    if not isinstance(key, str) or not isinstance(text, str):
        raise RewardError(
            f"reward {label!r} returned the fact {short(key)}: {short(text)} for {where}; the `info` of an Outcome "
            "must map text to text."
        )
    return text if len(text) <= INFO_CHARS else f"{text[:INFO_CHARS]}..."
