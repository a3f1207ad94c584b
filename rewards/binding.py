"""A reward bound to a run: its label, weight and constants, how it is run, and how its arguments are filled."""

import inspect
import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rewards.loader import load, loadable_name, nearest
from rewards.registry import POLICY_FIELDS, RESPONSE_FIELDS, SCORES_FIELD, Reward, RewardError, check_weight
from rewards.standardise import standardise as standardise_group

Sample = Mapping[str, Any]
Kind = Literal["inline", "async", "threads", "isolated"]

MAX_ASYNC = 64
"""Calls of an async reward in flight at once, by default: a judge behind a service should not meet the whole batch."""
MAX_WAIT_S = 60.0
"""The doubled wait before a repetition grows no further."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How the calls of one reward are run; the fields of `RewardSpec` of the same names."""

    timeout_s: float | None = None
    retries: int = 0
    retry_wait_s: float = 1.0
    concurrency: int | None = None
    on_error: Literal["stop", "missing"] = "stop"
    max_missing: float = 0.1
    isolate: bool = False
    memory_mb: int = 1024

    @property
    def waits(self) -> list[float]:
        """Return the seconds before each repetition."""
        return [min(self.retry_wait_s * 2**number, MAX_WAIT_S) for number in range(self.retries)]


@dataclass(frozen=True, kw_only=True)
class Source:
    """How another process loads the same reward; see `rewards.loader.load`."""

    name: str
    args: Mapping[str, Any]
    base_dir: str | None
    style: str | None


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
    policy: Policy = field(default_factory=Policy)
    source: Source | None = None
    """Where an isolated process finds it; None = it is not isolated."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held during a call that is made in the caller's own thread: other trainers score from several threads."""

    @cached_property
    def kind(self) -> Kind:
        """Return how it is run: in the caller's thread, in the event loop, in threads, or in processes of its own."""
        if self.policy.isolate:
            return "isolated"
        if self.reward.is_async:
            return "async"
        # A call in the caller's own thread cannot be left when its time is over.
        return "threads" if self.reward.parallel or self.policy.timeout_s is not None else "inline"

    @property
    def concurrency(self) -> int:
        """Return how many calls may be under way at the same time."""
        default = {"async": MAX_ASYNC, "threads": 2 * (os.cpu_count() or 1) if self.reward.parallel else 1}
        return self.policy.concurrency or default.get(self.kind, 1)

    @property
    def only_computes(self) -> bool:
        """Return whether it is a verifier in threads: it waits for no service, and its limits are of wall time."""
        return self.kind == "threads" and self.reward.gold is not None

    @property
    def reads_scores(self) -> bool:
        """Return whether a group reward looks at what the rewards before it gave."""
        return SCORES_FIELD in self.fields or self.takes_all

    @cached_property
    def policy_fields(self) -> frozenset[str]:
        """Return those of its arguments that only the policy can give."""
        return frozenset(self.fields).intersection(POLICY_FIELDS)

    def arguments(self, sample: Sample) -> dict[str, Any]:
        """Return the call's keyword arguments."""
        missing = [key for key in self.fields if key not in sample and key not in self.optional]
        if missing:
            raise RewardError(self._lacks(missing[0], sample))
        rest = [key for key in sample if key not in POLICY_FIELDS] if self.takes_all else []
        names = [*rest, *self.fields]
        return {**{key: sample[key] for key in names if key in sample}, **self.constants}

    def group_arguments(self, samples: Sequence[Sample], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the keyword arguments of a group reward's call: lists, and the constants as they are."""
        rows = [self.arguments({**sample, SCORES_FIELD: mine}) for sample, mine in zip(samples, scores, strict=True)]
        shared = set.intersection(*(set(row) for row in rows))
        lists = {key: [row[key] for row in rows] for key in rows[0] if key in shared and key not in self.constants}
        return {**lists, **self.constants}

    def _lacks(self, key: str, sample: Sample) -> str:
        if key in POLICY_FIELDS:
            return (
                f"reward {self.label!r} asks for {key!r}, which only the policy can give: it runs in Tandem's trainer "
                "and evaluation, or on samples that carry the field."
            )
        return f"reward {self.label!r} needs {key!r}, which this sample lacks (it has {_list(sample)})."


def bind(spec: Any, columns: Collection[str] | None, base_dir: Path | None) -> BoundReward:
    found, constants = load(spec.name, spec.args, base_dir, spec.style)
    label = spec.label or found.name
    weight = check_weight(label, found.weight if spec.weight is None else spec.weight)
    parameters = _parameters(found, label)
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters)
    named = {item.name: item for item in parameters if item.kind in (item.KEYWORD_ONLY, item.POSITIONAL_OR_KEYWORD)}
    known = named if columns is None else columns
    available = {*RESPONSE_FIELDS, *POLICY_FIELDS, *known, *([SCORES_FIELD] if found.group else [])}
    for key in constants:
        if key not in named and not takes_all:
            raise RewardError(f"reward {label!r} has no argument {key!r} for its `args`.{nearest(key, named)}")
    wanted = [key for key in named if key not in constants]
    optional = {key for key in wanted if named[key].default is not inspect.Parameter.empty}
    for key in wanted:
        if key not in available and key not in optional:
            raise RewardError(_unfillable(label, key, available))
    fields = tuple(key for key in wanted if key in available)
    policy = _policy(spec, found, label)
    return BoundReward(
        label=label,
        reward=found,
        weight=weight,
        constants=constants,
        fields=fields,
        optional=frozenset(optional),
        takes_all=takes_all,
        policy=policy,
        source=_source(spec, found, base_dir) if policy.isolate else None,
    )


