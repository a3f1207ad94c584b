"""The rewards of a run: refused early where they cannot work, then called on groups of responses.

G = responses of a group. A group is a sequence of samples, a sample a mapping with the keys of RESPONSE_FIELDS and the
dataset's columns.
"""

import asyncio
import inspect
import math
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rewards.loader import brief, load, nearest
from rewards.registry import RESPONSE_FIELDS, SCORES_FIELD, Reward, RewardError, check_weight

Sample = Mapping[str, Any]
Values = dict[str, float | None]

MAX_ASYNC = 64
"""How many calls of an async reward are in flight at once: a judge behind a service should not meet the whole batch."""
GOLD_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Score:
    """What the rewards say about one response."""

    total: float
    """Sum of weight x value over the rewards that apply (0.0 if none does)."""
    breakdown: Values
    """Unweighted value per reward (`name/key` for one that returns a dict); None = does not apply."""

    def value(self, name: str) -> float | None:
        """Return the value of one reward; of one that returned a dict, the sum of what applies."""
        if name in self.breakdown:
            return self.breakdown[name]
        parts = [item for key, item in self.breakdown.items() if key.startswith(f"{name}/") and item is not None]
        return sum(parts) if parts else None


@dataclass(frozen=True, kw_only=True)
class BoundReward:
    """A reward with its label, weight and constants, whose arguments can be filled from a sample."""

    label: str
    reward: Reward
    weight: float
    constants: Mapping[str, Any]
    fields: tuple[str, ...]
    """Arguments filled from the sample."""
    optional: frozenset[str]
    """Those of them that have a default, used where a sample lacks the field."""
    takes_all: bool
    """Has **kwargs: gets every other field too."""

    def arguments(self, sample: Sample) -> dict[str, Any]:
        """Return the call's keyword arguments."""
        missing = [key for key in self.fields if key not in sample and key not in self.optional]
        if missing:
            raise RewardError(
                f"reward {self.label!r} needs {missing[0]!r}, which this sample lacks (it has {_list(sample)})."
            )
        names = [*sample, *self.fields] if self.takes_all else self.fields
        return {**{key: sample[key] for key in names if key in sample}, **self.constants}


def build(specs: Sequence[Any], columns: Collection[str] = (), base_dir: Path | None = None) -> "RewardSet":
    """Load and check the rewards of a run; nothing is scored yet.

    Args:
        specs: `RewardSpec`s, names or mappings, in the order of the breakdown.
        columns: the dataset's columns, which rewards may name as arguments.
        base_dir: the folder of the YAML, for `path/file.py:function`.

    Raises:
        RewardError: no reward; an unknown or doubled name; an argument that nothing fills; a bad weight or constant.
    """
    from rewards.spec import RewardSpec

    if not specs:
        raise RewardError("no reward is configured: name at least one, such as `accuracy`.")
    parsed = [RewardSpec.model_validate(item) for item in specs]
    bound = [_bind(item, columns, base_dir) for item in parsed]
    _refuse_doubles(bound)
    labels = [item.label for item in bound]
    for item in bound:
        _validate(item, labels)
    return RewardSet(bound)


def _bind(spec: Any, columns: Collection[str], base_dir: Path | None) -> BoundReward:
    found, constants = load(spec.name, spec.args, base_dir)
    label = spec.label or found.name
    weight = check_weight(label, found.weight if spec.weight is None else spec.weight)
    parameters = _parameters(found, label)
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters)
    named = {item.name: item for item in parameters if item.kind in (item.KEYWORD_ONLY, item.POSITIONAL_OR_KEYWORD)}
    available = {*RESPONSE_FIELDS, *columns, *([SCORES_FIELD] if found.group else [])}
    for key in constants:
        if key not in named and not takes_all:
            raise RewardError(f"reward {label!r} has no argument {key!r} for its `args`.{nearest(key, named)}")
    wanted = [key for key in named if key not in constants]
    optional = {key for key in wanted if named[key].default is not inspect.Parameter.empty}
    for key in wanted:
        if key not in available and key not in optional:
            raise RewardError(_unfillable(label, key, available))
    fields = tuple(key for key in wanted if key in available)
    return BoundReward(
        label=label,
        reward=found,
        weight=weight,
        constants=constants,
        fields=fields,
        optional=frozenset(optional),
        takes_all=takes_all,
    )


