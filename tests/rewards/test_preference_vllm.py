"""The reward model in vLLM's pooling runner, beside transformers."""

import os
from pathlib import Path

import pytest

from rewards import RewardError
from rewards.preference import Preference
from rewards.preference_vllm import VllmPreferenceModel
from tests.tiny import make_tiny_reward_model


@pytest.mark.slow
def test_vllm_gives_the_scores_of_transformers_and_ends_with_the_reward(tmp_path: Path) -> None:
    folder = make_tiny_reward_model(tmp_path / "judge")
    turns = [[{"role": "user", "content": "What is 12 + 3? " * n}] for n in (1, 2, 9)]
    answers = ["The answer is 15.", "", "<|pad|>15"]
    options = {"model": folder, "dtype": "float32", "max_length": 512}
    expected = Preference(device="cpu", **options).score(turns, answers)
    judge = Preference(backend="vllm", **options)
    try:
        assert judge.score(turns, answers) == pytest.approx(expected, abs=1e-3)
        again = judge.score(turns[:1], answers[:1])
        assert again == pytest.approx(expected[:1], abs=1e-3)
        assert isinstance(judge._scorer, VllmPreferenceModel)
        process = judge._scorer._process
        assert process is not None
        pid = process._process.pid
    finally:
        judge.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.slow
def test_a_model_that_vllm_cannot_load_is_reported(tmp_path: Path) -> None:
    folder = make_tiny_reward_model(tmp_path / "judge")
    judge = Preference(model=folder, backend="vllm", dtype="float32", max_length=512)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(RewardError, match="the reward model's vLLM failed"):
        judge.score([[{"role": "user", "content": "Hi"}]], ["a"])
    judge.close()
