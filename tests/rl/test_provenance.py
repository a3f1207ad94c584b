"""The commit that is written down is the one of this code, in a real repository."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import rl.provenance


def copy_of_the_module(directory: Path) -> ModuleType:
    copied = shutil.copy(rl.provenance.__file__, directory / "provenance.py")
    spec = importlib.util.spec_from_file_location("copied_provenance", copied)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_and_whether_the_code_differs_from_it(tmp_path: Path) -> None:
    module = copy_of_the_module(tmp_path)
    assert module.git_state() is None  # no repository
    git(tmp_path, "init", "--quiet")
    (tmp_path / "other").write_text("1")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "--quiet", "--message", "other")
    assert module.git_state() is None  # somebody else's repository: this file is not tracked in it
    git(tmp_path, "add", "provenance.py")
    git(tmp_path, "commit", "--quiet", "--message", "code")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert module.git_state() == {"commit": commit, "dirty": False}
    (tmp_path / "note").write_text("untracked files do not count")
    assert module.git_state() == {"commit": commit, "dirty": False}
    (tmp_path / "other").write_text("2")
    assert module.git_state() == {"commit": commit, "dirty": True}


def test_a_missing_program_is_unknown_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert rl.provenance.git_state() is None
    assert rl.provenance.gpu_names() == []
