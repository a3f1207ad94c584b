"""The recipe chooses by the two models' own log-probs, and refuses rows that are no candidates."""

import json
from pathlib import Path
from typing import Any

import pytest

from recipes.best_of_n import BestOfNConfig, main
from rollouts.modes import ModesConfig
from tests.recipes.preference_pairs import write_pairs
from tests.recipes.runs import records
from tests.tiny import make_tiny_model


def config(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> BestOfNConfig:
    write_pairs(folder / "candidates.jsonl", rows)
    fields = {
        "model": {"path": str(folder / "policy")},
        "reference": {"path": str(folder / "reference")},
        "candidates": folder / "candidates.jsonl",
        "out": folder / "best.jsonl",
        "micro_batch_tokens": 60,
        **changes,
    }
    return BestOfNConfig.model_validate(fields)


def test_the_choice_follows_the_rewards(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "policy")
    make_tiny_model(tmp_path / "reference", seed=1)
    turns = [{"role": "user", "content": "What is 3 + 4?"}]
    rows = [
        {"prompt": turns, "responses": ["The answer is 7.", "42", "7"], "id": 5},
        {"prompt": "What is 3 + 4?", "responses": ["7", "The answer is 7."]},
        {"prompt": "Hi", "responses": ["only one"]},
    ]
    main(config(tmp_path, rows))
    found = records(tmp_path / "best.jsonl")
    assert [len(record["rewards"]) for record in found] == [3, 2, 1]
    for record in found:
        assert record["rewards"][record["best"]] == max(record["rewards"])
        assert record["response"] == record["responses"][record["best"]]
    by_text = dict(zip(rows[0]["responses"], found[0]["rewards"], strict=True))
    assert found[1]["rewards"] == pytest.approx([by_text["7"], by_text["The answer is 7."]], abs=1e-5)
    assert found[0]["id"] == 5
    main(config(tmp_path, rows, model={"path": str(tmp_path / "reference")}))
    same = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert all(reward == 0.0 for record in same for reward in record["rewards"])  # a policy that is its reference


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p"}, "line 1 must have `responses`"),
        ({"prompt": "p", "responses": []}, "line 1 must have `responses`"),
        ({"prompt": "p", "responses": ["a", 1]}, "line 1 must have `responses`"),
        ({"prompt": "<image> and <image>?", "responses": ["a"], "images": ["x.png"]}, "line 1: .*2 places for images"),
        ({"responses": ["a"]}, "has no `prompt`"),
    ],
)
def test_rows_that_are_no_candidates_are_refused_before_anything_is_loaded(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        main(config(tmp_path, [row]))
    with pytest.raises(ValueError, match="is hybrid: set it"):
        main(config(tmp_path, [row], modes=ModesConfig(mode="hybrid")))
