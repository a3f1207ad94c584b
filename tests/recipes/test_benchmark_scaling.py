"""The scaling curves: the law found in made-up points, and the counted work of real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recipes.benchmark.scaling import ScalingConfig, law_lines, points
from recipes.benchmark.scaling_chart import draw_scaling
from recipes.benchmark.scaling_law import TERMS, fit_law, nonnegative_fit, predicted
from recipes.benchmark.scaling_points import Bench

SMALL = ScalingConfig(
    group_sizes=[2, 6],
    prompts=[9, 30],
    responses=[4, 7],
    images=[0, 2],
    widths=[128],
    group_size=3,
    prompt=10,
    response=5,
    width=128,
    vocabulary=600,
    repeats=1,
    precision="float32",
)
TRUE = {"step": 0.02, "tokens": 7e-5, "positions": 5e-5, "scores": 1e-7, "patches": 6e-5, "reads": 0.0}


def _made_up(law: dict[str, float]) -> list[dict[str, Any]]:
    """Points of the default curves that follow a law exactly; 100 patches an image of 16 tokens, 1 ms per Mflop."""
    made = []
    for point in points(ScalingConfig()):
        group, prompt, response = point["group_size"], point["prompt"] + 16 * point["images"], point["response"]
        counts: dict[str, float] = {
            "tokens": 2 * (prompt + group * response),
            "positions": 2 * group * response,
            "scores": 2 * (prompt**2 + group * response * (prompt + response)),
            "patches": 200 * point["images"],
            "reads": 2 * group * prompt,
            "repeated_tokens": 2 * group * (prompt + response),
            "repeated_positions": 2 * group * response,
            "repeated_scores": 2 * group * (prompt + response) ** 2,
            "repeated_patches": 200 * group * point["images"],
            "repeated_reads": 0,
            "flop": 1e9 * point["width"],
        }
        seconds = predicted(counts, law) if point["axis"] != "width" else 0.01 + counts["flop"] / 2e11
        made.append({**point, **counts, "cpu_seconds": seconds})
    middle = next(point for point in made if point["axis"] == "group_size" and point["group_size"] == 8)
    for point in made:  # the middle stands on the axis of widths too, where this made-up law differs
        if point["axis"] == "width" and point["width"] == 256:
            point["cpu_seconds"] = middle["cpu_seconds"]
    return made


def test_the_law_of_made_up_points_is_found() -> None:
    law = fit_law(_made_up(TRUE), 256)
    assert law["coefficients"] == pytest.approx(TRUE, rel=1e-6, abs=1e-12)
    assert law["worst"] < 1e-9
    assert law["reads_share"] == 0.0
    assert "adds 0.0% of its prompt's own cost" in "\n".join(law_lines(law))


def test_a_cost_per_prompt_token_and_response_would_be_seen() -> None:
    law = fit_law(_made_up({**TRUE, "reads": 7e-6}), 256)
    assert law["reads_share"] == pytest.approx(0.1)


def test_the_cost_of_arithmetic_comes_from_the_widths() -> None:
    made = [point for point in _made_up(TRUE) if point["width"] != 256 or point["axis"] != "width"]
    size = fit_law(made, 256)["size"]
    assert (size["fixed"], size["gflops"]) == (pytest.approx(0.01), pytest.approx(200.0))
    assert fit_law([point for point in made if point["axis"] != "width"], 256)["size"] is None


def test_a_repeated_prompt_is_predicted_from_the_same_law() -> None:
    point = next(p for p in _made_up(TRUE) if p["axis"] == "prompt" and p["prompt"] == 512)
    expected = 0.02 + 7e-5 * 2 * 8 * 544 + 5e-5 * 512 + 1e-7 * 2 * 8 * 544**2
    assert predicted(point, TRUE, "repeated_") == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_fit_meets_the_conditions_of_the_optimum(seed: int) -> None:
    """Karush-Kuhn-Tucker: x >= 0, gradient >= 0, and one of the two is 0 for every term."""
    rng = np.random.default_rng(seed)
    features, target = rng.normal(size=(12, 4)), rng.normal(size=12)
    found = nonnegative_fit(features, target)
    gradient = features.T @ (features @ found - target)
    assert (found >= 0).all()
    assert (gradient > -1e-9).all()
    assert np.abs(found * gradient).max() < 1e-9


def test_one_axis_moves_at_a_time() -> None:
    made = points(SMALL)
    assert len(made) == 2 * 4 + 1
    middle = {"group_size": 3, "prompt": 10, "response": 5, "images": 0, "width": 128}
    for point in made:
        assert {name for name in middle if point[name] != middle[name]} <= {point["axis"]}


def test_texts_longer_than_the_model_are_refused() -> None:
    with pytest.raises(ValueError, match="of 10256 tokens and the model takes 8192"):
        ScalingConfig(prompts=[10_000], responses=[256], images=[])


def test_real_points_count_the_work_of_the_update(tmp_path: Path) -> None:
    bench = Bench(SMALL, threads=1)
    measured = [bench.measure(point) for point in points(SMALL)]
    for point in (p for p in measured if not p["images"]):
        group, prompt, response = point["group_size"], point["prompt"], point["response"]
        assert point["tokens"] == 2 * (prompt + group * response)
        assert point["positions"] == 2 * group * response
        assert point["scores"] == 2 * (prompt**2 + group * response * (prompt + response))
        assert point["repeated_tokens"] == 2 * group * (prompt + response)
        assert point["reads"] == 2 * group * prompt
        assert point["cpu_seconds"] > 0
    (pictures,) = (p for p in measured if p["images"])
    assert pictures["patches"] == 2 * 2 * 64  # two prompts, two images of 8 x 8 patches
    assert pictures["repeated_patches"] == 3 * pictures["patches"]
    assert pictures["tokens"] > 2 * (10 + 2 * 16 + 3 * 5)  # 16 tokens an image, and what stands around them
    law = fit_law(measured, 128)
    assert set(law["coefficients"]) == set(TERMS)
    draw_scaling(measured, law, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 800
