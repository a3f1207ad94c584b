"""The audit of a reward: figures by hand, files, thresholds, errors."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.audit_reward import main, read_cases, sample_of, summarise
from tests.recipes.test_report import _Page

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


# ---- groups, a second opinion, ready scores ----

GRADED = [
    {"response": "\\boxed{4}", "reference": "4", "expected": True, "source": "a", "p": 0.9, "verifier": "rule"},
    {"response": "\\boxed{5}", "reference": "4", "expected": False, "source": "a", "p": 0.7, "verifier": "rule"},
    {"response": "\\boxed{x}", "reference": "6", "expected": True, "source": "a", "p": 0.6, "verifier": "rule"},
    {"response": "\\boxed{4}", "reference": "4", "expected": False, "source": "b", "p": 0.2, "verifier": "probability"},
    {"response": "\\boxed{4}", "reference": "4", "source": None, "p": None},
]


def test_figures_by_source_and_by_route(tmp_path, capsys):
    status, report = run(tmp_path, GRADED)
    assert status == 0
    by_source = report["groups"]["source"]
    assert list(by_source) == ["a", "(none)", "b"]
    assert (by_source["a"]["n"], by_source["a"]["accuracy"], by_source["a"]["recall"]) == (3, 2 / 3, 0.5)
    assert (by_source["b"]["accuracy"], by_source["b"]["false_accepts"]) == (0.0, 1)
    assert (by_source["(none)"]["n"], by_source["(none)"]["accuracy"], by_source["(none)"]["ci_low"]) == (1, None, None)
    assert {name: group["n"] for name, group in report["groups"]["route"].items()} == {
        "rule": 3,
        "(none)": 1,
        "probability": 1,
    }
    assert (report["ci_low"], report["ci_high"]) == pytest.approx((0.15, 0.85), abs=0.01), "Wilson's, 2 of 4"
    assert report["accuracy"] == 0.5
    assert "by source" in capsys.readouterr().out


def test_by_names_other_columns(tmp_path, capsys):
    _, report = run(tmp_path, GRADED, "--by", "verifier", "--by", "expected", "--by", "verifier")
    assert list(report["groups"]) == ["verifier", "expected", "route"]
    assert list(report["groups"]["expected"]) == ["false", "true", "(none)"]
    assert run(tmp_path, GRADED, "--by", "sauce")[0] == 2
    assert "--by sauce: no case has such a column; there are response, reference" in capsys.readouterr().err


def test_the_route_that_a_reward_records_wins(tmp_path, monkeypatch):
    """A `Score` may carry text facts; the reward's own route is `<label>/route`."""
    from types import SimpleNamespace

    from rewards import RewardSet

    def score(self, groups):
        info = {"math/route": "probability", "math/because": "long reference"}
        return [[SimpleNamespace(value=lambda name: 0.0, info=info)]]

    monkeypatch.setattr(RewardSet, "score", score)
    status, report = run(tmp_path, GRADED[:1], "--sheet", str(tmp_path / "s.html"))
    assert status == 0
    assert list(report["groups"]["route"]) == ["probability"]
    assert report["disagreements"][0]["route"] == "probability"
    assert "math/because: long reference" in (tmp_path / "s.md").read_text()


