"""The policy's probabilities of reference answers, for rewards that ask for them.

What is asked (RLPR, arXiv 2506.18254, section 3.1): the reference in place of a response's answer, and the reference
directly after the prompt, with no reasoning (the baseline r'). The first is read by the learner as branches of its own
packed forward pass. The second is computed once per data row, with the policy that the run started from, and kept in
the run directory; or anew at each step with the current policy.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from base_model.branches import Branch
from base_model.packing import TokenGroup
from rl.config import ReferenceConfig
from rl.environment import BarePrompt, Environment, PromptSlot
from rl.files import atomic_write_json
from rl.learner import TrainGroup
from rollouts.records import Rollout
from rollouts.reference import ReferenceSpan

BASELINES = "baselines.json"

BranchLogprobs = Callable[[Sequence[TrainGroup]], list[list[list[float]]]]
"""``Learner.branch_logprobs`` of some policy."""
Fields = list[Mapping[str, Any]]
"""Per response of a group, what a reward may ask for by name: ``reference_probs`` and ``baseline_probs``."""


class ReferenceProbs:
    """Which branches a group needs, and the fields that rewards get from their log-probs."""

    def __init__(
        self,
        *,
        config: ReferenceConfig,
        environment: Environment,
        current: BranchLogprobs,
        initial: Callable[[], BranchLogprobs],
        path: Path,
    ) -> None:
        """Args:
        config: which baseline, and where an answer begins.
        environment: rows, tokenizer and modes.
        current: scores with the policy under training.
        initial: loads the policy that the run started from; called only if rows are asked for that the start of the
            run did not foresee.
        path: file of the initial policy's baselines, in the run directory.
        """
        self.config = config
        self._environment = environment
        self._current = current
        self._load_initial = initial
        self._initial: BranchLogprobs | None = None
        self._cache = BaselineCache(path)

    def branches(self, slot: PromptSlot, rollouts: Sequence[Rollout]) -> list[ReferenceSpan | None]:
        """Per response of a group, where the reference stands; None where it has no place."""
        return [self._environment.reference_span(slot, rollout, self.config.answer_open) for rollout in rollouts]

    def fields(
        self, spans: Sequence[ReferenceSpan | None], logprobs: Sequence[Sequence[float]], baseline: list[float] | None
    ) -> Fields:
        """What the rewards of a group get; ``logprobs`` has one entry per span that is not None."""
        given = iter(logprobs)
        return [
            {
                "reference_probs": [] if span is None else scored_probs(span, next(given)),
                "baseline_probs": baseline,
            }
            for span in spans
        ]

    def foresee(self, steps: Sequence[Sequence[PromptSlot]], on_progress: Callable[[int, int], None]) -> None:
        """Before the first step, while the policy under training is still the initial one: the baselines of all steps.

        A row is scored in the batch of the step that first needs it, so that its value does not depend on when.
        """
        if self.config.baseline != "initial":
            return
        for done, slots in enumerate(steps):
            self._fill(slots, self._current)
            on_progress(done + 1, len(steps))
        self._cache.save()

    def baselines(self, slots: Sequence[PromptSlot]) -> list[list[float] | None]:
        """Each slot's probabilities of the reference without reasoning; None = nothing is subtracted."""
        if self.config.baseline == "none":
            return [None] * len(slots)
        if self.config.baseline == "current":
            return _prompt_probs(self._current, [self._environment.bare_prompt(slot) for slot in slots])
        if self._cache.missing([self._environment.row_index(slot) for slot in slots]):
            self._initial = self._initial or self._load_initial()
            self._fill(slots, self._initial)
            self._cache.save()
        return [self._cache.get(self._environment.row_index(slot)) for slot in slots]

    def _fill(self, slots: Sequence[PromptSlot], policy: BranchLogprobs) -> None:
        by_row = {self._environment.row_index(slot): slot for slot in slots}
        rows = self._cache.missing(list(by_row))
        if rows:
            self._cache.add(rows, _prompt_probs(policy, [self._environment.bare_prompt(by_row[row]) for row in rows]))


def branches_of(spans: Sequence[ReferenceSpan | None]) -> tuple[Branch, ...]:
    """The spans of a group's responses as branches of its packed tokens."""
    return tuple(
        Branch(response=number, keep=span.keep, tokens=span.tokens) for number, span in enumerate(spans) if span
    )


def scored_probs(span: ReferenceSpan, logprobs: Sequence[float]) -> list[float]:
    """Probabilities of the tokens that hold text of the reference."""
    return [math.exp(logprobs[i]) for i in span.scored]


def _prompt_probs(policy: BranchLogprobs, questions: Sequence[BarePrompt | None]) -> list[list[float] | None]:
    """Probabilities of each reference's tokens directly after its prompt; None where there is no reference."""
    asked = [question for question in questions if question]
    found = policy([_prompt_group(question) for question in asked]) if asked else []
    probs = iter(scored_probs(question.span, own[0]) for question, own in zip(asked, found, strict=True))
    return [next(probs) if question else None for question in questions]


def _prompt_group(question: BarePrompt) -> TrainGroup:
    """A group without responses whose one branch is the reference after the prompt."""
    return TrainGroup(
        tokens=TokenGroup(prompt=question.ids, responses=[]),
        advantages_G=(),
        engine_logprobs=(),
        branches=(Branch(tokens=question.span.tokens),),
        media=question.media,
    )


class BaselineCache:
    """Probabilities of references under the initial policy, by data row; survives a restart of the run."""

    def __init__(self, path: Path) -> None:
        """Args:
        path: file in the run directory; read if it is there.
        """
        self._path = path
        self._probs: dict[int, list[float] | None] = {}
        if path.is_file():
            self._probs = {int(row): probs for row, probs in json.loads(path.read_text()).items()}

    def missing(self, rows: Sequence[int]) -> list[int]:
        """The rows that are not known yet, each once, in order."""
        return [row for row in dict.fromkeys(rows) if row not in self._probs]

    def add(self, rows: Sequence[int], probs: Sequence[list[float] | None]) -> None:
        """Keep some rows' probabilities in memory; ``save`` writes them."""
        self._probs.update(zip(rows, probs, strict=True))

    def save(self) -> None:
        """Write all that is known, whole or not at all."""
        atomic_write_json(self._path, self._probs)

    def get(self, row: int) -> list[float] | None:
        """Give a row's probabilities; None = it has no reference."""
        return self._probs[row]
