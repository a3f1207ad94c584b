"""The work that a shared prefix saves in a step with images, counted; and that it is the same step."""

from pathlib import Path

import pytest

from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup
from recipes.benchmark.config import BenchmarkConfig
from recipes.benchmark.repeated import RepeatedLearner
from recipes.benchmark.session import TokenCount
from recipes.benchmark.tandem_child import count_work
from recipes.benchmark.workload import make_image
from rl.config import LearnerConfig
from rl.learner import Learner, TrainGroup
from rl.prompts import PromptMaker
from rollouts.modes import ShortMode
from tests.base_model.vlm.small import shared
from tests.rl.test_media import row

GROUP, LENGTH = 4, 3


def _groups(maker: PromptMaker) -> list[TrainGroup]:
    rows = [row(index, [make_image(120, index), make_image(200, 9 + index)]) for index in range(2)]
    responses = [[5 + number] * LENGTH for number in range(GROUP)]
    return [
        TrainGroup(
            tokens=TokenGroup(prompt=maker.prompt(each, ShortMode()).ids, responses=responses),
            advantages_G=(1.0, -1.0, 0.5, 0.0),
            engine_logprobs=((-1.0,) * LENGTH,) * GROUP,
            media=maker.inputs(each, ShortMode()),
        )
        for each in rows
    ]


def test_views_and_tokens_are_computed_once_per_prompt_and_the_update_is_the_same(tmp_path: Path) -> None:
    model, processor = shared()
    model.save_pretrained(tmp_path)
    groups = _groups(PromptMaker(processor))
    prompt = len(groups[0].tokens.prompt)
    views = len(groups[0].media()["pixel_values"][0])
    assert views > 2
    assert len(groups[1].tokens.prompt) == prompt
    counts, metrics, weights = [], [], []
    for kind in (Learner, RepeatedLearner):
        packed, count = load_packed(tmp_path), TokenCount()
        count_work(count, packed)
        learner = kind(packed, LearnerConfig(learning_rate=1e-3, precision="float32"), total_steps=1)
        metrics.append(learner.update(groups))
        counts.append(count.to_dict())
        weights.append(learner.weights())
    shared_work, repeated_work = counts
    assert shared_work["views"] == 2 * views
    assert shared_work["positions"] == 2 * (prompt + GROUP * LENGTH)
    assert repeated_work["views"] == 2 * GROUP * views
    assert repeated_work["positions"] == 2 * GROUP * (prompt + LENGTH)
    assert metrics[0]["grad_norm"] == pytest.approx(metrics[1]["grad_norm"], rel=1e-3)
    for name, tensor in weights[0].items():
        assert float((tensor - weights[1][name]).abs().mean()) < 1e-4, name


def test_images_are_not_compared_with_a_library_that_gets_none() -> None:
    with pytest.raises(ValueError, match="set peer to repeated or none"):
        BenchmarkConfig(images=1)
    assert BenchmarkConfig(images=2, peer="repeated").images == 2
