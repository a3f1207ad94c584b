"""The comparison of runs: table, Markdown, CSV, JSON, plots, and runs that are missing, spoilt or unfinished."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.cli import run_recipe
from recipes.compare import CompareConfig, compare
from recipes.comparison_table import duration, rows, to_csv, to_json, to_markdown
from recipes.plots import accuracy_points, reward_names, short_count, smoothed
from recipes.run_records import load_run, load_runs
from tests.recipes.runs_factory import make_demo, make_run

ROOT = Path(__file__).parents[2]


def _main(*argv: object) -> int:
    return run_recipe(compare, CompareConfig, positional="runs", argv=[str(word) for word in argv])


def _write(path: Path, **files: str) -> Path:
    """A run directory with just these files (`config_yaml=...`)."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        stem, _, ending = name.rpartition("_")
        (path / f"{stem}.{ending}").write_text(text)
    return path


def test_json_has_the_figures(tmp_path: Path, capsys) -> None:
    paths = make_demo(tmp_path)
    assert _main(*paths, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert list(found) == ["runs"]
    assert [run["name"] for run in found["runs"]] == ["warmup", "short", "long", "hybrid"]
    warmup, hybrid = found["runs"][0], found["runs"][3]
    assert (warmup["mode"], warmup["rl_tokens"]) == ("none", 0)
    last = json.loads((paths[3] / "metrics.jsonl").read_text().splitlines()[-1])
    assert {key: hybrid[key] for key in ("name", "mode", "rl_tokens", "steps", "seconds")} == {
        "name": "hybrid",
        "mode": "hybrid",
        "rl_tokens": last["tokens/generated"],
        "steps": 30,
        "seconds": 1845.0,
    }
    assert set(hybrid) == {"name", "mode", "rl_tokens", "steps", "seconds", "eval"}
    assert list(hybrid["eval"]) == ["short", "long"]
    for figures in hybrid["eval"].values():
        assert set(figures) == {"n", "accuracy", "ci_low", "ci_high", "response_tokens"}
    assert (hybrid["eval"]["long"]["accuracy"], hybrid["eval"]["long"]["n"]) == (0.5, 400)
    for name in (
        "compare.md",
        "compare.csv",
        "report.html",
        "plots/accuracy.png",
        "plots/length.png",
        "plots/reward.png",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 300, name
    out = capsys.readouterr().out
    assert "24.0 [19.8, 28.2]" in out
    assert all(len(line) <= 150 for line in out.splitlines()[:-1])


def test_cells(tmp_path: Path) -> None:
    for name, mode, generated in (("w", "none", 5), ("l", "long", 4_400_000), ("h", "hybrid", 3_100_000)):
        path = make_run(tmp_path, name, mode, steps=3, accuracy={"short": 0.1, "long": 0.5})
        (path / "ledger.json").write_text(json.dumps({"total": {"generated": generated}}))
    runs = load_runs([tmp_path / name for name in ("w", "l", "h")])
    assert rows(runs)[0] == ["w", "none", "0", "-", "3", "3:04", "10.0 [7.1, 12.9]", "50.0 [45.1, 54.9]", "6.0", "48.0"]
    assert rows(runs)[1][2:4] == ["4.4M", "100 %"]
    assert rows(runs)[2][2:4] == ["3.1M", "70 %"], "the report gives 70.5 % of long-only"
    table = list(csv.DictReader(to_csv(runs).splitlines()))
    assert table[2]["run"] == "h"
    assert float(table[2]["share_of_long_only"]) == pytest.approx(0.7045, abs=1e-4)
    assert float(table[2]["long_accuracy"]) == 0.5
    assert table[0]["share_of_long_only"] == ""
    lines = to_markdown(runs).splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {11}


def test_two_long_runs_have_no_base(tmp_path: Path) -> None:
    runs = load_runs([make_run(tmp_path, name, "long", steps=3) for name in ("a", "b")])
    assert [cells[3] for cells in rows(runs)] == ["-", "-"]
    runs.append(load_run(make_run(tmp_path, "c", "long", steps=1, finished=False)))
    assert [cells[3] for cells in rows(runs[1:])] == ["100 %", rows(runs[1:])[1][3]], "an unfinished run is no base"


def test_no_evaluation_shows_a_dash(tmp_path: Path) -> None:
    path = make_run(tmp_path, "quiet", "short", steps=4)
    (path / "evaluation.json").unlink()
    (path / "evaluations.jsonl").unlink()
    run = load_run(path)
    assert rows([run])[0][6:] == ["-", "-", "-", "-"]
    assert to_json([run])["runs"][0]["eval"] == {}
    assert _main(path, "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out/plots/accuracy.png").exists()


def test_unfinished_run_is_marked(tmp_path: Path, capsys) -> None:
    path = make_run(tmp_path, "killed", "hybrid", steps=12, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "rew')  # killed while writing
    run = load_run(path)
    assert (run.finished, run.steps, run.mode) == (False, 12, "hybrid")
    assert run.seconds == pytest.approx(12 * 6.1)
    assert run.rl_tokens > 0
    assert list(run.problems) == ["the run is unfinished: it was interrupted, or is still running."]
    assert _main(path, "--out", tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert "killed: the run is unfinished" in captured.err
    assert "unfinished" in captured.out
    assert "the run is unfinished" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("evaluation.json", '{"eval": ', "evaluation.json is spoilt"),
        ("evaluation.json", "[1]", "evaluation.json is spoilt"),
        ("ledger.json", "\x00\x00", "ledger.json is spoilt"),
        ("config.yaml", "a: [", "config.yaml is spoilt"),
        ("metrics.jsonl", 'nonsense\n[1]\n{"step": 1}\n', r"metrics.jsonl has 2 spoilt lines (the first is line 1)"),
        ("evaluations.jsonl", '{"step": 1}\n{"step": 2, "eval": {"long": 3}}\n', None),
        ("evaluation.json", '{"eval": {"long": {"accuracy": null}, "short": {"accuracy": NaN}}}', None),
        ("evaluation.json", '{"eval": {"long": {"accuracy": 0.5}}}', None),
        ("evaluation_samples.jsonl", '{"row": null}\n{"rewards": [1], "mode": 3, "prompt": {"a": 1}}\n', None),
        ("rollouts.jsonl", '{"step": 1}\n', None),
        ("run.json", '{"steps": "many", "seconds": null, "finished": true}', None),
    ],
)
def test_spoilt_files_are_left_out(tmp_path: Path, capsys, file: str, text: str, words: str | None) -> None:
    path = make_run(tmp_path, "run", "hybrid", steps=3)
    (path / file).write_text(text)
    problems = load_run(path).problems
    assert [words in problem for problem in problems] == [True] if words else not problems
    assert _main(path, "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/compare.json").read_text())["runs"][0]["name"] == "run"


def test_missing_runs_are_refused(tmp_path: Path, capsys) -> None:
    good = make_run(tmp_path, "good", "short", steps=2)
    (tmp_path / "empty").mkdir()
    for argv, words in (
        ([good, tmp_path / "absent"], "absent: there is no such run directory."),
        ([tmp_path / "empty"], "empty holds no run: it has no config.yaml, run.json or metrics.jsonl."),
        ([good / "run.json"], "is a file, and a run directory is needed"),
        ([], "missing required key 'runs'"),
        ([good, "--out", good], "a comparison needs a folder of its own"),
    ):
        assert _main(*argv) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "comparison").exists()


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / part, "run", "short", steps=2) for part in ("a", "b")]
    assert [run.name for run in load_runs(paths)] == [str(path) for path in paths]


