"""The template of a reward: its files work as they are written, with the commands that are printed."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.audit_reward import main as audit
from recipes.new_reward import main
from rewards.reward_file import read_reward_file

ROOT = Path(__file__).parent.parent.parent


def test_the_printed_commands_succeed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["mine/my_reward.py"]) == 0
    shown = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "my_reward.py",
        "my_reward.yaml",
        "my_reward_cases.jsonl",
        "test_my_reward.py",
    ]
    [test] = [line.partition("python -m ")[2] for line in shown.splitlines() if line.startswith("2. Test")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *shlex.split(test), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout
    [line] = [line for line in shown.splitlines() if line.startswith("3. Audit")]
    assert audit([*shlex.split(line.partition("audit_reward ")[2]), "--min-accuracy", "1", "--quiet"]) == 0
    [line] = [line for line in shown.splitlines() if line.startswith("4. Train")]
    words = line.split()
    assert words[-2:] == ["--evaluation.metric", "my_reward"]
    with read_reward_file(words[words.index("--rewards") + 1]).build([]) as rewards:
        assert rewards.names == ["my_reward", "format", "repetition"]
        rewards.check_gold([{"reference": "7"}, {"reference": "Oslo"}])


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "test_my_reward.py").write_text("mine")
    assert main([str(tmp_path / "my_reward.py")]) == 2
    assert "test_my_reward.py exists, and nothing is overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_my_reward.py"]
    assert (tmp_path / "test_my_reward.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-reward.py", "cannot be imported"),
        ("my_reward", "cannot be imported"),
        ("class.py", "cannot be imported"),
        ("math.py", "'math' is the name of a built-in reward"),
        ("rewards.py", "'rewards' is the name of a package of Tandem"),
        ("json.py", "'json' is the name of a module of Python"),
    ],
)
def test_names_that_are_refused(tmp_path, capsys, name, message):
    assert main([str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
