"""Probabilities of reference answers from an engine, for the evaluation of rewards that ask for them.

Training reads them from the learner's own forward pass (rl.reference); an evaluation has only the engine, and scores
prefix and reference as one text. The baseline is that of the evaluated policy, since no other is at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rl.config import ReferenceConfig
from rollouts.modes import Mode, ModesConfig
from rollouts.prompts import render_prompt
from rollouts.records import Rollout
from rollouts.reference import ReferenceSpan, prompt_span, reference_span

if TYPE_CHECKING:
    from recipes.tasks import Row
    from rollouts.engine import Engine

Question = tuple[Sequence[int], ReferenceSpan]
"""Token ids of a prefix, and the reference after it."""


def reference_fields(
    *,
    engine: Engine,
    tokenizer: Any,
    modes: ModesConfig,
    config: ReferenceConfig,
    pairs: Sequence[tuple[Mode, Row]],
    groups: Sequence[Sequence[Rollout]],
) -> list[list[dict[str, Any]]]:
    """Per group and response, ``reference_probs`` and ``baseline_probs`` as rewards ask for them.

    Args:
        engine: holds the policy.
        tokenizer: that of the policy.
        modes: short mode is the prompt without reasoning.
        config: where an answer begins; whether anything is subtracted.
        pairs: mode and row of each group.
        groups: the responses of each.
    """
    asked: list[Question | None] = []
    for (mode, row), group in zip(pairs, groups, strict=True):
        asked.append(_bare(tokenizer, modes.short, row) if config.baseline != "none" else None)
        asked.extend(_question(tokenizer, mode, row, rollout, config) for rollout in group)
    probs = iter(_probs(engine, asked))
    fields = []
    for group in groups:
        baseline = next(probs)
        fields.append([{"reference_probs": next(probs) or [], "baseline_probs": baseline} for _ in group])
    return fields


def _probs(engine: Engine, asked: Sequence[Question | None]) -> list[list[float] | None]:
    given = [question for question in asked if question]
    scores = iter(engine.score([prefix for prefix, _ in given], [span.tokens for _, span in given]))
    found: list[list[float] | None] = []
    for question in asked:
        if question is None:
            found.append(None)
            continue
        logprobs = next(scores)
        found.append([math.exp(logprobs[i]) for i in question[1].scored])
    return found


def _question(tokenizer: Any, mode: Mode, row: Row, rollout: Rollout, config: ReferenceConfig) -> Question | None:
    if row.reference is None:
        return None
    span = reference_span(
        tokenizer,
        prompt_ids=rollout.prompt_ids,
        response_ids=rollout.response_ids,
        mode=mode,
        reference=str(row.reference),
        answer_open=config.answer_open,
    )
    return None if span is None else ([*rollout.prompt_ids, *rollout.response_ids[: span.keep]], span)


def _bare(tokenizer: Any, mode: Mode, row: Row) -> Question | None:
    if row.reference is None:
        return None
    prompt_ids = render_prompt(tokenizer, row.messages, mode)
    span = prompt_span(tokenizer, prompt_ids=prompt_ids, reference=str(row.reference))
    return None if span is None else (prompt_ids, span)
