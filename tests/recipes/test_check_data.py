"""The check of a dataset: every finding, what drops and what is only reported, the files, refusals, size."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recipes.check_data import CheckDataConfig, main
from recipes.cli import run_recipe
from recipes.data_findings import distinct_references
from recipes.solve_rates import read_solve_rates
from recipes.tasks import TaskConfig, load_rows

ROOT = Path(__file__).parents[2]
LONG = "a train leaves the station at 9 and drives at 80 kilometres an hour, how far is it from there at 11 o'clock"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def check(folder: Path, rows: list[Any], evaluation: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Runs the check; returns the summary."""
    source = {"kind": "files", "train": str(write(folder / "train.jsonl", rows))}
    if evaluation is not None:
        source["eval"] = str(write(folder / "eval.jsonl", evaluation))
    task = {"source": source, "reference": "answer", **changes.pop("task", {})}
    main(CheckDataConfig.model_validate({"task": task, "out": folder / "out", **changes}))
    return json.loads((folder / "out" / "summary.json").read_text())


def found(summary: dict[str, Any]) -> dict[str, int]:
    """The findings that occur."""
    return {reason: figures["rows"] for reason, figures in summary["reasons"].items() if figures["rows"]}


def reasons(folder: Path, name: str = "dropped") -> dict[int, list[str]]:
    return {item["row"]: [r["reason"] for r in item["reasons"]] for item in lines(folder / "out" / f"{name}.jsonl")}


def test_every_finding_between_rows(tmp_path: Path, capsys) -> None:
    rows = [
        {"prompt": "What is 2 + 3?", "answer": "5"},
        {"prompt": " what is 2 + 3? ", "answer": "5.0", "other": 1},  # the same but for case and blanks
        {"prompt": "Name a colour", "answer": ""},  # no reference; the next row is kept
        {"prompt": "Name a colour", "answer": "red"},
        {"prompt": "Which year?", "answer": "1998"},  # contradicted by the next row
        {"prompt": "Which year?", "answer": "1999"},
        {"prompt": LONG, "answer": "160"},
        {"prompt": LONG.replace("station", "city"), "answer": "160"},
        {"prompt": LONG.replace("80", "90"), "answer": "180"},  # another question in the same words
        {"prompt": "Evaluated?", "answer": "yes"},
        {"prompt": "", "answer": "1"},
        {"question": "no prompt", "answer": "1"},
    ]
    evaluation = [{"prompt": "evaluated?", "answer": "no"}, {"prompt": "Other?", "answer": "1"}, {"question": "?"}]
    summary = check(tmp_path, rows, evaluation, near_threshold=0.7)
    assert found(summary) == {
        "unreadable": 2,
        "no_reference": 1,
        "conflicting_references": 2,
        "in_eval": 1,
        "duplicate": 3,
        "near_duplicate": 1,
    }
    assert reasons(tmp_path) == {
        1: ["duplicate"],
        2: ["no_reference", "duplicate"],
        4: ["conflicting_references"],
        5: ["conflicting_references", "duplicate"],
        9: ["in_eval"],
        10: ["unreadable"],
        11: ["unreadable"],
    }
    assert reasons(tmp_path, "reported") == {7: ["near_duplicate"]}
    assert lines(tmp_path / "out/clean.jsonl") == [rows[i] for i in (0, 3, 6, 7, 8)], "columns as they were"
    assert (summary["rows"], summary["kept"], summary["dropped"]) == (12, 5, 7)
    assert (summary["eval_prompts"], summary["eval_unreadable"]) == (2, 1)
    dropped = lines(tmp_path / "out/dropped.jsonl")
    assert dropped[0]["place"].endswith("train.jsonl, line 2")
    assert dropped[0]["values"] == rows[1]
    assert dropped[0]["reasons"][0]["detail"] == "the prompt of row 0"
    assert "the same prompt has the answers '1998', '1999'" in dropped[2]["reasons"][0]["detail"]
    assert "no column 'prompt'; it has question, answer" in dropped[6]["reasons"][0]["detail"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "clean.jsonl", "dropped.jsonl", "reported.jsonl", "summary.json"
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "near duplicate" in out
    assert "5 of 12 rows kept" in out


def test_the_clean_set_is_what_training_reads(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(5)] + [{"prompt": "?", "answer": None}]
    check(tmp_path, rows)
    source = {"kind": "files", "train": str(tmp_path / "out/clean.jsonl")}
    config = TaskConfig.model_validate({"source": source, "reference": "answer", "eval_size": 0})
    assert [row.reference for row in load_rows(config)] == ["1", "2", "3", "4", "5"]


def test_references_that_their_verifier_refuses(tmp_path: Path) -> None:
    """Two bad rows among many, found by halving; the rest stays."""
    rows = [{"prompt": f"What is {i} / 3?", "answer": f"\\frac{{{i}}}{{3}}"} for i in range(300)]
    rows[17]["answer"] = "\\frac{17}{"
    rows[290]["answer"] = "\\boxed{"
    summary = check(tmp_path, rows, rewards=["math", "format"])
    assert found(summary) == {"bad_reference": 2}
    assert sorted(reasons(tmp_path)) == [17, 290]
    detail = lines(tmp_path / "out/dropped.jsonl")[1]["reasons"][0]["detail"]
    assert detail == "reward 'math' does not accept its own reference: '\\\\boxed{'"


def test_a_users_gold_that_raises_marks_its_row_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from rewards import reward\n"
        "@reward('mine_check_data', gold=lambda reference: str(1 // int(reference)))\n"
        "def mine(*, answer, reference):\n    return 1.0\n"
    )
    rows = [{"prompt": f"{i}?", "answer": str(i)} for i in range(4)]
    check(tmp_path, rows, rewards=[f"{tmp_path}/mine.py:mine"])
    assert reasons(tmp_path) == {0: ["bad_reference"]}