def test_last_step_of_a_large_file(tmp_path: Path, monkeypatch) -> None:
    path = make_run(tmp_path, "run", "hybrid", steps=50)
    whole = load_run(path).rollouts
    assert len(whole) == 8
    assert {record["step"] for record in whole} == {50}
    monkeypatch.setattr("recipes.run_records._TAIL_BYTES", 9000)
    assert load_run(path).rollouts == whole
    assert not load_run(path).problems, "the line that the window cuts in two is no spoilt line"


def test_points_of_the_accuracy_plot(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, "run", "long", steps=30))
    points = accuracy_points(run, "long")
    assert [at for at, _ in points] == sorted(at for at, _ in points)
    assert len(points) == 3, "the last periodic evaluation falls on the final one, which replaces it"
    assert points[-1] == (run.rl_tokens, run.eval["long"])
    run.metrics[0]["reward/math/missing"] = 0.1  # a share, not a reward
    assert reward_names([run]) == ["math", "format", "repetition", "user_concise"]


def test_short_count_and_duration() -> None:
    assert [short_count(value) for value in (0, 950, 12_345, 999_999, 4_400_000, 1.6e9)] == [
        "0", "950", "12.3k", "1M", "4.4M", "1.6B"
    ]  # fmt: skip
    assert [duration(value) for value in (3.4, 59.6, 725, 11_525)] == ["3 s", "1:00", "12:05", "3:12:05"]


def test_smoothing_starts_without_bias() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([0.0, 1.0]) == pytest.approx([0.0, 0.2 / 0.36])


def test_module_runs_and_helps(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "recipes.compare", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "usage: python -m recipes.compare RUNS ... [--key value ...]" in done.stdout
    assert "--examples  int  (default 6)" in done.stdout


def test_the_same_run_twice_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    path = make_run(tmp_path, "a", "short", steps=2)
    (tmp_path / "link").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for second in (path, "a", "./a/", tmp_path / "link"):
        assert _main(path, second, "--out", tmp_path / "out") == 2
        assert "is given twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("evaluation.json", '{"eval": {"long": {"accuracy": 41.0}}}', "long accuracy 41"),
        ("evaluation.json", '{"eval": {"short": {"accuracy": -0.1, "n": 3}}}', "short accuracy -0.1"),
        ("evaluation.json", '{"eval": {"long": {"accuracy": 0.5, "ci_high": 1.5}}}', "long ci_high 1.5"),
        ("evaluation.json", '{"eval": {"long": {"accuracy": 0.5, "ci_low": 0.6, "ci_high": 0.4}}}', "long ci_low 0.6"),
        ("evaluation.json", '{"eval": {"long": {"accuracy": 0.5, "n": -4}}}', "long n -4"),
        ("evaluation.json", '{"eval": {"long": {"accuracy": 0.5, "n": 2.5}}}', "long n 2.5"),
        ("evaluation.json", '{"eval": {"long": {"accuracy": 0.5, "response_tokens": -1}}}', "long response_tokens -1"),
        ("evaluations.jsonl", '{"step": 1, "eval": {"long": {"accuracy": 9}}}', "long accuracy 9"),
        ("run.json", '{"steps": -3, "finished": true}', "steps -3"),
        ("run.json", '{"steps": 3, "seconds": -1.5, "finished": true}', "seconds -1.5"),
        ("ledger.json", '{"total": {"generated": -7}}', "rl_tokens -7"),
    ],
)
def test_figures_that_cannot_be_are_refused(tmp_path: Path, capsys, file: str, text: str, words: str) -> None:
    path = make_run(tmp_path, "run", "hybrid", steps=3)
    (path / file).write_text(text)
    assert _main(path, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"figures that no run can have ({words}" in error
    assert error.count("\n") == 1
    assert load_run(path).name == "run", "a run's own report is written all the same"
