"""What a training recipe refuses before it reads data or model: neither exists here, and neither is missed."""

import importlib
from pathlib import Path

import pytest

from recipes.cli import CONFIGS, run_recipe
from rl.run_directory import RunDirectory
from rollouts.engine import EngineConfig, VLLMEngine, check_block_size

CONFIG_CLASSES = {"hybrid_grpo": "HybridGrpoConfig", "sft": "SftConfig", "evaluate": "EvaluateConfig"}
NOWHERE = ["--task.source", "{kind: files, train: nowhere.jsonl}", "--model.path", "./nowhere"]


def refusal(capsys, recipe: str, *argv: str) -> str:
    """The error of a recipe run in this process."""
    module = importlib.import_module(f"recipes.{recipe}")
    config_class = getattr(module, CONFIG_CLASSES[recipe])
    options = {"default_config": CONFIGS / f"{recipe}.yaml", "argv": [*NOWHERE, *argv]}
    assert run_recipe(module.main, config_class, **options) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["hybrid_grpo", "sft"])
def test_the_run_directory_comes_first(recipe: str, tmp_path: Path, capsys) -> None:
    RunDirectory.create(tmp_path / "run", {"seed": 0}, resume=False).close()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("")
    assert "exists already: continue it with --resume" in refusal(capsys, recipe, "--run", str(tmp_path / "run"))
    error = refusal(capsys, recipe, "--run", str(tmp_path / "run"), "--resume", "true")
    assert "another configuration" in error
    assert len(error) < 500
    assert "is not a run" in refusal(capsys, recipe, "--run", str(tmp_path / "folder"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.txt"], "no lock is left there"
    assert "nowhere" in refusal(capsys, recipe, "--run", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("recipe", ["hybrid_grpo", "evaluate"])
def test_blocks_that_vllm_on_cpu_cannot_take(recipe: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = ["--run", str(tmp_path / "run")] if recipe == "hybrid_grpo" else []
    error = refusal(capsys, recipe, *run, "--engine.block_size", "48")
    assert "engine.block_size is 48, and there is no GPU here: vLLM on CPU takes multiples of 32; set 64" in error
    assert not (tmp_path / "run").exists()


def test_block_sizes_by_machine(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check_block_size(EngineConfig(block_size=64))
    with pytest.raises(ValueError, match="set 32"):
        VLLMEngine(tmp_path, EngineConfig(block_size=16))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_block_size(EngineConfig(block_size=48))