def test_options_choose_what_drops(tmp_path: Path) -> None:
    rows = [{"prompt": "Same?", "answer": "1"}, {"prompt": "Same?", "answer": "2"}, {"prompt": "Who?", "answer": ""}]
    summary = check(tmp_path, rows, drop=["no_reference"])
    assert (summary["kept"], summary["reasons"]["duplicate"]["drops"]) == (2, False)
    assert reasons(tmp_path, "reported") == {
        0: ["conflicting_references"],
        1: ["conflicting_references", "duplicate"],
    }


def test_dropping_near_duplicates_compares_with_kept_rows_only(tmp_path: Path) -> None:
    """Row 1 is near row 0, row 2 near row 1 but not near row 0: it stays when row 1 goes."""
    sentence = "the quick brown fox jumps over a lazy dog while seven old men watch from an open window and laugh"
    words = sentence.split(" ")
    texts = [words, ["this", *words[1:]], ["this", *words[1:-1], "cry"]]
    rows = [{"prompt": " ".join(text), "answer": "1"} for text in texts]
    summary = check(tmp_path, rows, near_threshold=0.7, drop=["near_duplicate"])
    assert found(summary) == {"near_duplicate": 1}
    assert reasons(tmp_path) == {1: ["near_duplicate"]}


def test_pictures_and_choices_tell_rows_apart(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Which is largest?", "image": "a.png", "answer": "1"},
        {"prompt": "Which is largest?", "image": "b.png", "answer": "2"},
        {"prompt": "Which is largest?", "image": "b.png", "answer": "2"},
    ]
    assert found(check(tmp_path, rows)) == {"duplicate": 1}
    summary = check(tmp_path, rows, identity_columns=[], overwrite=True)
    assert found(summary) == {"conflicting_references": 3, "duplicate": 2}


def test_the_same_answer_written_otherwise_is_no_contradiction() -> None:
    assert distinct_references(["1/2", "0.5", "\\frac{1}{2}", " 1/2 "]) == ["1/2"]
    assert distinct_references(["-5", "5", 5]) == ["-5", "5"]
    assert distinct_references(["A", "B"]) == ["A", "B"]
    assert len(distinct_references(str(n) for n in range(1000))) == 20


def test_near_overlap_with_evaluation(tmp_path: Path) -> None:
    rows = [{"prompt": LONG, "answer": "160"}, {"prompt": LONG.replace("80", "70"), "answer": "140"}]
    evaluation = [{"prompt": LONG.replace("train", "bus"), "answer": "160"}]
    summary = check(tmp_path, rows, evaluation, near_threshold=0.7)
    assert found(summary) == {"near_eval": 1}
    assert "eval.jsonl, line 1" in summary["reasons"]["near_eval"]["first"]
    summary = check(tmp_path, rows, evaluation, near_threshold=None, overwrite=True)
    assert found(summary) == {}
    assert summary["reasons"]["near_eval"]["checked"] is False


# ---- lengths and solve rates ----


