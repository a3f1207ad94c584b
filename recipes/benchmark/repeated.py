"""The same training step without a shared prefix: prompt, images and all are computed once per response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rl.learner import LateAdvantages, Learner, TrainGroup


class RepeatedLearner(Learner):
    """Trains every response with a copy of its prompt; the gradient is that of ``Learner``."""

    def update(self, groups: Sequence[TrainGroup], late: LateAdvantages | None = None) -> dict[str, float]:
        """As in ``Learner``.

        Args:
            groups: the step's groups, without branches.
            late: none: rewards that wait for the policy are not measured this way.
        """
        assert late is None
        return super().update([single for group in groups for single in singles(group)])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Single(TrainGroup):
    """One response of a group that is trained; computed also where its own advantage is 0, as it is in the group."""

    @property
    def has_signal(self) -> bool:
        """As the group's."""
        return True


def singles(group: TrainGroup) -> list[TrainGroup]:
    """One group per response; none where the group is not trained."""
    if not group.has_signal:
        return [group]
    parts = [group.part(slice(number, number + 1)) for number in range(len(group.tokens.responses))]
    return [_Single(**{item.name: getattr(part, item.name) for item in fields(part)}) for part in parts]
