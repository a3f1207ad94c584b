"""`rewards:` of a recipe as a list or as a reward file, with the same result."""

from pathlib import Path

import pytest

from recipes.audit_reward import main as audit
from recipes.cli import load_config
from recipes.evaluate import EvaluateConfig
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.reward_keys import reward_specs
from rewards import RewardError
from rewards.spec import RewardSpec
from rollouts.modes import LongMode, ModesConfig

BASE = ["--model.path", "m", "--task.source.kind", "files", "--task.source.train", "t.jsonl"]


def write(folder: Path, text: str) -> Path:
    path = folder / "my_rewards.yaml"
    path.write_text(text)
    (folder / "mine.py").write_text("def brief(answer, limit=3):\n    return float(len(answer) < limit)\n")
    return path


@pytest.mark.parametrize("config_class", [HybridGrpoConfig, EvaluateConfig])
def test_a_list_and_a_file(tmp_path, config_class):
    write(tmp_path, "rewards: [{name: mine.py:brief, weight: 0.5}, format]")
    listed = load_config(config_class, [*BASE, "--rewards", "[{name: mine.py:brief, weight: 0.5}, format]"])
    named = load_config(config_class, [*BASE, "--rewards", "my_rewards.yaml"])
    assert named.rewards == Path("my_rewards.yaml")
    assert reward_specs(listed.rewards, listed.modes, tmp_path) == listed.rewards
    of_file = reward_specs(named.rewards, named.modes, tmp_path)
    assert of_file == [RewardSpec(name=f"{tmp_path}/mine.py:brief", weight=0.5), RewardSpec(name="format")]
    changed = named.model_copy(update={"rewards": of_file}).model_dump(mode="json")
    assert config_class.model_validate(changed).rewards == of_file  # what the run directory keeps


def test_found_beside_the_yaml_then_from_here(tmp_path, monkeypatch):
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir()
    here.mkdir()
    write(here, "rewards: [math]")
    monkeypatch.chdir(here)
    assert reward_specs(Path("my_rewards.yaml"), None, beside)[0].name == "math"
    write(beside, "rewards: [format]")
    assert reward_specs(Path("my_rewards.yaml"), None, beside)[0].name == "format"
    with pytest.raises(RewardError, match=r"no_file\.yaml does not exist"):
        reward_specs(Path("no_file.yaml"), None, beside)


def test_a_mistake_in_the_list_is_named_as_one_of_the_list():
    with pytest.raises(ValueError, match=r"unknown key 'rewards\.0\.wieght'"):
        load_config(HybridGrpoConfig, [*BASE, "--rewards", "[{name: format, wieght: 1}]"])
    with pytest.raises(ValueError, match=r"'rewards' is 3 .* must be a list"):
        load_config(HybridGrpoConfig, [*BASE, "--rewards", "3"])


def test_modes_that_contradict_the_recipe(tmp_path):
    path = write(tmp_path, "rewards: [format]\nmodes: {long: {thinks: true, think_close: </t>}, other: {}}")
    with pytest.raises(RewardError, match=r"mode 'long' has think_close '</t>' in the reward file .* Make them equal"):
        reward_specs(path, ModesConfig(), None)
    long = LongMode(think_close="</t>")
    assert reward_specs(path, ModesConfig(long=long), None) == [RewardSpec(name="format")]
    assert reward_specs(path, ModesConfig(mode="short"), None) == [RewardSpec(name="format")]


def test_the_audit_takes_a_reward_of_the_file(tmp_path, capsys):
    path = write(tmp_path, "rewards: [{name: mine.py:brief, label: short_one, args: {limit: 9}}, format]")
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"response": "12345678", "expected": true}\n{"response": "123456789", "expected": false}\n')
    call = ["--rewards-file", str(path), "--cases", str(cases), "--quiet", "--min-accuracy", "1"]
    assert audit([*call, "--reward", "short_one"]) == 0
    assert audit([*call, "--reward", "shortone"]) == 2
    assert "has no reward 'shortone'. Did you mean 'short_one'? It has short_one, format." in capsys.readouterr().err
    assert audit([*call, "--reward", "short_one", "--args", '{"limit": 2}']) == 2
    assert "exclude each other" in capsys.readouterr().err