def test_too_long_prompts(tmp_path: Path) -> None:
    from rollouts.modes import ModesConfig
    from rollouts.prompts import render_prompt
    from tests.tiny import make_tiny_tokenizer

    tokenizer = make_tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    rows = [{"prompt": "word " * n, "answer": "1"} for n in (3, 10, 30)]
    messages = [{"role": "user", "content": rows[1]["prompt"]}]
    limit = max(len(render_prompt(tokenizer, messages, mode)) for mode in ModesConfig().active())
    model = {"path": str(tmp_path / "model")}
    summary = check(tmp_path, rows, model=model, max_prompt_tokens=limit, near_threshold=None)
    assert found(summary) == {"too_long": 1}
    summary = check(tmp_path, rows, model=model, max_prompt_tokens=limit - 1, near_threshold=None, overwrite=True)
    assert sorted(reasons(tmp_path)) == [1, 2]
    assert f"{limit} tokens" in summary["reasons"]["too_long"]["first"]


def rollouts(path: Path, counts: dict[tuple[str, str], tuple[int, int]], metric: str = "accuracy") -> Path:
    """Writes rollouts: (prompt, mode) -> (responses, solved)."""
    path.parent.mkdir(exist_ok=True)
    return write(
        path,
        [
            {"prompt": prompt, "mode": mode, "rewards": {metric: float(i < solved)}}
            for (prompt, mode), (n, solved) in counts.items()
            for i in range(n)
        ],
    )


def test_always_and_never_solved(tmp_path: Path) -> None:
    first = rollouts(
        tmp_path / "run/rollouts.jsonl",
        {
            ("Easy?", "short"): (8, 8),
            ("Easy?", "long"): (8, 8),
            ("Hard?", "short"): (4, 0),
            ("Mixed?", "short"): (8, 0),  # but always in long mode: it still teaches
            ("Mixed?", "long"): (8, 8),
            ("Rare?", "short"): (7, 7),
        },
    )
    with first.open("a") as file:
        file.write('{"prompt": "torn')
    second = rollouts(tmp_path / "more.jsonl", {(" hard? ", "short"): (4, 0)})
    rows = [{"prompt": f"{name}?", "answer": "1"} for name in ("Easy", "Hard", "Mixed", "Rare", "New")]
    summary = check(tmp_path, rows, rollouts=[str(tmp_path / "run"), str(second)])
    assert found(summary) == {"always_solved": 1, "never_solved": 1}
    assert "long: 8 of 8, short: 8 of 8" in summary["reasons"]["always_solved"]["first"]
    assert "short: 0 of 8" in summary["reasons"]["never_solved"]["first"], "both files count together"
    assert summary["kept"] == 5, "only reported, unless asked for"
    assert summary["rollouts"] == {"responses": 47, "prompts": 5 - 1, "spoilt_lines": 1}
    drop = ["always_solved", "never_solved"]
    check(tmp_path, rows, rollouts=[str(tmp_path / "run")], drop=drop, overwrite=True, min_rollouts=4)
    assert sorted(reasons(tmp_path)) == [0, 1, 3]
    rates = {"always_from": 0.8, "never_to": 0.2, "min_rollouts": 1}
    near = rollouts(tmp_path / "near.jsonl", {("Easy?", "short"): (10, 8), ("Hard?", "short"): (10, 2)})
    assert found(check(tmp_path, rows, rollouts=[str(near)], overwrite=True, **rates)) == {
        "always_solved": 1,
        "never_solved": 1,
    }


def test_rollouts_without_the_metric_are_refused(tmp_path: Path) -> None:
    path = rollouts(tmp_path / "r.jsonl", {("a", "short"): (2, 1)}, metric="math")
    with pytest.raises(ValueError, match="no reward named 'accuracy'; it has math: set `metric`"):
        read_solve_rates([path], "accuracy")
    assert read_solve_rates([path], "math").responses == 2
    for text in ("", '{"prompt": 1}\n[]\n'):
        path.write_text(text)
        with pytest.raises(ValueError, match="it holds no rollouts with rewards"):
            read_solve_rates([path], "math")
    with pytest.raises(ValueError, match="there is no such file"):
        read_solve_rates([tmp_path / "none"], "math")


# ---- files and refusals ----


