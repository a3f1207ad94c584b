"""The command line of the recipes: layers, errors in one sentence, help, exit status."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import load_config, run_recipe, to_yaml
from recipes.yaml_config import dump, merge, parse, read_mapping

ROOT = Path(__file__).parents[2]


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Reward(_Base):
    name: str
    """Registered name of the reward."""
    weight: float = 1.0
    """Factor in the total."""
    args: dict[str, Any] = {}
    """Passed to the reward."""


class Trainer(_Base):
    lr: float = Field(1e-6, gt=0)
    """Learning rate."""
    steps: int = 10
    """Optimizer steps."""


class Config(_Base):
    model: Path
    """Model folder."""
    mode: Literal["short", "long", "hybrid"] = "hybrid"
    """How prompts are answered."""
    trainer: Trainer = Trainer()
    """How it learns."""
    rewards: list[str | Reward] = ["math"]
    """Rewards of the run."""
    resume: bool = False
    """Continue the run."""
    name: str | None = None
    """Name of the run."""


class Many(_Base):
    runs: list[Path] = []
    """Run folders."""
    out: Path | None = None
    """Where to write."""
    json_path: Path | None = None
    """Figures as JSON."""


def _run(argv: list[str], main=lambda config: None, config_class: type[BaseModel] = Config, **kwargs) -> int:
    return run_recipe(main, config_class, argv=argv, **kwargs)


def _refusal(capsys, argv: list[str], **kwargs) -> str:
    """The error lines of a command line that must be refused."""
    assert _run(argv, main=lambda config: pytest.fail("main was called"), **kwargs) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("error: ") for line in err.splitlines())
    return err


# ---- layers ----


def test_layers_lie_above_one_another(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: a\ntrainer: {lr: 1e-5, steps: 5}\nname: from recipe\n")
    (tmp_path / "base.yaml").write_text("trainer: {steps: 6}\nname: from base\nmode: short\n")
    (tmp_path / "user.yaml").write_text("base: base.yaml\nname: from user\n")
    argv = [str(tmp_path / "user.yaml"), "--mode", "long", "--trainer.lr=2e-5"]
    config = load_config(Config, argv, default_config=tmp_path / "recipe.yaml")
    assert config == Config(model=Path("a"), mode="long", trainer=Trainer(lr=2e-5, steps=6), name="from user")


def test_values_have_the_type_of_their_key() -> None:
    argv = [
        "--model",
        "123",
        "--name",
        "007",
        "--trainer.lr",
        "1e-3",
        "--rewards",
        "[math, {name: x, weight: 2}]",
        "--resume",
    ]
    config = load_config(Config, argv)
    assert (config.model, config.name, config.trainer.lr, config.resume) == (Path("123"), "007", 1e-3, True)
    assert config.rewards == ["math", Reward(name="x", weight=2.0)]
    text = ["--model", "m", "--name", "a: b # c", "--resume", "no"]
    assert load_config(Config, text).name == "a: b # c"
    assert load_config(Config, text).resume is False
    assert load_config(Config, ["--model", "m", "--name", "null"]).name is None
    assert load_config(Config, ["--model", "m", "--name", "'null'"]).name == "null"


def test_flag_does_not_swallow_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: m\n")
    assert load_config(Config, ["--resume", str(tmp_path / "c.yaml")]) == Config(model=Path("m"), resume=True)


def test_one_item_of_a_list_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: m\nrewards: [math, {name: x}]\n")
    config = load_config(Config, [str(tmp_path / "c.yaml"), "--rewards.1.weight", "3"])
    assert config.rewards == ["math", Reward(name="x", weight=3.0)]
    with pytest.raises(ValueError, match="position 2 is past the end of a list of 2 items"):
        load_config(Config, [str(tmp_path / "c.yaml"), "--rewards.2.weight", "3"])


def test_another_kind_replaces_the_mapping_whole() -> None:
    assert merge({"task": {"kind": "file", "path": "x"}}, {"task": {"kind": "hub"}}) == {"task": {"kind": "hub"}}
    assert merge({"task": {"kind": "file", "path": "x"}}, {"task": {"kind": "file"}}) == {
        "task": {"kind": "file", "path": "x"}
    }


def test_positionals_and_aliases() -> None:
    seen: list[Many] = []
    argv = ["a", "b", "--out", "o", "--json", "j.json", "--", "--odd"]
    assert run_recipe(seen.append, Many, positional="runs", aliases={"json": "json_path"}, argv=argv) == 0
    assert seen == [Many(runs=[Path("a"), Path("b"), Path("--odd")], out=Path("o"), json_path=Path("j.json"))]


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
data = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(st.dictionaries(st.text(max_size=5), data, max_size=4))
def test_yaml_round_trip(values: dict) -> None:
    assert parse(dump(values)) == values
    assert yaml.safe_load(dump(values)) == values, "an ordinary YAML reader must see the same"


def test_resolved_config_reads_back(tmp_path: Path) -> None:
    config = Config(
        model=Path("1e-3"), name="no", trainer=Trainer(lr=3e-7), rewards=[Reward(name="1.0", args={"t": 1e-6})]
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(Config, [str(tmp_path / "config.yaml")]) == config


# ---- refusals ----


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["missing required key 'model' (path)", "--model VALUE"]),
        (["--lr", "1"], ["unknown key 'lr'", "did you mean 'trainer.lr'?"]),
        (["--model", "m", "--trainer", "{stepz: 3}"], ["unknown key 'trainer.stepz'", "did you mean 'trainer.steps'?"]),
        (["--model", "m", "--trainer.steps", "1.5"], ["'trainer.steps' is 1.5", "must be a whole number"]),
        (["--model", "m", "--trainer.steps", "abc"], ["'trainer.steps' is 'abc'", "must be a whole number"]),
        (["--model", "m", "--trainer.lr", "-1"], ["'trainer.lr' is -1", "greater than 0"]),
        (["--model", "m", "--trainer", "3"], ["'trainer' is 3", "a mapping with the keys lr, steps"]),
        (
            ["--model", "m", "--mode", "hybird"],
            ["'mode' is 'hybird'", "'short', 'long', 'hybrid'", "did you mean 'hybrid'?"],
        ),
        (
            ["--model", "m", "--rewards", "[{name: x, wieght: 1}]"],
            ["unknown key 'rewards.0.wieght'", "rewards.N.weight"],
        ),
        (["--model", "m", "--rewards", "[3]"], ["'rewards.0' is 3", "text or a mapping"]),
        (["--model", "m", "--rewards", "[a"], ["--rewards '[a' is not a YAML value"]),
        (["--model"], ["--model needs a value"]),
        (["-x"], ["unknown option '-x'"]),
        (["a.yaml", "b.yaml"], ["one YAML file is taken, and 2 arguments were given"]),
        (["absent.yaml"], ["absent.yaml: there is no such file"]),
    ],
)
def test_refused_with_a_sentence(capsys, argv: list[str], words: list[str]) -> None:
    errors = _refusal(capsys, argv)
    assert len(errors.splitlines()) == 1
    assert all(word in errors for word in words), errors


def test_every_error_gets_its_own_line(capsys, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("trainer: {lr: fast, epochs: 2}\n")
    lines = _refusal(capsys, [str(path)]).splitlines()
    assert len(lines) == 3
    assert f"'trainer.lr' is 'fast' (from {path}), and must be a number." in lines[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: m\nmodel: n\n", "line 2, column 1: the key 'model' occurs twice"),
        ("model: m\ntrainer:\n  lr: [1\n", "line 4"),
        ("model: m\n\tname: x\n", "line 2"),
        ("- a\n- b\n", "holds a list, and must hold a mapping"),
        ("1: a\n", "a key must be text"),
        ("model: !!python/object/apply:os.system [ls]\n", "line 1"),
        ("base: c.yaml\n", "comes back to itself"),
        ("base: [x]\n", "must be the path of another YAML file"),
        ("base: other.yaml\n", "its `base` 'other.yaml' is not there"),
        ("model: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_bad_yaml_is_placed(capsys, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    errors = _refusal(capsys, [str(tmp_path / "c.yaml")])
    assert words in errors
    assert str(tmp_path) in errors


def test_directory_and_binary_are_refused(capsys, tmp_path: Path) -> None:
    assert "is a directory" in _refusal(capsys, [str(tmp_path)])
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in _refusal(capsys, [str(tmp_path / "b.yaml")])


def test_yaml_1_2_scalars(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: no\nb: 1e-6\nc: 12:30\nd: 2024-01-01\ne: 010\nf: .inf\ng: ~\nh: 1_000\n")
    assert read_mapping(tmp_path / "c.yaml") == {
        "a": "no", "b": 1e-6, "c": "12:30", "d": "2024-01-01", "e": "010", "f": float("inf"), "g": None, "h": 1000
    }  # fmt: skip


# ---- help, dry run, exit status ----


def test_help_lists_every_key_with_the_recipes_default(capsys, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("trainer: {steps: 77}\n")
    assert _run(["--help"], doc="Trains.", default_config=tmp_path / "recipe.yaml") == 0
    text = capsys.readouterr().out
    assert "\033" not in text
    for line in (
        "Trains.",
        "  --model  path  (required)\n      Model folder.",
        "  --trainer.steps  int  (default 77)\n      Optimizer steps.",
        "  --mode  short|long|hybrid  (default hybrid)",
        "  --rewards.N.weight  float  (default 1.0)\n      Factor in the total.",
    ):
        assert line in text


def test_dry_run_prints_the_config_and_stops(capsys) -> None:
    assert _run(["--model", "m", "--dry-run"], main=lambda config: pytest.fail("main was called")) == 0
    assert parse(capsys.readouterr().out) == Config(model=Path("m")).model_dump(mode="json")


def _raise(error: BaseException):
    def main(config: Config) -> None:
        raise error

    return main


def test_errors_of_main(capsys, monkeypatch) -> None:
    monkeypatch.delenv("TANDEM_DEBUG", raising=False)
    assert _run(["--model", "m"], main=_raise(ValueError("the dataset is empty."))) == 2
    assert capsys.readouterr().err == "error: the dataset is empty.\n"
    assert _run(["--model", "m"], main=_raise(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted.\n"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/metrics.jsonl")
    assert _run(["--model", "m"], main=_raise(full)) == 2
    assert "No space left on device (runs/x/metrics.jsonl)" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        _run(["--model", "m"], main=_raise(ZeroDivisionError()))
    monkeypatch.setenv("TANDEM_DEBUG", "1")
    with pytest.raises(ValueError, match="empty"):
        _run(["--model", "m"], main=_raise(ValueError("empty")))


def test_main_may_ask_for_the_folder_of_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: m\n")
    seen: list[Path | None] = []

    def main(config: Config, base_dir: Path | None) -> None:
        seen.append(base_dir)

    _run([str(tmp_path / "c.yaml")], main=main)
    _run(["--model", "m"], main=main)
    assert seen == [tmp_path.resolve(), None]


def test_status_of_main() -> None:
    assert _run(["--model", "m"], main=lambda config: 3) == 3
    assert _run(["--model", "m"], main=lambda config: None) == 0


def test_import_is_light() -> None:
    heavy = ("torch", "transformers", "vllm", "numpy", "pandas", "datasets", "matplotlib")
    code = f"import recipes.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_shipped_base_is_found_by_its_name_from_anywhere(tmp_path):
    from recipes.yaml_config import read_mapping

    (tmp_path / "mine.yaml").write_text("base: hybrid_grpo.yaml\ngroup_size: 3\n")
    values = read_mapping(tmp_path / "mine.yaml")
    assert values["group_size"] == 3
    assert values["trainer"]["prompts_per_step"] > 0
    (tmp_path / "hybrid_grpo.yaml").write_text("seed: 5\n")  # one beside the file goes first
    assert read_mapping(tmp_path / "mine.yaml") == {"seed": 5, "group_size": 3}
