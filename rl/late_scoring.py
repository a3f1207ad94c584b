"""Groups some of whose rewards wait for the policy's probabilities of their references.

    generate -> collect -> LateScoring: where each reference stands, and the baselines
        -> the learner's own forward pass gives the branches' log-probs -> finish(group) -> rewards -> advantages
        -> the loss of that same forward pass

Where rewards must be known before anything is trained (the filter, advantages scaled over the batch), the log-probs
come from a forward pass of their own instead.
"""

from collections.abc import Sequence

from base_model.packing import TokenGroup
from rl.environment import Environment, PromptSlot, ScoredGroup, scored_group
from rl.learner import TrainGroup
from rl.reference import ReferenceProbs, branches_of
from rl.scoring import StreamedScoring
from rollouts.records import Rollout


class LateScoring:
    """The groups of one generation, until the last of them is scored."""

    def __init__(
        self,
        scoring: StreamedScoring,
        slots: Sequence[PromptSlot],
        groups: Sequence[Sequence[Rollout]],
        reference: ReferenceProbs,
        environment: Environment,
    ) -> None:
        self._environment = environment
        self._scoring = scoring
        self._slots = slots
        self._groups = groups
        self._reference = reference
        self._spans = [reference.branches(slot, group) for slot, group in zip(slots, groups, strict=True)]
        self._baselines = reference.baselines(slots)

    def train_group(self, number: int) -> TrainGroup:
        """A group of at least one response, with its branches and without advantages."""
        rollouts = self._groups[number]
        return TrainGroup(
            tokens=TokenGroup(prompt=rollouts[0].prompt_ids, responses=[r.response_ids for r in rollouts]),
            advantages_G=(),
            engine_logprobs=tuple(tuple(r.logprobs) for r in rollouts),
            branches=branches_of(self._spans[number]),
            media=self._environment.media_inputs(self._slots[number]),
        )

    def finish(self, number: int, logprobs: Sequence[Sequence[float]]) -> ScoredGroup:
        """Score a group, given the log-probs of each of its branches."""
        fields = self._reference.fields(self._spans[number], logprobs, self._baselines[number])
        self._scoring.supply(number, fields)
        return scored_group(self._slots[number], self._groups[number], self._scoring.result(number))

    def for_all_responses(self, number: int, group: ScoredGroup, advantages_G: Sequence[float]) -> tuple[float, ...]:
        """The advantages of a scored group's responses, and 0 for those that were left out of it."""
        known = dict(zip(map(id, group.rollouts), advantages_G, strict=True))
        return tuple(known.get(id(rollout), 0.0) for rollout in self._groups[number])