def test_ready_scores_need_no_reward(tmp_path):
    out, cases = tmp_path / "a.json", write(tmp_path / "cases.jsonl", GRADED)
    assert main(["--score-column", "p", "--cases", str(cases), "--json", str(out), "--quiet"]) == 0
    report = json.loads(out.read_text())
    # 0.9 and 0.6 are right, 0.7 and 0.2 are wrong: three of four pairs are in order.
    assert report["auc"] == 0.75
    assert report["auc_low"] < 0.75 < report["auc_high"]
    assert (report["accepted"], report["accuracy"], report["false_accepts"]) == (3, 0.75, 1)
    assert (report["cases_per_second"], report["timeouts"], report["max_seconds"]) == (None, 0, 0.0)
    assert main(["--score-column", "p", "--accept-at", "0.8", "--cases", str(cases), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["accepted"] == 1


def test_agreement_of_a_verifier_with_ready_scores(tmp_path, capsys):
    _, report = run(tmp_path, GRADED, "--against-column", "p", "--against-accept-at", "0.65")
    # math accepts rows 0, 3, 4; p accepts 0, 1; row 4 has no score there.
    assert {key: report["agreement"][key] for key in ("n", "share", "kappa", "only_first", "only_second", "rows")} == {
        "n": 4,
        "share": 0.5,
        "kappa": 0.0,
        "only_first": 1,
        "only_second": 1,
        "rows": [1, 3],
    }
    assert report["against"]["name"] == "column p"
    assert report["against"]["auc"] == 0.75
    assert report["auc"] is None, "math gives two values only: it has no ROC curve worth the name"
    assert "kappa" in capsys.readouterr().out


def test_agreement_of_two_rewards(tmp_path):
    _, report = run(tmp_path, CASES[:4], "--against", "accuracy", "--against-args", '{"verifier": "math"}')
    assert (report["agreement"]["share"], report["agreement"]["kappa"]) == (1.0, 1.0)
    assert report["against"]["accuracy"] == report["accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name what is audited: either --reward NAME, or --score-column NAME"),
        (["--reward", "math", "--score-column", "p"], "--against-column NAME"),
        (["--reward", "math", "--against", "exact", "--against-column", "p"], "exclude each other"),
        (["--score-column", "q"], "line 1: there is no column 'q' to take the score from; it has response, reference"),
        (["--reward", "math", "--against", "exakt"], "no reward is named 'exakt'"),
        (["--reward", "math", "--against", "exact", "--against-args", "3"], "--against-args must be a JSON object"),
        (["--reward", "math", "--min-accuracy", "nan"], "argument --min-accuracy: must be a finite number, got 'nan'"),
        (["--reward", "math", "--max-seconds", "inf"], "must be a finite number, got 'inf'"),
        (["--reward", "math", "--min-recall", "half"], "must be a finite number, got 'half'"),
        (["--reward", "math", "--show", "-1"], "--show must be at least 0"),
        (["--reward", "math", "--sheet", "x.pdf"], "must end in .html"),
        (["--reward", "math", "--colour"], "unrecognized arguments: --colour"),
        (["--reward"], "argument --reward: expected one argument"),
    ],
)
def test_refused_in_one_sentence_with_the_recipes_prefix(tmp_path, capsys, options, message):
    cases = write(tmp_path / "cases.jsonl", GRADED)
    assert main(["--cases", str(cases), "--quiet", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"response": 4}, "line 2: `response` must be text (or null for none), got 4."),
        ({"response": ["a"]}, "line 2: `response` must be text (or null for none), got ['a']."),
        ({"response": False}, "line 2: `response` must be text (or null for none), got False."),
        ({"response": "a", "p": "high"}, "line 2: the score 'p' must be a finite number or null, got 'high'."),
        ({"response": "a", "p": float("nan")}, "line 2: the score 'p' must be a finite number or null, got nan."),
        ({"response": "a"}, "line 2: there is no column 'p'"),
        ({"response": "a", "p": 10**400}, "line 2: the score 'p' must be a finite number or null, got 1000"),
        ({"response": "a", "p": 0, "x": "BIG"}, "line 2: not valid JSON (Exceeds the limit"),
    ],
)
def test_bad_rows_are_named_by_their_line(tmp_path, capsys, row, message):
    cases = write(tmp_path / "cases.jsonl", [{"response": None, "p": True}, row])
    cases.write_text(cases.read_text().replace('"BIG"', "1" * 5000))
    assert main(["--score-column", "p", "--cases", str(cases)]) == 2
    assert message in capsys.readouterr().err


def test_outputs_that_cannot_be_are_refused_before_scoring(tmp_path, capsys, monkeypatch):
    from recipes import audit_reward

    monkeypatch.setattr(audit_reward, "audit", lambda *a, **k: pytest.fail("it was scored"))
    (tmp_path / "file").write_text("")
    cases = write(tmp_path / "cases.md", CASES)
    (tmp_path / "sheet.html").mkdir()
    for option, path, words in (
        ("--json", tmp_path, "is a directory"),
        ("--json", cases, "is the cases file itself"),
        ("--sheet", tmp_path / "sheet.html", "is a directory"),
        ("--sheet", tmp_path / "cases.html", "is the cases file itself"),
        ("--json", tmp_path / "file" / "new" / "a.json", "one of the folders in it is a file"),
        ("--against", "exakt", "no reward is named 'exakt'"),
        ("--against-args", "[]", "--against-args must be a JSON object"),
    ):
        assert main(["--reward", "math", "--cases", str(cases), option, str(path)]) == 2
        assert words in capsys.readouterr().err
    assert cases.read_text().count("\n") == len(CASES)