def parts(item: BoundReward, standardise: bool | None) -> list[BoundReward]:
    """Return the reward itself; of a standardised one, the value (recorded, weight 0) and what counts in its stead."""
    if not (item.reward.standardise if standardise is None else standardise):
        return [item]
    if item.reward.group:
        raise RewardError(f"reward {item.label!r} is a group reward, which sees its group: standardise in it.")
    raw = replace(item, label=f"{item.label}_raw", weight=0.0)
    return [raw, _standardised(item, raw.label)]


def _standardised(item: BoundReward, raw: str) -> BoundReward:
    """Return the group reward that standardises what the reward labelled `raw` gave."""

    def function(*, scores: Sequence[Mapping[str, float | None]]) -> list[float | None]:
        if raw not in scores[0]:
            raise ValueError("it gave a dict, and a standardised reward must give one number or None.")
        return standardise_group([row[raw] for row in scores])

    reward = Reward(name=item.label, function=function, weight=item.weight, group=True, place=item.reward.place)
    return BoundReward(
        label=item.label,
        reward=reward,
        weight=item.weight,
        constants={},
        fields=(SCORES_FIELD,),
        optional=frozenset(),
        takes_all=False,
    )


def _policy(spec: Any, found: Reward, label: str) -> Policy:
    policy = Policy(**{item.name: getattr(spec, item.name) for item in fields(Policy)})
    one_by_one = not (policy.isolate or found.is_async or found.parallel)
    if one_by_one and (policy.concurrency or 1) > 1:
        raise RewardError(
            f"reward {label!r}: concurrency is {policy.concurrency}, but its calls run one after the other. Make the "
            "function async, mark it @reward(..., parallel=True), or set isolate: true."
        )
    return policy


def _source(spec: Any, found: Reward, base_dir: Path | None) -> Source:
    folder = None if base_dir is None else str(base_dir.resolve())
    return Source(name=loadable_name(spec.name, found), args=spec.args, base_dir=folder, style=spec.style)


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


def refuse_doubles(bound: Sequence[BoundReward]) -> None:
    places: dict[str, str] = {}
    for item in bound:
        if item.label in places:
            raise RewardError(
                f"two rewards of this run are named {item.label!r}: {places[item.label]} and {item.reward.place}. "
                "Remove one, or give it another `label`."
            )
        places[item.label] = item.reward.place


def validate(item: BoundReward, labels: Sequence[str]) -> None:
    if item.reward.validate is None:
        return
    try:
        item.reward.validate(item.constants, labels)
    except ValueError as error:
        raise RewardError(f"reward {item.label!r}: {error}") from error