def _parameters(found: Reward, label: str) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(found.function).parameters.values())
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"reward {label!r}: its arguments cannot be read ({error}); wrap it in a function."
        ) from error
    bad = [item.name for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.VAR_POSITIONAL)]
    if bad:
        raise RewardError(
            f"reward {label!r}: argument {bad[0]!r} cannot be filled by name; make it a keyword argument."
        )
    return parameters


def _unfillable(label: str, key: str, available: Collection[str]) -> str:
    return (
        f"reward {label!r} has an argument {key!r} that nothing fills.{nearest(key, available)} "
        f"Available: {_list(sorted(available))}; a constant can be given in `args`, or the argument a default."
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(str(name) for name in names)


def _refuse_doubles(bound: Sequence[BoundReward]) -> None:
    places: dict[str, str] = {}
    for item in bound:
        if item.label in places:
            raise RewardError(
                f"two rewards of this run are named {item.label!r}: {places[item.label]} and {item.reward.place}. "
                "Remove one, or give it another `label`."
            )
        places[item.label] = item.reward.place


def _validate(item: BoundReward, labels: Sequence[str]) -> None:
    if item.reward.validate is None:
        return
    try:
        item.reward.validate(item.constants, labels)
    except ValueError as error:
        raise RewardError(f"reward {item.label!r}: {error}") from error


class RewardSet:
    """The rewards of a run, ready to score; a context manager."""

    def __init__(self, rewards: Sequence[BoundReward]) -> None:
        self._rewards = tuple(rewards)
        self._threads: ThreadPoolExecutor | None = None

    @property
    def names(self) -> list[str]:
        """Return the label of each reward, in the order of the configuration."""
        return [item.label for item in self._rewards]

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each reward, by label."""
        return {item.label: item.weight for item in self._rewards}

    @property
    def is_verifier(self) -> bool:
        """Return whether a reward of the set compares with a reference."""
        return any(item.reward.gold is not None for item in self._rewards)

    def score(self, groups: Sequence[Sequence[Sample]]) -> list[list[Score]]:
        """Score every response of every group.

        Rewards of one response come first, then the group rewards, which may look at them (`scores`).

        Raises:
            RewardError: a reward raised, or returned something else than a finite number, a dict of them or None.
        """
        samples = [sample for group in groups for sample in group]
        found: list[Values] = [{} for _ in samples]
        per_label: list[dict[str, Values]] = [{} for _ in samples]
        for item in self._rewards:
            if not item.reward.group:
                self._keep(item, self._score_each(item, samples), found, per_label)
        for item in self._rewards:
            if item.reward.group:
                self._keep(item, self._score_groups(item, groups, found), found, per_label)
        scores = iter([self._total(values) for values in per_label])
        return [[next(scores) for _ in group] for group in groups]

    def check_gold(self, rows: Sequence[Sample]) -> None:
        """Refuse references that a verifier would not give full marks to, before any model loads.

        Args:
            rows: mappings with a `reference` and the dataset's columns.

        Raises:
            RewardError: which reward, how many rows, and the first of them.
        """
        for item in self._rewards:
            gold = item.reward.gold
            if gold is None:
                continue
            samples = [_gold_sample(row, gold, item.constants) for row in rows]
            values = self._score_each(item, samples)
            bad = [index for index, value in enumerate(values) if not _full_marks(value)]
            if bad:
                first = rows[bad[0]].get("reference")
                raise RewardError(
                    f"reward {item.label!r} does not accept its own reference in {len(bad)} of {len(rows)} rows; the "
                    f"first is row {bad[0]}, reference {_short(first)}. Clean these rows or choose another verifier."
                )

    def close(self) -> None:
        """End the threads and the verifier's worker processes."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            self._threads = None
        from rewards.sandbox import close_shared

        close_shared()

    def __enter__(self) -> "RewardSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(
        self, item: BoundReward, values: Sequence[Any], found: list[Values], per_label: list[dict[str, Values]]
    ) -> None:
        for index, value in enumerate(values):
            named = _named_values(item.label, value, index)
            per_label[index][item.label] = named
            found[index].update(named)

    def _total(self, per_label: Mapping[str, Values]) -> Score:
        total = 0.0
        breakdown: Values = {}
        for item in self._rewards:
            values = per_label[item.label]
            breakdown.update(values)
            total += item.weight * sum(value for value in values.values() if value is not None)
        return Score(total=total, breakdown=breakdown)

    def _score_each(self, item: BoundReward, samples: Sequence[Sample]) -> list[Any]:
        calls = [_call(item, index, item.arguments(sample)) for index, sample in enumerate(samples)]
        if item.reward.is_async:
            return _gather(calls)
        if item.reward.parallel and len(calls) > 1:
            return list(self._pool().map(lambda call: call(), calls))
        return [call() for call in calls]

    def _score_groups(
        self, item: BoundReward, groups: Sequence[Sequence[Sample]], found: Sequence[Values]
    ) -> list[Any]:
        calls, start = [], 0
        groups = [group for group in groups if group]
        for index, group in enumerate(groups):
            scores = [dict(values) for values in found[start : start + len(group)]]
            calls.append(_call(item, index, _group_arguments(item, group, scores), kind="group"))
            start += len(group)
        results = _gather(calls) if item.reward.is_async else [call() for call in calls]
        for index, (group, values) in enumerate(zip(groups, results, strict=True)):
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(group):
                size = f"{len(values)} values" if isinstance(values, Sequence) else repr(values)
                raise RewardError(
                    f"group reward {item.label!r} returned {size} for group {index} of {len(group)} responses; "
                    "it must return a list with one value per response."
                )
        return [value for values in results for value in values]

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1), thread_name_prefix="reward")
        return self._threads


