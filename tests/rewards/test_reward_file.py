"""The reward file: what it says, from where, and what is refused."""

import pytest

from rewards import RewardError
from rewards.reward_file import read_reward_file


def test_files_are_found_from_its_own_folder(tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "mine.py").write_text("def f(answer):\n    return 1.0\n")
    (folder / "r.yaml").write_text("rewards: [mine.py:f, {name: format, weight: 0.5}]\n")
    (tmp_path / "mine.py").write_text("def f(answer):\n    return 2.0\n")
    monkeypatch.chdir(tmp_path)
    found = read_reward_file("there/r.yaml")
    assert [item.name for item in found.rewards] == [f"{folder}/mine.py:f", "format"]
    assert found.modes["long"].thinks
    monkeypatch.chdir("/")
    with found.build() as rewards:
        sample = {"answer": "a", "response": "a", "mode": "short"}
        assert rewards.score([[sample]])[0][0].total == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("rewards: [a", "is not valid YAML"),
        ("- accuracy", "must be a mapping with the key `rewards`, got list"),
        ("", "got NoneType"),
        ("{}", "the key 'rewards' is missing"),
        ("rewards: []", "'rewards'"),
        ("rewards: [{name: format, wieght: 1}]", "unknown key 'rewards.0.wieght'. Did you mean 'weight'"),
        ("reward: [accuracy]\nrewards: [accuracy]", "unknown key 'reward'. Did you mean 'rewards'"),
        ("rewards: [accuracy]\nmodes: {long: {think: true}}", "unknown key 'modes.long.think'. Did you mean 'thinks'"),
        ("rewards: [{name: format, weight: much}]", "'rewards.0.weight': .*number.*got 'much'"),
        ("rewards: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("a: " + "x" * 1_100_000, "is larger than"),
    ],
)
def test_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RewardError, match=message) as error:
        read_reward_file(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