def test_an_existing_result_is_replaced_only_when_asked(tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "answer": "1"}]
    check(tmp_path, rows)
    with pytest.raises(ValueError, match=r"holds an earlier check: choose another folder, or .* --overwrite"):
        check(tmp_path, rows)
    assert check(tmp_path, [*rows, {"prompt": "b?", "answer": "1"}], overwrite=True)["rows"] == 2
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.tex\)"):
        check(tmp_path, rows, overwrite=True)
    assert (tmp_path / "out/thesis.tex").exists()


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([{"answer": "1"}], {}, "no row has a prompt; the first one: .* has no column 'prompt'"),
        (['{"prompt": "a"'], {}, "line 1: malformed JSON"),
        ([], {}, "holds no rows"),
        ([{"prompt": "a", "answer": "1"}], {"rewards": ["mathe"]}, "no reward is named 'mathe'"),
        ([{"prompt": "a"}], {"rewards": ["math"], "task": {"reference": None}}, "task.reference is null"),
        ([{"prompt": "a", "answer": "1"}], {"rollouts": ["nowhere"]}, "nowhere: there is no such file"),
        (
            [{"prompt": f"{i}?", "answer": "\\boxed{"} for i in range(3)] + [{"prompt": "b?", "answer": None}],
            {"rewards": ["math"]},
            "none of the 3 references passes its own verifier .the first: .*line 1: reward 'math' does not accept",
        ),
        ([{"prompt": "a", "answer": "1"}], {"model": {"path": "./nowhere"}}, "there is no such folder"),
    ],
)
def test_refused_and_nothing_left(tmp_path: Path, rows: list, changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(tmp_path, rows, **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl"], "no output, no temporary folder"


def test_odd_values_survive(tmp_path: Path) -> None:
    rows = [
        {"prompt": "lone \ud800 half", "answer": "1", "extra": {"a": [None, 1.5]}},
        {"prompt": "line\u2028separator\r\n", "answer": ["1", "one"]},
        {"prompt": [{"role": "user", "content": "as messages"}], "answer": {"a": 1}},
    ]
    summary = check(tmp_path, rows)
    assert lines(tmp_path / "out/clean.jsonl") == rows
    assert summary["left_out_columns"] == []


def test_columns_that_json_cannot_hold_are_left_out_and_named(tmp_path: Path, capsys) -> None:
    import datetime

    import pyarrow
    import pyarrow.parquet

    table = {"prompt": ["a?", "b?"], "answer": ["1", "2"], "image": [b"\x89PNG", b"\x89PNG2"]}
    table["day"] = [datetime.date(2026, 1, 2)] * 2
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "d.parquet")
    source = {"kind": "files", "train": str(tmp_path / "d.parquet")}
    task = {"source": source, "reference": "answer"}
    main(CheckDataConfig.model_validate({"task": task, "out": tmp_path / "out"}))
    assert lines(tmp_path / "out/clean.jsonl")[0] == {"prompt": "a?", "answer": "1", "day": "2026-01-02"}
    assert json.loads((tmp_path / "out/summary.json").read_text())["left_out_columns"] == ["image"]
    assert "JSON lines cannot hold image" in capsys.readouterr().out


def test_generated_tasks_can_be_checked(tmp_path: Path) -> None:
    source = {"kind": "reasoning_gym", "datasets": [{"name": "chain_sum"}]}
    task = {"source": source, "size": 40, "eval_size": 10}
    main(CheckDataConfig.model_validate({"task": task, "out": tmp_path / "out", "rewards": ["accuracy"]}))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["rows"], summary["eval_prompts"]) == (40, 10)
    assert found(summary) == {}, "sums in the same words are different questions"


def test_many_rows_take_seconds(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"In year {i} a number of {i * 7} people came, how many?", "answer": str(i)} for i in range(5000)
    ]
    start = time.process_time()
    summary = check(tmp_path, [*rows, *rows[:100]], rewards=["math"])
    assert time.process_time() - start < 20
    assert found(summary) == {"duplicate": 100}


def test_the_command_line(tmp_path: Path, capsys) -> None:
    data = write(tmp_path / "d.jsonl", [{"prompt": "a?", "answer": "1"}])
    argv = ["--task.source", f"{{kind: files, train: {data}}}", "--out", str(tmp_path / "out")]
    assert run_recipe(main, CheckDataConfig, argv=argv) == 0
    assert run_recipe(main, CheckDataConfig, argv=argv) == 2
    assert "error: --out" in capsys.readouterr().err
    assert run_recipe(main, CheckDataConfig, argv=[*argv, "--overwrite", "--drop", "[dupes]"]) == 2
    assert "'drop.0' is 'dupes'" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "recipes.check_data", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    assert "usage: python -m recipes.check_data [config.yaml]" in done.stdout
