"""Accuracy, length and format of a policy on held-out rows, in each mode.

Legend: N rows, K samples per row.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from base_model.video_settings import VideoSettings
from recipes.tasks import Row
from rewards import RewardSet, Score
from rl.config import ReferenceConfig
from rollouts.engine import Engine
from rollouts.modes import Mode, ModesConfig
from rollouts.records import Request, Rollout, Sampling, Status, request_seed

if TYPE_CHECKING:
    from rl.prompts import PromptMaker

Z95 = 1.959963984540054
EVALUATION_STEP = -1
"""Stands in for the step in an evaluation's seeds: no training step draws the same ones."""
MEDIA_PROMPTS = 64
"""Prompts with images or videos that are in memory at a time."""


class EvaluationConfig(BaseModel):
    """How a checkpoint is evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    metric: str = "accuracy"
    """Reward whose value of at least 0.5 counts as a right answer."""
    format_metric: str = "format"
    """Reward whose value of at least 0.5 counts as a well-formed response; ignored when the run has no such reward."""
    samples: int = Field(1, ge=1)
    """Responses per row and mode (K)."""
    k: int = Field(1, ge=1)
    """pass@k is reported for this k, at most ``samples``."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 = greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus of the distribution that is sampled from; 1 = all."""
    rows: int = Field(0, ge=0)
    """Held-out rows used, from the first on; 0 = all."""
    seed: int = 0
    """Seed of the samples."""
    by: str | None = None
    """Column whose values break the figures down, such as kind: one set of figures for each value, beside the whole's;
    it is one of task.columns. null = no breakdown."""


def evaluate_policy(
    *,
    engine: Engine,
    tokenizer: Any,
    rows: Sequence[Row],
    modes: ModesConfig,
    rewards: RewardSet,
    config: EvaluationConfig,
    reference: ReferenceConfig,
    on_progress: Callable[[int, int], None] | None = None,
    video: VideoSettings | None = None,
    only: Mode | None = None,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Evaluate the engine's current weights in both modes, all responses in one batch (prompts with images or videos
    in batches of ``MEDIA_PROMPTS``, whose media alone are in memory).

    Args:
        engine: holds the policy.
        tokenizer: that of the policy; for a vision-language model its processor.
        rows: held-out rows.
        modes: short and long mode.
        rewards: what scores.
        config: samples and metrics.
        reference: how probabilities of references are taken.
        on_progress: called with (done, total) responses.
        video: how clips are sampled and packed.
        only: the one mode to evaluate; None = both.

    Returns:
        ``{"short": {...}, "long": {...}}`` as in ``evaluation.json``, and the samples' records. With ``config.by``,
        each mode's figures hold those of the column's values under ``by``.

    Raises:
        ValueError: ``config.metric`` is none of the rewards, ``k`` exceeds ``samples``, a row has no ``by``, or images
            or videos cannot be read.
    """
    from recipes.reference_scores import reference_fields
    from rl.environment import reward_sample
    from rl.prompts import PromptMaker
    from rl.scoring import StreamedScoring

    check_evaluation(config, rewards.names)
    rows = rows[: config.rows or None]
    check_breakdown(config, rows)
    asked = (modes.short, modes.long) if only is None else (only,)
    pairs = [(mode, row) for mode in asked for row in rows]
    prompts = PromptMaker(tokenizer, video, kept_bytes=0)
    with StreamedScoring(rewards, config.samples, lambda number, r: reward_sample(pairs[number][1], r)) as scoring:
        flat = _generated(engine, prompts, pairs, config, on_progress, scoring.on_result)
        if rewards.deferred:
            collected = scoring.collect(flat)
            fields = reference_fields(
                engine=engine, prompts=prompts, modes=modes, config=reference, pairs=pairs, groups=collected
            )
            for number, own in enumerate(fields):
                scoring.supply(number, own)
        scored = scoring.finish(flat)
    groups, scores = [rollouts for rollouts, _ in scored], [group_scores for _, group_scores in scored]
    summary = {}
    for mode in asked:
        chosen = [i for i, (m, _) in enumerate(pairs) if m is mode]
        summary[mode.name] = summarise([groups[i] for i in chosen], [scores[i] for i in chosen], config)
        if config.by is not None:
            summary[mode.name]["by"] = {
                value: summarise([groups[i] for i in part], [scores[i] for i in part], config)
                for value, part in _parts(chosen, [row.columns[config.by] for _, row in pairs])
            }
    return summary, _records(pairs, groups, scores)


def _parts(chosen: Sequence[int], values: Sequence[Any]) -> list[tuple[str, list[int]]]:
    """The chosen indices of each value, by the value's text."""
    found: dict[str, list[int]] = {}
    for index in chosen:
        found.setdefault(str(values[index]), []).append(index)
    return sorted(found.items())


def check_breakdown(config: EvaluationConfig, rows: Sequence[Row]) -> None:
    """Refuse a breakdown by a column that a row does not have."""
    lacking = next((row for row in rows if config.by is not None and row.columns.get(config.by) is None), None)
    if lacking is not None:
        raise ValueError(
            f"evaluation.by is {config.by!r}, and row {lacking.index} of the evaluation has no such column "
            f"({', '.join(lacking.columns) or 'none is kept'}): name it in task.columns, or correct the name"
        )


