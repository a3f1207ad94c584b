"""Probabilities of reference answers from an engine, for the evaluation of rewards that ask for them.

Training reads them from the learner's own forward pass (rl.reference); an evaluation has only the engine, and scores
prefix and reference as one text. The baseline is that of the evaluated policy, since no other is at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from rl.config import ReferenceConfig
from rollouts.modes import Mode, ModesConfig
from rollouts.records import PromptMedia, Rollout
from rollouts.reference import ReferenceSpan, prompt_span, reference_span

if TYPE_CHECKING:
    from recipes.tasks import Row
    from rl.prompts import PromptMaker
    from rollouts.engine import Engine

MEDIA_GROUPS = 64
"""Groups whose images and videos are in memory at a time."""


class Question(NamedTuple):
    """A reference after a prefix."""

    prefix: Sequence[int]
    span: ReferenceSpan
    media: PromptMedia | None


def reference_fields(
    *,
    engine: Engine,
    prompts: PromptMaker,
    modes: ModesConfig,
    config: ReferenceConfig,
    pairs: Sequence[tuple[Mode, Row]],
    groups: Sequence[Sequence[Rollout]],
) -> list[list[dict[str, Any]]]:
    """Per group and response, ``reference_probs`` and ``baseline_probs`` as rewards ask for them.

    Args:
        engine: holds the policy.
        prompts: renders rows with the policy's tokenizer or processor.
        modes: short mode is the prompt without reasoning.
        config: where an answer begins; whether anything is subtracted.
        pairs: mode and row of each group.
        groups: the responses of each.
    """
    probs: list[list[float] | None] = []
    size = MEDIA_GROUPS if any(row.images or row.videos for _, row in pairs) else len(pairs)
    for start in range(0, len(pairs), max(size, 1)):
        asked: list[Question | None] = []
        for (mode, row), group in islice(zip(pairs, groups, strict=True), start, start + size):
            asked.extend(_asked(prompts, modes, mode, row, group, config))
        probs.extend(_probs(engine, asked))
    given = iter(probs)
    fields = []
    for group in groups:
        baseline = next(given)
        fields.append([{"reference_probs": next(given) or [], "baseline_probs": baseline} for _ in group])
    return fields


def _asked(
    prompts: PromptMaker, modes: ModesConfig, mode: Mode, row: Row, group: Sequence[Rollout], config: ReferenceConfig
) -> list[Question | None]:
    """What is to be scored for a group: first the reference alone, then one question for each response."""
    if row.reference is None:
        return [None] * (1 + len(group))
    bare = _bare(prompts, modes.short, row) if config.baseline != "none" else None
    media = prompts.prompt(row, mode).media if row.images or row.videos else None
    return [bare, *(_question(prompts.tokenizer, mode, row, rollout, media, config) for rollout in group)]


def _probs(engine: Engine, asked: Sequence[Question | None]) -> list[list[float] | None]:
    given = [question for question in asked if question]
    media = [question.media for question in given]
    options: dict[str, Any] = {"media": media} if any(media) else {}
    scores = iter(engine.score([each.prefix for each in given], [each.span.tokens for each in given], **options))
    found: list[list[float] | None] = []
    for question in asked:
        if question is None:
            found.append(None)
            continue
        logprobs = next(scores)
        found.append([math.exp(logprobs[i]) for i in question.span.scored])
    return found


def _question(
    tokenizer: Any, mode: Mode, row: Row, rollout: Rollout, media: PromptMedia | None, config: ReferenceConfig
) -> Question | None:
    span = reference_span(
        tokenizer,
        prompt_ids=rollout.prompt_ids,
        response_ids=rollout.response_ids,
        mode=mode,
        reference=str(row.reference),
        answer_open=config.answer_open,
    )
    if span is None:
        return None
    return Question([*rollout.prompt_ids, *rollout.response_ids[: span.keep]], span, media)


def _bare(prompts: PromptMaker, mode: Mode, row: Row) -> Question | None:
    prompt = prompts.prompt(row, mode)
    span = prompt_span(prompts.tokenizer, prompt_ids=prompt.ids, reference=str(row.reference))
    return None if span is None else Question(prompt.ids, span, prompt.media)
