"""Scoring one batch of groups, some of which may still be generated while others are scored.

    add(group)      async, parallel and isolated rewards of its responses start at once, in the background (verifiers
                    do not: they would compete with generation for the cores, and their time is limited)
    supply(group)   what only the policy can give is there: the rewards that ask for it start
    result(group)   plain rewards of all groups so far, one after the other; then group rewards; then the total

The scores do not depend on when groups are added: each call sees its own response or group alone, and everything is put
together by position. `RewardSet.score` does the same at one go.
"""

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rewards.binding import BoundReward, Sample
from rewards.calls import Call, CallError, attempts, call_here, save_failure
from rewards.outcome import Reading, Score, Values
from rewards.registry import RewardError
from rewards.running import Runner

logger = logging.getLogger(__name__)

CHECK_S = 0.1
"""How often a wait looks whether another call has stopped the run."""

Readings = list[Reading] | None
"""One call's result; None = it failed and is counted as missing."""


@dataclass(kw_only=True)
class _Group:
    """A group on its way. G = its responses."""

    index: int
    first: int
    """Number of its first sample within the batch."""
    samples: list[Sample]
    supplied: bool
    """Whether the rewards that wait for the policy may start."""
    calls: dict[str, list["_Pending"]] = field(default_factory=dict)
    """By reward: [G] calls, or the one call of a group reward."""
    responses_done: bool = False
    """Whether the rewards of single responses are known, and those of the group have been started."""
    scores: list[Score] | None = None


@dataclass(kw_only=True)
class _Pending:
    """A call and its result, now or later."""

    call: Call
    future: "Future[list[Reading]] | None" = None
    readings: Readings = None


