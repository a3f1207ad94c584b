"""The demo's stages: every command is one that the recipes take, and what is done is not done again."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recipes import demo, recipe_stages
from recipes.demo import DemoConfig, main, stages


@pytest.mark.parametrize("small", [False, True])
def test_every_stage_is_a_valid_call(tmp_path: Path, small: bool) -> None:
    sizes = {}
    for stage in stages(tmp_path, small):
        done = subprocess.run(
            [sys.executable, "-m", *stage.arguments, "--dry-run"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        config = yaml.safe_load(done.stdout)
        sizes[stage.title] = config["task"]["size"]
        if "GRPO" in stage.title:
            assert config["model"]["path"] == str(tmp_path / "warmup")
            assert stage.title.startswith(config["modes"]["mode"])
    assert len(sizes) == 5
    assert len(set(sizes.values())) == 1, "all stages draw from the same rows"


def test_finished_stages_are_left_alone_and_broken_ones_resumed(tmp_path: Path, monkeypatch) -> None:
    calls: list[list[str]] = []
    for module in (demo, recipe_stages):
        monkeypatch.setattr(module, "call", lambda arguments: calls.append(list(arguments)) or 0)
    todo = stages(tmp_path, small=True)
    for stage in todo[:3]:
        stage.run.mkdir(exist_ok=True)
        stage.product.write_text("{}")
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "config.yaml").write_text("")
    assert main(DemoConfig(out=tmp_path, small=True)) == 0
    assert [call[0] for call in calls] == ["recipes.hybrid_grpo", "recipes.hybrid_grpo", "recipes.compare"]
    assert calls[0][-2:] == ["--resume", "true"]
    assert "--resume" not in calls[1]
    calls.clear()
    monkeypatch.setattr(recipe_stages, "call", lambda arguments: calls.append(list(arguments)) or 3)
    assert main(DemoConfig(out=tmp_path, small=True)) == 3
    assert len(calls) == 1, "a stage that fails ends the demo"