def _group_arguments(item: BoundReward, group: Sequence[Sample], scores: list[Values]) -> dict[str, Any]:
    rows = [item.arguments({**sample, SCORES_FIELD: mine}) for sample, mine in zip(group, scores, strict=True)]
    shared = set.intersection(*(set(row) for row in rows))
    lists = {key: [row[key] for row in rows] for key in shared if key not in item.constants}
    return {**lists, **item.constants}


def _call(item: BoundReward, index: int, arguments: dict[str, Any], kind: str = "sample") -> Callable[[], Any]:
    """Return the call, with the reward and the sample named if it raises."""
    who = f"reward {item.label!r} failed on {kind} {index}"

    async def wait() -> Any:
        try:
            return await item.reward.function(**arguments)
        except (Exception, SystemExit) as error:
            raise RewardError(f"{who}: {brief(error)}") from error

    def call() -> Any:
        try:
            return item.reward.function(**arguments)
        except (Exception, SystemExit) as error:
            raise RewardError(f"{who}: {brief(error)}") from error

    return wait if item.reward.is_async else call


def _gather(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Await the calls concurrently, also where this thread already runs an event loop (a notebook)."""

    async def gather() -> list[Any]:
        gate = asyncio.Semaphore(MAX_ASYNC)

        async def one(call: Callable[[], Awaitable[Any]]) -> Any:
            async with gate:
                return await call()

        return await asyncio.gather(*(one(call) for call in calls))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(gather())
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, gather()).result()


def _named_values(label: str, value: Any, index: int) -> Values:
    if isinstance(value, Mapping):
        return {f"{label}/{key}": _number(f"{label}/{key}", item, index) for key, item in value.items()}
    return {label: _number(label, value, index)}


def _number(name: str, value: Any, index: int) -> float | None:
    """Return a reward's value as a float (numpy and torch scalars have `item`), or None as it is."""
    if value is None:
        return None
    plain = value.item() if hasattr(value, "item") and not isinstance(value, int | float) else value
    if not isinstance(plain, bool | int | float):
        raise RewardError(
            f"reward {name!r} returned {_short(value)} ({type(value).__name__}) for sample {index}; "
            "return a float, a dict of named floats, or None where it does not apply."
        )
    if not math.isfinite(plain):
        raise RewardError(f"reward {name!r} returned {plain} for sample {index}; a reward must be finite.")
    return float(plain)


def _gold_sample(row: Sample, gold: Callable[..., str], constants: Mapping[str, Any]) -> dict[str, Any]:
    text = gold(row.get("reference"), **_gold_arguments(gold, {**row, **constants}))
    own = {"prompt": "", "response": text, "thinking": None, "answer": text, "reference": row.get("reference")}
    return {**row, **own, "mode": "short", "response_ids": [], "truncated": False}


def _gold_arguments(gold: Callable[..., str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a gold function asks for beside the reference: columns and constants, by name."""
    try:
        named = list(inspect.signature(gold).parameters)[1:]
    except (TypeError, ValueError):  # a built-in such as `str`
        return {}
    return {key: values[key] for key in named if key in values}


def _full_marks(value: Any) -> bool:
    return isinstance(value, bool | int | float) and value >= 1.0 - GOLD_TOLERANCE


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