def check_evaluation(config: EvaluationConfig, names: Sequence[str]) -> None:
    """Refuse, before any model is loaded, an evaluation that cannot be made; see ``evaluate_policy``."""
    if config.metric not in names:
        raise ValueError(
            f"evaluation.metric is {config.metric!r}, which is none of the run's rewards ({', '.join(names)}): "
            "name one of them, or add it to the rewards (weight 0 keeps it out of the total)"
        )
    if config.k > config.samples:
        raise ValueError(
            f"evaluation.k is {config.k}, but only {config.samples} samples are drawn per row: raise evaluation.samples"
        )


def summarise(
    groups: Sequence[Sequence[Rollout]], scores: Sequence[Sequence[Score]], config: EvaluationConfig
) -> dict[str, Any]:
    """One mode's figures: accuracy with its 95 % interval, pass@k, mean length, truncation and format.

    A response for which the deciding reward is missing is neither right nor wrong: it is left out, and counted in
    ``missing``.
    """
    judged = [[s for s in row if config.metric not in s.missing] for row in scores]
    right_NK = [[_reaches(s, config.metric, 0.5) for s in row] for row in judged if row]
    well_formed = [s for s in _flat(scores) if config.format_metric in s.breakdown.keys() - {*s.missing}]
    formats = [_reaches(s, config.format_metric, 0.5) for s in well_formed]
    rollouts = _flat(groups)
    accuracy, low, high = accuracy_interval(right_NK, seed=config.seed)
    return {
        "n": len(right_NK),
        "missing": 1 - _share(_flat(judged), _flat(scores)),
        "samples": config.samples,
        "accuracy": accuracy,
        "ci_low": low,
        "ci_high": high,
        "k": config.k,
        "pass_at_k": _mean([pass_at_k(len(row), sum(row), config.k) for row in right_NK if len(row) >= config.k]),
        "response_tokens": _mean([len(r.response_ids) for r in rollouts]),
        "truncated": _mean([r.status is Status.TRUNCATED for r in rollouts]),
        "format": _mean(formats) if formats else None,
    }


def accuracy_interval(right_NK: Sequence[Sequence[bool]], *, seed: int = 0) -> tuple[float, float, float]:
    """Share of right responses and its 95 % interval.

    One sample per row: Wilson's interval. Several: percentile bootstrap over rows, since samples of one row are no
    independent evidence.
    """
    row_means = [sum(row) / len(row) for row in right_NK]
    if not row_means:
        return 0.0, 0.0, 1.0
    accuracy = _mean(row_means)
    if all(len(row) == 1 for row in right_NK):
        return (accuracy, *wilson_interval(int(sum(row_means)), len(row_means)))
    rng = random.Random(seed)
    means = sorted(_mean(rng.choices(row_means, k=len(row_means))) for _ in range(1000))
    return accuracy, means[24], means[974]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927); stays inside [0, 1], unlike the normal one."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased pass@k, 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374)."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _generated(
    engine: Engine,
    prompts: PromptMaker,
    pairs: Sequence[tuple[Mode, Row]],
    config: EvaluationConfig,
    on_progress: Callable[[int, int], None] | None,
    on_result: Callable[[int, Rollout], None] | None,
) -> list[Rollout]:
    """The responses to all prompts."""
    found: list[Rollout] = []
    total = len(pairs) * config.samples
    size = MEDIA_PROMPTS if any(row.images or row.videos for _, row in pairs) else len(pairs)
    for start in range(0, len(pairs), max(size, 1)):
        part = pairs[start : start + size]
        requests = [request for mode, row in part for request in _requests(prompts, row, mode, config)]
        found += engine.generate(requests, *_shifted(len(found), total, on_progress, on_result))
    return found


def _shifted(
    done: int,
    total: int,
    on_progress: Callable[[int, int], None] | None,
    on_result: Callable[[int, Rollout], None] | None,
) -> tuple[Callable[[int, int], None] | None, Callable[[int, Rollout], None] | None]:
    """The callbacks for a batch that comes after ``done`` others of ``total``."""
    return (
        on_progress and (lambda own, _batch: on_progress(done + own, total)),
        on_result and (lambda index, rollout: on_result(done + index, rollout)),
    )


def _requests(prompts: PromptMaker, row: Row, mode: Mode, config: EvaluationConfig) -> list[Request]:
    prompt = prompts.prompt(row, mode)
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p)
    return [
        Request(
            prompt_ids=prompt.ids,
            media=prompt.media,
            mode=mode,
            row=row.index,
            sample=sample,
            seed=request_seed(config.seed, EVALUATION_STEP, row.index, sample),
            sampling=sampling,
        )
        for sample in range(config.samples)
    ]


def _records(
    pairs: Sequence[tuple[Mode, Row]], groups: Sequence[Sequence[Rollout]], scores: Sequence[Sequence[Score]]
) -> list[dict[str, Any]]:
    from rl.environment import rollout_record

    return [
        rollout_record(row, rollout, score)
        for (_, row), group, group_scores in zip(pairs, groups, scores, strict=True)
        for rollout, score in zip(group, group_scores, strict=True)
    ]


def _reaches(score: Score, name: str, bar: float) -> bool:
    value = score.breakdown.get(name)
    return value is not None and value >= bar


def _flat(nested: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for inner in nested for item in inner]


def _share(part: Sequence[Any], whole: Sequence[Any]) -> float:
    return len(part) / len(whole) if whole else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
