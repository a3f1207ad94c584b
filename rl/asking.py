"""What a step asks of the engine, and the places of prompts that cannot be asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rollouts.records import Request, Rollout, Status

OnResult = Callable[[int, Rollout], None]
"""(place among the step's responses, response)"""


class Unreadable(NamedTuple):
    """A prompt whose images or videos cannot be read."""

    row: int
    mode: str
    reason: str


@dataclass(kw_only=True)
class Asked:
    """Groups of ``group_size`` responses each, in order; those that were not asked for are failed responses."""

    group_size: int
    requests: list[Request] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    _places: list[int] = field(default_factory=list)  # of each request among all responses
    _failed: dict[int, Rollout] = field(default_factory=dict)

    def add(self, requests: Sequence[Request]) -> None:
        """The next group's requests."""
        assert len(requests) == self.group_size
        self._places.extend(range(self._count, self._count + len(requests)))
        self.requests.extend(requests)

    def fail(self, row: int, mode: str, reason: str) -> None:
        """The next group cannot be asked for."""
        self.unreadable.append(Unreadable(row, mode, reason))
        for sample in range(self.group_size):
            self._failed[self._count] = _failed(row, mode, sample)

    def responses(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """All groups' responses in order, given those to the requests."""
        placed = dict(zip(self._places, rollouts, strict=True)) | self._failed
        return [placed[place] for place in range(self._count)]

    def placed(self, on_result: OnResult | None) -> OnResult | None:
        """The function for places among all responses, as one for places among the requests."""
        if on_result is None:
            return None
        return lambda index, rollout: on_result(self._places[index], rollout)

    @property
    def _count(self) -> int:
        return len(self._places) + len(self._failed)


def _failed(row: int, mode: str, sample: int) -> Rollout:
    return Rollout(
        row=row,
        sample=sample,
        mode=mode,
        prompt_ids=(),
        response_ids=(),
        logprobs=(),
        response="",
        thinking=None,
        answer="",
        answer_start=0,
        status=Status.FAILED,
        policy_version=0,
    )
