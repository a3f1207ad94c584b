"""The upgrade from 2D to 3D: images are as before, clips come in packages, and the measurement runs to its table."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.greedy import answer_of, same_answer
from recipes.stage_config import StagedConfig
from recipes.stage_data import StageData
from recipes.video_upgrade import VideoUpgradeConfig, main, summary
from rollouts.modes import ModesConfig
from tests.base_model.vlm.small import tiny

CLIPS = {"kind": "rendered", "render": {"mixture": {"clip": 1}, "side": [112, 112], "short_share": 1.0}}
SCENES = {"kind": "rendered", "render": {"mixture": {"scene": 1}, "side": [112, 200]}}
STAGE: dict[str, Any] = {"train": ["resampler", "language model"], "steps": 1, "tokens_per_batch": 600}
FRAMES = STAGE | {"name": "frames", "mixture": {"weights": {"clips": 1}}}
PACKAGES = FRAMES | {"name": "packages", "random_video": True, "video": {"package": None}}


def _examples(processor: Any, source: str, stage: dict[str, Any]) -> list[Any]:
    stages = [stage | {"mixture": {"weights": {source: 1}}}]
    sources = {"clips": CLIPS, "scenes": SCENES}
    config = StagedConfig.model_validate({"run": "r", "model": {"path": "m"}, "sources": sources, "stages": stages})
    sample = StageData(config, 0, processor).loader(None).phases[0].sample
    return [sample(number).example for number in range(6)]


def test_image_results_are_bit_equal_before_and_after_the_switch() -> None:
    model, processor = tiny()
    before, after = (_examples(processor, "scenes", stage) for stage in (FRAMES, PACKAGES))
    for old, new in zip(before, after, strict=True):
        assert old.ids == new.ids
        with torch.no_grad():
            logits = [model(input_ids=torch.tensor([each.ids]), **each.inputs).logits for each in (old, new)]
        assert torch.equal(*logits)


def test_the_switch_puts_frames_into_packages_of_random_sizes() -> None:
    _, processor = tiny()
    before, after = (_examples(processor, "clips", stage) for stage in (FRAMES, PACKAGES))
    sizes = [[{len(package) for package in each.inputs["temporal_ids"][0]} for each in run] for run in (before, after)]
    assert sizes[0] == [{1}] * 6
    assert len({max(each) for each in sizes[1]}) > 2
    assert sum(len(each.ids) for each in after) < sum(len(each.ids) for each in before)


def test_the_summary_gives_paired_gains_with_intervals() -> None:
    results = [{"before, packages of 6": a, "after, packages of 6": b} for a, b in ((0.1, 0.3), (0.2, 0.4), (0.3, 0.5))]
    table = summary(results)
    assert table["gain, packages of 6"] == {"mean": pytest.approx(0.2), "interval": pytest.approx(0, abs=1e-12)}
    # 4.303 x 0.1 / sqrt(3)
    assert table["before, packages of 6"]["interval"] == pytest.approx(0.2483, abs=1e-3)
    assert math.isnan(summary(results[:1])["after, packages of 6"]["interval"])


def test_the_answer_of_a_thinking_mode_follows_the_thinking() -> None:
    modes = ModesConfig()
    assert answer_of("One after another: top left red square.\n</think>\n\nred", modes.long).strip() == "red"
    assert answer_of("One after another: top left", modes.long) == ""
    assert answer_of("red", modes.short) == "red"


def test_answers_are_equal_but_for_case_and_a_full_stop() -> None:
    assert same_answer(" Left.", "left")
    assert not same_answer("left side", "left")


@pytest.mark.slow
def test_the_measurement_runs_and_resumes(tmp_path: Path) -> None:
    model, processor = tiny()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    config = VideoUpgradeConfig.model_validate(
        {
            "run": tmp_path / "run",
            "model": {"path": str(tmp_path / "model")},
            "sources": {"clips": CLIPS},
            "stages": [FRAMES, PACKAGES],
            "evaluation": {"samples": 0},
            "window": 4,
            "seeds": [0, 1],
            "questions": 2,
        }
    )
    main(config)
    written = json.loads((tmp_path / "run/upgrade.json").read_text())
    assert set(written["summary"]) >= {"before, packages of 1", "after, packages of 6", "gain, packages of 6"}
    main(config)  # finished runs are evaluated again, not trained again
    assert json.loads((tmp_path / "run/upgrade.json").read_text()) == written
