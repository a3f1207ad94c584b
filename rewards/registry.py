"""The two decorators and the registry behind them.

`@reward` marks a function that scores one response, `@group_reward` one that gets the lists of a whole group (all the
responses to one prompt). Both leave the function as it is: it can still be called and tested directly.
"""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

RESPONSE_FIELDS = (
    "prompt",
    "messages",
    "response",
    "thinking",
    "answer",
    "reference",
    "mode",
    "response_ids",
    "truncated",
)
"""What every sample carries, whatever the dataset; its columns come in addition."""

SCORES_FIELD = "scores"
"""A group reward with an argument of this name gets, per response, what the per-response rewards gave (a mapping)."""

POLICY_FIELDS = ("reference_probs", "baseline_probs")
"""What only the policy can give, later than the rest: its probability of each token of the reference after this
response's reasoning, and without any reasoning (a list of floats, one float for their mean, or None)."""


BUILTIN = {
    "accuracy": "rewards.accuracy",
    "anls": "rewards.anls",
    "box": "rewards.box",
    "choice": "rewards.choice",
    "count": "rewards.count",
    "edit_distance": "rewards.edit_distance",
    "exact": "rewards.exact",
    "format": "rewards.format",
    "instructions": "rewards.instructions",
    "items": "rewards.items",
    "key_values": "rewards.key_values",
    "length": "rewards.length",
    "math": "rewards.math",
    "multi": "rewards.multi",
    "normalised": "rewards.normalised",
    "number": "rewards.number",
    "point": "rewards.point",
    "preference": "rewards.preference",
    "probability": "rewards.probability",
    "repetition": "rewards.repetition",
    "routed_accuracy": "rewards.routed_accuracy",
    "table": "rewards.table",
    "yes_no": "rewards.yes_no",
}
"""Built-in rewards and their modules, imported when named: `import rewards` stays light."""


class RewardError(ValueError):
    """A reward that cannot be used as asked, or one that failed: which, on what, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """One reward: the function and what the library must know about it."""

    name: str
    function: Callable[..., Any]
    weight: float = 1.0
    group: bool = False
    """Gets the lists of a group and returns one value per response."""
    parallel: bool = False
    """May be called from several threads at once, and gains by it (it waits for a worker, a service, a disk)."""
    batch: bool = False
    """Gets the lists of all responses of a step in one call, and returns one value per response."""
    standardise: bool = False
    """Counts as (R - mean) / std within the group; R itself is recorded as `<label>_raw`, with weight 0."""
    gold: Callable[..., str] | None = None
    """For a verifier: the answer text which, made from the reference, must score full marks. Further arguments than the
    reference are filled by name from the row's columns and the constants."""
    validate: Callable[[Mapping[str, Any], Collection[str]], None] | None = None
    """Gets the constant arguments and the names of all rewards of the set; raises ValueError to refuse them."""
    place: str = ""

    @property
    def is_async(self) -> bool:
        """Whether a call gives a coroutine."""
        call = getattr(self.function, "__call__", None)  # noqa: B004 - a class instance may hold an async __call__
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)


REGISTRY: dict[str, Reward] = {}


def place_of(function: Callable[..., Any]) -> str:
    """Return `file:line` of a function or class, or its module where the source is not known."""
    try:
        return f"{inspect.getsourcefile(inspect.unwrap(function))}:{inspect.getsourcelines(function)[1]}"
    except (OSError, TypeError):
        return getattr(function, "__module__", "unknown place")


def check_weight(name: str, weight: Any) -> float:
    """Return the weight as a float.

    Raises:
        RewardError: the weight is not a finite number.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise RewardError(f"reward {name!r}: weight must be a finite number, got {weight!r}.")
    return float(weight)


def register(item: Reward) -> None:
    """Add a reward to the registry; the same function imported again replaces itself.

    Raises:
        RewardError: another function already has the name.
    """
    home = BUILTIN.get(item.name)
    if home is not None and item.function.__module__ != home:
        raise RewardError(f"the reward at {item.place} has the name {item.name!r} of a built-in one. Rename it.")
    other = REGISTRY.get(item.name)
    if other is not None and other.place != item.place:
        raise RewardError(
            f"two rewards are named {item.name!r}: one at {other.place}, one at {item.place}. Rename one of them."
        )
    REGISTRY[item.name] = item


def reward(
    name: str,
    *,
    weight: float = 1.0,
    parallel: bool = False,
    batch: bool = False,
    standardise: bool = False,
    gold: Callable[..., str] | None = None,
    validate: Callable[[Mapping[str, Any], Collection[str]], None] | None = None,
) -> Callable[[F], F]:
    """Register a function that scores one response.

    Its arguments are filled by name from the response (`RESPONSE_FIELDS`), the dataset's columns and the `args` of the
    YAML. It returns a float, a dict of named floats, or None where it does not apply. It may be `async`.

    Args:
        name: what the metrics, the rollouts and the report call it.
        weight: its factor in the total, unless the YAML gives another.
        parallel: it may be called from several threads at once.
        batch: it is called once a step; each argument is a list with one item per response, and so is the result. For
            rewards that a model works out, in batches of its own.
        standardise: what counts is (R - mean) / std over the responses to the same prompt; see `rewards.standardise`.
        gold: makes it a verifier: the answer text which must score 1.0, made from the reference.
        validate: refuses bad constant arguments early.

    Example:
        >>> @reward("shout", weight=0.1)
        ... def shout(*, answer: str) -> float:
        ...     return float(answer.isupper())
    """
    options = {"parallel": parallel, "batch": batch, "standardise": standardise, "gold": gold, "validate": validate}
    return _decorator(name, weight, group=False, **options)


def group_reward(
    name: str,
    *,
    weight: float = 1.0,
    validate: Callable[[Mapping[str, Any], Collection[str]], None] | None = None,
) -> Callable[[F], F]:
    """Register a function that scores the responses to one prompt together.

    As `reward`, but each argument is a list with one item per response, and so is the result.

    Example:
        >>> @group_reward("shortest", weight=0.1)
        ... def shortest(*, answer: list[str]) -> list[float]:
        ...     return [float(len(text) == min(map(len, answer))) for text in answer]
    """
    return _decorator(name, weight, group=True, validate=validate)


def _decorator(name: str, weight: float, **options: Any) -> Callable[[F], F]:
    if not isinstance(name, str) or not name or "/" in name or ":" in name:
        raise RewardError(f"a reward's name must be text without '/' and ':', got {name!r}.")
    checked = check_weight(name, weight)

    def mark(function: F) -> F:
        item = Reward(name=name, function=function, weight=checked, place=place_of(function), **options)
        register(item)
        function.__tandem_reward__ = item  # type: ignore[attr-defined]
        return function

    return mark
