"""Scoring whole groups as soon as they are generated, while the rest still is.

    engine.generate(requests, on_result=scoring.on_result)    a group whose last response is there goes to the rewards
    scoring.collect(rollouts), scoring.supply(number, ...)    if rewards.deferred: what only the policy can give
    scoring.finish(rollouts)                                  the others follow; scores in the order of the groups

The scores are those of scoring everything at the end: each call of a reward sees its own group alone.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rewards import RewardSet, Score
from rollouts.records import Rollout


class StreamedScoring:
    """One batch of groups of `group_size` responses each, in the order of the requests; a context manager.

    G = responses of a group.
    """

    def __init__(
        self,
        rewards: RewardSet,
        group_size: int,
        sample: Callable[[int, Rollout], Mapping[str, Any]],
        keep: Callable[[Rollout], bool] = lambda _rollout: True,
    ) -> None:
        """Args:
        rewards: what scores.
        group_size: responses per group (G).
        sample: makes what rewards see of a response, from the group's number and the rollout.
        keep: says whether a response is scored at all.
        """
        self._rewards = rewards
        self._size = group_size
        self._sample = sample
        self._keep = keep
        self._batch = rewards.begin()
        self._arrived: dict[int, dict[int, Rollout]] = {}
        self._groups: dict[int, list[Rollout]] = {}

    @property
    def on_result(self) -> Callable[[int, Rollout], None] | None:
        """What `Engine.generate` is to call; None when no reward would start before the end anyway."""
        return self._take if self._rewards.overlaps else None

    def collect(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Take the groups that have not been streamed; returns the scored responses of every group.

        Args:
            rollouts: All responses, in the order of the requests.
        """
        for number, at in enumerate(range(0, len(rollouts), self._size)):
            if number not in self._groups:
                self._add(number, rollouts[at : at + self._size])
        return [self._groups[number] for number in range(len(self._groups))]

    def finish(self, rollouts: Sequence[Rollout]) -> list[tuple[list[Rollout], list[Score]]]:
        """The scored responses of each group with their scores, waiting for what is still under way.

        Args:
            rollouts: All responses, in the order of the requests.

        Raises:
            RewardError: A reward failed, see ``RewardSet.score``.
        """
        groups = self.collect(rollouts)
        return list(zip(groups, self._batch.results(), strict=True))

    def result(self, number: int) -> list[Score]:
        """The scores of one group, after ``supply`` where a reward waits for that."""
        return self._batch.result(number)

    def supply(self, number: int, fields: Sequence[Mapping[str, Any]]) -> None:
        """Give a collected group what only the policy knows: [G] mappings, one per scored response; see
        ``rewards.batch``.
        """
        self._batch.supply(number, fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batch.close()

    def _take(self, index: int, rollout: Rollout) -> None:
        number, position = divmod(index, self._size)
        arrived = self._arrived.setdefault(number, {})
        arrived[position] = rollout
        if len(arrived) == self._size:
            self._add(number, [arrived[i] for i in range(self._size)])
            del self._arrived[number]

    def _add(self, number: int, rollouts: Sequence[Rollout]) -> None:
        kept = [rollout for rollout in rollouts if self._keep(rollout)]
        self._groups[number] = kept
        self._batch.add(number, [self._sample(number, rollout) for rollout in kept])