class Batch:
    """The groups of one batch; see the module. Use `RewardSet.begin()`, from one thread."""

    def __init__(self, rewards: Sequence[BoundReward], runner: Callable[[], Runner], folder: Path | None) -> None:
        """Args:
        rewards: in the order of the breakdown.
        runner: gives the background, which is started only if it is asked for.
        folder: where the sample of a failed call is saved.
        """
        self._each = [item for item in rewards if not item.reward.group]
        self._together = [item for item in rewards if item.reward.group]
        self._rewards = rewards
        self._runner = runner
        self._used: Runner | None = None
        self._folder = folder
        self._policy_fields = frozenset[str]().union(*(item.policy_fields for item in rewards))
        self._groups: dict[int, _Group] = {}
        self._open = 0
        self._samples = 0
        self._lock = threading.Lock()
        self._stopped: tuple[Call, CallError] | None = None
        self._calls: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._last_missing: dict[str, tuple[Call, CallError]] = {}

    def add(self, index: int, samples: Sequence[Sample]) -> None:
        """Take a group, and start what can be started.

        Args:
            index: the group's place in the batch, in any order.
            samples: [G] mappings with the keys of RESPONSE_FIELDS and the dataset's columns.

        Raises:
            RewardError: a sample lacks a field; or a reward has failed meanwhile.
        """
        assert index not in self._groups, index
        carried = all(self._policy_fields <= sample.keys() for sample in samples)
        group = _Group(index=index, first=self._samples, samples=list(samples), supplied=carried)
        self._groups[index] = group
        self._open += 1
        self._samples += len(samples)
        self._check()
        self._start_background(group)

    def supply(self, index: int, fields: Sequence[Mapping[str, Any]]) -> None:
        """Give a group the fields that only the policy knows (POLICY_FIELDS).

        Args:
            index: the group, added before.
            fields: [G] a mapping for each response.

        Raises:
            RewardError: a field that a reward asks for is not among them.
        """
        group = self._groups[index]
        group.samples = [{**sample, **late} for sample, late in zip(group.samples, fields, strict=True)]
        group.supplied = True
        self._check()
        self._start_background(group)

    def result(self, index: int) -> list[Score]:
        """Wait for a group's scores.

        Raises:
            RewardError: a call failed (and `on_error` is stop); a reward waits for fields that nobody has supplied; or,
                with the last group's scores, a reward is missing for more responses than its `max_missing` allows.
        """
        wanted = self._groups[index]
        if wanted.scores is None:
            if not wanted.supplied:
                self.supply(index, [{}] * len(wanted.samples))  # what has no default is refused there
            self._finish(wanted)
            if self._open == 0:
                self._check_missing()
        assert wanted.scores is not None
        return wanted.scores

    def results(self) -> list[list[Score]]:
        """Wait for the scores of all groups, in the order of their index; see `result`."""
        return [self.result(index) for index in sorted(self._groups)]

    def close(self) -> None:
        """Cancel what is still under way."""
        for group in self._groups.values():
            for pending in [item for items in group.calls.values() for item in items]:
                if pending.future is not None:
                    pending.future.cancel()

    def __enter__(self) -> "Batch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _start_background(self, group: _Group, *, verifiers: bool = False) -> None:
        """Start what runs in the background; verifiers, which only compute, when nothing is generated any more."""
        for item in self._each:
            if item.kind != "inline" and (verifiers or not item.only_computes) and self._may_start(item, group):
                group.calls[item.label] = [self._submit(call) for call in self._response_calls(item, group)]
        for item in self._together:
            # Where no response can lose its score, only `scores` makes a group reward wait for the other rewards.
            early = not item.reads_scores and not self._can_lose
            if item.kind != "inline" and early and group.samples and self._may_start(item, group):
                group.calls[item.label] = [
                    self._submit(_group_call(item, group, group.samples, [{}] * len(group.samples)))
                ]

    @property
    def _can_lose(self) -> bool:
        return any(item.policy.on_error == "missing" and item.weight for item in self._each)

    def _may_start(self, item: BoundReward, group: _Group) -> bool:
        early = group.supplied or not item.policy_fields
        return not item.reward.batch and item.label not in group.calls and early

    def _response_calls(self, item: BoundReward, group: _Group) -> list[Call]:
        return [
            Call(item=item, arguments=item.arguments(sample), samples=[sample], number=group.first + number)
            for number, sample in enumerate(group.samples)
        ]

    def _submit(self, call: Call) -> _Pending:
        self._used = self._runner()
        pending = _Pending(call=call, future=self._used.submit(call))
        assert pending.future is not None
        pending.future.add_done_callback(lambda future: self._note(call, future))
        return pending

    def _note(self, call: Call, future: "Future[list[Reading]]") -> None:
        """Remember the first failure that stops the run; called in the event loop's thread."""
        error = None if future.cancelled() else future.exception()
        if isinstance(error, CallError) and (error.fatal or call.item.policy.on_error == "stop"):
            with self._lock:
                self._stopped = self._stopped or (call, error)

    def _call_inline(self, call: Call) -> _Pending:
        try:
            return _Pending(call=call, readings=attempts(call, call_here))
        except CallError as error:
            self._failed(call, error, error.__cause__)
        return _Pending(call=call)

    def _failed(self, call: Call, error: CallError, cause: BaseException | None) -> None:
        """Count a call without a result as missing, or stop the run."""
        if error.fatal or call.item.policy.on_error == "stop":
            raise self._stop(call, error) from cause
        label = call.item.label
        if label not in self._last_missing:
            logger.warning("%s; counted as missing. Further ones are counted in reward/%s/missing.", error, label)
        self._last_missing[label] = (call, error)

    # -- from calls to scores ------------------------------------------------------------------------------------------

    def _finish(self, wanted: _Group) -> None:
        if not wanted.responses_done:
            self._finish_responses()
        wanted.scores = self._scores(wanted)
        self._open -= 1

    def _finish_responses(self) -> None:
        """Of all groups that can be: so that their group rewards run at the same time, too."""
        new = [self._groups[index] for index in sorted(self._groups)]
        new = [group for group in new if group.supplied and not group.responses_done]
        for group in new:
            self._start_background(group, verifiers=True)
        self._run_batches()
        for group in new:
            self._run_inline(group)
        for group in new:
            self._start_together(group)
            group.responses_done = True

    def _run_batches(self) -> None:
        """Call the rewards that see all responses at once, for all groups that are there and can be."""
        for item in (item for item in self._each if item.reward.batch):
            groups = [self._groups[index] for index in sorted(self._groups)]
            groups = [g for g in groups if item.label not in g.calls and (g.supplied or not item.policy_fields)]
            samples = [sample for group in groups for sample in group.samples]
            readings: Sequence[Reading | None] = self._batch_readings(item, samples) if samples else []
            given = iter(readings)
            for group in groups:
                own = [next(given) for _ in group.samples]
                call = Call(item=item, arguments={}, samples=group.samples, number=group.index)
                group.calls[item.label] = [
                    _Pending(call=call, readings=None if reading is None else [reading]) for reading in own
                ]

    def _batch_readings(self, item: BoundReward, samples: Sequence[Sample]) -> Sequence[Reading | None]:
        arguments = item.group_arguments(samples, [{}] * len(samples))
        call = Call(item=item, arguments=arguments, samples=samples, number=0)
        pending = self._call_inline(call) if item.kind == "inline" else self._submit(call)
        self._wait([pending])
        return pending.readings if pending.readings is not None else [None for _ in samples]

    def _run_inline(self, group: _Group) -> None:
        for item in self._each:
            if item.kind == "inline" and item.label not in group.calls:
                group.calls[item.label] = [self._call_inline(call) for call in self._response_calls(item, group)]
                self._check()

    def _start_together(self, group: _Group) -> None:
        """Start the group rewards, once all rewards of single responses are known."""
        for item in self._each:
            self._wait(group.calls[item.label])
        waiting = [item for item in self._together if item.label not in group.calls]
        kept = self._complete(group) if waiting else []
        if not kept:
            group.calls.update({item.label: [] for item in waiting})
            return
        samples, scores = [group.samples[i] for i in kept], [self._values(group, i) for i in kept]
        for item in waiting:
            if item.reads_scores:
                self._add_group_values(item, group, scores)
            call = _group_call(item, group, samples, [dict(values) for values in scores])
            background = item.kind != "inline"
            group.calls[item.label] = [self._submit(call) if background else self._call_inline(call)]

    def _add_group_values(self, reader: BoundReward, group: _Group, scores: Sequence[Values]) -> None:
        """Add what the group rewards named before this one gave."""
        for item in self._together[: self._together.index(reader)]:
            calls = group.calls[item.label]
            self._wait(calls)
            for i, values in enumerate(scores):
                readings = calls[0].readings
                values.update({item.label: None} if readings is None else readings[i].values)

    def _complete(self, group: _Group) -> list[int]:
        """Return the responses that no reward with a weight is missing for; the others are out of the group."""
        counting = [item.label for item in self._each if item.weight]
        lost = {i for label in counting for i, item in enumerate(group.calls[label]) if item.readings is None}
        return [i for i in range(len(group.samples)) if i not in lost]

    def _values(self, group: _Group, i: int) -> Values:
        values: Values = {}
        for item in self._each:
            readings = group.calls[item.label][i].readings
            values.update({item.label: None} if readings is None else readings[0].values)
        return values

    def _wait(self, calls: Sequence[_Pending]) -> None:
        """Wait for calls; those that failed are counted as missing or stop the run."""
        open_calls = {item.future: item for item in calls if item.future is not None}
        while open_calls and wait(open_calls, timeout=CHECK_S).not_done:
            self._check()
        for future, item in open_calls.items():
            try:
                item.readings = future.result()
            except CancelledError:
                self._check()
                raise
            except CallError as error:
                self._failed(item.call, error, error.__cause__)
            item.future = None

    def _scores(self, group: _Group) -> list[Score]:
        size = len(group.samples)
        kept = self._complete(group)
        table: dict[str, list[Reading | None]] = {}
        for item in self._each:
            table[item.label] = [
                pending.readings[0] if pending.readings else None for pending in group.calls[item.label]
            ]
            self._count(item.label, size, table[item.label].count(None))
        for item in self._together:
            self._wait(group.calls[item.label])
            table[item.label] = [Reading({item.label: None}, {}) for _ in range(size)]
            for pending in group.calls[item.label]:
                given: Sequence[Reading | None] = pending.readings or [None for _ in kept]
                for i, reading in zip(kept, given, strict=True):
                    table[item.label][i] = reading
                self._count(item.label, len(kept), len(kept) if pending.readings is None else 0)
        return [self._score({label: column[i] for label, column in table.items()}) for i in range(size)]

    def _score(self, readings: Mapping[str, Reading | None]) -> Score:
        total = 0.0
        breakdown: Values = {}
        info: dict[str, str] = {}
        missing: list[str] = []
        for item in self._rewards:
            reading = readings[item.label]
            if reading is None:
                missing.append(item.label)
                breakdown[item.label] = None
                total += math.nan if item.weight else 0.0
                continue
            breakdown.update(reading.values)
            info.update(reading.info)
            total += item.weight * sum(value for value in reading.values.values() if value is not None)
        return Score(total=total, breakdown=breakdown, info=info, missing=tuple(missing))

    # -- failures ------------------------------------------------------------------------------------------------------

    def _count(self, label: str, calls: int, missing: int) -> None:
        self._calls[label] += calls
        self._missing[label] += missing

    def _check(self) -> None:
        """Stop at once if a call in the background has failed, or can no longer end."""
        if self._stopped is not None:
            call, error = self._stopped
            raise self._stop(call, error) from error.__cause__
        if self._used is not None and self._used.failure is not None:
            culprit, error = self._used.failure
            raise RewardError(f"{error}.") if culprit is None else self._stop(culprit, error)

    def _stop(self, call: Call, error: CallError) -> RewardError:
        return RewardError(f"{error}{save_failure(self._folder, call, error)}.")

    def _check_missing(self) -> None:
        for item in self._rewards:
            missing, calls = self._missing[item.label], self._calls[item.label]
            if missing <= item.policy.max_missing * calls:
                continue
            call, error = self._last_missing[item.label]
            raise RewardError(
                f"reward {item.label!r} has no score for {missing} of {calls} responses, more than its max_missing of "
                f"{item.policy.max_missing:g} allows; the last failure: {error}"
                f"{save_failure(self._folder, call, error)}. Mend its cause, or raise max_missing."
            ) from error.__cause__


def _group_call(item: BoundReward, group: _Group, samples: Sequence[Sample], scores: Sequence[Values]) -> Call:
    arguments = item.group_arguments(samples, scores)
    return Call(item=item, arguments=arguments, samples=samples, number=group.index)
