"""The policy's probabilities of reference answers, for rewards that ask for them.

What is asked (RLPR, arXiv 2506.18254, section 3.1): the reference in place of a response's answer, and the reference
directly after the prompt, with no reasoning (the baseline r'). The first is read by the learner as branches of its own
packed forward pass. The second is computed once per prompt, with the policy the run started from, and kept in the
run directory; or anew at each step with the current policy.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from base_model.branches import Branch
from base_model.packing import TokenGroup
from rl.files import atomic_write_json
from rl.learner import TrainGroup
from rollouts.reference import ReferenceSpan

BASELINES = "baselines.json"

PromptQuestion = tuple[Sequence[int], ReferenceSpan]
"""A prompt without reasoning, and the reference after it."""


def branch(span: ReferenceSpan, response: int) -> Branch:
    """The span as a branch of its group's packed tokens."""
    return Branch(response=response, keep=span.keep, tokens=span.tokens)


def scored_probs(span: ReferenceSpan, logprobs: Sequence[float]) -> list[float]:
    """Probabilities of the tokens that hold text of the reference."""
    return [math.exp(logprobs[i]) for i in span.scored]


def prompt_group(prompt_ids: Sequence[int], span: ReferenceSpan) -> TrainGroup:
    """A group without responses whose one branch is the reference after the prompt."""
    return TrainGroup(
        tokens=TokenGroup(prompt=prompt_ids, responses=[]),
        advantages_G=(),
        engine_logprobs=(),
        branches=(Branch(tokens=span.tokens),),
    )


BranchLogprobs = Callable[[Sequence[TrainGroup]], list[list[list[float]]]]
"""``Learner.branch_logprobs`` of some policy."""


def prompt_probs(score: BranchLogprobs, questions: Sequence[PromptQuestion]) -> list[list[float]]:
    """Probabilities of each reference's tokens directly after its prompt."""
    found = score([prompt_group(prompt_ids, span) for prompt_ids, span in questions])
    return [scored_probs(span, own[0]) for (_, span), own in zip(questions, found, strict=True)]


class BaselineCache:
    """Probabilities of references under the initial policy, by data row; survives a restart of the run.

    A row is scored in the batch of the step that first asks for it, so what is kept does not depend on when that was.
    """

    def __init__(self, path: Path) -> None:
        """Args:
        path: file in the run directory; read if it is there.
        """
        self._path = path
        self._probs: dict[int, list[float]] = {}
        if path.is_file():
            self._probs = {int(row): probs for row, probs in json.loads(path.read_text()).items()}

    def missing(self, rows: Sequence[int]) -> list[int]:
        """The rows that are not known yet, each once, in order."""
        return [row for row in dict.fromkeys(rows) if row not in self._probs]

    def add(self, rows: Sequence[int], probs: Sequence[list[float]]) -> None:
        """Keep some rows' probabilities in memory; ``save`` writes them."""
        self._probs.update(zip(rows, probs, strict=True))

    def save(self) -> None:
        """Write all that is known, whole or not at all."""
        atomic_write_json(self._path, self._probs)

    def get(self, row: int) -> list[float]:
        """Give a row's probabilities."""
        return self._probs[row]
