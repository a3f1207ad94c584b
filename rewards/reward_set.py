"""The rewards of a run: refused early where they cannot work, then called on groups of responses.

G = responses of a group. A group is a sequence of samples, a sample a mapping with the keys of RESPONSE_FIELDS and the
dataset's columns.
"""

import inspect
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rewards.batch import Batch
from rewards.binding import BoundReward, Sample, bind, parts, refuse_doubles, validate
from rewards.outcome import Score, short
from rewards.registry import POLICY_FIELDS, SCORES_FIELD, RewardError
from rewards.running import Runner

__all__ = ["BoundReward", "RewardSet", "Score", "build"]

GOLD_TOLERANCE = 1e-6


def build(specs: Sequence[Any], columns: Collection[str] | None = (), base_dir: Path | None = None) -> "RewardSet":
    """Load and check the rewards of a run; nothing is scored yet.

    Args:
        specs: `RewardSpec`s, names or mappings, in the order of the breakdown.
        columns: the dataset's columns, which rewards may name as arguments; None = not known yet: any argument may be
            one, and a sample that lacks it is refused when it is scored.
        base_dir: the folder of the YAML, for `path/file.py:function`.

    Raises:
        RewardError: no reward; an unknown or doubled name; an argument that nothing fills; a bad weight or constant.
    """
    from rewards.spec import RewardSpec

    if not specs:
        raise RewardError("no reward is configured: name at least one, such as `accuracy`.")
    parsed = [RewardSpec.model_validate(item) for item in specs]
    bound = [part for item in parsed for part in parts(bind(item, columns, base_dir), item.standardise)]
    refuse_doubles(bound)
    labels = [item.label for item in bound]
    for item in bound:
        validate(item, labels)
    return RewardSet(bound)


class RewardSet:
    """The rewards of a run, ready to score; a context manager."""

    def __init__(self, rewards: Sequence[BoundReward]) -> None:
        self._rewards = tuple(rewards)
        self._background: Runner | None = None
        self._lock = threading.Lock()
        self._folder: Path | None = None

    @property
    def names(self) -> list[str]:
        """Return the label of each reward, in the order of the configuration."""
        return [item.label for item in self._rewards]

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each reward, by label."""
        return {item.label: item.weight for item in self._rewards}

    @property
    def group_names(self) -> list[str]:
        """Return the labels of the group rewards: those that must see all responses to a prompt at once."""
        return [item.label for item in self._rewards if item.reward.group]

    @property
    def needs(self) -> dict[str, str]:
        """Return each field that a sample must have (argument without a default), with the first reward that asks."""
        needs: dict[str, str] = {}
        for item in self._rewards:
            for key in item.fields:
                if key not in item.optional and key != SCORES_FIELD:
                    needs.setdefault(key, item.label)
        return needs

    @property
    def is_verifier(self) -> bool:
        """Return whether a reward of the set compares with a reference."""
        return any(item.reward.gold is not None for item in self._rewards)

    @property
    def deferred(self) -> bool:
        """Return whether a reward asks for what only the policy can give (POLICY_FIELDS)."""
        return any(item.policy_fields for item in self._rewards)

    @property
    def overlaps(self) -> bool:
        """Return whether a reward starts as soon as its group is there, so that groups should be added one by one."""
        return any(item.kind != "inline" and not item.only_computes for item in self._rewards)

    @property
    def may_miss(self) -> list[str]:
        """Return the rewards whose failed calls are counted as missing."""
        return [item.label for item in self._rewards if item.policy.on_error == "missing"]

    def save_failures_in(self, folder: Path) -> None:
        """From now on write the sample of a call that stops the run to `failed_reward.json` in this folder."""
        self._folder = folder

    def begin(self) -> Batch:
        """Return a new batch, whose groups can be added one by one while others are still generated."""
        return Batch(self._rewards, self._runner, self._folder)

    def score(self, groups: Sequence[Sequence[Sample]]) -> list[list[Score]]:
        """Score every response of every group.

        Rewards of one response come first, then the group rewards, which may look at them (`scores`). May be called
        from several threads; a reward that is neither `parallel` nor async is then called by one of them at a time.

        Raises:
            RewardError: a reward failed and is not to be counted as missing, or too many are missing; see
                docs/rewards.md, "Run".
        """
        return self._score(self._rewards, groups)

    def check_gold(self, rows: Sequence[Sample]) -> None:
        """Refuse references that a verifier would not give full marks to, before any model loads.

        A verifier that asks for what only the policy can give is checked on the rows that it scores without that.

        Args:
            rows: mappings with a `reference` and the dataset's columns.

        Raises:
            RewardError: which reward, how many rows, and the first of them.
        """
        for item in self._rewards:
            gold = item.reward.gold
            if gold is None:
                continue
            samples = [[_gold_sample(row, gold, item.constants)] for row in rows]
            values = [score.value(item.label) for [score] in self._score([item], samples)]
            bad = [i for i, value in enumerate(values) if not _full_marks(value, may_wait=bool(item.policy_fields))]
            if bad:
                first = rows[bad[0]].get("reference")
                raise RewardError(
                    f"reward {item.label!r} does not accept its own reference in {len(bad)} of {len(rows)} rows; the "
                    f"first is row {bad[0]}, reference {short(first)}. Clean these rows or choose another verifier."
                )

    def close(self) -> None:
        """End the background's threads and processes, the verifier's, and what a reward with a `close` holds."""
        if self._background is not None:
            self._background.close()
        self._background = None
        from rewards.sandbox import close_shared

        close_shared()
        for item in self._rewards:
            close = getattr(item.reward.function, "close", None)
            if close is not None:
                close()

    def __enter__(self) -> "RewardSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score(self, rewards: Sequence[BoundReward], groups: Sequence[Sequence[Sample]]) -> list[list[Score]]:
        with Batch(rewards, self._runner, self._folder) as batch:
            for index, group in enumerate(groups):
                batch.add(index, group)
            return batch.results()

    def _runner(self) -> Runner:
        """Return the background; a forked child starts its own."""
        with self._lock:
            if self._background is None or not self._background.is_mine:
                self._background = Runner()
                weakref.finalize(self, self._background.close)  # a set that nobody closed
            return self._background


def _gold_sample(row: Sample, gold: Callable[..., str], constants: Mapping[str, Any]) -> dict[str, Any]:
    text = gold(row.get("reference"), **_gold_arguments(gold, {**row, **constants}))
    own: dict[str, Any] = {
        "prompt": "",
        "messages": [],
        "response": text,
        "thinking": None,
        "answer": text,
        "reference": row.get("reference"),
    }
    unknown = dict.fromkeys(POLICY_FIELDS)
    return {**unknown, **row, **own, "mode": "short", "response_ids": [], "truncated": False}


def _gold_arguments(gold: Callable[..., str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a gold function asks for beside the reference: columns and constants, by name."""
    try:
        named = list(inspect.signature(gold).parameters)[1:]
    except (TypeError, ValueError):  # a built-in such as `str`
        return {}
    return {key: values[key] for key in named if key in values}


def _full_marks(value: float | None, *, may_wait: bool) -> bool:
    return may_wait if value is None else value >= 1.0 - GOLD_TOLERANCE