def test_a_runs_rollouts_are_cases(tmp_path):
    """Recorded rewards and routes are taken from where rollouts.jsonl has them."""
    rows = [
        {"response": "\\boxed{4}", "reference": "4", "rewards": {"accuracy": 1.0}, "reward_info": info}
        for info in ({"accuracy/route": "rule"}, {"accuracy/route": "probability"}, {}, None)
    ]
    rows[1]["rewards"] = {"accuracy": 0.2}
    cases = write(tmp_path / "rollouts.jsonl", rows)
    out = tmp_path / "a.json"
    argv = ["--score-column", "rewards.accuracy", "--against", "math", "--cases", str(cases), "--json", str(out)]
    assert main(argv) == 0
    report = json.loads(out.read_text())
    assert {route: group["n"] for route, group in report["groups"]["route"].items()} == {
        "(none)": 2,
        "probability": 1,
        "rule": 1,
    }
    assert (report["agreement"]["share"], report["agreement"]["rows"]) == (0.75, [1])
    assert main([*argv[:1], "rewards.acc", "--cases", str(cases)]) == 2
    assert main([*argv[:1], "response.acc", "--cases", str(cases)]) == 2


# ---- the sheet ----

HOSTILE = "<script>alert(1)</script>``````\n</pre><img src=x onerror=alert(1)> \x1b[31m \u202e \ud800"


def test_the_sheet_shows_what_differs(tmp_path):
    rows = [
        {
            "response": f"thought {HOSTILE}</think>{HOSTILE} \\boxed{{4}}",
            "reference": "4",
            "expected": False,
            "p": 0.25,
        },
        {"response": "\\boxed{4}", "reference": "4", "expected": True, "p": 1.0},
        {"response": "x" * 4000 + "\\boxed{1}", "reference": HOSTILE, "expected": True, "p": 0.0, "verifier": HOSTILE},
        {"response": "\\boxed{4}", "reference": "4", "p": 0.0},
    ]
    status, _ = run(tmp_path, rows, "--against-column", "p", "--sheet", str(tmp_path / "new" / "sheet.html"))
    assert status == 0
    page = (tmp_path / "new" / "sheet.html").read_text()
    assert page.count('<div class="case">') == 3
    assert _Page(page).open == [], "tags nest"
    assert "1 wrongly accepted, 1 wrongly refused, 1 accepted by one only." in page
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "[U+001B]" in page
    assert "[U+202E]" in page
    assert "default-src 'none'" in page
    assert "<details><summary>Thinking</summary>" in page
    assert "after 2,509 characters that are left out" in page
    assert "column p</bdi> <b>0.25</b>" in page
    text = (tmp_path / "new" / "sheet.md").read_text()
    assert "## Row 0: wrongly accepted" in text
    assert "```````text\n" in text, "a fence longer than any run of backticks in the text"
    outside, fence = [], None
    for line in text.split("\n"):
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence is None and len(ticks) >= 3:
            fence = ticks
        elif fence is not None and line == fence:
            fence = None
        elif fence is None:
            outside.append(line)
    assert fence is None
    # What is left outside of fences is code in backticks, which Markdown shows as it is.
    assert "<script>" not in "\n".join(part for line in outside for part in line.split("```````")[::2])


def test_the_sheet_draws_evenly_from_every_reason():
    from recipes.audit_report import Result
    from recipes.audit_sheet import find_cases, sample_cases

    rows = [{"response": "a", "expected": index % 10 == 0} for index in range(100)]
    results = [
        Result(row=row, score=1.0, accepted=not row["expected"], seconds=0.0, error="oops" if index == 7 else "")
        for index, row in enumerate(rows)
    ]
    cases = find_cases(results)
    assert len(cases) == 100
    chosen = sample_cases(cases, 9)
    assert [case.reason for case in chosen] == ["wrongly accepted"] * 4 + ["wrongly refused"] * 4 + [
        "the reward failed"
    ]
    assert chosen == sample_cases(cases, 9)
    assert sample_cases(cases, 1000) == sorted(cases, key=lambda case: (chosen_order(case), case.row))


def chosen_order(case) -> int:
    from recipes.audit_sheet import REASONS

    return REASONS.index(case.reason)


def test_no_disagreements_make_an_empty_sheet(tmp_path):
    assert run(tmp_path, CASES[:2], "--sheet", str(tmp_path / "s.md"))[0] == 0
    assert "No disagreements." in (tmp_path / "s.html").read_text()
    assert "No disagreements." in (tmp_path / "s.md").read_text()


def test_a_reward_that_fails_agrees_with_no_label(tmp_path, capsys):
    (tmp_path / "bad.py").write_text("def raises(*, answer):\n    raise KeyError(answer)\n")
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"response": "a", "reference": "b", "expected": false}\n' * 3)
    report = tmp_path / "report.json"
    call = ["--reward", f"{tmp_path}/bad.py:raises", "--cases", str(cases), "--json", str(report), "--quiet"]
    assert main([*call, "--min-accuracy", "0.5"]) == 1
    figures = json.loads(report.read_text())
    assert (figures["crashes"], figures["accuracy"]) == (3, 0.0)
