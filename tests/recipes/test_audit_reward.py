"""The audit of a reward: figures by hand, files, thresholds, errors."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.audit_reward import main, read_cases, sample_of, summarise

CASES = [
    {"response": "\\boxed{4}", "reference": "4", "expected": True},  # accepted: right
    {"response": "\\boxed{5}", "reference": "4", "expected": False},  # refused: right
    {"response": "\\boxed{4}", "reference": "4", "expected": False},  # accepted: a false accept
    {"response": "\\boxed{six}", "reference": "6", "expected": True, "convention": "words"},  # refused: a miss
    {"response": "\\boxed{7}", "reference": "7"},  # not labelled
    {"response": None, "reference": None},
]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(tmp_path, rows, *options, reward="math") -> tuple[int, dict]:
    out = tmp_path / "out" / "audit.json"
    cases = write(tmp_path / "cases.jsonl", rows)
    status = main(["--reward", reward, "--cases", str(cases), "--json", str(out), "--quiet", *options])
    return status, json.loads(out.read_text()) if out.exists() else {}


def test_figures_by_hand(tmp_path, capsys):
    status, report = run(tmp_path, CASES)
    assert status == 0
    expected = {
        "n": 6,
        "accuracy": 0.5,
        "precision": 0.5,
        "recall": 0.5,
        "false_accepts": 1,
        "crashes": 0,
        "timeouts": 0,
    }
    assert {key: report[key] for key in expected} == expected
    assert report["accuracy_without_convention"] == pytest.approx(2 / 3)
    assert report["cases_per_second"] > 0
    assert 0 < report["max_seconds"] < 2
    assert [item["row"] for item in report["disagreements"]] == [2, 3]
    assert report["disagreements"][1]["convention"] == "words"
    shown = capsys.readouterr().out
    assert "false_accepts" in shown
    assert "boxed{six}" in shown


def test_unlabelled_cases_have_no_accuracy(tmp_path):
    status, report = run(tmp_path, CASES[4:])
    assert status == 0
    assert (report["n"], report["accuracy"], report["precision"], report["recall"]) == (2, None, None, None)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--min-accuracy", "0.5"], 0),
        (["--min-accuracy", "0.51"], 1),
        (["--max-false-accepts", "1"], 0),
        (["--max-false-accepts", "0"], 1),
        (["--min-precision", "0.6"], 1),
        (["--min-recall", "0.5"], 0),
        (["--max-crashes", "0", "--max-seconds", "60"], 0),
        (["--max-seconds", "0"], 1),
    ],
)
def test_thresholds(tmp_path, capsys, options, status):
    assert run(tmp_path, CASES, *options)[0] == status
    assert ("must be" in capsys.readouterr().err) == bool(status)


def test_a_threshold_that_cannot_be_measured_is_missed(tmp_path, capsys):
    assert run(tmp_path, CASES[4:], "--min-accuracy", "0")[0] == 1
    assert "no row is labelled" in capsys.readouterr().err


def test_a_users_reward_that_fails_is_a_crash(tmp_path):
    (tmp_path / "mine.py").write_text("def f(answer):\n    return 1 / len(answer)\n")
    status, report = run(
        tmp_path, [{"response": "ab", "expected": True}, {"response": ""}], reward=f"{tmp_path}/mine.py:f"
    )
    assert status == 0
    assert report["crashes"] == 1
    assert "ZeroDivisionError" in report["disagreements"][0]["error"]


def test_a_column_of_the_cases_is_an_argument(tmp_path):
    rows = [{"response": "The answer is Oslo", "reference": "B", "choices": ["Rome", "Oslo"], "expected": True}]
    assert run(tmp_path, rows, reward="choice")[1]["accuracy"] == 1.0


def test_constants_for_the_reward(tmp_path):
    rows = [{"response": "<a>4</a>", "expected": True}, {"response": "4", "expected": False}]
    assert run(tmp_path, rows, "--args", '{"answer_tag": "a"}', reward="format")[1]["accuracy"] == 1.0


def test_timeouts_are_counted_and_bounded(tmp_path):
    rows = [{"response": "\\boxed{\\prod_{k=1}^{10^7} k}", "reference": "42", "expected": False}]
    _, report = run(tmp_path, rows)
    assert report["timeouts"] == 1
    assert report["max_seconds"] < 2.0
    assert report["accuracy"] == 1.0


def test_odd_characters_survive(tmp_path):
    rows = [{"response": "\ud800 \u2028 \\boxed{4}", "reference": "5", "expected": True}]
    _, report = run(tmp_path, rows)
    assert report["disagreements"][0]["response"] == rows[0]["response"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"response": "a"}\n{bad\n', "line 2: not valid JSON"),
        ('{"response": "a"}\n\n[1]\n', "line 3: a case must be an object with a `response`"),
        ('{"reference": "a"}\n', "line 1: a case must be an object with a `response`"),
        ('{"response": "a", "expected": "yes"}\n', "line 1: `expected` must be true or false, got 'yes'"),
        ("\n\n", "has no cases"),
    ],
)
def test_bad_cases_files(tmp_path, capsys, text, message):
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    assert main(["--reward", "math", "--cases", str(path), "--json", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward", "mathe"], "no reward is named 'mathe'. Did you mean 'math'?"),
        (["--reward", "missing.py:f"], "does not exist"),
        (["--reward", "format", "--args", "[1]"], "--args must be a JSON object"),
        (["--reward", "format", "--args", "{"], "--args must be a JSON object"),
        (["--reward", "length"], "`correct` names the reward"),
    ],
)
def test_bad_calls(tmp_path, capsys, options, message):
    cases = write(tmp_path / "cases.jsonl", CASES)
    assert main([*options, "--cases", str(cases), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_file(tmp_path, capsys):
    assert main(["--reward", "math", "--cases", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl does not exist" in capsys.readouterr().err
    assert main(["--reward", "math", "--cases", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run(tmp_path, CASES)[0] == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_sample_of_a_response():
    sample = sample_of({"response": "why</think>4", "reference": "4", "hint": "x"})
    assert (sample["thinking"], sample["answer"], sample["mode"], sample["hint"]) == ("why", "4", "long", "x")
    assert sample_of({"response": "4"})["answer"] == "4"
    assert sample_of({"response": "<think>4"})["answer"] == ""
    assert sample_of({"response": None})["answer"] == ""


def test_no_division_by_nothing(tmp_path):
    cases = read_cases(write(tmp_path / "c.jsonl", CASES[:1]))
    assert cases == CASES[:1]
    with pytest.raises(ValueError, match="max"):
        summarise([], 0)


def test_the_command_line():
    start = time.process_time()
    done = subprocess.run(
        [sys.executable, "-m", "recipes.audit_reward", "--help"], capture_output=True, text=True, check=True
    )
    assert "--min-accuracy" in done.stdout
    assert time.process_time() - start < 2.0


def test_a_reward_that_needs_the_policy_is_refused_unless_the_cases_carry_its_fields(tmp_path, capsys):
    (tmp_path / "likely.py").write_text("def likely(reference_probs):\n    return sum(reference_probs)\n")
    call = ["--reward", f"{tmp_path}/likely.py:likely", "--quiet", "--cases", str(tmp_path / "cases.jsonl")]
    case = {"response": "a", "reference": "a", "expected": True}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n")
    assert main(call) == 2
    assert "asks for what only the policy can give" in capsys.readouterr().err
    (tmp_path / "cases.jsonl").write_text(json.dumps({**case, "reference_probs": [0.5, 0.25]}) + "\n")
    assert main([*call, "--min-accuracy", "1"]) == 0
